"""Errors over all rows; principal components; labels, and errors of predictors."""

import numpy as np
import pytest

from mpilayer.errors import DataError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train import evaluate
from mpilayer.train.evaluate import (
    PCA,
    Always,
    confusion,
    prediction_error,
    reconstruction_error,
    sum_over_ranks,
    targets,
)
from tests.support import plain
from tests.support.toys import randomize, rows

SERIAL = SerialCommunicator()


def blocks(v):
    return np.split(v, [30, 31, 31])


def test_reconstruction_error():
    stack, v = randomize(DeepAutoencoder([LayerShape(12, 5)])), rows(80)
    p = plain.named(stack.parameters.shapes, stack.parameters.vector)
    output = plain.forward(p, ("sigmoid", "sigmoid"), v)[-1]
    expected = ((v - output) ** 2).sum(axis=1).mean()
    found = reconstruction_error(stack, blocks(v), SERIAL)
    assert found == pytest.approx(expected, rel=1e-6)
    for nothing in ([], [rows(0)]):
        assert np.isnan(reconstruction_error(stack, nothing, SERIAL))
        assert np.isnan(PCA([v], v.shape, 3, SERIAL).error(nothing, SERIAL))


@pytest.mark.parametrize("large", [1, 10**9], ids=["products", "whole"])
@pytest.mark.parametrize(
    ("shape", "n_components"),
    [
        *(((80, 12), n) for n in (0, 1, 3, 12)),
        *(((n, m), 4) for n, m in ((300, 80), (80, 300), (300, 300))),
    ],
)
def test_principal_components_against_singular_values(
    monkeypatch, shape, n_components, large
):
    """Also fewer rows than columns, and few components of a large matrix."""
    monkeypatch.setattr(evaluate, "_LARGE", large)
    train, test = rows(*shape), rows(40, shape[1], seed=1)
    mean = train.mean(axis=0, dtype=float)
    basis = np.linalg.svd(train - mean, full_matrices=False)[2][:n_components]
    pca = PCA(blocks(train), shape, n_components, SERIAL)
    np.testing.assert_allclose(pca.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(pca.basis.T @ pca.basis, np.eye(n_components), atol=1e-9)
    for v in (train, test):
        centred = v - mean
        expected = ((centred - centred @ basis.T @ basis) ** 2).sum(axis=1).mean()
        close = pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert pca.error(np.array_split(v, 3), SERIAL) == close
        made = pca.reconstruct(v)
        assert ((v - made) ** 2).sum(axis=1).mean() == close


def test_a_sum_over_one_rank():
    values = np.arange(3.0)
    assert sum_over_ranks(SERIAL, values) is values
    assert values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("n_components", [3, 30])
def test_principal_components_of_few_rows_with_many_columns(n_components):
    """A matrix of all columns would have 320 GB."""
    train = np.random.default_rng(0).random((10, 200_000), dtype=np.float32)
    pca = PCA([train[:4], train[4:]], train.shape, n_components, SERIAL)
    assert pca.basis.shape == (200_000, min(9, n_components))
    error = pca.error([train], SERIAL)
    if n_components == 30:
        assert error == pytest.approx(0, abs=1e-4)
    else:
        squares = np.linalg.svd(train - train.mean(axis=0), compute_uv=False)[3:] ** 2
        assert error == pytest.approx(squares.sum() / 10, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((60_000, 784), True),
        ((60, 20_000), True),
        ((5, 10**7), True),
        ((10**6, 20_000), False),
        ((5_000, 10**6), False),
    ],
)
def test_what_is_too_large_for_principal_components(shape, fits):
    assert PCA.fits(*shape) == fits


# --- labels

CLASSES = np.array([-3, 5, 40])


def new_predictor(classes=CLASSES):
    """Give a predictor of which outputs are its inputs, which are positive."""
    model = Predictor([LayerShape(3, 3, "linear", "relu")], classes)
    model.parameters["weights_0"][:] = np.eye(3)
    model.parameters["weights_1"][:] = np.eye(3)[:, : max(len(classes), 1)]
    return model


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([40, -3, -3, 5], CLASSES, np.eye(3)[[2, 0, 0, 1]]),
        ([40, -3], CLASSES[:0], [[40], [-3]]),
        ([], CLASSES, np.zeros((0, 3))),
        ([], CLASSES[:0], np.zeros((0, 1))),
    ],
)
def test_targets(labels, classes, expected):
    found = targets(np.array(labels, np.int64), classes)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_a_label_that_is_no_class():
    with pytest.raises(DataError, match=r"the 3 of the training rows; found 0, 7\."):
        targets(np.array([40, 7, 0, 7]), CLASSES)
    with pytest.raises(DataError, match=r"rows; found class 0, class 7\."):
        targets(np.array([7, 0]), CLASSES, lambda some: [f"class {k}" for k in some])


def test_confusion():
    classes = np.array([40, 5, 5, -3, 40, 40])
    scores = np.eye(3, dtype="f")[[2, 1, 0, 0, 1, 2]]
    wanted = targets(classes, CLASSES)
    blocks = [(scores[:4], wanted[:4]), (scores[4:], wanted[4:])]
    counts = confusion(new_predictor(), blocks, SERIAL)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [1, 1, 0], [0, 1, 2]])
    error = prediction_error(new_predictor(), blocks, SERIAL)
    assert error == pytest.approx(100 * 2 / 6)
    assert np.isnan(prediction_error(new_predictor(), [], SERIAL))


def test_error_of_a_regressor():
    model = new_predictor(CLASSES[:0])
    v = np.array([[1, 9, 9], [4, 9, 9]], "f")
    wanted = np.array([[2], [1]], "f")
    assert prediction_error(model, [(v, wanted)], SERIAL) == pytest.approx(5)
    assert np.isnan(prediction_error(model, [], SERIAL))


@pytest.mark.parametrize(
    ("training", "classes", "labels", "expected"),
    [
        ([5, 40, 40, -3, 40, 5], CLASSES, [40, 5, 5, 5], 75),
        ([1.0, 2.0, 6.0], CLASSES[:0], [3.0, 5.0], (0 + 4) / 2),
    ],
)
def test_always_the_same_output(training, classes, labels, expected):
    """The most frequent class of the training rows, or their mean."""
    model = Always(np.array(training), classes)
    rows = np.zeros((len(labels), 3), np.float32)
    block = (rows, targets(np.array(labels), classes))
    assert prediction_error(model, [block], SERIAL) == expected
