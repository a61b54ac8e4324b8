"""One layer as an estimator: a restricted Boltzmann machine, or an autoencoder."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mpilayer.arrays import AnyArray, Array32
from mpilayer.config import PretrainConfig
from mpilayer.errors import ConfigError
from mpilayer.estimators.base import (
    Reconstructor,
    SettingError,
    checked,
    in_arguments,
    joined,
    warn_of_minibatch,
)
from mpilayer.estimators.base import settings as read_settings
from mpilayer.estimators.rows import current_bounds
from mpilayer.estimators.shared import SharedTraining
from mpilayer.models.base import Layer, LayerShape
from mpilayer.parallel.comm import Communicator
from mpilayer.train.layer import (
    LayerState,
    check_layer,
    layer_shapes,
    make_layer,
    new_state,
)


class LayerEstimator(Reconstructor):
    """One layer, trained on minibatches; partial fits go on where the last one ended.

    Attributes
    ----------
    n_epochs_ : int
        Passes over rows so far: part of the addresses of random numbers.
    velocity_ : ndarray
        What momentum remembers, in the order of ``parameters_``.
    """

    n_hidden: int
    epochs: int
    n_epochs_: int
    velocity_: Array32
    _method: str

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Train a new layer for ``epochs`` passes. Collective with ``comm``.

        Parameters
        ----------
        X : array or sparse matrix (n_samples, n_features)
            Of this rank. Sparse rows are made dense by the minibatch.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        TrainingError
            Weights become infinite; on all ranks.
        """
        return self._train(X, None)

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Pass once over the rows, going on from what was learned. See ``fit``."""
        return self._train(X, 1)

    @property
    def components_(self) -> AnyArray:
        """Weights, a row each hidden unit, as in other decompositions."""
        check_is_fitted(self)
        weights: AnyArray = self.parameters_["weights"].T
        return weights

    def _train(self, X: Any, n_epochs: int | None) -> Self:
        """Go on for some passes; None: begin, for ``epochs`` ones."""
        goes_on = n_epochs is not None and hasattr(self, "parameters_")
        with joined(self.comm) as comm:
            config = checked(comm, self._config)
            rows = self._rows_to_fit(
                X, comm, config.visible, np.float32, reset=not goes_on
            )
            if n_epochs is None:
                n_rows = current_bounds(comm, len(rows))[-1][1]
                warn_of_minibatch(n_rows, config.minibatch)
            state = self._state(config, goes_on)
            train_epoch = _trainer(state, config, rows, comm)
            passes = config.epochs[0] if n_epochs is None else n_epochs
            comm.everywhere(lambda: [train_epoch(rows) for _ in range(passes)])
        self._keep([state.layer.shape], state.layer.parameters)
        self.velocity_ = state.optimizer.state["velocity"]
        self.n_epochs_ = state.epoch
        return self

    def _config(self) -> PretrainConfig:
        values = self._settings()
        values["layers"], values["code"] = values.pop("n_hidden"), values["hidden"]
        values["method"] = self._method
        config = read_settings(PretrainConfig, values, {"layers": "n_hidden"})
        if len(config.layers) > 1:
            raise SettingError(
                f"n_hidden must be one number; got {self.n_hidden}. For several layers "
                "use StackedAutoencoder."
            )
        try:
            check_layer(config, layer_shapes(config, 1)[0])
        except ConfigError as error:
            raise in_arguments(error) from error
        return config

    def _state(self, config: PretrainConfig, goes_on: bool) -> LayerState:
        shapes = layer_shapes(config, self.n_features_in_)
        state = new_state(config, shapes, 0)
        if goes_on:
            self._check_same(shapes[0], state.layer)
            for name, view in state.layer.parameters.items():
                view[:] = self.parameters_[name]
            state.optimizer.state["velocity"][:] = self.velocity_
            state.epoch = self.n_epochs_
        return state

    def _check_same(self, shape: LayerShape, layer: Layer) -> None:
        """Check that the arguments still describe the layer that was fitted."""
        if (shape, *layer.parameters) != (*self.shapes_, *self.parameters_):
            raise SettingError(
                "partial_fit goes on with the layer that it finds; n_hidden, visible, "
                "hidden or tied have changed since. Set them back, or call fit."
            )


class RBM(LayerEstimator):
    """Restricted Boltzmann machine, trained by contrastive divergence.

    Parameters
    ----------
    n_hidden : int
        Hidden units.
    epochs : int
        Passes over the rows.
    minibatch : int
        Rows of a minibatch, over all ranks.
    learning_rate : float
        On the mean over a minibatch; 0.001 to 0.01 for linear units.
    momentum : tuple of two floats
        At first and later.
    momentum_switch : int
        Epochs after which the later momentum holds.
    weight_decay : float
        Decay λ of the weights.
    cd_steps : int
        Gibbs steps of contrastive divergence.
    initial_deviation : float
        Standard deviation of the first weights.
    visible : str
        Units of the data: ``sigmoid``, for rows in [0, 1], or ``linear``.
    hidden : str
        Hidden units: ``sigmoid`` or ``linear``.
    seed : int
        Of all random numbers.
    comm : mpi4py.MPI.Comm or Communicator, optional
        Each rank fits with its own rows, as if one had them all in rank order.

    Notes
    -----
    Equal to layer 1 of ``mpilayer pretrain`` and of ``StackedAutoencoder``.
    """

    _method = "rbm"

    def __init__(
        self,
        n_hidden: int = 256,
        *,
        epochs: int = 20,
        minibatch: int = 100,
        learning_rate: float = 0.1,
        momentum: tuple[float, ...] = (0.5, 0.9),
        momentum_switch: int = 5,
        weight_decay: float = 0.0,
        cd_steps: int = 1,
        initial_deviation: float = 0.1,
        visible: str = "sigmoid",
        hidden: str = "sigmoid",
        seed: int = 0,
        comm: Any = None,
    ) -> None:
        self.n_hidden = n_hidden
        self.epochs = epochs
        self.minibatch = minibatch
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.momentum_switch = momentum_switch
        self.weight_decay = weight_decay
        self.cd_steps = cd_steps
        self.initial_deviation = initial_deviation
        self.visible = visible
        self.hidden = hidden
        self.seed = seed
        self.comm = comm


class Autoencoder(LayerEstimator):
    """Autoencoder with one hidden layer, trained by backpropagation.

    Parameters
    ----------
    n_hidden, epochs, minibatch, learning_rate, momentum, momentum_switch
        As of ``RBM``.
    weight_decay, initial_deviation, seed, comm
        As of ``RBM``.
    visible, hidden : str
        Units of the reconstruction and of the code: ``sigmoid``, ``tanh``, ``relu`` or
        ``linear``. With sigmoid visible units rows must be in [0, 1].
    tied : bool
        Decode with the transposed weights.
    loss : str
        ``squared`` or ``cross-entropy``.

    Notes
    -----
    Equal to layer 1 of ``mpilayer pretrain --method autoencoder``.
    """

    _method = "autoencoder"

    def __init__(
        self,
        n_hidden: int = 256,
        *,
        epochs: int = 20,
        minibatch: int = 100,
        learning_rate: float = 0.1,
        momentum: tuple[float, ...] = (0.5, 0.9),
        momentum_switch: int = 5,
        weight_decay: float = 0.0,
        initial_deviation: float = 0.1,
        visible: str = "sigmoid",
        hidden: str = "sigmoid",
        tied: bool = True,
        loss: str = "squared",
        seed: int = 0,
        comm: Any = None,
    ) -> None:
        self.n_hidden = n_hidden
        self.epochs = epochs
        self.minibatch = minibatch
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.momentum_switch = momentum_switch
        self.weight_decay = weight_decay
        self.initial_deviation = initial_deviation
        self.visible = visible
        self.hidden = hidden
        self.tied = tied
        self.loss = loss
        self.seed = seed
        self.comm = comm


def _trainer(
    state: LayerState, config: PretrainConfig, rows: Any, comm: Communicator
) -> Callable[[Any], None]:
    """Return what passes once over the rows of all ranks. Collective."""
    if comm.size == 1:
        return state.train_epoch
    shape: LayerShape = state.layer.shape
    bounds = current_bounds(comm, len(rows))
    return SharedTraining(
        state, lambda: make_layer(config, shape), bounds, comm
    ).train_epoch
