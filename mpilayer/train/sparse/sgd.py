"""Descent of a sparse autoencoder on minibatches; sparsity by a running mean."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from math import isinf
from typing import Self

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig
from mpilayer.errors import CheckpointError
from mpilayer.models.sparse import SparseAutoencoder, Sparsity
from mpilayer.optim.search import Iterate, Objective
from mpilayer.train.sparse.cost import Enough, ShardedCost
from mpilayer.train.strata import Strata
from mpilayer.train.sums import Sums

_EAGER = 0.002
"""Seconds for which a rank only offers its core: steps take far less."""


@dataclass(frozen=True, kw_only=True)
class SGDState(Iterate):
    """Where the whole cost was measured last, and with what the steps go on.

    Attributes
    ----------
    mean_activation : ndarray (n_hidden,)
        Running mean of the firing probabilities.
    examples : int
        Rows that all steps have met; the cost is measured once an iteration.
    """

    mean_activation: Array64
    examples: int = 0

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
    linearly to 0 over them. Going on from a state gives the same bits.

    Parameters
    ----------
    cost : ShardedCost
        Its rows must be those of this rank's strata. Its model is left alone.
    evaluate : callable
        Evaluates the cost of all rows.

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
        self._gradient, self._sums = parameters.like(), Sums(cost.comm, _EAGER)
        n_hidden = len(self.mean)
        # The paper's update of the biases stands for the term's slope.
        paper = config.sgd_sparsity == "bias"
        self._sparsity = Sparsity(0.0, 0.5) if paper else cost.sparsity
        # Σ firing, and whether a rank wants to stop.
        self._firing = np.zeros(n_hidden + 1)
        self._minibatches = self._from(state.examples)

    def run(self, until: int) -> None:
        """Take steps until so many examples were met."""
        # Infinities are met where the rate is too high: the next evaluation tells.
        with np.errstate(over="ignore", invalid="ignore"):
            while self.examples < until:
                rows, n = next(self._minibatches)
                self._step(rows, n)

    def _from(self, examples: int) -> Iterator[tuple[AnyArray, int]]:
        """Yield this rank's rows of each minibatch, and how many all ranks have."""
        cost, config = self._cost, self._config
        rows, n_rows, size = cost.rows, cost.n_rows, config.minibatch
        strata = Strata.of_rank(n_rows, size, cost.comm.rank, cost.comm.size)
        first, done = divmod(examples, n_rows)
        for number in count(first):
            minibatches = strata.minibatches(config.seed, number, size)
            for chosen in islice(minibatches, done // size, None):
                yield rows[chosen], min(size, n_rows - done)
                done += size
            done = 0

    def _step(self, x: AnyArray, n: int) -> None:
        config, gradient, sums = self._config, self._gradient, self._sums
        rate = config.learning_rate * (1 - self.examples / self._total)
        self._firing[:-1] = self._model.fire(x)
        self._firing[-1] = self._cost.time_over()
        # Travels during the output layer.
        sums.start(self._firing, lambda: self._update_mean(n))
        self._model.backpropagate(x, self._slope, gradient)
        sums.finish()  # where this rank has no rows, nobody has asked for the slope
        if self._firing[-1]:
            raise Enough("time")
        sums.start(gradient.vector)
        sums.finish()
        gradient.vector *= rate / n
        for weights in self._decaying:
            weights *= 1 - rate * config.weight_decay
        self.position -= gradient.vector
        if config.sgd_sparsity == "bias":
            # b_i ← b_i − α β (ρ̂_i − ρ): Lahiri et al. 2010 §2.
            pull = rate * config.sgd_bias_weight
            self._hidden_bias -= pull * (self.mean - config.sparsity_target)
        self.examples += n

    def _update_mean(self, n: int) -> None:
        """Let a minibatch of n rows into the running mean."""
        kept = self._config.memory**n
        self.mean *= kept
        self.mean += (1 - kept) / n * self._firing[:-1]

    def _slope(self) -> Array64:
        """Return the sparsity term's slope at the mean that the minibatch leaves."""
        self._sums.finish()
        return self._sparsity.slope(self.mean)
