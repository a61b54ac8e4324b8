"""The deep autoencoder as an estimator: pre-training of all layers, fine-tuning."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.errors import ConfigError, unknown
from mpilayer.estimators.base import (
    Reconstructor,
    SettingError,
    checked,
    in_arguments,
    joined,
    warn_of_minibatch,
)
from mpilayer.estimators.base import settings as read_settings
from mpilayer.estimators.rows import as_array, current_bounds, redistribute
from mpilayer.models.base import Layer, LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.losses import check_loss
from mpilayer.parallel.comm import Communicator, Request
from mpilayer.parallel.notice import Notice
from mpilayer.partition import layers_to_ranks
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.layer import (
    LayerState,
    check_layer,
    layer_shapes,
    make_layer,
    monitored,
    new_state,
    row_counts,
)
from mpilayer.train.plans import TablePlan
from mpilayer.train.pretrain import Keeper, Pipeline
from mpilayer.train.schedule import Schedule, greedy, lockstep
from mpilayer.train.strata import Strata

_SCHEDULES = ("lockstep", "greedy")
# Arguments of fine-tuning, and the fields that they are.
_FINETUNE = {
    "finetune_epochs": "epochs",
    "optimizer": "optimizer",
    "finetune_learning_rate": "learning_rate",
    "finetune_loss": "loss",
    "finetune_minibatch": "minibatch",
    "finetune_learning_rate_decay": "learning_rate_decay",
    "finetune_weight_decay": "weight_decay",
    "dropout": "dropout",
    "input_dropout": "input_dropout",
}


class StackedAutoencoder(Reconstructor):
    """Deep autoencoder: layers pre-trained by a schedule, unrolled and fine-tuned.

    Parameters
    ----------
    layers : tuple of int
        Hidden units of each layer, first layer first; the last is the code.
    method : str
        How a layer is trained: ``rbm`` or ``autoencoder``.
    schedule : str
        ``lockstep``, all layers at once; ``greedy``, one after the other.
    lag, refresh_every : int
        lockstep: epochs a layer stays behind the one below it; epochs it spends on one
        output.
    epochs, extra_epochs : int or tuple of int
        Epochs of all layers or of each one; more epochs after its last input.
    activations : str
        Outputs before a layer's last stipulated epoch: ``streamed`` takes what training
        computes anyway, ``transformed`` encodes all rows after the epoch.
    learning_rate : float or tuple of float
        Of all layers or of each one, on the mean over a minibatch.
    minibatch, momentum, momentum_switch, weight_decay, cd_steps, initial_deviation
        As of ``RBM``.
    visible, hidden, code : str
        Units of the data, of hidden layers and of the last one: ``sigmoid``,
        ``linear``, and ``tanh`` or ``relu`` of autoencoders. With sigmoid visible units
        rows must be in [0, 1].
    tied, loss
        As of ``Autoencoder``.
    monitor_rows : int
        Rows on which ``layer_errors_`` are measured.
    finetune_epochs : int
        Epochs of fine-tuning; 0 for none.
    optimizer : str
        Of fine-tuning: ``sgd``, ``momentum`` or ``adam``.
    finetune_learning_rate : float
        0: the optimizer's usual one.
    finetune_loss, finetune_minibatch : str, int
        What fine-tuning minimizes; rows of its minibatches, over all ranks.
    finetune_learning_rate_decay, finetune_weight_decay : float
        Factor on the rate of fine-tuning after each epoch; decay λ of its weights.
    dropout, input_dropout : float
        Part of the hidden units, of the columns, that each row of fine-tuning leaves
        out.
    seed : int
        Of all random numbers.
    comm : mpi4py.MPI.Comm or Communicator, optional
        Each rank fits with its own rows. Rank 0 collects them for pre-training, with
        layers on ranks; fine-tuning shares them by strata.

    Attributes
    ----------
    layer_errors_ : list of list of float
        Reconstruction error of each layer's own input after each of its epochs.
    finetune_losses_ : list of float
        Loss of each epoch of fine-tuning, as met on the way.

    Notes
    -----
    ``mpilayer pretrain`` and ``finetune`` with the same settings, without validation
    rows, find the same weights.
    """

    def __init__(
        self,
        layers: tuple[int, ...] = (1000, 500, 250, 30),
        *,
        method: str = "rbm",
        schedule: str = "lockstep",
        lag: int | tuple[int, ...] = (0,),
        refresh_every: int = 1,
        epochs: int | tuple[int, ...] = (20,),
        extra_epochs: int | tuple[int, ...] = (-1,),
        activations: str = "streamed",
        minibatch: int = 100,
        learning_rate: float | tuple[float, ...] = (0.1,),
        momentum: tuple[float, ...] = (0.5, 0.9),
        momentum_switch: int = 5,
        weight_decay: float = 0.0,
        cd_steps: int = 1,
        initial_deviation: float = 0.1,
        visible: str = "sigmoid",
        hidden: str = "sigmoid",
        code: str = "sigmoid",
        tied: bool = True,
        loss: str = "squared",
        monitor_rows: int = 500,
        finetune_epochs: int = 20,
        optimizer: str = "adam",
        finetune_learning_rate: float = 0.0,
        finetune_loss: str = "squared",
        finetune_minibatch: int = 20,
        finetune_learning_rate_decay: float = 1.0,
        finetune_weight_decay: float = 0.0,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        seed: int = 0,
        comm: Any = None,
    ) -> None:
        self.layers = layers
        self.method = method
        self.schedule = schedule
        self.lag = lag
        self.refresh_every = refresh_every
        self.epochs = epochs
        self.extra_epochs = extra_epochs
        self.activations = activations
        self.minibatch = minibatch
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.momentum_switch = momentum_switch
        self.weight_decay = weight_decay
        self.cd_steps = cd_steps
        self.initial_deviation = initial_deviation
        self.visible = visible
        self.hidden = hidden
        self.code = code
        self.tied = tied
        self.loss = loss
        self.monitor_rows = monitor_rows
        self.finetune_epochs = finetune_epochs
        self.optimizer = optimizer
        self.finetune_learning_rate = finetune_learning_rate
        self.finetune_loss = finetune_loss
        self.finetune_minibatch = finetune_minibatch
        self.finetune_learning_rate_decay = finetune_learning_rate_decay
        self.finetune_weight_decay = finetune_weight_decay
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.seed = seed
        self.comm = comm

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Pre-train, unroll and fine-tune. Collective with ``comm``.

        Parameters
        ----------
        X : array or sparse matrix (n_samples, n_features)
            Of this rank. In one process sparse rows are made dense by the minibatch; on
            several ranks as a whole.
        y : None
            Ignored.

        Returns
        -------
        self
        """
        with joined(self.comm) as comm:
            pretraining, tuning = checked(comm, self._configs)
            rows = self._rows_to_fit(X, comm, pretraining.visible, np.float32)
            bounds = current_bounds(comm, len(rows))
            n_rows = bounds[-1][1]
            warn_of_minibatch(n_rows, pretraining.minibatch)
            if tuning.epochs:
                name = "finetune_minibatch"
                warn_of_minibatch(n_rows, tuning.minibatch, name)
            if comm.size > 1:
                alone = [(0, n_rows), *[(n_rows, n_rows)] * (comm.size - 1)]
                rows = redistribute(as_array(rows), bounds, alone, comm)
                bounds = alone
            stack, self.layer_errors_ = _pretrain(
                pretraining, rows, (n_rows, self.n_features_in_), comm
            )
            self.finetune_losses_ = _finetune(stack, tuning, rows, bounds, comm)
        self._keep(stack.shapes, stack.parameters)
        return self

    def _configs(self) -> tuple[PretrainConfig, FinetuneConfig]:
        """Return the settings of both steps, checked against one another."""
        values = self._settings()
        tuning = {field: values.pop(name) for name, field in _FINETUNE.items()}
        if values["schedule"] not in _SCHEDULES:
            raise SettingError(unknown("schedule", str(values["schedule"]), _SCHEDULES))
        first = read_settings(PretrainConfig, values)
        names = {field: name for name, field in _FINETUNE.items()}
        tuning["seed"] = values["seed"]
        second = read_settings(FinetuneConfig, tuning, names)
        try:
            for shape in layer_shapes(first, 1):
                check_layer(first, shape)
            check_loss(second.loss, first.visible)
        except ConfigError as error:
            raise in_arguments(error) from error
        return first, second


