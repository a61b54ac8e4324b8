"""Activation functions and their slopes."""

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.numerics.activations import ACTIVATIONS, activation
from tests.support import plain

# Not 0, where the rectifier has no slope.
POINTS = np.concatenate([np.linspace(-6, 6, 42), [-0.01, 0.01]])


def applied(name, z):
    y = np.array(z)
    activation(name).apply(y)
    return y


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values(name):
    expected = plain.FUNCTIONS[name](POINTS)
    np.testing.assert_allclose(applied(name, POINTS), expected, rtol=1e-14)
    single = applied(name, POINTS.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("sigmoid", 0, 1), ("tanh", -1, 1), ("relu", 0, 1e4), ("linear", -1e4, 1e4)],
)
def test_far_out_without_warnings(name, low, high, dtype):
    assert applied(name, np.array([-1e4, 1e4], dtype)).tolist() == [low, high]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_from_the_output(name):
    h = 1e-6
    slope = (applied(name, POINTS + h) - applied(name, POINTS - h)) / (2 * h)
    delta = np.linspace(-2, 3, POINTS.size)
    expected = delta * slope
    activation(name).times_slope(applied(name, POINTS), delta)
    np.testing.assert_allclose(delta, expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_spending_the_output_gives_the_same_slopes(name, dtype):
    y, expected = applied(name, POINTS.astype(dtype)), np.ones(POINTS.size, dtype)
    activation(name).times_slope(y, expected)
    found = np.ones_like(expected)
    activation(name).spend(y, found)
    np.testing.assert_array_equal(found, expected)


def test_unknown():
    with pytest.raises(ConfigError, match=r"'sigmoit'; choose from .*mean 'sigmoid'"):
        activation("sigmoit")
