"""Samples in memory, and validation samples."""

import numpy as np
import pytest

from mpilayer.data.split import Split, set_apart, whole_numbers
from mpilayer.errors import ConfigError, DataError


def numbered(n, labels=None):
    """Return samples that know their row."""
    return Split(np.arange(2 * n, dtype=np.float32).reshape(n, 2), labels)


def rows(split):
    return (split.x[:, 0] / 2).astype(int).tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16, bool, ">f4", "u1"])
def test_all_but_bytes_become_float32(dtype):
    kind = np.uint8 if dtype == "u1" else np.float32
    assert Split(np.ones((2, 3), dtype)).x.dtype == kind


@pytest.mark.parametrize(
    ("x", "message"),
    [
        *(
            (np.zeros(shape), r"rows of a table.*found shape")
            for shape in ((3,), (2, 3, 4), (0, 3), (3, 0))
        ),
        *(
            (np.zeros((2, 3), dtype), "must be real numbers; found")
            for dtype in (complex, object, "U3")
        ),
    ],
)
def test_other_shapes_and_types(x, message):
    with pytest.raises(DataError, match=message):
        Split(x)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, int), "found 4 samples and 3 labels"),
        (np.full(4, "a"), "one number a sample; found <U1"),
        (np.array([1, 2.5, np.nan, 4]), "finite float32 .*; that of row 2 is nan"),
        (np.zeros((4, 1), int), r"found int64 of shape \(4, 1\)"),
    ],
)
def test_refused_labels(labels, message):
    with pytest.raises(DataError, match=message):
        numbered(4, labels)


@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e300, "inf")]
)
def test_values_that_are_not_finite(value, found):
    x = np.zeros((5000, 3))
    x[4321, 2] = value
    with pytest.raises(DataError, match=f"row 4321, column 2 is {found}"):
        Split(x)


def test_whole_numbers():
    assert whole_numbers(np.array([1.0, 2.0])).dtype == np.int64
    assert whole_numbers(np.array([True])).dtype == np.int64
    for value in (0.5, np.nan, np.inf, 1e300):
        assert whole_numbers(np.array([1.0, value])).dtype == np.float64


@pytest.mark.parametrize(
    ("n_classes", "n", "counts"),
    [(3, 12, [4, 4, 4]), (4, 10, [3, 3, 2, 2]), (None, 20, None)],
)
def test_validation_is_balanced_random_and_keeps_the_order(n_classes, n, counts):
    split = numbered(60, n_classes and np.arange(60) % n_classes)
    train, validation = set_apart(split, n, seed=7)
    assert rows(train) == sorted(rows(train))
    assert rows(validation) == sorted(rows(validation))
    assert sorted(rows(train) + rows(validation)) == list(range(60))
    assert rows(set_apart(split, n, seed=7)[1]) == rows(validation)
    assert rows(set_apart(split, n, seed=8)[1]) != rows(validation)
    if n_classes is None:
        assert validation.labels is None
    else:
        assert np.bincount(validation.labels).tolist() == counts
        found = [row % n_classes for row in rows(validation)]
        assert found == validation.labels.tolist()


@pytest.mark.parametrize("n", [-1, 0, 50, 51])
def test_validation_rows_out_of_range(n):
    with pytest.raises(ConfigError, match=f"asked for {n} of 50"):
        set_apart(numbered(50), n, seed=0)


def test_too_few_rows_of_a_label():
    split = numbered(50, np.array([0] * 46 + [1] * 4))
    # A class without any row for training could not be learned.
    for n in (20, 8):
        message = f"2 labels and .*: {n // 2} of label 1; found 4.*--unbalanced"
        with pytest.raises(DataError, match=message):
            set_apart(split, n, seed=0)
    with pytest.raises(DataError, match="4 of label dog; found 4"):
        set_apart(split, 8, seed=0, names=("cat", "dog"))
    assert len(set_apart(split, 6, seed=0)[1]) == 6
    assert len(set_apart(split, 20, seed=0, balanced=False)[1]) == 20


@pytest.mark.parametrize("kind", ["real", "more classes than rows"])
def test_numbers_are_no_classes_to_balance(kind):
    labels = np.arange(50) + 0.5 * (kind == "real")
    _, taken = set_apart(numbered(50, labels), 20, seed=0)
    # Not those of the smallest labels, as one each of the first classes would be.
    assert taken.labels.max() > 40
    assert taken.labels.min() < 10


def test_test_rows_leave_the_validation_rows_as_they_were():
    split = numbered(100, np.arange(100) % 10)
    train, validation = set_apart(split, 20, seed=7)
    train, test = set_apart(train, 30, seed=7, split="test")
    assert rows(validation) == rows(set_apart(split, 20, seed=7)[1])
    assert np.bincount(test.labels).tolist() == [3] * 10
    everything = rows(train) + rows(validation) + rows(test)
    assert sorted(everything) == list(range(100))
