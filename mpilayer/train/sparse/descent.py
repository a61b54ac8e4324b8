"""Optimizers at work on the sharded cost, until a limit is reached."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isinf
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig
from mpilayer.errors import TrainingError
from mpilayer.optim.cg import CGState, conjugate_gradient
from mpilayer.optim.lbfgs import LBFGSState, lbfgs
from mpilayer.optim.search import Iterate
from mpilayer.train.sparse.cost import Enough, ShardedCost
from mpilayer.train.sparse.sgd import SGDState, sgd

_KINDS: dict[str, type[Iterate]] = {
    "lbfgs": LBFGSState,
    "cg": CGState,
    "sgd": SGDState,
}


class Descent:
    """An optimizer at work on a sharded cost, until a limit of the configuration.

    ``state`` is that after the last complete iteration, and ``evaluations`` are those
    until then: what comes after is made again. ``stopped_by`` says why it ended.
    """

    def __init__(self, cost: ShardedCost, config: SparseConfig) -> None:
        self.cost = cost
        self.config = config
        self.state: Iterate | None = None
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
        state = _KINDS[self.config.optimizer].restore(
            _without(arrays, "optimizer/"), _without(numbers, "optimizer_")
        )
        self.state = state
        self.evaluations = self.cost.evaluations = int(numbers["evaluations"])
        self.cost.iteration = state.iteration
        self.cost.model.parameters.vector[:] = state.position

    def states(self) -> Iterator[Iterate]:
        """Yield the state after each iteration, the first before any. Collective.

        Training goes on from ``state``; without one it begins where the model's
        parameters are.

        Raises
        ------
        TrainingError
            See ``ShardedCost``; ``state`` is the last good one. Or the first cost is
            infinite: no line search gets away from there.
        """
        try:
            for state in self._iterate():
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

    def _iterate(self) -> Iterator[Iterate]:
        state = self.state or self._start()
        if isinstance(state, SGDState):
            yield state
            yield from sgd(self.cost, self._evaluate, self.config, state)
            return
        if isinf(state.cost):
            raise TrainingError(
                "the first cost must be finite; found infinity: a unit never fires, or "
                "always, or the data are too large. Take other first weights (--seed, "
                "--initial), --dtype float64, or scale the data."
            ).of_all_ranks()
        yield state
        if isinstance(state, CGState):
            yield from conjugate_gradient(self._evaluate, state)
        elif isinstance(state, LBFGSState):
            yield from lbfgs(self._evaluate, state, self.config.corrections)

    def _start(self) -> Iterate:
        begin = self.cost.model.parameters.vector.copy()
        if self.config.optimizer == "sgd":
            return SGDState.first(begin, self._evaluate, self.cost)
        return _KINDS[self.config.optimizer].start(begin, self._evaluate)

    def _evaluate(self, position: Array64) -> tuple[float, Array64]:
        """Evaluate the cost unless a limit is reached; equal on all ranks."""
        if self.cost.stopping:
            raise Enough("time")
        if self.cost.evaluations >= self.config.evaluations:
            raise Enough("evaluations")
        return self.cost(position)

    def _reason(self, before: Iterate | None, state: Iterate) -> str:
        """Return which limit an iteration has reached; bit-equal on all ranks."""
        config = self.config
        if config.iterations and state.iteration >= config.iterations:
            return "iterations"
        norm = np.sqrt(np.vdot(state.gradient, state.gradient))
        if norm <= config.gradient_norm:
            return "a small gradient"
        if before is None or before.iteration == state.iteration or not config.decrease:
            return ""
        small = before.cost - state.cost <= config.decrease * abs(state.cost)
        return "a small decrease" if small else ""


def _without(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values whose names begin with a prefix, by the rest of their names."""
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}
