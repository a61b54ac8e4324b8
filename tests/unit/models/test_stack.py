"""Layers unrolled to a deep autoencoder, the encoder with an output layer, dropout."""

from math import nan

import numpy as np
import pytest

from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import LayerShape
from mpilayer.models.rbm import RBM
from mpilayer.models.stack import DeepAutoencoder, Predictor
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


def test_a_bad_number_does_not_hide(stack):
    v = rows(15)
    v[3, 2] = nan
    out, loss = stack_gradient(stack, v)
    assert np.isnan(loss)
    assert np.isnan(out["bias_0"]).any()


TWO = SHAPES[:2]
CLASSES = np.array([-3, 5, 6, 40])
# No classes: a number is predicted; None: the rows are.
LOSSES = [("squared", None), ("cross-entropy", None)]
LOSSES += [("softmax", CLASSES), ("squared", CLASSES[:0])]


def new_predictor(classes=CLASSES, shapes=TWO):
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


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n_rows", [15, 0])
@pytest.mark.parametrize(("loss", "classes"), LOSSES)
def test_loss_and_gradient(loss, classes, n_rows, masked):
    v, target, kinds, widths = rows(n_rows), None, KINDS, (12, 8, 6, 3, 6, 8)
    model = randomize(DeepAutoencoder(SHAPES))
    if classes is not None:
        model, target, kinds = new_predictor(classes), wanted(loss, n_rows), KINDS[:3]
    factors = masks(n_rows, widths[: len(kinds)]) if masked else []

    def cost(vector):
        p = plain.named(model.parameters.shapes, vector)
        output = plain.forward(p, kinds, v, factors)[-1]
        if loss == "softmax":
            return plain.softmax_loss(target, output)
        return plain.loss(loss, v if target is None else target, output)

    found, total = stack_gradient(model, v, loss, 0.125, target, factors)
    assert total == pytest.approx(cost(model.parameters.vector), rel=1e-5)
    expected = plain.central_differences(cost, model.parameters.vector)
    np.testing.assert_allclose(8 * found.vector, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_array_equal(v, rows(n_rows))
    if target is not None:
        np.testing.assert_array_equal(target, wanted(loss, n_rows))


def test_masks_of_ones_change_nothing():
    model, v, target = new_predictor(), rows(15), wanted("softmax", 15)
    ones = [np.ones_like(mask) for mask in masks(15)]
    expected = stack_gradient(model, v, "softmax", target=target)
    for factors in (ones, [None, None, ones[2]], [None]):
        found = stack_gradient(model, v, "softmax", target=target, masks=factors)
        np.testing.assert_array_equal(found[0].vector, expected[0].vector)
        assert found[1] == expected[1]


def test_the_encoder_is_taken_over():
    stack, model, v = randomize(DeepAutoencoder(TWO), 1), new_predictor(), rows(20)
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
    _, found = stack_gradient(model, v, "softmax", target=target)
    expected = 40 * log_loss(chosen, other.predict_proba(v), labels=np.arange(4))
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(model.apply(v).argmax(axis=1), other.predict(v))


# Units between first steps: for three slices, one, and, beside the output, two.
WIDE = (LayerShape(9, 200), LayerShape(200, 70, hidden="tanh"), LayerShape(70, 130))


@pytest.mark.parametrize("loss", ["cross-entropy", "softmax"])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_slices_change_nothing_but_rounding(loss, n_layers, slices):
    shapes, v, target = WIDE[:n_layers], rows(15, 9), None
    model, factors = DeepAutoencoder(shapes), masks(15, (9, 200, 70, 130))
    if loss == "softmax":
        model, target = Predictor(shapes, CLASSES), wanted(loss, 15)
        factors = factors[: n_layers + 1]
    else:
        factors = factors[:n_layers] + masks(15, (130, 70, 200)[3 - n_layers :])
    randomize(model, deviation=0.2)
    p = plain.named(model.parameters.shapes, model.parameters.vector)
    kinds = [kind for *_, kind in model.steps]
    expected = plain.backward(p, kinds, v, factors, loss, target)
    found, _ = stack_gradient(model, v, loss, 1.0, target, factors, slices)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=2e-5)
