"""One layer as an estimator: an RBM, an autoencoder, or a sparse one."""

from collections import Counter, deque
from typing import Any, ClassVar, Self

from sklearn.utils.validation import check_is_fitted

from mpilayer.arrays import AnyArray, Array32
from mpilayer.config import PretrainConfig, SparseConfig
from mpilayer.errors import ConfigError
from mpilayer.estimators.arguments import Fields, SettingError, takes
from mpilayer.estimators.base import Reconstructor, checked, joined
from mpilayer.estimators.rows import Bounds, on_hosts, redistribute
from mpilayer.models.base import Layer
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.start import hosts
from mpilayer.parallel.team import Sketch, Team
from mpilayer.placement import Place
from mpilayer.train.layer import LayerState, check_layer, layer_shapes
from mpilayer.train.sparse.cost import ShardedCost, cut_of, make_model
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.room import check_memory
from mpilayer.train.teams import with_slices

_ONE = {"n_hidden": 256, "epochs": 20, "learning_rate": 0.1}


def _fields(method: str, *others: str) -> Fields:
    """Return the settings of one layer, without those of ``others``."""
    return Fields(
        PretrainConfig,
        without={
            *("schedule", "lag", "refresh_every", "cores", "costs", "extra_epochs"),
            *("end", "cut_short", "activations", "monitor_rows", "monitor_every"),
            "layout",
            "memory",
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
            self._pass(config, 1, rows, bounds, comm, goes_on)
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
        self._pass(config, config.epochs[0], rows, bounds, comm)

    def _pass(
        self,
        config: PretrainConfig,
        times: int,
        rows: Any,
        bounds: Bounds,
        comm: Communicator,
        goes_on: bool = False,
    ) -> None:
        """Pass over the rows of all ranks, and keep what was learned. Collective."""
        n_rows, names = bounds[-1][1], hosts(comm)
        # One number of slices for all hosts: they decide how sums are rounded.
        most = max(Counter(names).values())
        config = with_slices(config, [Place(range(1), tuple(range(most)))])
        shapes = layer_shapes(config, self.n_features_in_)

        def state_on(team: Team) -> LayerState:
            return LayerState(config, shapes, 0, team)

        def shared(team: Team) -> None:
            state_on(team).make_room(n_rows)

        if goes_on:
            checked(comm, lambda: self._check_fitted(state_on(Sketch(1)).layer))
        with on_hosts(rows, bounds, comm, names, shared) as (team, everything):
            state = state_on(team)
            if goes_on:
                self._restore(state)
            team.barrier()

            def epochs() -> None:
                for _ in range(times):
                    state.train_epoch(everything)

            comm.everywhere(epochs)
            self._keep([state.layer.shape], state.layer.parameters)
            self.velocity_ = state.optimizer.state["velocity"].copy()
            self.n_epochs_ = state.epoch

    def _check_configs(self, *configs: Any) -> None:
        (config,) = configs
        if len(config.layers) > 1:
            raise ConfigError(
                f"n_hidden must be one number; got {config.layers}. For several layers "
                "use StackedAutoencoder."
            )
        check_layer(config, layer_shapes(config, 1)[0], 0)

    def _check_fitted(self, layer: Layer) -> None:
        """Check that the arguments still describe the layer that was fitted."""
        if (layer.shape, *layer.parameters) != (*self.shapes_, *self.parameters_):
            raise SettingError(
                "partial_fit goes on with the layer that it finds; n_hidden, visible, "
                "hidden or tied have changed since. Set them back, or call fit."
            )

    def _restore(self, state: LayerState) -> None:
        """Go on from the layer that was fitted."""
        for name, view in state.layer.parameters.items():
            view[:] = self.parameters_[name]
        state.optimizer.state["velocity"][:] = self.velocity_
        state.epoch = self.n_epochs_


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
        check_memory([config], (n_rows, self.n_features_in_), comm)
        cut = cut_of(config, n_rows, comm.size)
        dealt = [cut.rows_of(rank, comm.size) for rank in range(comm.size)]
        if list(bounds) != dealt:
            rows = redistribute(rows, bounds, dealt, comm)
        cost = ShardedCost.at_start(rows, config, comm)
        descent = Descent(cost, config)
        (last,) = deque(descent.states(), maxlen=1)
        final = cost.measure(last.position)
        self._keep([cost.model.shape], cost.model.parameters)
        self.cost_, self.exact_cost_ = final.cost, final.exact_cost
        self.mean_activation_ = cost.mean_activation
        self.n_evaluations_, self.stopped_by_ = cost.evaluations, descent.stopped_by
