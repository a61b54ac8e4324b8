"""The encoder with an output layer, and the masks of dropout."""

import numpy as np
import pytest

from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor
from tests.support import plain
from tests.support.toys import ignore, randomize, rows

SHAPES = (LayerShape(12, 8, hidden="tanh"), LayerShape(8, 6, "tanh", "sigmoid"))
KINDS = ("tanh", "sigmoid", "linear")
CLASSES = np.array([-3, 5, 6, 40])
NUMBER = CLASSES[:0]
LOSSES = {"softmax": CLASSES, "squared": NUMBER}


def new_predictor(classes=CLASSES, shapes=SHAPES):
    return randomize(Predictor(shapes, classes))


def wanted(loss, n_rows):
    """Return targets of so many rows."""
    rng = np.random.default_rng(7)
    if loss == "softmax":
        return np.eye(4, dtype="f")[rng.integers(4, size=n_rows)]
    return rng.normal(3, 2, (n_rows, 1)).astype("f")


def masks(n_rows, widths=(12, 8, 6)):
    """Return factors that are zero here and there."""
    rng = np.random.default_rng(8)
    return [(1.5 * (rng.random((n_rows, n)) < 0.7)).astype("f") for n in widths]


def plain_loss(loss, target, output):
    if loss == "softmax":
        return plain.softmax_loss(target, output)
    return plain.loss(loss, target, output)


def gradient(model, v, loss, target, factors=()):
    out = model.parameters.like()
    out.vector[:] = np.nan
    total = model.gradient(v, loss, out, 1.0, ignore, target, factors)
    return out.vector, total


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n_rows", [15, 0])
@pytest.mark.parametrize("loss", [*LOSSES, "autoencoder"])
def test_loss_and_gradient(loss, n_rows, masked):
    v, kinds, widths = rows(n_rows), KINDS, (12, 8, 6)
    if loss == "autoencoder":
        model, target, loss = randomize(DeepAutoencoder(SHAPES)), None, "squared"
        kinds, widths = ("tanh", "sigmoid", "tanh", "sigmoid"), (*widths, 8)
    else:
        model, target = new_predictor(LOSSES[loss]), wanted(loss, n_rows)
    factors = masks(n_rows, widths) if masked else []

    def cost(vector):
        p = plain.named(model.parameters.shapes, vector)
        output = plain.forward(p, kinds, v, factors)[-1]
        return plain_loss(loss, v if target is None else target, output)

    found, total = gradient(model, v, loss, target, factors)
    assert total == pytest.approx(cost(model.parameters.vector), rel=1e-5)
    expected = plain.central_differences(cost, model.parameters.vector)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_array_equal(v, rows(n_rows))
    if target is not None:
        np.testing.assert_array_equal(target, wanted(loss, n_rows))


def test_masks_of_ones_change_nothing():
    model, v, target = new_predictor(), rows(15), wanted("softmax", 15)
    ones = [np.ones_like(mask) for mask in masks(15)]
    expected = gradient(model, v, "softmax", target)
    for factors in (ones, [None, None, ones[2]], [None]):
        found = gradient(model, v, "softmax", target, factors)
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1] == expected[1]


def test_the_encoder_is_taken_over():
    stack, model, v = randomize(DeepAutoencoder(SHAPES), 1), new_predictor(), rows(20)
    last = model.parameters["weights_2"].copy()
    model.take_encoder(stack)
    np.testing.assert_array_equal(model.encode(v), stack.encode(v))
    np.testing.assert_array_equal(model.parameters["weights_2"], last)
    stack.parameters.vector[:] = 7
    assert (model.parameters["weights_0"] != 7).all()
    assert model.apply(v).shape == (20, 4)


def test_scikit_learn_finds_the_same_loss():
    neural = pytest.importorskip("sklearn.neural_network", reason="needs scikit-learn")
    from sklearn.metrics import log_loss

    model = new_predictor(shapes=(LayerShape(12, 8), LayerShape(8, 6)))
    v, target = rows(40), wanted("softmax", 40)
    chosen = target.argmax(axis=1)
    other = neural.MLPClassifier((8, 6), "logistic")
    other.partial_fit(v, chosen, classes=np.arange(4))
    p = model.parameters
    other.coefs_ = [p[f"weights_{k}"] for k in range(3)]
    other.intercepts_ = [p[f"bias_{k}"] for k in range(3)]
    _, found = gradient(model, v, "softmax", target)
    expected = 40 * log_loss(chosen, other.predict_proba(v), labels=np.arange(4))
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(model.apply(v).argmax(axis=1), other.predict(v))
