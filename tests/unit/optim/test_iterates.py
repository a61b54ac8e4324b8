"""L-BFGS and conjugate gradients: both near SciPy's, resumable, whole in noise."""

from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.optimize

from mpilayer.optim import cg
from mpilayer.optim.cg import CGState, conjugate_gradient
from mpilayer.optim.lbfgs import LBFGSState, _after, lbfgs
from mpilayer.optim.search import Point
from tests.support.sparse import fresh_cost, patches, settings
from tests.unit.optim.test_search import Counted


class Method(NamedTuple):
    """An optimizer, and what its Wolfe conditions and the tests of it ask."""

    state: Any
    iterate: Any
    decrease: float
    curvature: float
    evaluations: float
    tolerance: float
    furthest: float

    def follow(self, objective, position, iterations=None):
        start = self.state.start(position, objective)
        return list(islice(self.iterate(objective, start), iterations))

    def restored(self, state):
        arrays = {name: array.copy() for name, array in state.arrays().items()}
        return self.state.restore(arrays, state.numbers())


LBFGS = Method(LBFGSState, lbfgs, 1e-3, 0.9, 1.1, 1e-6, -0.999)
CG = Method(CGState, conjugate_gradient, 1e-4, cg._CURVATURE, 2, 1e-5, -0.9)


@pytest.fixture(params=[LBFGS, CG], ids=["lbfgs", "cg"])
def method(request):
    return request.param


def rosenbrock():
    rosen, derivative = scipy.optimize.rosen, scipy.optimize.rosen_der
    return Counted(lambda x: (float(rosen(x)), derivative(x)))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def sparse_autoencoder(dtype="float64"):
    """Return a small sparse autoencoder's objective, and a start."""
    units = {"activation": "sigmoid", "output": "linear", "hidden": 6}
    cost = fresh_cost(settings(dtype=dtype, **units), patches(300, 12))
    return Counted(cost), cost.model.parameters.vector.astype(float)