class _FirstRanks:
    """The first ranks of a communicator: no more than there are layers."""

    def __init__(self, comm: Communicator, size: int) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, size

    def start_send(
        self, array: AnyArray, destination: int, tag: int, synchronous: bool = False
    ) -> Request:
        return self._comm.start_send(array, destination, tag, synchronous)

    def start_receive(self, array: AnyArray, source: int, tag: int) -> Request:
        return self._comm.start_receive(array, source, tag)


def _pretrain(
    config: PretrainConfig, rows: Any, shape: tuple[int, int], comm: Communicator
) -> tuple[DeepAutoencoder, list[list[float]]]:
    """Return the unrolled stack, and the errors of each layer. Collective.

    Rank 0 has all rows, of that shape.
    """
    shapes, table = layer_shapes(config, shape[1]), _table(config)
    loads = [one.cost * n for one, n in zip(shapes, table.epochs, strict=True)]
    owners = layers_to_ranks(loads, min(comm.size, len(shapes)))
    mine = owners[comm.rank] if comm.rank < len(owners) else ()
    states = [new_state(config, shapes, index) for index in mine]
    first = _FirstRanks(comm, len(owners))
    errors = comm.everywhere(lambda: _run(states, config, rows, shape, table, first))
    parts = comm.allgather(
        {s.settings.index: (s.layer.parameters.vector, errors[s]) for s in states}
    )
    found = {index: item for part in parts for index, item in part.items()}
    layers = [_layer(config, shapes[i], found[i][0]) for i in range(len(shapes))]
    return DeepAutoencoder.unroll(layers), [found[i][1] for i in range(len(shapes))]


