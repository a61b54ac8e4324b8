"""Optimizers at work on the sharded cost, until a limit is reached."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isinf
from typing import Any, Protocol, TypeVar

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig
from mpilayer.errors import TrainingError
from mpilayer.optim.cg import CGState, conjugate_gradient
from mpilayer.optim.lbfgs import LBFGSState, lbfgs
from mpilayer.train.sgd import SGDState, descend_on_minibatches
from mpilayer.train.sparse import Enough, ShardedCost


class State(Protocol):
    """What all optimizers' states have; see :mod:`mpilayer.optim`."""

    @property
    def position(self) -> Array64:
        """The parameter vector."""

    @property
    def cost(self) -> float:
        """The cost there."""

    @property
    def gradient(self) -> Array64:
        """The gradient there."""

    @property
    def iteration(self) -> int:
        """Iterations done."""

    def arrays(self) -> dict[str, Array64]:
        """Return the arrays that a checkpoint needs."""

    def numbers(self) -> dict[str, float | int]:
        """Return the numbers that a checkpoint needs."""


S = TypeVar("S", bound=State)

_STATES: dict[str, type[LBFGSState] | type[CGState] | type[SGDState]] = {
    "lbfgs": LBFGSState,
    "cg": CGState,
    "sgd": SGDState,
}


class Descent:
    """An optimizer at work on a sharded cost, until a limit of the configuration.

    Parameters
    ----------
    cost : ShardedCost
        Collective on its ranks.
    config : SparseConfig
        The optimizer and the limits.

    Attributes
    ----------
    state : State or None
        The last complete iteration.
    evaluations : int
        Of the cost until then; those that come after it are made again.
    stopped_by : str
        Why it ended, in words.
    """

    def __init__(self, cost: ShardedCost, config: SparseConfig) -> None:
        self.cost = cost
        self.config = config
        self.state: State | None = None
        self.evaluations = cost.evaluations
        self.stopped_by = ""

    def arrays(self) -> dict[str, AnyArray]:
        """Return the arrays that a checkpoint needs; nothing changes them any more."""
        parameters, state = self.cost.model.parameters, self.state
        if state is None:
            return parameters.split({"parameters": parameters.vector})
        own = {f"optimizer/{name}": array for name, array in state.arrays().items()}
        return {**parameters.split({"parameters": state.position}), **own}

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that a checkpoint needs, and what the model is."""
        own = self.state.numbers() if self.state else {}
        return {
            "evaluations": self.evaluations,
            **asdict(self.cost.model.shape),
            **{f"optimizer_{name}": number for name, number in own.items()},
        }

    def restore(
        self, arrays: Mapping[str, AnyArray], numbers: Mapping[str, Any]
    ) -> None:
        """Go where the descent with these ``arrays()`` and ``numbers()`` was."""
        state = _STATES[self.config.optimizer].restore(
            _without(arrays, "optimizer/"), _without(numbers, "optimizer_")
        )
        self.state = state
        self.evaluations = self.cost.evaluations = int(numbers["evaluations"])
        self.cost.iteration = state.iteration
        self.cost.model.parameters.vector[:] = state.position

    def states(self, first: State | None = None) -> Iterator[State]:
        """Yield the state after each iteration, the first before any. Collective.

        Parameters
        ----------
        first : State, optional
            A state of the same optimizer to go on from; else training begins where the
            model's parameters are.

        Raises
        ------
        TrainingError
            See ``ShardedCost``; ``state`` is the last good one. Or the first cost is
            infinite: no line search gets away from there.
        """
        try:
            for state in self._iterate(first):
                before, self.state = self.state, state
                self.evaluations = self.cost.evaluations
                self.cost.iteration = state.iteration
                yield state
                if reason := self._reason(before, state):
                    self.stopped_by = reason
                    return
            self.stopped_by = "no step lowers the cost any more"
        except Enough as limit:
            self.stopped_by = str(limit)

    def _iterate(self, first: State | None) -> Iterator[State]:
        config, cost = self.config, self.cost
        begin = cost.model.parameters.vector.copy()
        if config.optimizer == "lbfgs":
            state = _as(LBFGSState, first) or LBFGSState.start(begin, self._evaluate)
            yield _finite(state)
            yield from lbfgs(self._evaluate, state, config.corrections)
        elif config.optimizer == "cg":
            cg = _as(CGState, first) or CGState.start(begin, self._evaluate)
            yield _finite(cg)
            yield from conjugate_gradient(self._evaluate, cg)
        else:
            sgd = _as(SGDState, first) or SGDState.start(begin, self._evaluate, cost)
            yield sgd
            yield from descend_on_minibatches(cost, self._evaluate, config, sgd)

    def _evaluate(self, position: Array64) -> tuple[float, Array64]:
        """Evaluate the cost unless a limit is reached; equal on all ranks."""
        if self.cost.stopping:
            raise Enough("time")
        if self.cost.evaluations >= self.config.evaluations:
            raise Enough("evaluations")
        return self.cost(position)

    def _reason(self, before: State | None, state: State) -> str:
        config = self.config
        if config.iterations and state.iteration >= config.iterations:
            return "iterations"
        norm = np.sqrt(np.vdot(state.gradient, state.gradient))
        if norm <= config.gradient_norm:
            return "a small gradient"
        is_new = before is not None and before.iteration < state.iteration
        if before is not None and is_new and config.decrease:
            decrease = before.cost - state.cost
            if decrease <= config.decrease * abs(state.cost):
                return "a small decrease"
        return ""


def _without(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values whose names begin with a prefix, by the rest of their names."""
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}


def _finite(state: S) -> S:
    """Return the first state of a line search if its cost is finite, on all ranks."""
    if isinf(state.cost):
        error = TrainingError(
            "the first cost must be finite; found infinity: a unit never fires, or "
            "always, or the data are too large. Take other first weights (--seed, "
            "--initial), --dtype float64, or scale the data."
        )
        error.collective = True
        raise error
    return state


def _as(kind: type[S], state: State | None) -> S | None:
    """Return a state as the one its optimizer goes on from.

    Raises
    ------
    TypeError
        It is that of another optimizer.
    """
    if state is not None and not isinstance(state, kind):
        raise TypeError(f"needs {kind.__name__}; got {type(state).__name__}")
    return state