def logistic_regression():
    """Return a convex objective, and a start."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 20)) * np.logspace(-1, 1, 20)
    y = np.sign(x @ rng.standard_normal(20) + rng.standard_normal(200))

    def objective(w):
        margins = y * (x @ w)
        cost = np.logaddexp(0, -margins).sum() + 0.05 * w @ w
        return float(cost), 0.1 * w - x.T @ (y * sigmoid(-margins))

    return Counted(objective), np.zeros(20)


def barrier(x):
    """Infinite around its minimum, so that the first steps overshoot."""
    if np.any(np.abs(x) >= 1):
        return np.inf, np.full_like(x, np.nan)
    return float(-np.log1p(-(x**2)).sum() - 1.9 * x.sum()), 2 * x / (1 - x**2) - 1.9


def assert_same(found, expected):
    assert found.numbers() == expected.numbers()
    arrays = expected.arrays()
    assert found.arrays().keys() == arrays.keys()
    for key, array in found.arrays().items():
        np.testing.assert_array_equal(array, arrays[key], strict=True)


@pytest.mark.parametrize("n", [2, 50])
def test_rosenbrock(method, n):
    objective = rosenbrock()
    states = method.follow(objective, np.tile([-1.2, 1.0], n // 2))
    np.testing.assert_allclose(states[-1].position, 1, atol=method.tolerance)
    assert [state.iteration for state in states] == list(range(1, len(states) + 1))
    objective.assert_no_position_twice()


@pytest.mark.parametrize(
    ("problem", "tolerance", "parts"),
    [
        (logistic_regression, 1e-9, (0.5, 1e-2, 1e-4, 1e-6)),
        # Not convex: the two may end in different valleys.
        (sparse_autoencoder, 1e-2, (0.5, 0.1, 1e-2)),
    ],
)
def test_about_as_few_evaluations_as_scipy(method, problem, tolerance, parts):
    (ours, start), (theirs, _) = problem(), problem()
    options = {"maxcor": 10, "ftol": 0, "gtol": 0, "maxiter": 300}
    scipy.optimize.minimize(theirs, start, (), "L-BFGS-B", True, options=options)
    method.follow(ours, start, 300)
    least = min(theirs.costs)
    tolerance, parts = (1e-2, (0.5, 1e-2)) if method is CG else (tolerance, parts)
    assert min(ours.costs) == pytest.approx(least, rel=tolerance)
    for part in parts:
        goal = least + part * (theirs.costs[0] - least)
        allowed = method.evaluations * theirs.evaluations_to(goal) + 3
        assert ours.evaluations_to(goal) <= allowed


def test_strong_wolfe_conditions_hold_everywhere(method):
    objective, start = sparse_autoencoder()
    before = method.state.start(start, objective)
    for after in islice(method.iterate(objective, before), 100):
        step = after.position - before.position
        slope = before.gradient @ step
        rounding = 1e-14 * before.cost
        assert slope < 0
        assert after.cost <= before.cost + method.decrease * slope + rounding
        bound = method.curvature * abs(slope) + rounding
        assert abs(after.gradient @ step) <= bound
        if method is CG:
            assert after.previous_cost == before.cost
            assert after.direction @ after.gradient < 0
        before = after


def test_resumes_to_the_bit_after_every_iteration(method):
    objective, start = sparse_autoencoder("float32")
    states = [method.state.start(start, objective)]
    states += method.follow(objective, start, 30)
    for k, state in enumerate(states[:-1]):
        restored = method.restored(state)
        assert_same(restored, state)
        followed = islice(method.iterate(objective, restored), 12)
        for found, expected in zip(followed, states[k + 1 :], strict=False):
            assert_same(found, expected)


def test_states_stay_as_they_were(method):
    objective, start = sparse_autoencoder()
    begin = method.state.start(start, objective)
    kept = start.copy()
    start += 1
    np.testing.assert_array_equal(begin.position, kept)
    states = islice(method.iterate(objective, begin), 30)
    states = [(state, method.restored(state)) for state in states]
    for state, copy in states:
        assert_same(state, copy)


def test_comes_back_from_infinity(method):
    objective = Counted(barrier)
    state = method.follow(objective, np.linspace(-0.999, method.furthest, 5))[-1]
    assert np.inf in objective.costs
    np.testing.assert_allclose(state.gradient, 0, atol=method.tolerance)


@pytest.mark.parametrize("evaluations", range(1, 12))
def test_exception_passes_and_leaves_the_states_whole(method, evaluations):
    class SpentError(Exception):
        pass

    position = np.array([-1.2, 1.0])
    expected = method.follow(rosenbrock(), position, 12)
    counted, states = rosenbrock(), []

    def limited(x):
        if len(counted.positions) == evaluations:
            raise SpentError
        return counted(x)

    def run():
        states.extend([method.state.start(position, limited)])
        states.extend(method.iterate(limited, states[0]))

    with pytest.raises(SpentError):
        run()
    for state, other in zip(states[1:], expected, strict=False):
        assert_same(state, other)
    assert len(counted.positions) == evaluations


@pytest.mark.parametrize(("chosen", "name"), [(LBFGS, "changes"), (CG, "direction")])
def test_what_leads_upwards_is_dropped(chosen, name):
    objective, start = logistic_regression()
    state = chosen.follow(objective, start, 5)[-1]
    arrays = state.arrays() | {name: -state.arrays()[name]}
    misled = chosen.state.restore(arrays, state.numbers())
    after = next(chosen.iterate(objective, misled))
    assert after.cost < state.cost
    assert chosen is CG or len(after.pairs) == 1


def test_ends_where_no_step_lowers_the_cost(method):
    objective = Counted(lambda x: (1.0, np.ones(3)))
    assert method.follow(objective, np.zeros(3)) == []
    assert len(objective.costs) < 30
    objective.assert_no_position_twice()


def test_ends_at_the_minimum(method):
    objective = Counted(lambda x: (float(x @ x), 2 * x))
    states = method.follow(objective, np.array([3.0, 4.0]))
    np.testing.assert_allclose(states[-1].position, 0, atol=1e-12)
    assert method.follow(objective, np.zeros(2)) == []


def test_memory():
    """Pairs are the differences of the states, and no more than asked for."""
    objective = rosenbrock()
    start = LBFGSState.start(np.tile([-1.2, 1.0], 5), objective)
    states = [start, *islice(lbfgs(objective, start, corrections=3), 9)]
    for i, state in enumerate(states):
        kept = states[max(i - 3, 0) : i + 1]
        for name, what in (("steps", "position"), ("changes", "gradient")):
            expected = np.diff([getattr(s, what) for s in kept], axis=0)
            np.testing.assert_array_equal(state.arrays()[name], expected)


def test_quasi_newton_direction():
    """The first trial of an iteration is x − Hg, H by the BFGS formula in full."""
    objective = rosenbrock()
    state = LBFGS.follow(objective, np.tile([-1.2, 1.0], 3), 5)[-1]
    s, y = state.arrays()["steps"][-1], state.arrays()["changes"][-1]
    h = s @ y / (y @ y) * np.eye(6)
    for s, y in zip(state.arrays()["steps"], state.arrays()["changes"], strict=True):
        v = np.eye(6) - np.outer(y, s) / (s @ y)
        h = v.T @ h @ v + np.outer(s, s) / (s @ y)
    fresh = rosenbrock()
    next(lbfgs(fresh, state))
    expected = state.position - h @ state.gradient
    np.testing.assert_allclose(fresh.positions[0], expected, rtol=1e-9)


def test_pair_without_curvature_is_skipped():
    """The Wolfe conditions exclude it, but for rounding."""
    objective, start = logistic_regression()
    state = LBFGS.follow(objective, start, 3)[-1]
    end = Point(state.position + 1e-9, state.cost - 1e-12, state.gradient)
    after = _after(state, end, corrections=10)
    assert after.pairs is state.pairs
    assert (after.position is end.position, after.iteration) == (True, 4)


def test_single_precision_noise():
    """The run ends by itself, as far down as the noise of the cost allows."""
    exact, start = sparse_autoencoder()
    noisy, _ = sparse_autoencoder("float32")
    LBFGS.follow(exact, start, 500)
    costs = [state.cost for state in LBFGS.follow(noisy, start)]
    assert costs[-1] == pytest.approx(min(exact.costs), rel=1e-2)
    assert costs == sorted(costs, reverse=True)


def test_quadratic_in_n_iterations(monkeypatch):
    """With exact searches, conjugate gradients need as many steps as dimensions."""
    monkeypatch.setattr(cg, "_CURVATURE", 1e-7)
    diagonal = np.array([1.0, 2.0, 5.0, 9.0, 20.0])
    objective = Counted(lambda x: (float(x @ (diagonal * x)) / 2, diagonal * x))
    states = CG.follow(objective, np.ones(5), 5)
    assert np.linalg.norm(states[-1].gradient) < 1e-5
    assert np.linalg.norm(states[-2].gradient) > 1e-2


def test_direction_of_polak_and_ribiere():
    objective, start = logistic_regression()
    first, second = CG.follow(objective, start, 2)
    change = second.gradient - first.gradient
    beta = second.gradient @ change / (first.gradient @ first.gradient)
    expected = max(beta, 0) * first.direction - second.gradient
    np.testing.assert_allclose(second.direction, expected, rtol=1e-12)


def test_first_trials(method):
    """The first step has length 1; a later one of CG repeats the last decrease."""
    objective, start = logistic_regression()
    state = method.follow(objective, start, 1)[0]
    assert np.linalg.norm(objective.positions[1]) == pytest.approx(1)
    if method is CG:
        fresh, _ = logistic_regression()
        next(conjugate_gradient(fresh, state))
        step = 2 * (state.cost - state.previous_cost)
        step /= state.gradient @ state.direction
        expected = state.position + step * state.direction
        np.testing.assert_allclose(fresh.positions[0], expected, rtol=1e-12)
