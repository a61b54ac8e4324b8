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
LINE_SEARCHES = ("lbfgs", "cg")
NO_STEP = "no step lowers the cost any more"
ROWS = patches(300)


def make(**changes):
    """Return a descent from the first weights."""
    usual = {"memory": 0.99, "minibatch": 20, "measure_every": 400}
    config = settings(**usual | changes)
    return Descent(fresh_cost(config, ROWS), config)


def assert_same(found, expected):
    """Demand equal bits of two states."""
    assert found.numbers() == expected.numbers()
    assert list(found.arrays()) == list(expected.arrays())
    for name, array in found.arrays().items():
        np.testing.assert_array_equal(array, expected.arrays()[name])


@pytest.mark.parametrize("optimizer", KINDS)
def test_the_cost_falls(optimizer):
    """And states stay as they are."""
    descent = make(optimizer=optimizer, evaluations=40)
    kept = [(s, pickle.loads(pickle.dumps(s))) for s in descent.states()]
    for number, (state, copy) in enumerate(kept):
        assert_same(state, copy)
        assert state.iteration == number
    costs = [state.cost for state, _ in kept]
    assert costs[-1] < 0.8 * costs[0]
    if optimizer in LINE_SEARCHES:
        assert costs == sorted(costs, reverse=True)
    assert descent.state is kept[-1][0]
    assert type(descent.state) is KINDS[optimizer]


@pytest.mark.parametrize("optimizer", KINDS)
@pytest.mark.parametrize("most", [1, 2, 17])
def test_evaluations_at_most_or_until_the_time_is_over(optimizer, most):
    counted, timed = (
        make(optimizer=optimizer, evaluations=most),
        make(optimizer=optimizer),
    )
    timed.cost.time_over = lambda: timed.cost.evaluations >= most
    for descent, reason in ((counted, "evaluations"), (timed, "time")):
        states = list(descent.states())
        assert descent.cost.evaluations == most >= len(states)
        assert descent.stopped_by == reason
        assert descent.state is states[-1]


@pytest.mark.parametrize("optimizer", KINDS)
def test_iterations_at_most_or_until_gradient_or_decrease_is_small(optimizer):
    descent = make(optimizer=optimizer, iterations=3)
    assert [state.iteration for state in descent.states()] == [0, 1, 2, 3]
    assert descent.stopped_by == "iterations"
    descent = make(optimizer=optimizer, gradient_norm=0.3)
    *before, last = [np.linalg.norm(s.gradient) for s in descent.states()]
    assert last <= 0.3 < min(before)
    assert descent.stopped_by == "a small gradient"
    descent = make(optimizer=optimizer, decrease=0.01)
    costs = np.array([state.cost for state in descent.states()])
    *before, last = -np.diff(costs) / costs[1:]
    assert last <= 0.01 < min(before)
    assert descent.stopped_by == "a small decrease"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", KINDS)
def test_going_on_is_as_never_having_stopped(optimizer, mode):
    """Also from what a checkpoint holds, and in another process."""
    changes = {"optimizer": optimizer, "iterations": 16, "kl": mode}
    whole, expected, kept = make(**changes), [], []
    for state in whole.states():
        expected.append(state)
        arrays = {name: array.copy() for name, array in whole.arrays().items()}
        kept.append((arrays, whole.numbers()))
    for stop in (0, 1, 13):
        descent = make(**changes)
        descent.restore(*kept[stop])
        evaluations = descent.cost.evaluations
        descent.cost.model.parameters.vector[:] = np.nan
        found = list(descent.states())
        assert evaluations == kept[stop][1]["evaluations"]
        assert descent.cost.evaluations == whole.cost.evaluations
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


@pytest.mark.parametrize("optimizer", LINE_SEARCHES)
def test_no_line_search_starts_where_the_cost_is_infinite(optimizer):
    descent = make(optimizer=optimizer, dtype="float32")
    descent.cost.model.parameters["hidden_bias"][2] = -1e3
    with pytest.raises(TrainingError, match="first cost must be finite") as caught:
        next(descent.states())
    assert caught.value.collective
    assert descent.state is None


@pytest.mark.parametrize("optimizer", LINE_SEARCHES)
@pytest.mark.parametrize(
    ("dtype", "noise"), [("float64", 1e-6), ("float32", 2e-3)], ids=str
)
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid"])
def test_until_no_step_lowers_the_cost(hidden, dtype, noise, optimizer):
    """In float32 noise ends the descent."""
    changes = {"activation": hidden, "optimizer": optimizer, "output": "linear"}
    descent = make(dtype=dtype, evaluations=5000, **changes)
    *_, last = descent.states()
    assert descent.stopped_by == NO_STEP
    assert np.linalg.norm(last.gradient) < noise
    if dtype == "float64" and optimizer == "lbfgs":
        cost = make(activation=hidden, output="linear").cost
        begin = cost.model.parameters.vector.copy()
        options = {"maxiter": 5000, "maxfun": 5000, "ftol": 1e-15, "gtol": 1e-9}
        scipys = minimize(cost, begin, jac=True, method="L-BFGS-B", options=options)
        assert last.cost <= (1 + 1e-6) * scipys.fun
