"""The optimizers on the cost of a sparse autoencoder, and their limits."""

import pickle

import numpy as np
import pytest
from scipy.optimize import minimize

from mpilayer.errors import TrainingError
from mpilayer.optim.cg import CGState
from mpilayer.optim.lbfgs import LBFGSState
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.sgd import SGDState
from tests.support.sparse import MODES, fresh_cost, patches, settings

KINDS = {"lbfgs": LBFGSState, "cg": CGState, "sgd": SGDState}
ROWS = patches(300)


def make(**changes):
    """Return a descent from the first weights."""
    usual = {"memory": 0.99, "minibatch": 20, "measure_every": 400}
    config = settings(**usual | changes)
    return Descent(fresh_cost(config, ROWS), config)


def arrays(state):
    return {name: array.copy() for name, array in state.arrays().items()}


def assert_same(found, expected):
    """Demand equal bits of two states."""
    assert found.numbers() == expected.numbers()
    assert list(found.arrays()) == list(expected.arrays())
    for name, array in found.arrays().items():
        np.testing.assert_array_equal(array, expected.arrays()[name])


@pytest.mark.parametrize("optimizer", KINDS)
def test_the_cost_falls(optimizer):
    descent = make(optimizer=optimizer, evaluations=40)
    states = list(descent.states())
    assert [state.iteration for state in states] == list(range(len(states)))
    costs = [state.cost for state in states]
    assert costs[-1] < 0.8 * costs[0]
    if optimizer != "sgd":
        assert costs == sorted(costs, reverse=True)
    assert descent.state is states[-1]
    assert type(states[0]) is KINDS[optimizer]


@pytest.mark.parametrize("optimizer", KINDS)
@pytest.mark.parametrize("most", [1, 2, 17])
def test_evaluations_at_most(optimizer, most):
    descent = make(optimizer=optimizer, evaluations=most)
    states = list(descent.states())
    assert descent.cost.evaluations == most
    assert descent.stopped_by == "evaluations"
    assert len(states) <= most


@pytest.mark.parametrize("optimizer", KINDS)
def test_iterations_at_most(optimizer):
    descent = make(optimizer=optimizer, iterations=3)
    assert [state.iteration for state in descent.states()] == [0, 1, 2, 3]
    assert descent.stopped_by == "iterations"


@pytest.mark.parametrize("optimizer", KINDS)
def test_a_small_gradient(optimizer):
    descent = make(optimizer=optimizer, gradient_norm=0.3)
    *before, last = [np.linalg.norm(s.gradient) for s in descent.states()]
    assert last <= 0.3 < min(before)
    assert descent.stopped_by == "a small gradient"


@pytest.mark.parametrize("optimizer", KINDS)
def test_a_small_decrease(optimizer):
    descent = make(optimizer=optimizer, decrease=0.01)
    costs = np.array([state.cost for state in descent.states()])
    *before, last = -np.diff(costs) / costs[1:]
    assert last <= 0.01 < min(before)
    assert descent.stopped_by == "a small decrease"


@pytest.mark.parametrize("optimizer", KINDS)
def test_the_time_is_over(optimizer):
    descent = make(optimizer=optimizer)
    cost = descent.cost
    cost.time_over = lambda: cost.evaluations >= 5
    states = list(descent.states())
    assert cost.evaluations == 5
    assert descent.stopped_by == "time"
    assert descent.state is states[-1]
    again = make(optimizer=optimizer)
    again.cost.time_over = lambda: True
    assert len(list(again.states())) == 1


@pytest.mark.parametrize("optimizer", ["lbfgs", "cg"])
def test_until_no_step_lowers_the_cost(optimizer):
    descent = make(optimizer=optimizer, evaluations=5000)
    *_, last = descent.states()
    assert descent.stopped_by == "no step lowers the cost any more"
    assert np.linalg.norm(last.gradient) < 1e-6


@pytest.mark.parametrize("optimizer", KINDS)
def test_states_are_never_changed(optimizer):
    descent = make(optimizer=optimizer, evaluations=30)
    found = [(state, pickle.loads(pickle.dumps(state))) for state in descent.states()]
    assert len(found) > 10
    for state, copy in found:
        assert_same(state, copy)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", KINDS)
def test_going_on_is_as_never_having_stopped(optimizer, mode):
    """Also from what a checkpoint holds, and in another process."""
    whole = make(optimizer=optimizer, iterations=16, kl=mode)
    expected = list(whole.states())
    for stop in (0, 1, 13):
        stood = expected[stop]
        kind = KINDS[optimizer]
        first = kind.restore(arrays(stood), stood.numbers())
        descent = make(optimizer=optimizer, iterations=16, kl=mode, seed=0)
        descent.cost.model.parameters.vector[:] = np.nan
        found = list(descent.states(first))
        for state, other in zip(found, expected[stop:], strict=True):
            assert_same(state, other)


@pytest.mark.parametrize("optimizer", KINDS)
def test_the_last_good_state_is_kept(optimizer):
    descent, good = make(optimizer=optimizer), []

    def descend():
        for state in descent.states():
            good.append(state)
            if state.iteration == 3:
                descent.cost.rows[5, 5] = np.nan

    with pytest.raises(TrainingError, match="found NaN"):
        descend()
    assert descent.state is good[-1]
    assert descent.state.iteration == 3
    assert np.isfinite(descent.state.position).all()


@pytest.mark.parametrize("optimizer", ["lbfgs", "cg"])
def test_no_line_search_starts_where_the_cost_is_infinite(optimizer):
    descent = make(optimizer=optimizer, dtype="float32")
    descent.cost.model.parameters["hidden_bias"][2] = -1e3
    with pytest.raises(TrainingError, match="first cost must be finite") as caught:
        next(descent.states())
    assert caught.value.collective
    assert descent.state is None


@pytest.mark.parametrize("optimizer", ["lbfgs", "cg"])
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid"])
def test_the_noise_of_float32_ends_the_descent(hidden, optimizer):
    changes = {"activation": hidden, "optimizer": optimizer, "output": "linear"}
    descent = make(dtype="float32", evaluations=5000, **changes)
    *_, last = descent.states()
    assert descent.stopped_by == "no step lowers the cost any more"
    assert np.linalg.norm(last.gradient) < 2e-3


@pytest.mark.parametrize("hidden", ["tanh", "sigmoid"])
def test_as_good_as_scipy(hidden):
    descent = make(activation=hidden, output="linear", evaluations=5000)
    cost = make(activation=hidden, output="linear").cost
    begin = cost.model.parameters.vector.copy()
    options = {"maxiter": 5000, "maxfun": 5000, "ftol": 1e-15, "gtol": 1e-9}
    expected = minimize(cost, begin, jac=True, method="L-BFGS-B", options=options)
    *_, last = descent.states()
    assert last.cost <= (1 + 1e-6) * expected.fun
