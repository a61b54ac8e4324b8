"""Optimizers against the formulas of their papers."""

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.optim.minibatch import (
    DEFAULT_RATES,
    Adam,
    Momentum,
    PlainDescent,
    make_optimizer,
)

SIZE = 70_001  # more than two blocks, and a rest
STEPS = 5
RNG = np.random.default_rng(0)
START = RNG.standard_normal(SIZE).astype(np.float32)
GRADIENTS = RNG.standard_normal((STEPS, SIZE)).astype(np.float32)
MAKERS = {
    "plain": lambda: PlainDescent(0.1),
    "momentum": lambda: Momentum(SIZE, 0.1, 0.9),
    "adam": lambda: Adam(SIZE, 0.01),
}


def follow(optimizer, parts=(slice(0, SIZE),), before_step=lambda step: None):
    parameters = START.copy()
    for step, gradient in enumerate(GRADIENTS.copy()):
        before_step(step)
        optimizer.start_step()
        for part in parts:
            optimizer.update(parameters, gradient[part], part)
    return parameters


def test_plain_descent():
    expected = START - GRADIENTS.astype(float).sum(axis=0)
    optimizer = PlainDescent(0.3)
    np.testing.assert_allclose(follow(optimizer), expected, atol=1e-5)
    assert (optimizer.scale, optimizer.steps, optimizer.state) == (0.3, STEPS, {})


def test_momentum_may_change():
    momenta = [0.5, 0.5, 0.9, 0.9, 0.9]
    velocity, expected = np.zeros(SIZE), START.astype(float)
    for momentum, gradient in zip(momenta, GRADIENTS, strict=True):
        velocity = momentum * velocity - gradient
        expected = expected + velocity
    optimizer = Momentum(SIZE, momentum=0.5)

    def switch(step):
        optimizer.momentum = momenta[step]

    found = follow(optimizer, before_step=switch)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(optimizer.state["velocity"], velocity, atol=1e-5)
    assert (optimizer.scale, optimizer.steps) == (1.0, STEPS)


def test_adam():
    """Kingma and Ba 2015, Algorithm 1."""
    alpha, beta1, beta2, epsilon = 0.01, 0.8, 0.95, 0.1
    theta, m, v = START.astype(float), np.zeros(SIZE), np.zeros(SIZE)
    for t, gradient in enumerate(GRADIENTS.astype(float), start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        theta = theta - alpha * m_hat / (np.sqrt(v_hat) + epsilon)
    optimizer = Adam(SIZE, alpha)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    optimizer.beta1, optimizer.beta2, optimizer.epsilon = beta1, beta2, epsilon
    np.testing.assert_allclose(follow(optimizer), theta, atol=1e-6)
    np.testing.assert_allclose(optimizer.state["first_moment"], m, atol=1e-6)
    np.testing.assert_allclose(optimizer.state["second_moment"], v, rtol=1e-5)
    assert (optimizer.scale, optimizer.steps) == (1.0, STEPS)


@pytest.mark.parametrize("name", MAKERS)
def test_by_parts_is_as_the_whole(name):
    whole, parted = MAKERS[name](), MAKERS[name]()
    parts = [slice(50_000, SIZE), slice(0, 7), slice(7, 50_000)]
    np.testing.assert_array_equal(follow(whole), follow(parted, parts))
    for key, vector in whole.state.items():
        np.testing.assert_array_equal(vector, parted.state[key])


@pytest.mark.parametrize("name", MAKERS)
def test_state_and_steps_are_all_there_is(name):
    """An optimizer given another's state and steps goes on as that one would."""
    first, second = MAKERS[name](), MAKERS[name]()
    follow(first)
    for key, vector in first.state.items():
        second.state[key][:] = vector
    second.steps = first.steps
    np.testing.assert_array_equal(follow(first), follow(second))


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", PlainDescent), ("momentum", Momentum), ("adam", Adam)]
)
def test_names(name, kind):
    optimizer = make_optimizer(name, 5, 0.25)
    assert type(optimizer) is kind
    rate = optimizer.learning_rate if kind is Adam else optimizer.scale
    assert rate == 0.25
    assert all(vector.shape == (5,) for vector in optimizer.state.values())
    assert DEFAULT_RATES[name] > 0


def test_unknown_name():
    with pytest.raises(ConfigError, match="'adm'; choose from sgd, momentum, adam"):
        make_optimizer("adm", 5, 0.1)
