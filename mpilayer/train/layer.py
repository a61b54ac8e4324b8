"""One layer in training: an epoch, an output, its errors. All calls are local."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.config import PretrainConfig, per_layer
from mpilayer.errors import TrainingError
from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import Layer, LayerShape
from mpilayer.models.rbm import RBM
from mpilayer.numerics.losses import squared_error
from mpilayer.optim.minibatch import Momentum
from mpilayer.parallel.channel import Rows
from mpilayer.rng import stream


def layer_shapes(config: PretrainConfig, n_visible: int) -> list[LayerShape]:
    """Return the shape of every layer; what one layer hides, the next one sees."""
    sizes = [n_visible, *config.layers]
    kinds = [config.visible, *[config.hidden] * (len(config.layers) - 1), config.code]
    return [
        LayerShape(sizes[i], sizes[i + 1], kinds[i], kinds[i + 1])
        for i in range(len(config.layers))
    ]


def make_layer(config: PretrainConfig, shape: LayerShape) -> Layer:
    """Return an untrained layer of the configured method, all parameters 0."""
    if config.method == "rbm":
        return RBM(shape, config.cd_steps)
    return Autoencoder(shape, config.tied, config.loss)


def check_layer(config: PretrainConfig, shape: LayerShape) -> None:
    """Raise a ``ConfigError`` if the configured method has no such units or loss."""
    make_layer(config, replace(shape, n_visible=1, n_hidden=1))


class LayerState:
    """A layer with all that decides its further training; see ``PretrainConfig``.

    Its first weights are N(0, ``initial_deviation``²), its biases 0. ``index``, from 0,
    is a part of the addresses of its random streams.

    Attributes
    ----------
    epoch : int
        Epochs done.
    optimizer : Momentum
        Holds the velocity.
    learning_rate : float
        On the mean over a minibatch.
    """

    def __init__(
        self, config: PretrainConfig, shapes: Sequence[LayerShape], index: int
    ) -> None:
        rates = per_layer("learning_rate", config.learning_rate, len(shapes))
        self.config, self.index, self.learning_rate = config, index, rates[index]
        self.layer = make_layer(config, shapes[index])
        self.epoch = 0
        self.optimizer = Momentum(self.layer.parameters.vector.size)
        # 1 for weights, 0 for biases, which do not decay.
        decays = self.layer.parameters.like()
        rng = stream(config.seed, "weights", index)
        for name, view in self.layer.parameters.items():
            if view.ndim == 2:
                rng.standard_normal(out=view, dtype=np.float32)
                view *= np.float32(config.initial_deviation)
                decays[name][:] = 1
        self._decays = decays.vector

    def arrays(self) -> dict[str, AnyArray]:
        """Return copies of the arrays that a checkpoint needs."""
        return self.layer.parameters.split(self._vectors)

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that a checkpoint needs, and what the layer is."""
        return {
            "layer": self.index + 1,
            "epoch": self.epoch,
            "optimizer_steps": self.optimizer.steps,
            **asdict(self.layer.shape),
        }

    def restore(
        self, arrays: Mapping[str, AnyArray], numbers: Mapping[str, Any]
    ) -> None:
        """Go where the layer with these ``arrays()`` and ``numbers()`` was."""
        self.layer.parameters.join(arrays, self._vectors)
        self.epoch = int(numbers["epoch"])
        self.optimizer.steps = int(numbers["optimizer_steps"])

    @property
    def _vectors(self) -> dict[str, Array32]:
        return {"parameters": self.layer.parameters.vector, **self.optimizer.state}

    # Numbers that leave float32 are met after the epoch, in words.
    @np.errstate(over="ignore", invalid="ignore")
    def train_epoch(
        self,
        rows: Array32,
        activations: Array32 | None = None,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        """Pass once over rows (n_samples, n_visible) in a new random order.

        ``activations`` (n_samples, n_hidden) receive the hidden ones that training
        computes, row by row, under the weights of that moment. ``between`` is called
        after every minibatch, to move messages on. Raises as ``minibatches`` does.
        """
        layer = self.layer
        for chosen, rng in self.minibatches(len(rows)):
            minibatch = layer.minibatch(len(chosen))
            # "clip" writes straight into the buffer; no index is out of range. Rows
            # that are not an array are asked by their own ``take``.
            np.take(rows, chosen, axis=0, out=minibatch, mode="clip")
            # Santara et al. 2016 §2.2: velocity ← momentum · velocity + rate/B · Δ.
            scale = self.learning_rate / len(chosen)
            hidden = layer.gradient(minibatch, rng, scale, self.descend)
            if activations is not None:
                activations[chosen] = hidden
            between()

    def minibatches(
        self, n_rows: int
    ) -> Iterator[tuple[AnyArray, np.random.Generator]]:
        """Yield the rows of each step of an epoch, and the numbers to sample with.

        Each must be answered by ``descend`` for all parameters. The epoch counts when
        all were taken.

        Raises
        ------
        TrainingError
            After the last step: the parameters are not finite any more.
        """
        config, index = self.config, self.index
        order = stream(config.seed, "shuffle", index, self.epoch).permutation(n_rows)
        rng = stream(config.seed, "sample", index, self.epoch)
        later = self.epoch >= config.momentum_switch
        self.optimizer.momentum = config.momentum[1 if later else 0]
        for part in row_blocks(n_rows, config.minibatch):
            self.optimizer.start_step()
            yield order[part], rng
        self.epoch += 1
        if not self.layer.parameters.is_finite():
            raise TrainingError(
                f"weights must stay finite; those of layer {index + 1} are not after "
                f"epoch {self.epoch}: training diverges. Give a learning rate below "
                f"{self.learning_rate:g} (0.001 to 0.01 for linear units), or scale "
                "the data."
            )

    def descend(self, where: slice, gradient: Array32) -> None:
        """Change a part of the parameters, given its gradient."""
        vector, decay = self.layer.parameters.vector, self.config.weight_decay
        if decay:
            factor = np.float32(self.learning_rate * decay)
            gradient += factor * vector[where] * self._decays[where]
        self.optimizer.update(vector, gradient, where)


def monitored_rows(n_rows: int, at_most: int) -> AnyArray:
    """Return the indices of rows spread evenly over ``n_rows``, at most so many."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, at_most)).astype(np.intp))


def monitored(train: Array32, validation: Array32, at_most: int) -> Rows:
    """Return the data with the rows of each kind on which errors are measured."""

    def some(rows: Array32) -> Array32:
        return rows[monitored_rows(len(rows), at_most)]

    return Rows(train, some(train), some(validation))


def row_counts(n_train: int, n_validation: int, at_most: int) -> tuple[int, int, int]:
    """Return how many rows each part of ``monitored`` has."""
    return n_train, min(n_train, at_most), min(n_validation, at_most)


def monitored_errors(layer: Layer, rows: Rows) -> tuple[float, float]:
    """Return the reconstruction errors of a layer on training and validation rows.

    The error is Σ over units of (x − x̂)², mean over the rows looked at; NaN without.
    """

    def error(some: Array32) -> float:
        if not len(some):
            return float("nan")
        return squared_error(some, layer.decode(layer.encode(some))) / len(some)

    return error(rows.sample), error(rows.validation)
