"""Autoencoders with one hidden layer."""

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import LayerShape
from tests.support import plain
from tests.support.toys import layer_gradient, randomize, rows

MODES = [
    (visible, hidden, tied, loss)
    for hidden in ("sigmoid", "tanh", "relu", "linear")
    for tied in (True, False)
    for visible, loss in (
        ("sigmoid", "squared"),
        ("sigmoid", "cross-entropy"),
        ("linear", "squared"),
    )
]


def make(visible="sigmoid", hidden="sigmoid", tied=True, loss="squared"):
    shape = LayerShape(12, 5, visible, hidden)
    return randomize(Autoencoder(shape, tied, loss))


def reconstruct(model, vector, v):
    """Return the hidden activations and the reconstruction, in float64."""
    p = plain.named(model.parameters.shapes, vector)
    back = p["weights"].T if model.tied else p["decode_weights"]
    hidden = plain.FUNCTIONS[model.shape.hidden](v @ p["weights"] + p["hidden_bias"])
    output = hidden @ back + p["visible_bias"]
    return hidden, plain.FUNCTIONS[model.shape.visible](output)


@pytest.mark.parametrize(("visible", "hidden", "tied", "loss"), MODES)
def test_cost_and_gradient(visible, hidden, tied, loss):
    model, v = make(visible, hidden, tied, loss), rows(15)

    def cost(vector):
        return plain.loss(loss, v, reconstruct(model, vector, v)[1])

    vector = model.parameters.vector
    expected = 0.5 * plain.central_differences(cost, vector)
    found, _ = layer_gradient(model, v, scale=0.5)
    np.testing.assert_allclose(found.vector, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_encode_and_decode(tied):
    model, v = make("linear", "tanh", tied), rows(9)
    expected = reconstruct(model, model.parameters.vector, v)
    hidden, out = model.encode(v), np.empty((9, 12), np.float32)
    assert model.decode(hidden, out) is out
    np.testing.assert_allclose(hidden, expected[0], atol=1e-6)
    np.testing.assert_allclose(out, expected[1], atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_gradient_leaves_the_minibatch_and_returns_its_activations(tied):
    model, v = make(tied=tied), rows(20)
    before, expected = v.copy(), model.encode(v)
    found, hidden = layer_gradient(model, v)
    np.testing.assert_array_equal(v, before)
    np.testing.assert_array_equal(hidden, expected)
    own = model.minibatch(20)
    own[:] = v
    again, _ = layer_gradient(model, own)
    np.testing.assert_array_equal(again.vector, found.vector)


def test_cross_entropy_of_linear_units_is_refused():
    with pytest.raises(ConfigError, match="sigmoid output"):
        make("linear", loss="cross-entropy")
