"""Losses, and their derivative at the last layer."""

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.numerics.activations import ACTIVATIONS, activation
from mpilayer.numerics.losses import LOSSES, check_loss, loss_value, output_delta
from tests.support import plain

RNG = np.random.default_rng(0)
TARGET = RNG.random((7, 5))
FIELDS = RNG.normal(0, 2, (7, 5))


@pytest.mark.parametrize("name", LOSSES)
def test_value(name):
    target, output = TARGET.astype("f"), plain.FUNCTIONS["sigmoid"](FIELDS).astype("f")
    found = loss_value(name, target, output)
    assert isinstance(found, float)
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
