"""The search along a line that L-BFGS and conjugate gradients share.

An evaluation may cost tens of milliseconds and a collective call, so that the search asks
for cost and gradient together, never twice at a position, and takes the first step that
fulfils the strong Wolfe conditions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import TypeAlias

import numpy as np

from mpilayer.arrays import Array64

Objective: TypeAlias = Callable[[Array64], tuple[float, Array64]]
"""Cost and gradient at a position; collective where data are sharded, and equal to the
bit on all ranks. A cost of infinity means: too far. Neither keeps nor changes the
position; may return the same array, filled anew, as the gradient."""

_TRIALS = 20
"""Evaluations in one search; who needs more stands in the noise."""

_GROWTH = (2.0, 10.0)
"""While nothing is known to be too far, the step grows by a factor between these."""

_MARGIN = 0.1
"""A step between two known ones keeps this part of their distance from both."""


@dataclass(frozen=True)
class Point:
    """A position that was evaluated, with what was found there."""

    position: Array64
    cost: float
    gradient: Array64


def evaluate(objective: Objective, position: Array64) -> Point:
    """Return the point at a position; collective if the objective is."""
    cost, gradient = objective(position)
    return Point(position, float(cost), np.array(gradient, np.float64))


def dot(a: Array64, b: Array64) -> float:
    """Return the inner product."""
    return float(np.dot(a, b))


@dataclass(frozen=True)
class _Trial:
    """A step along the line: cost and slope there, both finite or the step too far."""

    step: float
    cost: float
    slope: float
    point: Point

    @property
    def finite(self) -> bool:
        return isfinite(self.cost) and isfinite(self.slope)


def wolfe_search(
    objective: Objective,
    start: Point,
    direction: Array64,
    step: float,
    decrease: float = 1e-3,
    curvature: float = 0.9,
) -> Point | None:
    """Return the first point found along a line that fulfils the strong Wolfe conditions.

    Collective if the objective is; decisions depend on its results only.

    Parameters
    ----------
    start : Point
        Where the line begins.
    direction : Array64
        Any length; the cost must fall along it.
    step : float
        First multiple of ``direction`` to try.
    decrease, curvature : float
        c₁ and c₂: cost(t) ≤ cost(0) + c₁ t slope(0) and |slope(t)| ≤ c₂ |slope(0)|.

    Returns
    -------
    Point or None
        None if there is no such point within reach, or ``direction`` leads upwards.
    """
    slope = dot(start.gradient, direction)
    if not slope < 0:
        return None
    low, high = _Trial(0.0, start.cost, slope, start), None
    for _ in range(_TRIALS):
        point = evaluate(objective, start.position + step * direction)
        trial = _Trial(step, point.cost, dot(point.gradient, direction), point)
        bound = start.cost + decrease * step * slope
        if not trial.finite or trial.cost > bound or trial.cost >= low.cost:
            high = trial
        elif abs(trial.slope) <= -curvature * slope:
            return point
        else:
            if high is None:
                backwards = trial.slope > 0
            else:
                backwards = trial.slope * (high.step - low.step) >= 0
            if backwards:
                high = low
            previous, low = low, trial
            if high is None:
                step = _beyond(previous, low)
                continue
        step = _between(low, high)
    return None


def _beyond(previous: _Trial, last: _Trial) -> float:
    """Return a longer step, where the cubic through both trials has its minimum."""
    least, most = (factor * last.step for factor in _GROWTH)
    minimum = _cubic_minimum(previous, last)
    if minimum is None or minimum < last.step:
        return most
    return min(max(minimum, least), most)


def _between(low: _Trial, high: _Trial) -> float:
    """Return a step between two, where the cubic through both has its minimum."""
    width = high.step - low.step
    if not high.finite:
        return low.step + _MARGIN * width
    minimum = _cubic_minimum(low, high)
    part = 0.5 if minimum is None else (minimum - low.step) / width
    return low.step + min(max(part, _MARGIN), 1 - _MARGIN) * width


def _cubic_minimum(a: _Trial, b: _Trial) -> float | None:
    """Return the minimum of the cubic with two trials' costs and slopes, if it has one.

    Nocedal and Wright 2006, equation 3.59.
    """
    width = b.step - a.step
    d1 = a.slope + b.slope - 3 * (b.cost - a.cost) / width
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return None
    d2 = sqrt(square) if width > 0 else -sqrt(square)
    bottom = b.slope - a.slope + 2 * d2
    if bottom == 0:
        return None
    return b.step - width * (b.slope + d2 - d1) / bottom
