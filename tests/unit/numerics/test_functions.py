"""Activations and losses: values, and derivatives by central differences."""

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.numerics.activations import ACTIVATIONS, activation
from mpilayer.numerics.losses import (
    LOSSES,
    SOFTMAX,
    check_loss,
    kl_curvature,
    kl_divergence,
    kl_slope,
    output_delta,
    row_losses,
    softmax,
)
from tests.support import plain


def loss_value(name, target, output):
    return float(row_losses(name, target, output).sum(dtype=np.float64))


RNG = np.random.default_rng(0)
TARGET = RNG.random((7, 5))
FIELDS = RNG.normal(0, 2, (7, 5))


@pytest.mark.parametrize("name", LOSSES)
def test_value(name):
    target, output = TARGET.astype("f"), plain.FUNCTIONS["sigmoid"](FIELDS).astype("f")
    found = loss_value(name, target, output)
    alone = [row_losses(name, target[[i]], output[[i]])[0] for i in range(7)]
    np.testing.assert_array_equal(row_losses(name, target, output), alone)
    expected = plain.loss(name, target.astype(float), output.astype(float))
    assert found == pytest.approx(expected, rel=1e-6)


def test_long_sums_stay_exact():
    target = np.random.default_rng(1).random((2000, 500), np.float32)
    expected = float(np.sum(target.astype(float) ** 2))
    found = loss_value("squared", target, np.zeros_like(target))
    assert found == pytest.approx(expected, rel=2e-8)


def test_cross_entropy_of_certain_mistakes_is_finite():
    target, output = np.array([[0, 1, 0, 1]], "f"), np.array([[1, 0, 0, 1]], "f")
    found = loss_value("cross-entropy", target, output)
    # Two mistakes of -ln(1e-7), to the spacing of float32 below 1.
    assert found == pytest.approx(-2 * np.log(1e-7), rel=0.01)


def one_hot(n_rows, n_classes, seed=3):
    """Return a row of zeros with a one for each sample."""
    chosen = np.random.default_rng(seed).integers(n_classes, size=n_rows)
    return np.eye(n_classes)[chosen]


def test_softmax():
    out = np.empty((7, 5), "f")
    softmax(FIELDS.astype("f"), out)
    expected = np.exp(FIELDS) / np.exp(FIELDS).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    # Scores that no exponential can hold.
    softmax(np.array([[1000, 0], [-1000, -1000]], "f"), out[:2, :2])
    np.testing.assert_array_equal(out[:2, :2], [[1, 0], [0.5, 0.5]])


def test_cross_entropy_of_the_softmax():
    target = one_hot(7, 5)
    found = loss_value(SOFTMAX, target.astype("f"), FIELDS.astype("f"))
    assert found == pytest.approx(plain.softmax_loss(target, FIELDS), rel=1e-6)
    sure = np.array([[500, -500]], "f")
    assert loss_value(SOFTMAX, np.array([[0, 1]], "f"), sure) == pytest.approx(1000)
    assert loss_value(SOFTMAX, np.array([[1, 0]], "f"), sure) == 0


def test_delta_of_the_softmax():
    target, out = one_hot(7, 5), np.empty_like(TARGET)
    output_delta(SOFTMAX, target, FIELDS, activation("linear"), out)
    expected = plain.central_differences(
        lambda fields: plain.softmax_loss(target, fields), FIELDS
    )
    np.testing.assert_allclose(out, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*(("squared", kind) for kind in ACTIVATIONS), ("cross-entropy", "sigmoid")],
)
def test_delta(name, kind):
    def cost(fields):
        return plain.loss(name, TARGET, plain.FUNCTIONS[kind](fields))

    out = np.empty_like(TARGET)
    output = plain.FUNCTIONS[kind](FIELDS)
    output_delta(name, TARGET, output, activation(kind), out)
    expected = plain.central_differences(cost, FIELDS)
    np.testing.assert_allclose(out, expected, atol=1e-7)


@pytest.mark.parametrize("output", ["tanh", "relu", "linear"])
def test_cross_entropy_needs_probabilities(output):
    check_loss("squared", output)
    check_loss("cross-entropy", "sigmoid")
    with pytest.raises(ConfigError, match=f"sigmoid output.*found {output}"):
        check_loss("cross-entropy", output)


def test_unknown():
    with pytest.raises(ConfigError, match=r"'crossentropy'; .*mean 'cross-entropy'"):
        check_loss("crossentropy", "sigmoid")


FIRING = np.array([1e-12, 0.002, 0.05, 0.5, 0.93])


@pytest.mark.parametrize("target", [0.002, 0.3, 0.9])
def test_kl_divergence(target):
    expected = target * np.log(target / FIRING)
    expected += (1 - target) * np.log((1 - target) / (1 - FIRING))
    found = kl_divergence(target, FIRING)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert (found >= 0).all()
    assert kl_divergence(target, np.array([target]))[0] == pytest.approx(0, abs=1e-16)


@pytest.mark.parametrize("target", [0.002, 0.3, 0.9])
def test_derivatives_of_the_kl_divergence(target):
    p, h = FIRING[1:], 1e-6

    def slope_of(function):
        return (function(target, p + h) - function(target, p - h)) / (2 * h)

    slope, curvature = kl_slope(target, p), kl_curvature(target, p)
    np.testing.assert_allclose(slope_of(kl_divergence), slope, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(slope_of(kl_slope), curvature, rtol=1e-5)


def test_a_unit_that_never_or_always_fires_diverges_without_warnings():
    p = np.array([0.0, 1.0])
    assert kl_divergence(0.3, p).tolist() == [np.inf, np.inf]
    assert kl_slope(0.3, p).tolist() == [-np.inf, np.inf]
    assert kl_curvature(0.3, p).tolist() == [np.inf, np.inf]


def test_the_kl_divergence_of_the_smallest_numbers():
    p = np.array([1e-300, 5e-324])
    assert np.isfinite(kl_divergence(0.002, p)).all()
    assert kl_divergence(0.5, 1 - np.array([2.0**-53])) < 20


# Not 0, where the rectifier has no slope.
POINTS = np.concatenate([np.linspace(-6, 6, 42), [-0.01, 0.01]])


def applied(name, z):
    y = np.array(z)
    activation(name).apply(y)
    return y


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
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


def test_unknown_activation():
    with pytest.raises(ConfigError, match=r"'sigmoit'; choose from .*mean 'sigmoid'"):
        activation("sigmoit")
