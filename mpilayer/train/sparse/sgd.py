"""Descent of a sparse autoencoder on minibatches; sparsity by a running mean.

Every rank makes every step, with all rows of the minibatch: that takes less time than
messages with the firing and the gradient, and the rows of a minibatch are fewer numbers
than those. So the ranks share the evaluations of the whole cost alone, and the steps
are those of one rank, to the bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from math import isinf
from typing import Self

import numpy as np

from mpilayer.arrays import AnyArray, Array64, row_blocks
from mpilayer.config import SparseConfig
from mpilayer.errors import CheckpointError
from mpilayer.models.sparse import BlockSums, SparseAutoencoder, Sparsity
from mpilayer.numerics.parameters import Parameters
from mpilayer.optim.course import course
from mpilayer.optim.search import Iterate, Objective
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.sparse.cost import Enough, ShardedCost
from mpilayer.train.strata import Strata

_AHEAD = 1000
"""Rows that ranks tell one another at a time: those of some steps."""


@dataclass(frozen=True, kw_only=True)
class SGDState(Iterate):
    """Where the whole cost was measured last, and with what the steps go on.

    It is measured once an iteration.
    """

    mean_activation: Array64  # (n_hidden,), running mean of the firing probabilities
    examples: int = 0  # that all steps have met

    @staticmethod
    def first(position: Array64, evaluate: Objective, cost: ShardedCost) -> "SGDState":
        """Evaluate a first position; collective."""
        value, gradient = evaluate(position)
        mean = cost.mean_activation.copy()
        return SGDState(position, value, gradient, mean_activation=mean)

    @classmethod
    def restore(
        cls, arrays: Mapping[str, Array64], numbers: Mapping[str, float | int]
    ) -> Self:
        """Return the state with these ``arrays()`` and ``numbers()``.

        Raises
        ------
        CheckpointError
            A former version has written it.
        """
        if "examples" not in numbers:
            raise CheckpointError(
                "a descent by sgd must go on with the version that began it: the rate "
                "was constant once, and falls to 0 now; found a former checkpoint. "
                "Its weights can be used as they are; begin another run."
            )
        return super().restore(arrays, numbers)


def sgd(
    cost: ShardedCost, evaluate: Objective, config: SparseConfig, state: SGDState
) -> Iterator[SGDState]:
    """Yield the state whenever the whole cost was measured. Collective.

    There are ``evaluations`` − 1 times ``measure_every`` examples, and the rate falls
    linearly to 0 over them. Going on from a state gives the same bits. The model of the
    ``cost``, whose rows ``evaluate`` evaluates, is left alone.

    Raises
    ------
    Enough
        All examples were met, or the time is over.
    TrainingError
        The steps lead to infinity; on all ranks.

    Notes
    -----
    ρ̂ is a running mean of the firing probabilities over the rows of all ranks. Lahiri
    et al. 2010 §2 (``bias``): the gradient has no sparsity term; every step moves the
    hidden biases by −rate · β (ρ̂ − ρ). Ours (``gradient``): the slope
    λ_ρ ∂KL(ρ‖ρ̂_j)/∂ρ̂_j joins the hidden units' δ, as in the gradient of the whole cost,
    and so moves W₁, too. Steps are the same for every ``kl``.
    """
    every = config.measure_every or cost.n_rows
    total = (config.evaluations - 1) * every
    steps = _Steps(cost, config, state, total)
    while state.examples < total:
        steps.run(until=(state.iteration + 1) * every)
        position, mean = steps.position.copy(), steps.mean.copy()
        value, gradient = evaluate(position)
        if cost.latest and isinf(cost.latest.reconstruction + cost.latest.decay):
            raise cost.no_number()
        state = SGDState(
            position,
            value,
            gradient,
            state.iteration + 1,
            mean_activation=mean,
            examples=steps.examples,
        )
        yield state
    raise Enough("evaluations")


class _Room:
    """Room for what a minibatch of so many rows adds, block by block, and its sums."""

    def __init__(self, model: SparseAutoencoder, n_rows: int) -> None:
        shape, shapes = model.shape, {**model.parameters.shapes, "squared": (1,)}
        self.blocks = row_blocks(n_rows)
        self.fired: AnyArray = np.empty((len(self.blocks), shape.n_hidden), model.dtype)
        self.sums = BlockSums(len(self.blocks), shapes, model.dtype)
        self.totals = Parameters(shapes, np.float64)
        self.gradient = self.totals.vector[: model.parameters.vector.size]


class _Steps:
    """Steps from a state on, on a model of their own.

    Few calls of NumPy, without allocation: with single examples they are all the time.
    """

    def __init__(
        self, cost: ShardedCost, config: SparseConfig, state: SGDState, total: int
    ) -> None:
        self._cost, self._config, self._total = cost, config, total
        self._model = SparseAutoencoder(cost.model.shape, cost.model.dtype)
        parameters = self._model.parameters
        parameters.vector[:] = state.position
        self._decaying = [parameters[name] for name in ("weights", "decode_weights")]
        self._hidden_bias = parameters["hidden_bias"]
        self.position: Array64 = parameters.vector
        self.mean, self.examples = state.mean_activation.copy(), state.examples
        # The paper's update of the biases stands for the term's slope.
        paper = config.sgd_sparsity == "bias"
        self._sparsity = Sparsity(0.0, 0.5) if paper else cost.sparsity
        self._rooms: dict[int, _Room] = {}
        self._minibatches = _minibatches(cost, config, state.examples)

    def run(self, until: int) -> None:
        """Take steps until so many examples were met."""
        # Infinities are met where the rate is too high: the next evaluation tells.
        with np.errstate(over="ignore", invalid="ignore"):
            while self.examples < until:
                self._step(next(self._minibatches))

    def _step(self, x: AnyArray) -> None:
        config, n = self._config, len(x)
        rate = config.learning_rate * course("linear", self.examples, self._total)
        if n not in self._rooms:
            self._rooms[n] = _Room(self._model, n)
        room = self._rooms[n]
        self._model.fire(x, room.blocks, room.fired)
        self._update_mean(np.add.reduce(room.fired, dtype=np.float64), n)
        slopes = [self._sparsity.slope(self.mean)] * len(room.blocks)
        self._model.backpropagate(x, room.blocks, lambda: slopes, room.sums)
        np.add.reduce(room.sums.table, dtype=np.float64, out=room.totals.vector)
        self._model.finish(room.totals)
        gradient = room.gradient
        gradient *= rate / n
        for weights in self._decaying:
            weights *= 1 - rate * config.weight_decay
        self.position -= gradient
        if config.sgd_sparsity == "bias":
            # b_i ← b_i − α β (ρ̂_i − ρ): Lahiri et al. 2010 §2.
            pull = rate * config.sgd_bias_weight
            self._hidden_bias -= pull * (self.mean - config.sparsity_target)
        self.examples += n

    def _update_mean(self, firing: AnyArray, n: int) -> None:
        """Let a minibatch of n rows into the running mean."""
        kept = self._config.memory**n
        self.mean *= kept
        self.mean += (1 - kept) / n * firing


def _minibatches(
    cost: ShardedCost, config: SparseConfig, examples: int
) -> Iterator[AnyArray]:
    """Yield all rows of each minibatch after so many examples. Collective."""
    n_rows, size = cost.n_rows, config.minibatch
    strata = Strata.of_rank(n_rows, size, 0, 1)
    first, done = divmod(examples, n_rows)
    for number in count(first):
        epoch = strata.minibatches(config.seed, number, size)
        left = islice(epoch, done // size, None)
        while some := list(islice(left, max(1, _AHEAD // size))):
            rows, start = _collected(cost, np.concatenate(some)), 0
            for one in some:
                yield rows[start : start + len(one)]
                start += len(one)
        done = 0


def _collected(cost: ShardedCost, chosen: AnyArray) -> AnyArray:
    """Return these rows, counted over all ranks, from whoever has them. Collective.

    A rank that wants to stop says so here, and all do.
    """
    comm, held, stops = cost.comm, cost.rows, cost.time_over()
    if comm.size == 1:
        rows: AnyArray = np.asarray(held[chosen])
    else:
        places = chosen - cost.first
        own = np.flatnonzero((places >= 0) & (places < len(held)))
        # As integers: sums with 0 that keep every bit.
        size = len(chosen) * held.shape[1]
        message = np.zeros(size + 1, f"i{np.dtype(cost.model.dtype).itemsize}")
        rows = message[:size].view(cost.model.dtype).reshape(len(chosen), -1)
        rows[own] = np.asarray(held[places[own]])
        message[size] = stops
        sum_over_ranks(comm, message)
        stops = bool(message[size])
    if stops:
        raise Enough("time")
    return rows
