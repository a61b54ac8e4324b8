"""Descent of a sparse autoencoder on minibatches, with the paper's bias update."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isinf
from typing import Self

import numpy as np

from mpilayer.arrays import Array64
from mpilayer.config import SparseConfig
from mpilayer.numerics.parameters import Parameters
from mpilayer.optim.search import Objective
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.sparse import Enough, ShardedCost
from mpilayer.train.strata import Strata


@dataclass(frozen=True)
class SGDState:
    """All that decides the further course; never changed once made.

    Attributes
    ----------
    position, gradient : ndarray (n,)
        The parameters after the last pass, and the gradient of the whole cost there.
    cost : float
        The cost there.
    mean_activation : ndarray (n_hidden,)
        Running mean of the firing probabilities.
    iteration : int
        Passes over the data.
    """

    position: Array64
    cost: float
    gradient: Array64
    mean_activation: Array64
    iteration: int = 0

    @staticmethod
    def start(position: Array64, evaluate: Objective, cost: ShardedCost) -> "SGDState":
        """Evaluate a first position; collective."""
        value, gradient = evaluate(position)
        return SGDState(position, value, gradient, cost.mean_activation.copy())

    def arrays(self) -> dict[str, Array64]:
        """Return the arrays that a checkpoint needs."""
        return {
            "position": self.position,
            "gradient": self.gradient,
            "mean_activation": self.mean_activation,
        }

    def numbers(self) -> dict[str, float | int]:
        """Return the numbers that a checkpoint needs."""
        return {"cost": self.cost, "iteration": self.iteration}

    @classmethod
    def restore(
        cls, arrays: Mapping[str, Array64], numbers: Mapping[str, float | int]
    ) -> Self:
        """Return the state with these ``arrays()`` and ``numbers()``."""
        return cls(
            position=arrays["position"],
            cost=float(numbers["cost"]),
            gradient=arrays["gradient"],
            mean_activation=arrays["mean_activation"],
            iteration=int(numbers["iteration"]),
        )


def descend_by_passes(
    cost: ShardedCost, evaluate: Objective, config: SparseConfig, state: SGDState
) -> Iterator[SGDState]:
    """Yield the state after each pass over all rows. Collective.

    Parameters
    ----------
    cost : ShardedCost
        Its rows must be those of this rank's strata.
    evaluate : callable
        Evaluates the cost after each pass, or raises ``Enough``.
    config : SparseConfig
        Minibatch, learning rate, memory of the running mean, seed.
    state : SGDState
        Where to begin or go on; going on gives the same bits.

    Raises
    ------
    TrainingError
        The steps lead to infinity; on all ranks.

    Notes
    -----
    Lahiri et al. 2010 §2: the gradient of a minibatch has no sparsity term; instead
    every step moves the hidden biases by −learning rate · λ_ρ (ρ̂ − ρ), where ρ̂ is a
    running mean of the activations. So the steps are the same for every ``kl``.
    """
    passes = _Passes(cost, config)
    while True:
        position, mean_activation = passes.run(state)
        value, gradient = evaluate(position)
        if cost.latest and isinf(cost.latest.reconstruction + cost.latest.decay):
            raise cost.no_number()
        state = SGDState(
            position, value, gradient, mean_activation, state.iteration + 1
        )
        yield state


class _Passes:
    def __init__(self, cost: ShardedCost, config: SparseConfig) -> None:
        self._cost, self._config, self._model = cost, config, cost.model
        comm = cost.comm
        self._strata = Strata.of_rank(
            cost.n_rows, config.minibatch, comm.rank, comm.size
        )
        n_hidden = self._model.shape.n_hidden
        # The gradient comes first: its part of the vector is that of the parameters.
        self._message = Parameters(
            {**self._model.parameters.shapes, "firing": (n_hidden,), "stop": (1,)},
            np.float64,
        )
        self._no_slope = np.zeros(n_hidden)

    def run(self, state: SGDState) -> tuple[Array64, Array64]:
        """Take the steps of one pass; return the position and the running mean."""
        config, n_rows = self._config, self._cost.n_rows
        self._model.parameters.vector[:] = state.position
        mean = state.mean_activation.copy()
        minibatches = self._strata.minibatches(
            config.seed, state.iteration, config.minibatch
        )
        for step, rows in enumerate(minibatches):
            n = min(config.minibatch, n_rows - step * config.minibatch)
            self._add_up(self._cost.rows[rows])
            self._step(n, mean)
        return self._model.parameters.vector.copy(), mean

    def _add_up(self, x: Array64) -> None:
        """Sum gradient and firing of a minibatch over all ranks."""
        message = self._message
        message["stop"][0] = self._cost.time_over()
        with np.errstate(over="ignore", invalid="ignore"):
            message["firing"][:] = self._model.fire(x)
            self._model.backpropagate(x, lambda: self._no_slope, message)
        sum_over_ranks(self._cost.comm, message.vector)
        if message["stop"][0]:
            raise Enough("time")

    def _step(self, n: int, mean: Array64) -> None:
        """Move the parameters; update the running mean in place."""
        config, p, message = self._config, self._model.parameters, self._message
        gradient = message.vector[: p.vector.size]
        gradient /= n
        for name in ("weights", "decode_weights"):
            message[name][:] += config.weight_decay * p[name]
        p.vector -= config.learning_rate * gradient
        kept = config.memory**n
        mean *= kept
        mean += (1 - kept) / n * message["firing"]
        pull = config.sparsity_weight * (mean - config.sparsity_target)
        p["hidden_bias"][:] -= config.learning_rate * pull
