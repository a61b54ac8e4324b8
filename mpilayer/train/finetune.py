"""Backpropagation through a whole stack, by all ranks.

See :mod:`mpilayer.train.backpropagation` for how they share a minibatch, and
:mod:`mpilayer.train.strata` for the rows that a rank holds.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import isqrt
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array32, StoredRows, row_blocks
from mpilayer.config import FinetuneConfig, as_values
from mpilayer.errors import TrainingError
from mpilayer.far import FarRows
from mpilayer.models.stack import Predictor, Stack
from mpilayer.numerics.losses import SOFTMAX
from mpilayer.optim.course import course
from mpilayer.optim.minibatch import DEFAULT_RATES, Optimizer, make_optimizer
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.team import ALONE, Team
from mpilayer.partition import shard_bounds
from mpilayer.train.backpropagation import Backpropagation, Minibatch
from mpilayer.train.evaluate import Targets, prediction_error, reconstruction_error
from mpilayer.train.groups import RowGroups
from mpilayer.train.pools import met_rows
from mpilayer.train.slices import OwnSlices
from mpilayer.train.strata import Dropout, Shifts, Strata

# Validation rows are measured in blocks of so many.
_BLOCK = 500


@dataclass(frozen=True)
class FinetuneRecord:
    """One epoch of fine-tuning; seconds are those of this rank.

    The loss is what is minimized, summed over columns, mean over rows, as met on the
    way; the error the reconstruction error, percentage of wrong classes, or mean
    squared error, NaN without validation rows.
    """

    epoch: int  # from 1
    train_loss: float
    validation_error: float
    training: float  # seconds computing
    allreduce: float  # waiting for sums
    evaluating: float  # measuring the error


class FinetuneState:
    """The stack in fine-tuning, with all that decides its further training.

    The ``stack``, equal on all ranks, is trained in place: a ``Predictor`` for the
    tasks ``classify`` and ``regress``. The ranks of ``team`` see the same parameters,
    until ``leave``.

    Attributes
    ----------
    epoch : int
        Epochs done.
    best_error, best_epoch, best : float, int, ndarray
        The smallest validation error so far, after which epoch it was, and the
        parameter vector there.
    last : ndarray or None
        That of the last epoch, once the stack holds the best ones.
    """

    def __init__(
        self, stack: Stack, config: FinetuneConfig, team: Team = ALONE
    ) -> None:
        self._team, self.stack = team, stack
        self.config = config
        self.loss = SOFTMAX if config.task == "classify" else config.loss
        self.epoch = 0
        self.optimizer = self.new_optimizer(stack.parameters.vector.size)
        self.best_error = float("inf")
        self.best_epoch = 0
        self.best: Array32 = stack.parameters.vector.copy()
        self.last: Array32 | None = None
        if self._team.size > 1:
            self._move(self._share)

    def arrays(self) -> dict[str, AnyArray]:
        """Return copies of the arrays that a checkpoint needs."""
        last = self.stack.parameters.vector if self.last is None else self.last
        arrays = self.stack.parameters.split({**self._vectors, "parameters": last})
        if isinstance(self.stack, Predictor):
            arrays["classes"] = self.stack.classes
        return arrays

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that a checkpoint needs, and the settings."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_error": self.best_error,
            "optimizer_steps": self.optimizer.steps,
            **{f"finetune_{k}": v for k, v in as_values(self.config).items()},
        }

    def restore(
        self, arrays: Mapping[str, AnyArray], numbers: Mapping[str, Any]
    ) -> None:
        """Go where the state with these ``arrays()`` and ``numbers()`` was."""
        self.stack.parameters.join(arrays, self._vectors)
        self.epoch = int(numbers["epoch"])
        self.best_epoch = int(numbers["best_epoch"])
        self.best_error = float(numbers["best_error"])
        self.optimizer.steps = int(numbers["optimizer_steps"])

    @property
    def _vectors(self) -> dict[str, Array32]:
        now = self.stack.parameters.vector
        return {"best": self.best, "parameters": now, **self.optimizer.state}

    @property
    def learning_rate(self) -> float:
        """That before its course."""
        return self.config.learning_rate or DEFAULT_RATES[self.config.optimizer]

    def rate_after(self, epochs: float) -> float:
        """Return the learning rate that holds after so many epochs."""
        config = self.config
        decay, warm_up = config.learning_rate_decay, config.warm_up
        total, schedule = config.epochs, config.learning_rate_schedule
        return self.learning_rate * course(schedule, epochs, total, decay, warm_up)

    @property
    def dropout(self) -> Dropout:
        """What the rows leave out."""
        steps, config = self.stack.steps, self.config
        parts = (config.input_dropout, *[config.dropout] * (len(steps) - 1))
        widths = tuple(n_in for n_in, _, _ in steps)
        return Dropout(parts, widths, config.minibatch, config.seed)

    @property
    def shifts(self) -> Shifts | None:
        """How images move, square ones if nothing else is said; None if they do not."""
        config = self.config
        if config.shift is None:
            return None
        most, height, width = config.shift
        side = isqrt(self.stack.shapes[0].n_visible)
        shape = (height or side, width or side)
        return Shifts(most, *shape, config.minibatch, config.seed)

    @property
    def out_of_patience(self) -> bool:
        """The validation error has not improved for ``patience`` epochs."""
        patience = self.config.patience
        return bool(patience) and self.epoch - self.best_epoch >= patience

    def new_optimizer(self, size: int) -> Optimizer:
        """Return the configured optimizer for so many parameters."""
        return make_optimizer(self.config.optimizer, size, self.learning_rate)

    def leave(self) -> None:
        """Take all out of shared memory, which may be given back then. Collective."""
        if self._team.size > 1:
            self._move(np.copy)

    def _share(self, vector: Array32) -> Array32:
        shared: Array32 = self._team.array(vector.shape)
        if self._team.is_head:
            shared[:] = vector
        return shared

    def _move(self, copied: Callable[[Array32], Array32]) -> None:
        self.stack.move(copied(self.stack.parameters.vector))
        self.best = copied(self.best)
        for name, vector in self.optimizer.state.items():
            self.optimizer.state[name] = copied(vector)
        self._team.barrier()

    def note(self, validation_error: float) -> None:
        """Keep the weights if they are the best so far; without a measure, the last.

        Collective on the team.
        """
        # NaN after a measured error is divergence, and never better.
        if validation_error < self.best_error or self.best_error == float("inf"):
            self.best_error = min(self.best_error, validation_error)
            self.best_epoch = self.epoch
            if self._team.is_head:
                self.best[:] = self.stack.parameters.vector
            self._team.barrier()

    def end(self) -> None:
        """Let the stack have the best weights. Collective on the team."""
        # Who goes on later goes on from the last ones.
        self.last = self.stack.parameters.vector.copy()
        self._team.barrier()
        if self._team.is_head:
            self.stack.parameters.vector[:] = self.best
        self._team.barrier()

    def check_finite(self, loss: float) -> None:
        """Check that training has not diverged, given the loss of all ranks.

        Raises
        ------
        TrainingError
            On all ranks, as these numbers are theirs.
        """
        if np.isfinite(loss) and self.stack.parameters.is_finite():
            return
        raise TrainingError(
            "weights and loss must stay finite; in fine-tuning they are not after "
            f"epoch {self.epoch}: training diverges. Give a learning rate below "
            f"{self.learning_rate:g}, another optimizer, or scale the data."
        ).of_all_ranks()


def finetune(
    state: FinetuneState,
    strata: Strata,
    train: Array32 | StoredRows | FarRows,
    validation: Array32 | FarRows,
    groups: RowGroups,
    targets: tuple[Targets, Targets] | None = None,
) -> Iterator[FinetuneRecord]:
    """Train the stack; yield after every epoch. Collective on all ranks.

    The weights are the same for any number of ranks in one team. More teams add up
    float32 gradients in another order: then they agree to rounding.

    Parameters
    ----------
    state : FinetuneState
        Where to go on; changed in place, equal on all ranks, of the team of ``groups``.
        At the end its stack holds the best weights.
    strata, train : Strata, ndarray (n_samples, n_visible)
        This rank's share, and the rows that ``strata.rows`` names: if they are far, by
        pieces of the strata. *Local.*
    validation : ndarray (n_samples, n_visible)
        This rank's, those of ``validation_rows``. *Local.*
    targets : pair of ndarray (n_samples, n_out), optional
        What should come out of both; the rows themselves by default. *Local.*

    Raises
    ------
    TrainingError
        On all ranks, after an epoch: weights or loss are not finite any more. The state
        has the best weights until then.
    """
    stack, config = state.stack, state.config
    wanted, measured = targets or (None, None)
    new, n_slices = state.new_optimizer, config.slices or 1
    own = OwnSlices(stack, state.optimizer, new, groups, n_slices)
    training = Backpropagation(stack, own, groups, state.loss, config.minibatch)
    measure = partial(_error, stack, validation, measured, groups.comm)
    own.take()
    if state.epoch == 0:
        state.note(measure())
    while state.epoch < config.epochs and not state.out_of_patience:
        began = perf_counter()
        _epoch(state, training, own, strata, (train, wanted))
        trained, waited = perf_counter(), training.waited
        total = training.loss()
        state.check_finite(total)
        error = measure()
        state.note(error)
        yield FinetuneRecord(
            epoch=state.epoch,
            train_loss=total / strata.n_rows,
            validation_error=error,
            training=trained - began - waited,
            allreduce=waited,
            evaluating=perf_counter() - trained,
        )
    state.end()


def _epoch(
    state: FinetuneState,
    training: Backpropagation,
    own: OwnSlices,
    strata: Strata,
    rows: tuple[Array32 | StoredRows | FarRows, Targets | None],
) -> None:
    """Pass once over the rows; then all is whole. Collective."""
    config, epoch = state.config, state.epoch
    dropout, shifts = state.dropout, state.shifts
    (train, wanted), met = rows, deque[Minibatch]()
    rounds = strata.rounds(config.seed, epoch, config.minibatch)
    chosen = enumerate(met_rows(train, rounds))
    n_steps = -(-strata.n_rows // config.minibatch)

    def meet() -> None:
        for step, (visible, where, n) in islice(chosen, 1):
            if shifts is not None:
                visible = shifts.moved(visible, strata.first, epoch, step)
            target = visible if wanted is None else wanted[where]
            masks = partial(dropout.mask, epoch=epoch, step=step)
            met.append(training.meet(step, n, strata.first, (visible, target), masks))

    training.begin()
    meet()
    training.barrier()
    for step in range(n_steps):
        rate = state.rate_after(epoch + (step + 0.5) / n_steps)
        own.optimizer.set_rate(rate)
        own.decay = rate * config.weight_decay
        training.step(met.popleft(), meet)
    own.give()
    training.barrier()
    state.epoch += 1


def validation_rows(n_rows: int, comm: Communicator) -> tuple[int, int]:
    """Return start and stop of this rank's part of so many rows: whole blocks.

    So that each block has the same rows, and the sum over all the same digits, for any
    number of ranks.
    """
    blocks = row_blocks(n_rows, _BLOCK)
    start, stop = shard_bounds(len(blocks), comm.size)[comm.rank]
    return min(start * _BLOCK, n_rows), min(stop * _BLOCK, n_rows)


def _error(
    stack: Stack,
    rows: Array32 | FarRows,
    targets: Targets | None,
    comm: Communicator,
) -> float:
    """Return what the best weights have the least of. Collective."""
    blocks = row_blocks(len(rows), _BLOCK)
    if isinstance(stack, Predictor) and targets is not None:
        labelled = ((rows[where], targets[where]) for where in blocks)
        return prediction_error(stack, labelled, comm)
    return reconstruction_error(stack, (rows[where] for where in blocks), comm)
