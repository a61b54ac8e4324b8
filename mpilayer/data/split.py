"""Samples: their labels, and validation samples taken from the others."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from mpilayer.arrays import AnyArray, row_blocks
from mpilayer.data.table import FileTable, check_finite, stored_type, to_float32
from mpilayer.errors import ConfigError, DataError, RunWarning
from mpilayer.rng import stream

SPLITS = ("train", "validation", "test")

_MOST_LABEL = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Split:
    """Samples ``x`` (n_samples, n_visible), checked when made, or read from files.

    In memory they stay uint8 if they are; other real numbers become float32. ``labels``
    (n_samples,) are classes, integers, or real numbers, which become float32.

    DataError: not numbers, another shape, empty, NaN or infinite, or too few or many
    labels.
    """

    x: AnyArray | FileTable
    labels: AnyArray | None = None

    def __post_init__(self) -> None:
        if len(self.x.shape) != 2 or 0 in self.x.shape:
            raise DataError(
                "samples must be the rows of a table of at least one row and column; "
                f"found shape {self.x.shape}."
            )
        kind = stored_type(self.x.dtype)
        if not isinstance(self.x, FileTable) and kind != np.uint8:
            object.__setattr__(self, "x", to_float32(self.x))
            for block in row_blocks(len(self)):
                check_finite(self.x[block], block.start, "x")
        labels = self.labels
        if labels is None:
            return
        if labels.ndim != 1 or labels.dtype.kind not in "iuf":
            raise DataError(
                "labels must be one number a sample; "
                f"found {labels.dtype} of shape {labels.shape}."
            )
        if len(labels) != len(self):
            raise DataError(
                "every sample must have one label; "
                f"found {len(self)} samples and {len(labels)} labels."
            )
        checked = as_labels(labels)
        if self.is_real:
            object.__setattr__(self, "labels", checked)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @staticmethod
    def joined(parts: "Sequence[Split]") -> "Split":
        """Return the samples of several, one after the other; all lie in files."""
        if len(parts) == 1:
            return parts[0]
        tables = [part.x for part in parts if isinstance(part.x, FileTable)]
        found = [as_labels(part.labels) for part in parts if part.labels is not None]
        labels = np.concatenate(found) if found else None
        return Split(FileTable.joined(tables), labels)

    @property
    def is_real(self) -> bool:
        """Tell whether labels are real numbers, and no classes."""
        return self.labels is not None and self.labels.dtype.kind == "f"

    def take(self, rows: npt.NDArray[np.intp]) -> "Split":
        """Return the samples of some rows, in the order given."""
        labels = None if self.labels is None else self.labels[rows]
        return Split(self.x.take(rows, axis=0), labels)


def set_apart(
    train: Split,
    n: int,
    seed: int,
    split: str = "validation",
    balanced: bool = True,
    names: Sequence[str] = (),
) -> tuple[Split, Split]:
    """Take ``n`` validation or test samples out of all training samples; local.

    Returns those that stay and those that are taken, both in the order of the original
    rows. Equal seeds take equal rows; each kind of ``split`` is drawn independently.
    If ``balanced``, equally many samples of each class are taken, and what remains of
    ``n`` goes to the first classes, one each; without classes, or with more of them
    than ``n``, all rows are equally probable. ``names`` of classes are for messages.

    ConfigError: ``n`` is not at least 1 and less than all. DataError: a class has too
    few samples: one at least stays for training.
    """
    if not 1 <= n < len(train):
        raise ConfigError(
            f"{split} rows must be at least 1 and fewer than the training rows; "
            f"asked for {n} of {len(train)}."
        )
    rng = stream(seed, split)
    taken = np.zeros(len(train), dtype=bool)
    classes, wanted = [], {}
    if balanced and train.labels is not None and not train.is_real:
        classes = np.unique(train.labels).tolist()
    if 0 < len(classes) <= n:
        each, more = divmod(n, len(classes))
        wanted = {label: each + (i < more) for i, label in enumerate(classes)}
    for label, n_wanted in wanted.items():
        rows = np.flatnonzero(train.labels == label)
        if n_wanted >= len(rows):
            raise DataError(
                f"{n} {split} rows must be balanced over {len(wanted)} labels and "
                f"leave some of each for training: {n_wanted} of label "
                f"{names[label] if names else label}; found {len(rows)}. Take fewer, "
                "or take them whatever their labels with --unbalanced."
            )
        taken[rng.permutation(rows)[:n_wanted]] = True
    if not wanted:
        taken[rng.permutation(len(train))[:n]] = True
    return train.take(np.flatnonzero(~taken)), train.take(np.flatnonzero(taken))


def check_splits(splits: Mapping[str, Split]) -> None:
    """Check that splits have as many columns, and numbers of one type."""
    train = splits["train"].x
    for name, split in splits.items():
        if (split.x.shape[1], split.x.dtype) != (train.shape[1], train.dtype):
            raise DataError(
                "all splits must have the same number of columns and type; found "
                f"{train.shape[1]} of {train.dtype} in train and "
                f"{split.x.shape[1]} of {split.x.dtype} in {name}."
            )


def as_labels(labels: AnyArray) -> AnyArray:
    """Return labels in the type that they are compared in, int64 or float32.

    DataError: one is not finite, or 2**63 or more, which would become negative.
    """
    if labels.dtype.kind == "f":
        real = to_float32(labels)
        if not np.isfinite(real).all():
            row = int(np.argmin(np.isfinite(real)))
            raise DataError(
                f"labels must be finite float32 numbers; that of row {row} is "
                f"{labels[row]}. Fill it in, or leave out such rows."
            )
        return real
    if len(labels) and labels.dtype.kind == "u" and labels.max() > _MOST_LABEL:
        raise DataError(
            f"labels must lie below 2**63; found {labels.max()}. Number the classes."
        )
    return labels.astype(np.int64)


# --- labels as sources have them, numbers or texts, as a data set has them: numbers


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
    places = {name: place for place, name in enumerate(classes)}
    if strange := [repr(name) for name in names if name not in places]:
        raise DataError(
            f"every label must be one of the {len(known)} of {known_from}; found "
            f"{', '.join(strange[:_LISTED])}. Leave out such rows."
        )
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
