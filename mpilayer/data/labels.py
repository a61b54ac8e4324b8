"""Labels as sources have them, numbers or texts, as a data set has them: numbers."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import repeat

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.errors import DataError, RunWarning

_LIKELY = (
    *("label", "labels", "target", "targets", "class", "classes", "y"),
    *("species", "category", "outcome", "diagnosis"),
)
_MISSING = ("", "nan", "na", "n/a", "null")
_LISTED = 5


def label_vector(labels: object) -> AnyArray:
    """Return labels as a vector: MATLAB has only matrices, and cells for texts."""
    array = np.asarray(labels)
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    if array.dtype.kind == "O" and array.ndim == 1:
        array = np.array(["".join(np.ravel(cell).astype(str)) for cell in array])
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return np.char.strip(array) if array.dtype.kind == "U" else array


def numbers_or_texts(cells: Sequence[str], where: Sequence[str]) -> AnyArray:
    """Return labels of a text file, numbers if all are; ``where`` is for messages."""
    _refuse_missing(cells, (f"{place} has" for place in where))
    # To Python 1_2 is a number; to others it is a name.
    if not any("_" in cell for cell in cells):
        for kind in (int, float):
            with suppress(ValueError, OverflowError):
                return np.array([kind(cell) for cell in cells])
    return np.array(cells)


def numbered(
    labels: Mapping[str, AnyArray], known: Sequence[str] = (), known_from: str = ""
) -> tuple[dict[str, AnyArray], tuple[str, ...]]:
    """Return the labels of all splits as numbers, and the names of classes.

    Numbers become integers if all are, in all splits. Texts become places among the
    classes: those ``known`` from another data set, else all of them in alphabetical
    order. DataError: a class is missing or unknown; texts in one split only.
    """
    if not labels:
        return {}, tuple(known)
    kinds = {array.dtype.kind == "U" for array in labels.values()}
    if len(kinds) > 1 or (known and kinds == {False}):
        found = " and ".join(f"{a.dtype} in {split}" for split, a in labels.items())
        raise DataError(
            "labels must be numbers in all splits, or texts in all"
            f"{f', as in {known_from}' if known else ''}; found {found}. Write them "
            "alike."
        )
    if kinds == {False}:
        whole = {split: whole_numbers(array) for split, array in labels.items()}
        are_whole = all(array.dtype.kind in "iu" for array in whole.values())
        return whole if are_whole else dict(labels), ()
    names = sorted({str(name) for array in labels.values() for name in array})
    _refuse_missing(names, repeat("found"))
    classes = tuple(known or names)
    strange = [repr(name) for name in names if name not in classes]
    if strange:
        raise DataError(
            f"every label must be one of the {len(known)} of {known_from}; found "
            f"{', '.join(strange[:_LISTED])}. Leave out such rows."
        )
    places = {name: place for place, name in enumerate(classes)}
    return {
        split: np.array([places[str(name)] for name in array])
        for split, array in labels.items()
    }, classes


def warn_of_labels(names: Iterable[str], what: str, fate: str) -> None:
    """Say which column or array is likely to hold labels, and what became of it."""
    small = {name.lower() for name in names}
    # Beside x it is a place.
    legal = set(_LIKELY) - ({"y"} if "x" in small else set())
    if likely := [name for name in names if name.lower() in legal]:
        warnings.warn(
            f"the {what} {likely[0]!r} {fate}. If it holds labels or targets, give "
            f"--labels {likely[0]}.",
            RunWarning,
            stacklevel=2,
        )


def whole_numbers(labels: AnyArray) -> AnyArray:
    """Return labels kept as floats as integers, if they are; others unchanged."""
    # Beyond 2**53 doubles skip integers; NaN fails the comparison.
    if labels.dtype.kind == "f" and np.all(np.abs(labels) < 2**53):
        integers = labels.astype(np.int64)
        return integers if np.array_equal(integers, labels) else labels
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def _refuse_missing(cells: Iterable[str], places: Iterable[str]) -> None:
    for place, cell in zip(places, cells, strict=False):
        if cell.lower() in _MISSING:
            raise DataError(
                f"every row must have a label; {place} {cell!r}. Fill it in, or leave "
                "out such rows."
            )
