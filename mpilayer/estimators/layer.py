"""One layer as an estimator: an RBM, an autoencoder, or a sparse one."""

from collections import deque
from typing import Any, ClassVar, Self, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mpilayer.arrays import AnyArray, Array32
from mpilayer.config import PretrainConfig, SparseConfig
from mpilayer.errors import ConfigError
from mpilayer.estimators.arguments import Fields, SettingError, takes
from mpilayer.estimators.base import Reconstructor, checked, joined
from mpilayer.estimators.rows import Bounds, redistribute
from mpilayer.parallel.comm import Communicator
from mpilayer.train.layer import LayerState, check_layer, layer_shapes
from mpilayer.train.sparse.cost import (
    ShardedCost,
    cut_of,
    make_model,
    start_weights,
)
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sums import Sums

_ONE = {"n_hidden": 256, "epochs": 20, "learning_rate": 0.1}


def _fields(method: str, *others: str) -> Fields:
    """Return the settings of one layer, without those of ``others``."""
    return Fields(
        PretrainConfig,
        without={
            *("schedule", "lag", "refresh_every", "cores", "costs", "extra_epochs"),
            *("end", "cut_short", "activations", "monitor_rows", "monitor_every"),
            *others,
        },
        fixed={"method": method},
        names={"layers": "n_hidden", "code": "hidden"},
        words={
            "n_hidden": "hidden units",
            "epochs": "passes over the rows",
            "learning_rate": "on the mean over a minibatch",
        },
    )


