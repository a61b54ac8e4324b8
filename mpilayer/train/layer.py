"""One layer in training: an epoch, an output, its errors.

What is called collective is so on the layer's team. Between epochs the layer is whole,
in memory that the team shares; during an epoch each rank has some slices of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import count, islice, pairwise
from math import prod
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array32, StoredRows
from mpilayer.config import PretrainConfig, per_layer
from mpilayer.errors import ConfigError, TrainingError
from mpilayer.far import FarRows, RowFile
from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import Layer, LayerShape, Slice, parameter_shapes
from mpilayer.models.rbm import RBM
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import squared_error
from mpilayer.numerics.parameters import Parameters
from mpilayer.optim.minibatch import Momentum
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.team import ALONE, Team
from mpilayer.partition import shard_bounds
from mpilayer.rng import stream
from mpilayer.train.pools import Minibatch, Pool, shuffled

TILE = 64
"""Units at whose multiples layers are cut: kernels of BLAS work in such tiles."""


def layer_shapes(config: PretrainConfig, n_visible: int) -> list[LayerShape]:
    """Return the shape of every layer; what one layer hides, the next one sees."""
    sizes = [n_visible, *config.layers]
    kinds = [config.visible, *[config.hidden] * (len(config.layers) - 1), config.code]
    return [
        LayerShape(sizes[i], sizes[i + 1], kinds[i], kinds[i + 1])
        for i in range(len(config.layers))
    ]


def make_layer(
    config: PretrainConfig, shape: LayerShape, vector: AnyArray | None = None
) -> Layer:
    """Return a layer of the configured method, with parameters that are given or 0."""
    if config.method == "rbm":
        return RBM(shape, config.cd_steps, vector)
    return Autoencoder(shape, config.tied, config.loss, vector)


def most_slices(n_hidden: int) -> int:
    """Return into how many slices a layer can be cut."""
    return max(1, n_hidden // TILE)


def check_layer(config: PretrainConfig, shape: LayerShape, index: int) -> None:
    """Raise a ``ConfigError`` if the method has no such units, loss or slices."""
    make_layer(config, replace(shape, n_visible=1, n_hidden=1))
    most = most_slices(shape.n_hidden)
    if (given := config.slices_of_layers[index]) > most:
        raise ConfigError(
            f"a slice needs at least {TILE} units; got {given} slices for the "
            f"{shape.n_hidden} of layer {index + 1}. Give at most {most}."
        )


def slice_bounds(n_hidden: int, n_slices: int) -> list[slice]:
    """Return the hidden units of each slice: cut at tiles, as equal as that allows.

    The last one, which never has more whole tiles than others, has the rest.
    """
    starts = [TILE * a for a, _ in shard_bounds(n_hidden // TILE, n_slices)]
    return [slice(a, b) for a, b in pairwise([*starts, n_hidden])]


class _SliceState:
    """A slice with its own momentum, private to the rank that has it."""

    def __init__(self, part: Slice) -> None:
        self.slice = part
        self.optimizer = Momentum(part.parameters.vector.size)
        velocity = self.optimizer.state["velocity"]
        self._velocity = Parameters(part.parameters.shapes, vector=velocity)

    def pairs(
        self, parameters: Parameters, velocity: Parameters
    ) -> Iterator[tuple[AnyArray, AnyArray]]:
        """Yield views of the same numbers in the whole layer and here."""
        own = ((parameters, self.slice.parameters), (velocity, self._velocity))
        for whole, mine in own:
            for name, view in self.slice.of(whole).items():
                yield view, mine[name]


class _Room:
    """What a team shares in an epoch of one layer, for minibatches of up to n rows."""

    def __init__(self, team: Team, layer: Layer, n: int, n_slices: int) -> None:
        width = layer.shape.n_visible
        # The next minibatch is gathered while this one is still needed.
        self.data = [team.array((n, width)) for _ in range(2)]
        self.reconstruction = team.array((n, width))
        self.contrast = team.array((layer.phases * n, width))
        self.parts = team.array((n_slices, n, width))


class LayerState:
    """A layer with all that decides its further training; see ``PretrainConfig``.

    Its first weights are N(0, ``initial_deviation``²), its biases 0. ``index``, from 0,
    is a part of the addresses of its random streams. Making it is collective on
    ``team``, whose ranks have slices of the layer in turn; by itself it is a rank's.
    The ``optimizer`` holds the velocity, after ``epoch`` epochs; the ``learning_rate``
    is that on the mean over a minibatch.
    """

    def __init__(
        self,
        config: PretrainConfig,
        shapes: Sequence[LayerShape],
        index: int,
        team: Team = ALONE,
    ) -> None:
        rates = per_layer("learning_rate", config.learning_rate, len(shapes))
        self.config, self.index, self.learning_rate = config, index, rates[index]
        self.team, shape = team, shapes[index]
        names = parameter_shapes(shape, config.method == "rbm" or config.tied)
        size = sum(map(prod, names.values()))
        self.layer = make_layer(config, shape, team.array((size,)))
        self.epoch = 0
        self.optimizer = Momentum(size, velocity=team.array((size,)))
        if team.is_head:
            self._draw_weights()
        n_slices = config.slices_of_layers[index] or 1
        bounds = slice_bounds(shape.n_hidden, n_slices)
        self._bounds = list(enumerate(bounds))
        self._own: dict[int, _SliceState] = {}
        self._room: _Room | None = None

    def _draw_weights(self) -> None:
        rng = stream(self.config.seed, "weights", self.index)
        for _, view in self.layer.parameters.items():
            if view.ndim == 2:
                rng.standard_normal(out=view, dtype=np.float32)
                view *= np.float32(self.config.initial_deviation)

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
    def _velocity(self) -> Parameters:
        velocity = self.optimizer.state["velocity"]
        return Parameters(self.layer.parameters.shapes, vector=velocity)

    @property
    def _vectors(self) -> dict[str, Array32]:
        return {"parameters": self.layer.parameters.vector, **self.optimizer.state}

    # Numbers that leave float32 are met after the epoch, in words.
    @np.errstate(over="ignore", invalid="ignore")
    def train_epoch(
        self,
        rows: Array32 | StoredRows | FarRows,
        activations: Array32 | RowFile | None = None,
        between: Callable[[], object] = lambda: None,
        pool: Pool | None = None,
    ) -> None:
        """Pass once over rows (n_samples, n_visible) in a new random order; collective.

        ``activations`` (n_samples, n_hidden) receive the hidden ones that training
        computes, row by row, under the weights of that moment; both are in the team's
        memory, or both in files, and a ``pool`` is for what is held of them.
        ``between`` is called after every minibatch, to move messages on.

        Raises
        ------
        TrainingError
            On every rank, after the last step: the parameters are not finite any more.
        """
        layer, team = self.layer, self.team
        config, out = self.config, layer.shape.n_hidden
        address = config.seed, self.index, self.epoch
        minibatches = shuffled(rows, activations, pool, out, config.minibatch, address)
        room, slices = self._begin_epoch(len(rows))
        random = {s: self._samples(s) for s in slices}
        following = self._gather(minibatches, room.data[0])
        team.barrier()
        for step in count():
            if following is None:
                break
            chosen, leaving = following
            n = len(chosen)
            data, reconstruction = room.data[step % 2][:n], room.reconstruction[:n]
            # Santara et al. 2016 §2.2: velocity ← momentum · velocity + rate/B · Δ.
            scale = self.learning_rate / n
            for turn in range(layer.n_passes):
                for s, own in slices.items():
                    visible = reconstruction if turn else data
                    part = room.parts[s, :n]
                    hidden = own.slice.rise(visible, turn == 0, random[s], part)
                    if leaving is not None and turn == 0:
                        leaving[chosen, own.slice.units] = hidden
                team.barrier()
                self._reconstruct(room, n)
                if turn == layer.n_passes - 1:
                    self._contrast(room, data, n, scale)
                    following = self._gather(minibatches, room.data[(step + 1) % 2])
                team.barrier()
            contrast = room.contrast[: layer.phases * n]
            for own in slices.values():
                own.optimizer.start_step()
                update = partial(self._descend, own.slice.parameters, own.optimizer)
                own.slice.learn(data, reconstruction, contrast, scale, update)
            self.optimizer.steps += 1
            between()
        self._end_epoch()

    def make_room(self, n_rows: int) -> _Room:
        """Return what an epoch over so many rows is computed in; collective."""
        n = min(self.config.minibatch, n_rows)
        if self._room is None or len(self._room.reconstruction) < n:
            self._room = _Room(self.team, self.layer, n, len(self._bounds))
        return self._room

    def _begin_epoch(self, n_rows: int) -> tuple[_Room, dict[int, _SliceState]]:
        """Return what an epoch is computed in, with the layer as it is now."""
        if not self._own:
            self._own = {
                s: _SliceState(self.layer.slice(units))
                for s, units in self._bounds
                if self.team.owns(s)
            }
        room = self.make_room(n_rows)
        later = self.epoch >= self.config.momentum_switch
        momentum = self.config.momentum[1 if later else 0]
        self.optimizer.momentum = momentum
        for own in self._own.values():
            for whole, mine in own.pairs(self.layer.parameters, self._velocity):
                mine[:] = whole
            own.optimizer.momentum = momentum
        return room, self._own

    def _end_epoch(self) -> None:
        for own in self._own.values():
            for whole, mine in own.pairs(self.layer.parameters, self._velocity):
                whole[:] = mine
        self.epoch += 1
        self.team.barrier()
        if not self.layer.parameters.is_finite():
            raise TrainingError(
                f"weights must stay finite; those of layer {self.index + 1} are not "
                f"after epoch {self.epoch}: training diverges. Give a learning rate "
                f"below {self.learning_rate:g} (0.001 to 0.01 for linear units), or "
                "scale the data."
            )

    def _samples(self, which: int) -> np.random.Generator:
        """Return the numbers with which a slice samples in this epoch."""
        address = self.index, self.epoch
        if which:
            return stream(self.config.seed, "sample of slice", *address, which)
        return stream(self.config.seed, "sample", *address)

    def _gather(
        self, minibatches: Iterator[Minibatch], out: Array32
    ) -> tuple[AnyArray, Array32 | None] | None:
        """Fetch this rank's part of the next minibatch; None after the last one.

        Return which rows these are, and where what they make goes.
        """
        for rows, chosen, leaving in islice(minibatches, 1):
            start, stop = shard_bounds(len(chosen), self.team.size)[self.team.rank]
            # "clip" writes straight into the buffer; no index is out of range.
            rows.take(chosen[start:stop], axis=0, out=out[start:stop], mode="clip")
            return chosen, leaving
        return None

    def _reconstruct(self, room: _Room, n: int) -> None:
        """Compute this rank's columns of g(Σ_s h_s W_sᵀ + b), slice after slice."""
        columns = self.team.columns(self.layer.shape.n_visible)
        out = room.reconstruction[:n, columns]
        first, *others = room.parts[:, :n, columns]
        bias = self.layer.parameters["visible_bias"][columns]
        if others:
            np.add(first, others[0], out=out)
            for part in others[1:]:
                out += part
            out += bias
        else:
            np.add(first, bias, out=out)
        activation(self.layer.shape.visible).apply(out)

    def _contrast(self, room: _Room, data: Array32, n: int, scale: float) -> None:
        """Compute what slices learn from, and change the bias, in these columns."""
        layer = self.layer
        columns = self.team.columns(layer.shape.n_visible)
        out = room.contrast[: layer.phases * n, columns]
        reconstruction = room.reconstruction[:n, columns]
        gradient = layer.contrast(data[:, columns], reconstruction, scale, out)
        origin = layer.parameters.span("visible_bias").start
        where = slice(origin + columns.start, origin + columns.stop)
        self.optimizer.update(layer.parameters.vector, gradient, where)

    def _descend(
        self,
        parameters: Parameters,
        optimizer: Momentum,
        where: slice,
        gradient: Array32,
    ) -> None:
        """Change a part of a slice's parameters, given its gradient."""
        decay, biases = self.config.weight_decay, parameters.span("hidden_bias")
        if decay and where != biases:  # which do not decay
            factor = np.float32(self.learning_rate * decay)
            gradient += factor * parameters.vector[where]
        optimizer.update(parameters.vector, gradient, where)


def monitored_rows(n_rows: int, at_most: int) -> AnyArray:
    """Return the indices of rows spread evenly over ``n_rows``, at most so many."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, at_most)).astype(np.intp))


def monitored(
    train: Array32 | StoredRows | FarRows, validation: Array32 | FarRows, at_most: int
) -> Rows:
    """Return the data with the rows of each kind on which errors are measured."""

    def some(rows: Array32 | StoredRows | FarRows) -> Array32:
        return rows[monitored_rows(len(rows), at_most)]

    return Rows(train, some(train), some(validation))


def row_counts(n_train: int, n_validation: int, at_most: int) -> tuple[int, int, int]:
    """Return how many rows each part of ``monitored`` has."""
    return n_train, min(n_train, at_most), min(n_validation, at_most)


def monitored_error(layer: Layer, rows: Array32) -> float:
    """Return the reconstruction error of a layer on some rows.

    The error is Σ over units of (x − x̂)², mean over the rows; NaN without.
    """
    if not len(rows):
        return float("nan")
    return squared_error(rows, layer.decode(layer.encode(rows))) / len(rows)