def _run(
    states: Sequence[LayerState],
    config: PretrainConfig,
    rows: Any,
    shape: tuple[int, int],
    table: Schedule,
    comm: Any,
) -> dict[LayerState, list[float]]:
    """Train this rank's layers to the end; return their errors. Collective.

    Raises
    ------
    TrainingError
        On the rank whose layer diverges.
    """
    errors: dict[LayerState, list[float]] = {state: [] for state in states}
    if not states:
        return errors
    none: Array32 = np.empty((0, shape[1]), np.float32)
    data = monitored(rows, none, config.monitor_rows) if comm.rank == 0 else None
    plan = TablePlan(table, config.activations == "streamed")
    counts = row_counts(shape[0], 0, config.monitor_rows)
    notice = Notice(comm)
    pipeline = Pipeline(states, data, counts, comm, plan, Keeper(notice))
    for state, record in pipeline.run():
        errors[state].append(record.train_error)
    notice.close()
    pipeline.check()
    return errors


def _table(config: PretrainConfig) -> Schedule:
    epochs, extra = config.stipulated_epochs, config.extra
    if config.schedule == "greedy":
        return greedy(epochs, extra)
    lag = config.lag[0] if len(config.lag) == 1 else config.lag
    return lockstep(epochs, extra, lag, config.refresh_every)


def _layer(config: PretrainConfig, shape: LayerShape, vector: Array32) -> Layer:
    layer = make_layer(config, shape)
    layer.parameters.vector[:] = vector
    return layer


def _finetune(
    stack: DeepAutoencoder,
    config: FinetuneConfig,
    rows: Any,
    bounds: Sequence[tuple[int, int]],
    comm: Communicator,
) -> list[float]:
    """Train the stack in place; return the losses. Collective."""
    n_rows = bounds[-1][1]
    shares = [
        Strata.of_rank(n_rows, config.minibatch, rank, comm.size)
        for rank in range(comm.size)
    ]
    if comm.size > 1:
        wanted = [strata.rows for strata in shares]
        rows = redistribute(rows, bounds, wanted, comm)
    none: Array32 = np.empty((0, stack.shapes[0].n_visible), np.float32)
    state = FinetuneState(stack, config)
    records = finetune(state, shares[comm.rank], rows, none, comm)
    return [record.train_loss for record in records]
