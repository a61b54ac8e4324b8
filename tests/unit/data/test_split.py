"""Samples in memory, and validation samples."""

import numpy as np
import pytest

from mpilayer.data.labels import whole_numbers
from mpilayer.data.split import Split, set_apart
from mpilayer.errors import ConfigError, DataError


def numbered(n, labels=None):
    """Return samples that know their row."""
    return Split(np.arange(2 * n, dtype=np.float32).reshape(n, 2), labels)


def rows(split):
    return (split.x[:, 0] / 2).astype(int).tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16, bool, ">f4"])
def test_numbers_become_float32(dtype):
    assert Split(np.ones((2, 3), dtype)).x.dtype == np.float32


def test_bytes_stay_bytes():
    assert Split(np.ones((2, 3), np.uint8)).x.dtype == np.uint8


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (3, 0)])
def test_other_shapes(shape):
    with pytest.raises(DataError, match=r"rows of a table.*found shape"):
        Split(np.zeros(shape))


@pytest.mark.parametrize("dtype", [complex, object, "U3"])
def test_other_types(dtype):
    with pytest.raises(DataError, match="must be real numbers; found"):
        Split(np.zeros((2, 3), dtype))


@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e300, "inf")]
)
def test_values_that_are_not_finite(value, found):
    x = np.zeros((5000, 3))
    x[4321, 2] = value
    with pytest.raises(DataError, match=f"row 4321, column 2 is {found}"):
        Split(x)


def test_labels():
    with pytest.raises(DataError, match="found 4 samples and 3 labels"):
        numbered(4, np.zeros(3, int))
    with pytest.raises(DataError, match=r"one number a sample; found <U1"):
        numbered(4, np.full(4, "a"))
    with pytest.raises(DataError, match="finite float32 numbers; that of row 2 is nan"):
        numbered(4, np.array([1, 2.5, np.nan, 4]))
    assert numbered(2, np.array([0.5, 1])).labels.dtype == np.float32
    with pytest.raises(DataError, match=r"found int64 of shape \(4, 1\)"):
        numbered(4, np.zeros((4, 1), int))


def test_whole_numbers():
    assert whole_numbers(np.array([1.0, 2.0])).dtype == np.int64
    assert whole_numbers(np.array([True])).dtype == np.int64
    for value in (0.5, np.nan, np.inf, 1e300):
        assert whole_numbers(np.array([1.0, value])).dtype == np.float64


def test_validation_is_balanced_and_keeps_the_order():
    train, validation = set_apart(numbered(60, np.arange(60) % 3), 12, seed=1)
    assert np.bincount(validation.labels).tolist() == [4, 4, 4]
    assert rows(train) == sorted(rows(train))
    assert rows(validation) == sorted(rows(validation))
    assert sorted(rows(train) + rows(validation)) == list(range(60))
    assert [row % 3 for row in rows(validation)] == validation.labels.tolist()


def test_remainder_goes_to_the_first_labels():
    _, validation = set_apart(numbered(60, np.arange(60) % 4), 10, seed=1)
    assert np.bincount(validation.labels).tolist() == [3, 3, 2, 2]


def test_validation_is_deterministic():
    split = numbered(100, np.arange(100) % 10)
    first, again = (rows(set_apart(split, 20, seed=7)[1]) for _ in range(2))
    assert first == again
    assert rows(set_apart(split, 20, seed=8)[1]) != first


def test_validation_without_labels():
    train, validation = set_apart(numbered(50), 20, seed=0)
    assert (len(train), len(validation)) == (30, 20)
    assert sorted(rows(train) + rows(validation)) == list(range(50))
    assert validation.labels is None


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
