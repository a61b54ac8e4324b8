"""Conjugate gradients: exact on quadratics, near L-BFGS elsewhere, and resumable."""

from itertools import islice

import numpy as np
import pytest

from mpilayer.optim import cg
from mpilayer.optim.cg import CGState, conjugate_gradient
from tests.unit.optim.test_lbfgs import (
    assert_same,
    logistic_regression,
    rosenbrock,
    scipys,
    sparse_autoencoder,
)
from tests.unit.optim.test_search import Counted


def follow(objective, position, iterations=None):
    start = CGState.start(position, objective)
    return list(islice(conjugate_gradient(objective, start), iterations))


def test_quadratic_in_n_iterations(monkeypatch):
    """With exact searches, conjugate gradients need as many steps as dimensions."""
    monkeypatch.setattr(cg, "_CURVATURE", 1e-7)
    diagonal = np.array([1.0, 2.0, 5.0, 9.0, 20.0])
    objective = Counted(lambda x: (float(x @ (diagonal * x)) / 2, diagonal * x))
    states = follow(objective, np.ones(5), 5)
    assert np.linalg.norm(states[-1].gradient) < 1e-5
    assert np.linalg.norm(states[-2].gradient) > 1e-2


@pytest.mark.parametrize("n", [2, 50])
def test_rosenbrock(n):
    objective = rosenbrock()
    states = follow(objective, np.tile([-1.2, 1.0], n // 2))
    np.testing.assert_allclose(states[-1].position, 1, atol=1e-5)
    assert [state.iteration for state in states] == list(range(1, len(states) + 1))
    objective.assert_no_position_twice()


@pytest.mark.parametrize("problem", [logistic_regression, sparse_autoencoder])
def test_at_most_twice_as_many_evaluations_as_scipys_lbfgs(problem):
    ours, start = problem()
    theirs, _ = problem()
    scipys(theirs, start)
    follow(ours, start, 300)
    assert min(ours.costs) == pytest.approx(min(theirs.costs), rel=1e-2)
    for part in (0.5, 1e-2):
        goal = min(theirs.costs) + part * (theirs.costs[0] - min(theirs.costs))
        assert ours.evaluations_to(goal) <= 2 * theirs.evaluations_to(goal) + 3


def test_strong_wolfe_conditions_hold_everywhere():
    objective, start = sparse_autoencoder()
    before = CGState.start(start, objective)
    for after in islice(conjugate_gradient(objective, before), 100):
        step = after.position - before.position
        slope = before.gradient @ step
        rounding = 1e-14 * before.cost
        assert slope < 0
        assert after.cost <= before.cost + 1e-4 * slope + rounding
        assert abs(after.gradient @ step) <= cg._CURVATURE * abs(slope) + rounding
        assert after.previous_cost == before.cost
        assert after.direction @ after.gradient < 0
        before = after


def test_direction_of_polak_and_ribiere():
    objective, start = logistic_regression()
    first, second = follow(objective, start, 2)
    change = second.gradient - first.gradient
    beta = second.gradient @ change / (first.gradient @ first.gradient)
    expected = max(beta, 0) * first.direction - second.gradient
    np.testing.assert_allclose(second.direction, expected, rtol=1e-12)


def test_first_trials():
    """The first step has length 1; a later one repeats the last decrease."""
    objective, start = logistic_regression()
    state = follow(objective, start, 1)[0]
    assert np.linalg.norm(objective.positions[1]) == pytest.approx(1)
    fresh, _ = logistic_regression()
    next(conjugate_gradient(fresh, state))
    step = 2 * (state.cost - state.previous_cost) / (state.gradient @ state.direction)
    expected = state.position + step * state.direction
    np.testing.assert_allclose(fresh.positions[0], expected, rtol=1e-12)


def test_resumes_to_the_bit_after_every_iteration():
    objective, start = sparse_autoencoder(np.float32)
    states = follow(objective, start, 30)
    for k, state in enumerate(states[:-1]):
        arrays = {name: array.copy() for name, array in state.arrays().items()}
        restored = CGState.restore(arrays, state.numbers())
        assert_same(restored, state)
        followed = list(islice(conjugate_gradient(objective, restored), 12))
        for found, expected in zip(followed, states[k + 1 :], strict=False):
            assert_same(found, expected)


def test_resumes_from_the_start():
    objective, position = sparse_autoencoder()
    start = CGState.start(position, objective)
    restored = CGState.restore(start.arrays(), start.numbers())
    found = next(conjugate_gradient(objective, restored))
    assert_same(found, next(conjugate_gradient(objective, start)))


def test_states_stay_as_they_were():
    objective, start = sparse_autoencoder()
    states, copies = [], []
    begin = CGState.start(start, objective)
    for state in islice(conjugate_gradient(objective, begin), 30):
        states.append(state)
        arrays = {name: array.copy() for name, array in state.arrays().items()}
        copies.append(CGState.restore(arrays, state.numbers()))
    for state, copy in zip(states, copies, strict=True):
        assert_same(state, copy)


def test_comes_back_from_infinity():
    def barrier(x):
        if np.any(np.abs(x) >= 1):
            return np.inf, np.full_like(x, np.nan)
        return float(-np.log1p(-(x**2)).sum() - 1.9 * x.sum()), 2 * x / (1 - x**2) - 1.9

    objective = Counted(barrier)
    state = follow(objective, np.linspace(-0.999, -0.9, 5))[-1]
    assert np.inf in objective.costs
    np.testing.assert_allclose(state.gradient, 0, atol=1e-5)


def test_exception_passes_and_leaves_the_state_whole():
    class SpentError(Exception):
        pass

    expected = follow(rosenbrock(), np.array([-1.2, 1.0]), 9)
    for evaluations in range(1, 12):
        counted, states = rosenbrock(), []

        def limited(x, counted=counted, limit=evaluations):
            if len(counted.positions) == limit:
                raise SpentError
            return counted(x)

        def run(objective=limited, states=states):
            states.append(CGState.start(np.array([-1.2, 1.0]), objective))
            states.extend(conjugate_gradient(objective, states[0]))

        with pytest.raises(SpentError):
            run()
        for state, other in zip(states[1:], expected, strict=False):
            assert_same(state, other)


def test_restarts_where_the_direction_leads_upwards():
    objective, start = logistic_regression()
    state = follow(objective, start, 3)[-1]
    arrays = state.arrays() | {"direction": -state.direction}
    misled = CGState.restore(arrays, state.numbers())
    assert next(conjugate_gradient(objective, misled)).cost < state.cost


def test_ends_where_no_step_lowers_the_cost():
    objective = Counted(lambda x: (1.0, np.ones(3)))
    assert follow(objective, np.zeros(3)) == []
    assert len(objective.costs) < 30
    objective.assert_no_position_twice()


def test_ends_at_the_minimum():
    objective = Counted(lambda x: (float(x @ x), 2 * x))
    states = follow(objective, np.array([3.0, 4.0]))
    np.testing.assert_allclose(states[-1].position, 0, atol=1e-12)
    assert follow(objective, np.zeros(2)) == []
