"""Descent of a sparse autoencoder on minibatches, on one rank."""

from itertools import islice

import numpy as np
import pytest

from mpilayer.train.sgd import SGDState, descend_by_passes
from tests.support import sparse
from tests.support.sparse import fresh_cost, make_cost, patches, settings


def sgd(**changes):
    usual = {"optimizer": "sgd", "minibatch": 7, "learning_rate": 0.05, "memory": 0.9}
    return settings(**usual | changes)


def states(cost, config, n, first=None):
    """Return the states after each of n passes, the first before any."""
    begin = cost.model.parameters.vector.copy()
    first = first or SGDState.start(begin, cost, cost)
    return [first, *islice(descend_by_passes(cost, cost, config, first), n)]


@pytest.mark.parametrize("minibatch", [1, 7, 30, 45])
@pytest.mark.parametrize(
    ("hidden", "output"), [("tanh", "tanh"), ("sigmoid", "linear")]
)
def test_passes_are_the_plain_ones(hidden, output, minibatch):
    config = sgd(activation=hidden, output=output, minibatch=minibatch, seed=3)
    x = patches(45)
    cost = make_cost(config, x)
    shape, vector = cost.model.shape, cost.model.parameters.vector.copy()
    mean = sparse.firing(shape, vector, x).mean(axis=0)
    for number, state in enumerate(states(cost, config, 3)):
        assert state.iteration == number
        np.testing.assert_allclose(state.position, vector, atol=1e-12)
        np.testing.assert_allclose(state.mean_activation, mean, atol=1e-12)
        expected = sparse.exact(shape, vector, x, config)
        sparse.assert_close((state.cost, state.gradient), expected, 1e-11)
        vector, mean = sparse.one_pass(shape, vector, mean, x, config, number)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid"])
def test_the_cost_falls(hidden, dtype):
    config = sgd(activation=hidden, output="linear", dtype=dtype, memory=0.99)
    cost = fresh_cost(config, patches(300))
    found = states(cost, config, 20)
    assert found[-1].cost < 0.7 * found[0].cost
    assert found[-1].cost < found[10].cost < found[3].cost


def test_the_sparsity_term_moves_the_biases_alone():
    config = sgd(learning_rate=1e-9, sparsity_weight=1e7, weight_decay=0.0)
    cost = make_cost(config, patches(45))
    first, last = states(cost, config, 1)
    moved = cost.model.parameters.like()
    moved.vector[:] = np.abs(last.position - first.position) > 1e-5
    assert moved["hidden_bias"].all()
    assert not any(moved[name].any() for name in moved if name != "hidden_bias")


def test_steps_are_the_same_for_every_mode():
    config = sgd()
    found = []
    for mode in sparse.MODES:
        cost = make_cost(sgd(kl=mode), patches(45))
        found.append(states(cost, config, 2)[-1].position)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_another_seed_takes_other_minibatches():
    found = [
        states(make_cost(sgd(seed=seed), patches(45)), sgd(seed=seed), 1)[-1].position
        for seed in (0, 1)
    ]
    assert (found[0] != found[1]).any()
    np.testing.assert_allclose(found[0], found[1], atol=0.1)


def test_states_are_never_changed():
    config = sgd()
    cost = make_cost(config, patches(45))
    found, copies = [], []
    first = SGDState.start(cost.model.parameters.vector.copy(), cost, cost)
    for state in islice(descend_by_passes(cost, cost, config, first), 4):
        found.append(state)
        copies.append({name: v.copy() for name, v in state.arrays().items()})
    for state, arrays in zip(found, copies, strict=True):
        for name, array in state.arrays().items():
            np.testing.assert_array_equal(array, arrays[name])
