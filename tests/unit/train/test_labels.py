"""Labels as targets, and the errors of predictors."""

import numpy as np
import pytest

from mpilayer.errors import DataError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import Predictor
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.evaluate import (
    Always,
    confusion,
    prediction_error,
    targets,
)

SERIAL = SerialCommunicator()
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


def test_squared_error():
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
