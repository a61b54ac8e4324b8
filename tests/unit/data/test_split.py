"""Samples in memory, and validation samples."""

import numpy as np
import pytest

from mpilayer.data.split import Split, count_labels, take_validation, whole_numbers
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
    with pytest.raises(DataError, match=r"one integer a sample; found float64"):
        numbered(4, np.full(4, 0.5))
    with pytest.raises(DataError, match=r"found int64 of shape \(4, 1\)"):
        numbered(4, np.zeros((4, 1), int))
    assert count_labels(np.array([10, 2, 2])) == {"2": 2, "10": 1}


def test_whole_numbers():
    assert whole_numbers(np.array([1.0, 2.0])).dtype == np.int64
    assert whole_numbers(np.array([True])).dtype == np.int64
    for value in (0.5, np.nan, np.inf, 1e300):
        assert whole_numbers(np.array([1.0, value])).dtype == np.float64


def test_validation_is_balanced_and_keeps_the_order():
    train, validation = take_validation(numbered(60, np.arange(60) % 3), 12, seed=1)
    assert count_labels(validation.labels) == {"0": 4, "1": 4, "2": 4}
    assert rows(train) == sorted(rows(train))
    assert rows(validation) == sorted(rows(validation))
    assert sorted(rows(train) + rows(validation)) == list(range(60))
    assert [row % 3 for row in rows(validation)] == validation.labels.tolist()


def test_remainder_goes_to_the_first_labels():
    _, validation = take_validation(numbered(60, np.arange(60) % 4), 10, seed=1)
    assert count_labels(validation.labels) == {"0": 3, "1": 3, "2": 2, "3": 2}


def test_validation_is_deterministic():
    split = numbered(100, np.arange(100) % 10)
    first, again = (rows(take_validation(split, 20, seed=7)[1]) for _ in range(2))
    assert first == again
    assert rows(take_validation(split, 20, seed=8)[1]) != first


def test_validation_without_labels():
    train, validation = take_validation(numbered(50), 20, seed=0)
    assert (len(train), len(validation)) == (30, 20)
    assert sorted(rows(train) + rows(validation)) == list(range(50))
    assert validation.labels is None


@pytest.mark.parametrize("n", [-1, 0, 50, 51])
def test_validation_rows_out_of_range(n):
    with pytest.raises(ConfigError, match=f"asked for {n} of 50"):
        take_validation(numbered(50), n, seed=0)


def test_too_few_rows_of_a_label():
    labels = np.array([0] * 46 + [5] * 4)
    with pytest.raises(DataError, match="2 labels: 10 of label 5; found 4"):
        take_validation(numbered(50, labels), 20, seed=0)
