"""Layers unrolled to a deep autoencoder."""

from math import nan

import numpy as np
import pytest

from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import LayerShape
from mpilayer.models.rbm import RBM
from mpilayer.models.stack import DeepAutoencoder
from tests.support import plain
from tests.support.toys import randomize, rows, stack_gradient

SHAPES = (
    LayerShape(12, 8, "sigmoid", "tanh"),
    LayerShape(8, 6, "tanh", "sigmoid"),
    LayerShape(6, 3, "sigmoid", "linear"),
)
KINDS = ("tanh", "sigmoid", "linear", "sigmoid", "tanh", "sigmoid")
BERNOULLI = (LayerShape(12, 8), LayerShape(8, 6), LayerShape(6, 3, hidden="linear"))
LAYERS = {
    "rbm": lambda: [RBM(shape) for shape in BERNOULLI],
    "tied": lambda: [Autoencoder(shape) for shape in SHAPES],
    "untied": lambda: [Autoencoder(shape, tied=False) for shape in SHAPES],
}


@pytest.fixture
def stack():
    """Give a stack with random parameters."""
    return randomize(DeepAutoencoder(SHAPES))


@pytest.mark.parametrize("kind", LAYERS)
def test_unrolled_layers_do_what_they_did(kind):
    layers = [randomize(layer, seed) for seed, layer in enumerate(LAYERS[kind]())]
    stack, v = DeepAutoencoder.unroll(layers), rows(50)
    codes = v
    for layer in layers:
        codes = layer.encode(codes)
    back = codes
    for layer in reversed(layers):
        back = layer.decode(back)
    np.testing.assert_allclose(stack.encode(v), codes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stack.decode(codes), back, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stack.reconstruct(v), back, rtol=1e-5, atol=1e-6)


def test_unrolled_parameters_are_copies():
    layers = [randomize(layer) for layer in LAYERS["tied"]()]
    stack, before = DeepAutoencoder.unroll(layers), layers[0].parameters.copy()
    stack.parameters.vector[:] = 7
    assert layers[0].parameters.digest() == before.digest()


def test_rows_pass_in_blocks(stack):
    many = rows(4100)
    expected = np.concatenate([stack.encode(part) for part in np.split(many, 41)])
    np.testing.assert_allclose(stack.encode(many), expected, rtol=1e-5, atol=1e-6)
    assert stack.encode(many[:0]).shape == (0, 3)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_loss_and_gradient(stack, loss):
    v, shapes = rows(15), stack.parameters.shapes

    def cost(vector):
        values = plain.forward(plain.named(shapes, vector), KINDS, v)
        return plain.loss(loss, v, values[-1])

    vector = stack.parameters.vector
    found, total = stack_gradient(stack, v, loss, scale=0.125)
    np.testing.assert_array_equal(v, rows(15))
    assert total == pytest.approx(cost(vector), rel=1e-5)
    expected = plain.central_differences(cost, vector)
    np.testing.assert_allclose(8 * found.vector, expected, rtol=1e-3, atol=1e-4)


def test_the_plain_backpropagation_is_right(stack):
    p = plain.named(stack.parameters.shapes, stack.parameters.vector)
    found, _ = stack_gradient(stack, rows(15))
    for name, expected in plain.backward(p, KINDS, rows(15)).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-5)


def test_gradients_of_parts_of_a_minibatch_add_up(stack):
    v = rows(20)
    whole, loss = stack_gradient(stack, v)
    parts = [stack_gradient(stack, part) for part in (v[:7], v[7:], v[:0])]
    total = sum(out.vector for out, _ in parts)
    np.testing.assert_allclose(total, whole.vector, rtol=1e-4, atol=1e-5)
    assert sum(part for _, part in parts) == pytest.approx(loss, rel=1e-6)
    assert not parts[2][0].vector.any()


@pytest.mark.parametrize("n_rows", [15, 0])
def test_steps_are_done_from_the_last_to_the_first(stack, n_rows):
    done = []
    stack_gradient(stack, rows(15)[:n_rows], done=lambda part, _: done.append(part))
    spans = [stack.parameters.span(f"weights_{k}", f"bias_{k}") for k in range(6)]
    assert done == spans[::-1]


def test_a_bad_number_does_not_hide(stack):
    v = rows(15)
    v[3, 2] = nan
    out, loss = stack_gradient(stack, v)
    assert np.isnan(loss)
    assert np.isnan(out["bias_0"]).any()
