"""What every model promises about the parts of its gradient."""

import numpy as np
import pytest

from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import LayerShape
from mpilayer.models.rbm import RBM
from mpilayer.models.stack import DeepAutoencoder
from tests.support.toys import ignore, layer_gradient, randomize, rows, stack_gradient

# An odd number of visible units: the halves of a matrix are not equal.
SHAPE = LayerShape(13, 7)
MODELS = {
    "rbm": lambda: RBM(SHAPE),
    "rbm, 3 steps": lambda: RBM(SHAPE, 3),
    "rbm, Gaussian": lambda: RBM(LayerShape(13, 7, "linear", "linear")),
    "rbm, one visible unit": lambda: RBM(LayerShape(1, 7)),
    "autoencoder, tied": lambda: Autoencoder(SHAPE),
    "autoencoder, untied": lambda: Autoencoder(SHAPE, tied=False),
    "stack": lambda: DeepAutoencoder([SHAPE, LayerShape(7, 4)]),
}


@pytest.fixture(params=MODELS)
def model(request):
    """Give one model after the other."""
    return randomize(MODELS[request.param](), deviation=0.2)


def gradient(model, done):
    """Return gradient and activations (or loss) of a minibatch."""
    is_stack = isinstance(model, DeepAutoencoder)
    n_visible = (model.shapes[0] if is_stack else model.shape).n_visible
    made = stack_gradient if is_stack else layer_gradient
    return made(model, rows(20, n_visible), done=done)


def test_each_part_comes_once(model):
    met = np.zeros(model.parameters.vector.size, int)

    def count(part, gradient):
        met[part] += 1
        assert len(gradient) == part.stop - part.start

    gradient(model, count)
    assert (met == 1).all()


def test_parts_are_complete_and_their_parameters_free(model):
    expected, value = gradient(model, ignore)
    out = model.parameters.like()
    early = np.empty_like(out.vector)

    def take_and_spoil(part, gradient):
        early[part] = gradient
        gradient[:] = np.nan
        model.parameters.vector[part] = np.nan

    n_visible = next(iter(model.parameters.shapes.values()))[0]
    v = rows(20, n_visible)
    if isinstance(model, DeepAutoencoder):
        again = model.gradient(v, "squared", out, 1.0, take_and_spoil)
    else:
        again = model.gradient(v, np.random.default_rng(0), 1.0, take_and_spoil)
    np.testing.assert_array_equal(early, expected.vector)
    np.testing.assert_array_equal(again, value)
