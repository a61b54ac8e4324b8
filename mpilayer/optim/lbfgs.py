"""L-BFGS: a quasi-Newton method that remembers its last few steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Self

import numpy as np

from mpilayer.arrays import Array64
from mpilayer.optim.search import Iterate, Objective, Point, dot, wolfe_search

_CURVATURE = float(np.finfo(np.float64).eps)
"""A pair is remembered if sᵀy > this · yᵀy."""


@dataclass(frozen=True)
class Pair:
    """One step s, the change y of the gradient it made, and sᵀy > 0."""

    step: Array64
    change: Array64
    product: float


@dataclass(frozen=True, kw_only=True)
class LBFGSState(Iterate):
    """Where an iteration has ended, and what is remembered, the oldest pair first.

    States share the pairs' arrays. In a checkpoint they are two tables (n_pairs, n),
    ``steps`` and ``changes``.
    """

    pairs: tuple[Pair, ...] = ()

    def arrays(self) -> dict[str, Array64]:
        """Return the arrays that a checkpoint needs."""
        shape = len(self.pairs), len(self.position)
        steps = np.array([pair.step for pair in self.pairs]).reshape(shape)
        changes = np.array([pair.change for pair in self.pairs]).reshape(shape)
        return {**super().arrays(), "steps": steps, "changes": changes}

    @classmethod
    def restore(
        cls, arrays: Mapping[str, Array64], numbers: Mapping[str, float | int]
    ) -> Self:
        """Return the state with these ``arrays()`` and ``numbers()``."""
        rows = zip(arrays["steps"], arrays["changes"], strict=True)
        pairs = tuple(Pair(s, y, dot(s, y)) for s, y in rows)
        return cls(**vars(Iterate.restore(arrays, numbers)), pairs=pairs)


def lbfgs(
    objective: Objective, state: LBFGSState, corrections: int = 10
) -> Iterator[LBFGSState]:
    """Yield the state after each iteration, until no step lowers the cost any more.

    ``corrections`` pairs are remembered, at least 1. Going on from any state gives the
    bits of an unbroken run. What the objective raises passes through, and the state
    yielded last stays whole. Collective if the objective is; decisions depend on its
    results only.

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
    """Return the approximate inverse Hessian times the gradient."""
    # Algorithm 7.4, the two loops; (7.20) for the first approximation.
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
        # (7.18): s = x_{k+1} − x_k, y = g_{k+1} − g_k.
        pairs = (*pairs, Pair(step, change, product))[-corrections:]
    n = state.iteration + 1
    return LBFGSState(end.position, end.cost, end.gradient, n, pairs=pairs)
