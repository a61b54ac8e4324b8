"""Samples in memory, validation samples, and labels as sources have them."""

import warnings

import numpy as np
import pytest

from mpilayer.data.split import (
    Split,
    label_vector,
    numbered,
    numbers_or_texts,
    set_apart,
    warn_of_labels,
)
from mpilayer.errors import ConfigError, DataError, RunWarning


def counted(n, labels=None):
    """Return samples that know their row."""
    return Split(np.arange(2 * n, dtype=np.float32).reshape(n, 2), labels)


def rows(split):
    return (split.x[:, 0] / 2).astype(int).tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16, bool, ">f4", "u1"])
def test_all_but_bytes_become_float32(dtype):
    kind = np.uint8 if dtype == "u1" else np.float32
    assert Split(np.ones((2, 3), dtype)).x.dtype == kind


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        *(
            (np.zeros(shape), None, r"rows of a table.*found shape")
            for shape in ((3,), (2, 3, 4), (0, 3), (3, 0))
        ),
        *((np.zeros((2, 3), kind), None, "be real numbers; found") for kind in "DOU"),
        (np.ones((2, 3)), np.full(2, "a"), "one number a sample; found <U1"),
    ],
)
def test_other_shapes_and_types(x, labels, message):
    with pytest.raises(DataError, match=message):
        Split(x, labels)


@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e300, "inf")]
)
def test_values_that_are_not_finite(value, found):
    x = np.zeros((5000, 3))
    x[4321, 2] = value
    with pytest.raises(DataError, match=f"row 4321, column 2 is {found}"):
        Split(x)


@pytest.mark.parametrize(
    ("n_classes", "n", "counts"),
    [(3, 12, [4, 4, 4]), (4, 10, [3, 3, 2, 2]), (None, 20, None)],
)
def test_validation_is_balanced_random_and_keeps_the_order(n_classes, n, counts):
    split = counted(60, n_classes and np.arange(60) % n_classes)
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
        set_apart(counted(50), n, seed=0)


def test_too_few_rows_of_a_label():
    split = counted(50, np.array([0] * 46 + [1] * 4))
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
    _, taken = set_apart(counted(50, labels), 20, seed=0)
    # Not those of the smallest labels, as one each of the first classes would be.
    assert taken.labels.max() > 40
    assert taken.labels.min() < 10


def test_each_kind_of_split_is_drawn_independently():
    split = counted(100, np.arange(100) % 10)
    taken = [rows(set_apart(split, 20, 7, kind)[1]) for kind in ("validation", "test")]
    assert taken[0] != taken[1]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["3", "-1", "9007199254740993"], np.int64),
        (["3", "1e-3"], np.float64),
        (["3", "cat"], np.str_),
        # Python reads these as numbers.
        (["1_2", "12"], np.str_),
    ],
)
def test_cells(cells, kind):
    found = numbers_or_texts(cells, cells)
    assert issubclass(found.dtype.type, kind)
    assert found.tolist() == [kind(cell) for cell in cells]


def test_texts_become_places_in_the_alphabet_of_all_splits():
    labels = {"train": np.array(["b", "c"]), "test": np.array(["a", "c"])}
    for known in ((), tuple("abc"), tuple("xabc")):
        found, classes = numbered(labels, known, "other.h5")
        assert classes == (known or tuple("abc"))
        places = [classes.index(k) for k in "bcac"]
        assert [*found["train"], *found["test"]] == places


@pytest.mark.parametrize(
    ("labels", "known", "message"),
    [
        ([["d", "a"]], ("b", "c"), r"one of the 2 of o\.h5; found 'a', 'd'"),
        ([["a"], [1]], (), "texts in all; found <U1 in train and int64"),
        ([[1]], ("a",), r"texts in all, as in o\.h5; found int64"),
        ([["a", ""]], (), "must have a label; found ''"),
    ],
)
def test_labels_that_are_refused(labels, known, message):
    splits = dict(zip(("train", "test"), map(np.array, labels), strict=False))
    with pytest.raises(DataError, match=message):
        numbered(splits, known, "o.h5" if known else "")


@pytest.mark.parametrize(
    ("other", "kind"),
    [(3.0, "i"), (True, "i"), *((x, "f") for x in (0.5, np.nan, np.inf, 1e300))],
)
def test_whole_numbers_are_integers_if_all_are(other, kind):
    found, _ = numbered({"train": np.array([1.0, 2.0]), "test": np.array([other])})
    assert {a.dtype.kind for a in found.values()} == {kind}


def test_vectors_of_matlab_and_bytes():
    cells = np.array([["cat"], ["dog "]], object)
    assert label_vector(cells).tolist() == ["cat", "dog"]
    assert label_vector(np.array([[1.0], [2.0]])).tolist() == [1, 2]
    assert label_vector(np.array([b"cat"])).tolist() == ["cat"]


def test_likely_labels_are_told():
    for names, told in (("a Target", "Target"), ("species b", "species"), ("a y", "y")):
        words = f"column '{told}' is a sample's. If it(.*)--labels {told}."
        with pytest.warns(RunWarning, match=words):
            warn_of_labels(names.split(), "column", "is a sample's")
    with warnings.catch_warnings(action="error"):
        warn_of_labels(["x", "y"], "column", "is a sample's")
        warn_of_labels(["a", "b"], "column", "is a sample's")
