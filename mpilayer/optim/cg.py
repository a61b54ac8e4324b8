"""Nonlinear conjugate gradients: needs one vector of memory, and more evaluations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Self

import numpy as np

from mpilayer.arrays import Array64
from mpilayer.optim.search import Objective, Point, dot, evaluate, wolfe_search


@dataclass(frozen=True)
class CGState:
    """All that decides the further course; never changed once made.

    Attributes
    ----------
    position, gradient : Array64
        (n,) Where the last iteration ended, and the gradient there.
    cost : float
        The cost there.
    direction : Array64
        (n,) Where the next iteration searches.
    previous_cost : float
        The cost one iteration earlier, infinite at the start: it decides the first step
        that the next iteration tries.
    iteration : int
        How many iterations were made.
    """

    position: Array64
    cost: float
    gradient: Array64
    direction: Array64
    previous_cost: float = inf
    iteration: int = 0

    @staticmethod
    def start(position: Array64, objective: Objective) -> "CGState":
        """Evaluate a first position; collective if the objective is."""
        point = evaluate(objective, np.array(position, np.float64))
        return CGState(point.position, point.cost, point.gradient, -point.gradient)

    def arrays(self) -> dict[str, Array64]:
        """Return the arrays that a checkpoint needs."""
        return {
            "position": self.position,
            "gradient": self.gradient,
            "direction": self.direction,
        }

    def numbers(self) -> dict[str, float | int]:
        """Return the numbers that a checkpoint needs."""
        return {
            "cost": self.cost,
            "previous_cost": self.previous_cost,
            "iteration": self.iteration,
        }

    @classmethod
    def restore(
        cls, arrays: Mapping[str, Array64], numbers: Mapping[str, float | int]
    ) -> Self:
        """Return the state with these ``arrays()`` and ``numbers()``."""
        return cls(
            position=arrays["position"],
            cost=float(numbers["cost"]),
            gradient=arrays["gradient"],
            direction=arrays["direction"],
            previous_cost=float(numbers["previous_cost"]),
            iteration=int(numbers["iteration"]),
        )


def conjugate_gradient(objective: Objective, state: CGState) -> Iterator[CGState]:
    """Yield the state after each iteration, until no step lowers the cost any more.

    Parameters
    ----------
    objective : Objective
        Cost and gradient; what it raises passes through, and the state yielded last
        stays whole.
    state : CGState
        Where to begin or to go on; going on gives the same bits as never having stopped.
    """
    while True:
        start = Point(state.position, state.cost, state.gradient)
        end = None
        for direction in (state.direction, -state.gradient):
            step = _first_step(state, direction)
            end = wolfe_search(objective, start, direction, step, 1e-4, 0.2)
            if end is not None:
                break
        if end is None:
            return
        state = CGState(
            end.position,
            end.cost,
            end.gradient,
            _next_direction(direction, start.gradient, end.gradient),
            start.cost,
            state.iteration + 1,
        )
        yield state


def _first_step(state: CGState, direction: Array64) -> float:
    """Return the step that repeats the last decrease, or one of length 1."""
    slope = dot(state.gradient, direction)
    if isfinite(state.previous_cost) and slope < 0:
        return 2 * (state.cost - state.previous_cost) / slope
    norm = float(np.sqrt(dot(direction, direction)))
    return 1 / norm if norm > 0 else 1.0


def _next_direction(direction: Array64, before: Array64, after: Array64) -> Array64:
    """Return the conjugate direction, or steepest descent if it leads upwards."""
    beta = max(dot(after, after - before) / dot(before, before), 0.0)
    candidate = beta * direction - after
    return candidate if dot(candidate, after) < 0 else -after