class LayerEstimator(Reconstructor):
    """One layer, trained on minibatches; partial fits go on where the last ended."""

    n_epochs_: int  # passes over rows so far: part of the addresses of random numbers
    velocity_: Array32  # what momentum remembers, in the order of parameters_

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Pass once over the rows, going on from what was learned. See ``fit``."""
        goes_on = hasattr(self, "parameters_")
        with joined(self.comm) as comm:
            (config,) = checked(comm, self._configs)
            rows, bounds = self._rows_to_fit(X, comm, config, reset=not goes_on)
            self._pass(self._state(config, goes_on), 1, rows, bounds, comm)
        return self

    @property
    def components_(self) -> AnyArray:
        """Weights, a row each hidden unit, as in other decompositions."""
        check_is_fitted(self)
        return self.parameters_["weights"].T

    def _train(
        self, rows: Any, bounds: Bounds, comm: Communicator, *configs: Any
    ) -> None:
        (config,) = configs
        self._pass(self._state(config), config.epochs[0], rows, bounds, comm)

    def _pass(
        self,
        state: LayerState,
        times: int,
        rows: Any,
        bounds: Bounds,
        comm: Communicator,
    ) -> None:
        """Pass over the rows of all ranks, and keep what was learned. Collective."""

        def epochs() -> None:
            for _ in range(times):
                if comm.size == 1:
                    state.train_epoch(rows)
                else:
                    train_shared_epoch(state, rows, bounds, comm)

        comm.everywhere(epochs)
        self._keep([state.layer.shape], state.layer.parameters)
        self.velocity_ = state.optimizer.state["velocity"]
        self.n_epochs_ = state.epoch

    def _check_configs(self, *configs: Any) -> None:
        (config,) = configs
        if len(config.layers) > 1:
            raise ConfigError(
                f"n_hidden must be one number; got {config.layers}. For several layers "
                "use StackedAutoencoder."
            )
        check_layer(config, layer_shapes(config, 1)[0])

    def _state(self, config: PretrainConfig, goes_on: bool = False) -> LayerState:
        """Return a new layer, or the fitted one if arguments still describe it."""
        state = LayerState(config, layer_shapes(config, self.n_features_in_), 0)
        if not goes_on:
            return state
        layer = state.layer
        if (layer.shape, *layer.parameters) != (*self.shapes_, *self.parameters_):
            raise SettingError(
                "partial_fit goes on with the layer that it finds; n_hidden, visible, "
                "hidden or tied have changed since. Set them back, or call fit."
            )
        for name, view in layer.parameters.items():
            view[:] = self.parameters_[name]
        state.optimizer.state["velocity"][:] = self.velocity_
        state.epoch = self.n_epochs_
        return state


@takes(_fields("rbm", "tied", "loss"), **_ONE)
class RBM(LayerEstimator):
    """Restricted Boltzmann machine, trained by contrastive divergence.

    Equal to layer 1 of ``mpilayer pretrain`` and of ``StackedAutoencoder``. Units are
    ``sigmoid`` or ``linear``; linear ones need a learning rate of 0.001 to 0.01,
    sigmoid visible ones rows in [0, 1].

    {parameters}
    """


@takes(_fields("autoencoder", "cd_steps"), **_ONE)
class Autoencoder(LayerEstimator):
    """Autoencoder with one hidden layer, trained by backpropagation.

    Equal to layer 1 of ``mpilayer pretrain`` by the method ``autoencoder``. With
    sigmoid visible units rows must be in [0, 1].

    {parameters}
    """


@takes(Fields(SparseConfig, without={"preset"}))
class SparseAutoencoder(Reconstructor):
    """Autoencoder with one hidden layer whose units seldom fire.

    ``mpilayer sparse`` with the same settings finds the same weights (Lahiri et al.
    2010). Its ``--preset`` is ``SparseAutoencoder(**PRESETS["ufldl"])`` here, with the
    dictionary from :mod:`mpilayer.config`. With a sigmoid output rows must be in
    [0, 1].

    {parameters}

    Attributes
    ----------
    cost_, exact_cost_ : float
        What was minimized, at the end; and with the sparsity term of all rows together.
    mean_activation_ : ndarray (hidden,)
        Firing probability of each unit over all rows.
    n_evaluations_ : int
        Evaluations of the cost.
    stopped_by_ : str
        Why training ended, in words.
    """

    _units: ClassVar = "output"

    def _configs(self) -> list[Any]:
        return [config.resolved() for config in super()._configs()]

    def _check_configs(self, *configs: Any) -> None:
        (config,) = configs
        if config.shards and config.kl != "average":
            raise ConfigError(
                f"shards belong to kl='average'; got {config.shards} with "
                f"kl={config.kl!r}. Leave them out, or choose average."
            )
        make_model(config, 1)

    def _minibatches(self) -> list[str]:
        return ["minibatch"] if self.optimizer == "sgd" else []

    def _train(
        self, rows: Any, bounds: Bounds, comm: Communicator, *configs: Any
    ) -> None:
        (config,) = configs
        n_rows = bounds[-1][1]
        if config.shards > n_rows:
            raise SettingError(
                f"shards must be at most the rows; got {config.shards} with {n_rows} "
                f"rows. Give at most {n_rows}."
            ).of_all_ranks()
        cut = cut_of(config, n_rows, comm.size)
        dealt = [cut.rows_of(rank, comm.size) for rank in range(comm.size)]
        if list(bounds) != dealt:
            rows = redistribute(rows, bounds, dealt, comm)
        model = make_model(config, self.n_features_in_)
        start_weights(model, config)
        cost = ShardedCost(model, rows, config, comm)
        descent = Descent(cost, config)
        (last,) = deque(descent.states(), maxlen=1)
        final = cost.measure(last.position)
        self._keep([model.shape], model.parameters)
        self.cost_, self.exact_cost_ = final.cost, final.exact_cost
        self.mean_activation_ = cost.mean_activation
        self.n_evaluations_, self.stopped_by_ = cost.evaluations, descent.stopped_by


@np.errstate(over="ignore", invalid="ignore")
def train_shared_epoch(
    state: LayerState, rows: Any, bounds: Bounds, comm: Communicator
) -> None:
    """Pass once over the rows of all ranks, which stay where they are. Collective.

    Every minibatch is that of one rank with all rows in rank order. Each rank adds up
    the gradient over those of ``rows`` (n_samples, n_visible) that it has, and the
    gradients are summed: so results agree with one rank's to rounding, and the state is
    equal on all ranks. See ``LayerState.minibatches`` for errors.

    In contrastive divergence every rank draws the random numbers of the whole minibatch
    and uses those of its rows. A rounding error can turn a sample over: about one in
    ten million.
    """
    layer, (start, stop) = state.layer, bounds[comm.rank]
    gradient: Array32 = np.empty_like(layer.parameters.vector)
    sums = Sums(comm)
    update = sums.updating(state.descend)

    def part_done(where: slice, part: Array32) -> None:
        gradient[where] = part  # the layer needs its own again before the sum is there
        update(where, gradient[where])

    for chosen, rng in state.minibatches(bounds[-1][1]):
        own = np.flatnonzero((start <= chosen) & (chosen < stop))
        minibatch = layer.minibatch(len(own))
        np.take(rows, chosen[own] - start, axis=0, out=minibatch, mode="clip")
        numbers = cast(np.random.Generator, _OwnNumbers(rng, len(chosen), own))
        scale = state.learning_rate / len(chosen)
        layer.gradient(minibatch, numbers, scale, part_done)
        sums.finish()


class _OwnNumbers:
    """A generator that draws for a whole minibatch and gives those of some rows."""

    def __init__(self, rng: np.random.Generator, n_rows: int, own: AnyArray) -> None:
        self._rng, self._n_rows, self._own = rng, n_rows, own

    def random(self, out: Array32, dtype: Any) -> None:
        shape = (self._n_rows, out.shape[1])
        out[:] = self._rng.random(shape, dtype)[self._own]

    def standard_normal(self, out: Array32, dtype: Any) -> None:
        shape = (self._n_rows, out.shape[1])
        out[:] = self._rng.standard_normal(shape, dtype)[self._own]
