"""L-BFGS: a quasi-Newton method that remembers its last few steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from mpilayer.arrays import Array64
from mpilayer.optim.search import Objective, Point, dot, evaluate, wolfe_search

_CURVATURE = float(np.finfo(np.float64).eps)
"""A pair is remembered if sᵀy > this · yᵀy."""


@dataclass(frozen=True)
class LBFGSState:
    """All that decides the further course; never changed once made.

    Attributes
    ----------
    position, gradient : Array64
        (n,) Where the last iteration ended, and the gradient there.
    cost : float
        The cost there.
    steps, changes : Array64
        (n_pairs, n) Differences of successive positions and of their gradients, the
        oldest first.
    iteration : int
        How many iterations were made.
    """

    position: Array64
    cost: float
    gradient: Array64
    steps: Array64
    changes: Array64
    iteration: int = 0

    @staticmethod
    def start(position: Array64, objective: Objective) -> "LBFGSState":
        """Evaluate a first position; collective if the objective is."""
        point = evaluate(objective, np.array(position, np.float64))
        none = np.empty((0, len(point.position)))
        return LBFGSState(point.position, point.cost, point.gradient, none, none)

    def arrays(self) -> dict[str, Array64]:
        """Return the arrays that a checkpoint needs."""
        return {
            "position": self.position,
            "gradient": self.gradient,
            "steps": self.steps,
            "changes": self.changes,
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
            steps=arrays["steps"],
            changes=arrays["changes"],
            iteration=int(numbers["iteration"]),
        )


def lbfgs(
    objective: Objective, state: LBFGSState, corrections: int = 10
) -> Iterator[LBFGSState]:
    """Yield the state after each iteration, until no step lowers the cost any more.

    Parameters
    ----------
    objective : Objective
        Cost and gradient; what it raises passes through, and the state yielded last
        stays whole.
    state : LBFGSState
        Where to begin or to go on; going on gives the same bits as never having stopped.
    corrections : int
        How many pairs are remembered.

    Notes
    -----
    Nocedal and Wright 2006, Algorithms 7.4 and 7.5.
    """
    while True:
        start = Point(state.position, state.cost, state.gradient)
        direction = -_product(state)
        step = 1.0 if len(state.steps) else _first_step(state.gradient)
        end = wolfe_search(objective, start, direction, step)
        if end is None and len(state.steps):
            none = state.steps[:0]
            state = LBFGSState(*_fields(start), none, none, state.iteration)
            step = _first_step(state.gradient)
            end = wolfe_search(objective, start, -state.gradient, step)
        if end is None:
            return
        state = _after(state, end, corrections)
        yield state


def _fields(point: Point) -> tuple[Array64, float, Array64]:
    return point.position, point.cost, point.gradient


def _first_step(gradient: Array64) -> float:
    """Return the multiple of the gradient that has length 1."""
    norm = float(np.sqrt(dot(gradient, gradient)))
    return 1 / norm if norm > 0 else 1.0


def _product(state: LBFGSState) -> Array64:
    """Return the approximate inverse Hessian times the gradient: the two loops."""
    q = state.gradient.copy()
    if not len(state.steps):
        return q
    pairs = list(zip(state.steps, state.changes, strict=True))
    rho = [1 / dot(s, y) for s, y in pairs]
    alpha = [0.0] * len(pairs)
    for i in reversed(range(len(pairs))):
        s, y = pairs[i]
        alpha[i] = rho[i] * dot(s, q)
        q -= alpha[i] * y
    s, y = pairs[-1]
    q *= dot(s, y) / dot(y, y)
    for i, (s, y) in enumerate(pairs):
        q += (alpha[i] - rho[i] * dot(y, q)) * s
    return q


def _after(state: LBFGSState, end: Point, corrections: int) -> LBFGSState:
    """Return the state after a step, which is remembered if it curves upwards."""
    step, change = end.position - state.position, end.gradient - state.gradient
    steps, changes = state.steps, state.changes
    if dot(step, change) > _CURVATURE * dot(change, change):
        steps = np.concatenate([steps, step[None]])[-corrections:]
        changes = np.concatenate([changes, change[None]])[-corrections:]
    return LBFGSState(*_fields(end), steps, changes, state.iteration + 1)
