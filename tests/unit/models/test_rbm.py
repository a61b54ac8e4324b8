"""Restricted Boltzmann machines."""

from itertools import product

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.models.rbm import RBM
from tests.support import plain
from tests.support.toys import layer_gradient, randomize, rows

KINDS = list(product(["sigmoid", "linear"], repeat=2))


def make(n_visible=12, n_hidden=7, visible="sigmoid", hidden="sigmoid", steps=1):
    # Small weights: Gaussian units on both sides would run away from larger ones.
    shape = LayerShape(n_visible, n_hidden, visible, hidden)
    return randomize(RBM(shape, steps), deviation=0.2)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("visible", "hidden"), KINDS)
def test_gradient_is_that_of_contrastive_divergence(visible, hidden, steps):
    rbm, v = make(visible=visible, hidden=hidden, steps=steps), rows(30)
    found, _ = layer_gradient(rbm, v, seed=5, scale=0.25)
    p = plain.named(rbm.parameters.shapes, rbm.parameters.vector)
    rng = np.random.default_rng(5)
    expected = plain.contrastive_divergence(p, visible, hidden, v, rng, steps)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], 0.25 * values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("visible", "hidden"), KINDS)
def test_encode_and_decode(visible, hidden):
    rbm, v = make(visible=visible, hidden=hidden), rows(9)
    p = plain.named(rbm.parameters.shapes, rbm.parameters.vector)
    h = plain.FUNCTIONS[hidden](v @ p["weights"] + p["hidden_bias"])
    back = plain.FUNCTIONS[visible](h @ p["weights"].T + p["visible_bias"])
    out = np.empty((9, 7), np.float32)
    assert rbm.encode(v, out) is out
    np.testing.assert_array_equal(out, rbm.encode(v))
    np.testing.assert_allclose(out, h, atol=1e-6)
    np.testing.assert_allclose(rbm.decode(out), back, atol=1e-6)


@pytest.mark.parametrize("hidden", ["sigmoid", "linear"])
def test_a_minibatch_may_lie_anywhere_and_be_of_any_size(hidden):
    rbm, v = make(hidden=hidden), rows(20)
    before = v.copy()
    found, _ = layer_gradient(rbm, v)
    layer_gradient(rbm, v[5:])
    np.testing.assert_array_equal(v, before)
    own = rbm.minibatch(20)
    own[:] = v
    again, _ = layer_gradient(rbm, own)
    np.testing.assert_array_equal(again.vector, found.vector)


def test_returned_activations_are_those_before_the_step():
    rbm, v = make(), rows(20)
    expected = rbm.encode(v)

    def descend(part, gradient):
        rbm.parameters.vector[part] -= 1

    hidden = rbm.gradient(v, np.random.default_rng(0), 0.1, descend)
    np.testing.assert_array_equal(hidden, expected)
    assert np.abs(rbm.encode(v) - expected).max() > 0.1


@pytest.mark.parametrize("kind", ["tanh", "relu"])
@pytest.mark.parametrize("side", ["visible", "hidden"])
def test_other_units_are_refused(side, kind):
    with pytest.raises(ConfigError, match=f"sigmoid .*or linear .*found {kind}"):
        RBM(LayerShape(3, 2, **{side: kind}))


def test_all_random_numbers_come_from_the_generator():
    rbm, v, out = make(), rows(20), make().parameters.like()
    rng = np.random.default_rng(2)
    keep = out.vector.__setitem__
    rbm.gradient(v, rng, 1.0, keep)
    first = out.copy()
    rbm.gradient(v, rng, 1.0, keep)
    assert first.digest() != out.digest()
    rbm.gradient(v, np.random.default_rng(2), 1.0, keep)
    assert first.digest() == out.digest()
