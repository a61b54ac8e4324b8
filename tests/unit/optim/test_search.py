"""The line search: its conditions, and what it does at poles and in noise."""

import numpy as np
import pytest

from mpilayer.optim.search import Point, evaluate, wolfe_search

DIRECTION = np.array([1.0])


class Counted:
    """An objective that keeps the positions and costs it was asked for."""

    def __init__(self, function):
        self.function = function
        self.positions, self.costs = [], []

    def __call__(self, position):
        cost, gradient = self.function(position)
        self.positions.append(position.copy())
        self.costs.append(cost)
        return cost, gradient

    def assert_no_position_twice(self):
        assert len({x.tobytes() for x in self.positions}) == len(self.positions)

    def evaluations_to(self, cost):
        """Return how many evaluations it took to come down to a cost."""
        return next(i for i, c in enumerate(self.costs, start=1) if c <= cost)


def search(function, step, **conditions):
    """Search from 0 to the right; ``function`` gives cost and slope at a number."""
    objective = Counted(lambda x: (function(x[0])[0], np.array([function(x[0])[1]])))
    start = evaluate(objective, np.zeros(1))
    end = wolfe_search(objective, start, DIRECTION, step, **conditions)
    return end, objective


def bowl(x):
    return (x - 3) ** 2, 2 * (x - 3)


def wiggly(x):
    """Moré and Thuente 1994, their second function, beginning further on."""
    x = x + 0.4
    return x**5 - 2 * x**4, 5 * x**4 - 8 * x**3


def flat_start(x):
    """Moré and Thuente 1994, their first function."""
    return -x / (x**2 + 2), (x**2 - 2) / (x**2 + 2) ** 2


def pole(x):
    """Infinite from 1 on, minimum at 0.5."""
    if x >= 1:
        return np.inf, np.nan
    return -np.log(1 - x) - 2 * x, 1 / (1 - x) - 2


@pytest.mark.parametrize("step", [1e-3, 1e-1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("function", [bowl, wiggly, flat_start, pole])
@pytest.mark.parametrize("curvature", [0.9, 0.1])
def test_strong_wolfe_conditions_hold(function, step, curvature):
    end, objective = search(function, step, decrease=1e-3, curvature=curvature)
    assert end is not None
    (cost, slope), x = function(0.0), end.position[0]
    assert end.cost <= cost + 1e-3 * x * slope
    assert end.cost < cost
    assert abs(end.gradient[0]) <= curvature * abs(slope)
    assert (end.cost, end.gradient[0]) == function(x)
    assert len(objective.positions) <= 14
    objective.assert_no_position_twice()


def test_exact_step_for_a_parabola():
    """Cubic interpolation finds the minimum of a parabola in the second trial."""
    end, objective = search(bowl, 10.0, curvature=1e-6)
    assert end is not None
    assert end.position[0] == pytest.approx(3)
    assert len(objective.positions) == 3


def test_non_finite_gradient_is_too_far():
    def torn(x):
        return (x - 3) ** 2, np.nan if x > 3.5 else 2 * (x - 3)

    end, _ = search(torn, 4.0)
    assert end is not None
    assert end.position[0] < 3.5


@pytest.mark.parametrize(
    ("function", "n_evaluations"),
    [
        *((lambda x, s=s: (x, s), 1) for s in (0.0, 1.0, np.nan)),  # not downwards
        (lambda x: (1.0, -1.0), 99),  # a gradient that the cost does not keep: noise
        (lambda x: (-x, -1.0), 99),  # without end
    ],
)
def test_no_step(function, n_evaluations):
    end, objective = search(function, 1.0)
    assert end is None
    assert len(objective.positions) <= n_evaluations
    objective.assert_no_position_twice()


def test_no_step_shorter_than_rounding():
    start = Point(np.array([1e20]), 0.0, np.array([-1.0]))
    objective = Counted(lambda x: (1.0, np.array([-1.0])))
    assert wolfe_search(objective, start, DIRECTION, 1.0) is None
    assert objective.positions == []


def test_the_gradient_may_be_a_buffer():
    buffer = np.zeros(1)

    def objective(x):
        buffer[:] = 2 * (x - 3)
        return float((x[0] - 3) ** 2), buffer

    start = evaluate(objective, np.zeros(1))
    end = wolfe_search(objective, start, DIRECTION, 2.5)
    assert end is not None
    buffer[:] = 99
    assert start.gradient[0] == -6
    assert end.gradient[0] == 2 * (end.position[0] - 3)
