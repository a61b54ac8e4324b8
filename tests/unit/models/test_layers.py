"""Layers that are trained alone, and what every model promises of its gradient."""

from itertools import product

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import LayerShape
from mpilayer.models.rbm import RBM
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
    return randomize(Autoencoder(LayerShape(12, 5, visible, hidden), tied, loss))


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
    hidden, out = (np.empty((9, n), np.float32) for n in (5, 12))
    assert model.encode(v, hidden) is hidden
    assert model.decode(hidden, out) is out
    np.testing.assert_array_equal(hidden, model.encode(v))
    np.testing.assert_allclose(hidden, expected[0], atol=1e-6)
    np.testing.assert_allclose(out, expected[1], atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ends", [(), (2,), (1, 4)])
def test_gradient_leaves_the_minibatch_and_returns_its_activations(tied, ends):
    model, v = make(tied=tied), rows(20)
    before, expected = v.copy(), model.encode(v)
    whole, _ = layer_gradient(model, v)
    found, hidden = layer_gradient(model, v, ends=ends)
    np.testing.assert_array_equal(v, before)
    np.testing.assert_allclose(hidden, expected, atol=1e-6)
    # However the layer is cut.
    np.testing.assert_allclose(found.vector, whole.vector, atol=1e-4)


def test_cross_entropy_of_linear_units_is_refused():
    with pytest.raises(ConfigError, match="sigmoid output"):
        make("linear", loss="cross-entropy")


UNITS = list(product(["sigmoid", "linear"], repeat=2))


def machine(n_visible=12, n_hidden=7, visible="sigmoid", hidden="sigmoid", steps=1):
    # Small weights: Gaussian units on both sides would run away from larger ones.
    shape = LayerShape(n_visible, n_hidden, visible, hidden)
    return randomize(RBM(shape, steps), deviation=0.2)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("visible", "hidden"), UNITS)
def test_gradient_is_that_of_contrastive_divergence(visible, hidden, steps):
    rbm, v = machine(visible=visible, hidden=hidden, steps=steps), rows(30)
    found, _ = layer_gradient(rbm, v, seed=5, scale=0.25)
    p = plain.named(rbm.parameters.shapes, rbm.parameters.vector)
    rng = np.random.default_rng(5)
    expected = plain.contrastive_divergence(p, visible, hidden, v, rng, steps)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], 0.25 * values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["tanh", "relu"])
@pytest.mark.parametrize("side", ["visible", "hidden"])
def test_other_units_are_refused(side, kind):
    with pytest.raises(ConfigError, match=f"sigmoid .*or linear .*found {kind}"):
        RBM(LayerShape(3, 2, **{side: kind}))


def test_all_random_numbers_come_from_the_generator():
    digests = [
        layer_gradient(machine(), rows(20), seed)[0].digest() for seed in (2, 3, 2)
    ]
    assert digests[0] == digests[2] != digests[1]


# An odd number of visible units: the halves of a matrix are not equal.
ODD = LayerShape(13, 7)
MODELS = {
    "rbm": lambda: RBM(ODD),
    "rbm, 3 steps": lambda: RBM(ODD, 3),
    "rbm, Gaussian": lambda: RBM(LayerShape(13, 7, "linear", "linear")),
    "rbm, one visible unit": lambda: RBM(LayerShape(1, 7)),
    "autoencoder, tied": lambda: Autoencoder(ODD),
    "autoencoder, untied": lambda: Autoencoder(ODD, tied=False),
}


@pytest.fixture(params=MODELS)
def model(request):
    """Give one model after the other."""
    return randomize(MODELS[request.param](), deviation=0.2)


def test_each_part_comes_once(model):
    met = {}

    def count(own, part, gradient):
        met.setdefault(own, np.zeros(own.parameters.vector.size, int))[part] += 1
        assert len(gradient) == part.stop - part.start

    layer_gradient(model, rows(20, model.shape.n_visible), ends=(3,), done=count)
    assert len(met) == 2
    assert all((parts == 1).all() for parts in met.values())


def test_parts_are_complete_and_their_parameters_free(model):
    v = rows(20, model.shape.n_visible)
    expected, _ = layer_gradient(model, v)

    def spoil(own, part, gradient):
        gradient[:] = np.nan
        own.parameters.vector[part] = np.nan

    early, _ = layer_gradient(model, v, done=spoil)
    np.testing.assert_array_equal(early.vector, expected.vector)
