"""L-BFGS: a quasi-Newton method that remembers its last few steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Self

import numpy as np

from mpilayer.arrays import Array64
from mpilayer.optim.search import Objective, Point, State, dot, evaluate, wolfe_search

_CURVATURE = float(np.finfo(np.float64).eps)
"""A pair is remembered if sᵀy > this · yᵀy."""


@dataclass(frozen=True)
class Pair:
    """One step s, the change y of the gradient it made, and sᵀy > 0."""

    step: Array64
    change: Array64
    product: float


@dataclass(frozen=True)
class LBFGSState(State):
    """Where L-BFGS is.

    Attributes
    ----------
    pairs : tuple of Pair
        What is remembered, the oldest first. States share the pairs' arrays.
    """

    pairs: tuple[Pair, ...] = ()

    @staticmethod
    def start(position: Array64, objective: Objective) -> "LBFGSState":
        """Evaluate a first position; collective if the objective is."""
        point = evaluate(objective, np.array(position, np.float64))
        return LBFGSState(**vars(point))

    @property
    def steps(self) -> Array64:
        """Differences of successive positions (n_pairs, n): a copy, oldest first."""
        return self._table([pair.step for pair in self.pairs])

    @property
    def changes(self) -> Array64:
        """Differences of successive gradients (n_pairs, n): a copy, oldest first."""
        return self._table([pair.change for pair in self.pairs])

    def _table(self, rows: list[Array64]) -> Array64:
        return np.array(rows).reshape(len(rows), len(self.position))

    def arrays(self) -> dict[str, Array64]:
        """Return the arrays that a checkpoint needs."""
        return {**super().arrays(), "steps": self.steps, "changes": self.changes}

    @classmethod
    def restore(
        cls, arrays: Mapping[str, Array64], numbers: Mapping[str, float | int]
    ) -> Self:
        """Return the state with these ``arrays()`` and ``numbers()``."""
        rows = zip(arrays["steps"], arrays["changes"], strict=True)
        return cls(
            position=arrays["position"],
            cost=float(numbers["cost"]),
            gradient=arrays["gradient"],
            pairs=tuple(Pair(s, y, dot(s, y)) for s, y in rows),
            iteration=int(numbers["iteration"]),
        )


def lbfgs(
    objective: Objective, state: LBFGSState, corrections: int = 10
) -> Iterator[LBFGSState]:
    """Yield the state after each iteration, until no step lowers the cost any more.

    Collective if the objective is; decisions depend on its results only.

    Parameters
    ----------
    objective : Objective
        Cost and gradient; what it raises passes through, and the state yielded last
        stays whole.
    state : LBFGSState
        Where to begin or to go on; going on gives the bits of an unbroken run.
    corrections : int
        How many pairs are remembered, at least 1.

    Notes
    -----
    Nocedal and Wright 2006, Algorithms 7.4 and 7.5, with c₁ = 0.001 and c₂ = 0.9. A
    search that fails is tried once more without memory, along the gradient.
    """
    while True:
        end = _search(objective, state)
        if end is None and state.pairs:
            state = replace(state, pairs=())
            end = _search(objective, state)
        if end is None:
            return
        state = _after(state, end, corrections)
        yield state


def _search(objective: Objective, state: LBFGSState) -> Point | None:
    """Return where the search along the quasi-Newton direction ends."""
    if state.pairs:
        return wolfe_search(objective, state, -_newton(state), step=1.0)
    # The scale of the problem is unknown yet: try a step of length 1.
    norm = sqrt(dot(state.gradient, state.gradient))
    step = 1 / norm if norm > 0 else 1.0
    return wolfe_search(objective, state, -state.gradient, step)


def _newton(state: LBFGSState) -> Array64:
    """Return the approximate inverse Hessian times the gradient: the two loops."""
    q, scratch = state.gradient.copy(), np.empty_like(state.gradient)
    factors = []
    for pair in reversed(state.pairs):
        factor = dot(pair.step, q) / pair.product
        q -= np.multiply(pair.change, factor, out=scratch)
        factors.append(factor)
    last = state.pairs[-1]
    q *= last.product / dot(last.change, last.change)
    for pair, factor in zip(state.pairs, reversed(factors), strict=True):
        factor -= dot(pair.change, q) / pair.product
        q += np.multiply(pair.step, factor, out=scratch)
    return q


def _after(state: LBFGSState, end: Point, corrections: int) -> LBFGSState:
    """Return the state after a step, which is remembered if the cost curves upwards."""
    step, change = end.position - state.position, end.gradient - state.gradient
    pairs, product = state.pairs, dot(step, change)
    if product > _CURVATURE * dot(change, change):
        pairs = (*pairs, Pair(step, change, product))[-corrections:]
    return LBFGSState(**vars(end), pairs=pairs, iteration=state.iteration + 1)
