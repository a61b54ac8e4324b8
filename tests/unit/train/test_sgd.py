"""Descent of a sparse autoencoder on minibatches, on one rank."""

import numpy as np
import pytest

from mpilayer.errors import CheckpointError
from mpilayer.train.sparse.cost import Enough
from mpilayer.train.sparse.sgd import SGDState, sgd
from tests.support import sparse
from tests.support.sparse import make_cost, patches, settings

RULES = ("bias", "gradient")


def options(**changes):
    usual = {
        "optimizer": "sgd",
        "minibatch": 7,
        "learning_rate": 0.05,
        "memory": 0.9,
        "evaluations": 21,
        "measure_every": 0,
        "sgd_bias_weight": 0.5,
    }
    return settings(**usual | changes)


def states(cost, config):
    """Return the state at each measured cost, the first before any step."""
    first = SGDState.first(cost.model.parameters.vector.copy(), cost, cost)
    found = [first]
    with pytest.raises(Enough, match="evaluations"):
        found.extend(sgd(cost, cost, config, first))
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("minibatch", "every"), [(1, 20), (7, 0), (7, 17), (30, 45), (45, 100)]
)
@pytest.mark.parametrize(
    ("hidden", "output"), [("tanh", "tanh"), ("sigmoid", "linear")]
)
def test_steps_are_the_plain_ones(hidden, output, minibatch, every, rule):
    changes = {"measure_every": every, "evaluations": 6, "sgd_sparsity": rule}
    config = options(
        activation=hidden, output=output, minibatch=minibatch, seed=3, **changes
    )
    x = patches(45)
    cost = make_cost(config, x)
    shape, vector = cost.model.shape, cost.model.parameters.vector.copy()
    mean = sparse.firing(shape, vector, x).mean(axis=0)
    later = sparse.plain_descent(shape, vector, mean, x, config)
    expected = [(vector, mean, 0), *later]
    found = states(cost, config)
    assert len(found) == 6
    for number, (state, plain) in enumerate(zip(found, expected, strict=True)):
        assert (state.iteration, state.examples) == (number, plain[2])
        np.testing.assert_allclose(state.position, plain[0], atol=1e-12)
        np.testing.assert_allclose(state.mean_activation, plain[1], atol=1e-12)
        whole = sparse.exact(shape, plain[0], x, config)
        sparse.assert_close((state.cost, state.gradient), whole, 1e-11)


def test_a_checkpoint_of_the_constant_rate():
    config = options()
    state = states(make_cost(config, patches(45)), config)[-1]
    numbers = {"cost": state.cost, "iteration": state.iteration}
    with pytest.raises(CheckpointError, match="the version that began it"):
        SGDState.restore(state.arrays(), numbers)


def test_no_steps_with_a_single_evaluation():
    config = options(evaluations=1)
    (only,) = states(make_cost(config, patches(45)), config)
    assert (only.iteration, only.examples) == (0, 0)


def test_steps_are_the_same_for_every_mode():
    costs = [make_cost(options(kl=mode), patches(45)) for mode in sparse.MODES]
    first, *others = [states(cost, options())[-1].position for cost in costs]
    for other in others:
        np.testing.assert_array_equal(first, other)
