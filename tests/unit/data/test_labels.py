"""Labels as sources have them."""

import warnings

import numpy as np
import pytest

from mpilayer.data.split import (
    label_vector,
    numbered,
    numbers_or_texts,
    warn_of_labels,
)
from mpilayer.errors import DataError, RunWarning


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


@pytest.mark.parametrize("cell", ["", "NaN", "NA", "null"])
def test_missing_cells(cell):
    with pytest.raises(DataError, match=f"must have a label; line 2 has '{cell}'"):
        numbers_or_texts(["a", cell], ["line 1", "line 2"])


def test_texts_become_places_in_the_alphabet_of_all_splits():
    labels = {"train": np.array(["b", "c"]), "test": np.array(["a", "c"])}
    found, classes = numbered(labels)
    assert {split: a.tolist() for split, a in found.items()} == {
        "train": [1, 2],
        "test": [0, 2],
    }
    assert classes == ("a", "b", "c")


def test_known_classes_keep_their_places():
    found, classes = numbered({"train": np.array(["c"])}, ("b", "c"), "other.h5")
    assert (found["train"].tolist(), classes) == ([1], ("b", "c"))


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


@pytest.mark.parametrize(("other", "kind"), [(3.0, "i"), (3.5, "f")])
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
