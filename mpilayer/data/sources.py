"""Files of other programs: arrays, tables, folders of IDX files or of pictures.

Each kind has a reader, which finds rows and labels as they are; whatever it finds is
checked, and its labels are numbered, in one place.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray
from mpilayer.data.array_files import load_mat, load_numpy, read_idx_folder, shapes
from mpilayer.data.csv import read_csv
from mpilayer.data.dataset import KIND, PIXEL_SCALE, SPLITS, Dataset
from mpilayer.data.images import is_image_folder, read_image_folder
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split, label_vector, numbered, told_of, warn_of_labels
from mpilayer.errors import ConfigError, DataError, unknown

_NOTHING = Preparation()


@dataclass(frozen=True, eq=False)
class Source:
    """What a source holds."""

    splits: dict[str, Split]  # train; validation and test if it tells them apart
    scale: float  # of a stored 1: 1/255 for bytes, which are taken for pixels, else 1
    name: str  # of the file or folder, without its ending
    origin: str  # what was read, and what was taken for what
    preparation: Preparation  # with a scaling only if the source is a data set


@dataclass(frozen=True)
class LabelColumn:
    """The column or array that holds the labels; without a name, the usual one.

    If a source that it is ``needed`` of has none, that is an error. The classes of
    labels that are texts may be known, from a data set or run that messages name.
    """

    name: str = ""
    needed: bool = True
    classes: tuple[str, ...] = ()
    known_from: str = ""


_Part = tuple[AnyArray, object, object]
"""Rows and labels of a split as they were found, and where, for messages."""


@dataclass(frozen=True, eq=False)
class _Found:
    """All that a reader has found; where no ``scale`` is told, bytes are pixels."""

    parts: Mapping[str, _Part]
    origin: str
    preparation: Preparation = _NOTHING
    scale: float | None = None


_Reader = Callable[[Path, LabelColumn], _Found]
_ANY = LabelColumn()


def read_source(path: Path, labels: LabelColumn = _ANY) -> Source:
    """Read any file or folder that a data set can be made from; local.

    ``path`` is a folder of IDX files with MNIST's names, or of image files, perhaps in
    a folder for each class; or a file: ``.npy``, one array; ``.npz``, ``.mat`` and
    ``.h5``, arrays named ``x`` and ``labels``, ``train_x`` and ``train_labels``, or
    ``x_train`` and ``y_train``, and likewise for ``validation`` and ``test``, or one
    array of any name; ``.h5`` may be a data set, too; ``.csv``, numbers separated by
    commas, perhaps with a header. An array of more than two dimensions has a row for
    each first index.

    DataError: missing, damaged, of an unknown kind, or without a table of real numbers;
    or a row without a label, or one of no known class. ConfigError: labels were named
    of a source whose labels have no name.
    """
    if not path.exists():
        raise DataError(
            f"{path} must be a file or folder of samples; found nothing there."
        )
    reader = _read_folder if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} must end in {', '.join(_READERS)} or be a folder of IDX files or "
            f"pictures; found the ending {path.suffix!r}."
        )
    found = reader(path, labels)
    labelled = {k: given for k, (_, given, _) in found.parts.items()}
    vectors = {k: label_vector(v) for k, v in labelled.items() if v is not None}
    with told_of(path):
        numbers, classes = numbered(vectors, labels.classes, labels.known_from)
    splits = {}
    for name, (x, _, where) in found.parts.items():
        with told_of(where):
            splits[name] = Split(x, numbers.get(name))
    usual = PIXEL_SCALE if splits["train"].x.dtype == np.uint8 else 1.0
    name, preparation = path.resolve().stem, replace(found.preparation, classes=classes)
    return Source(splits, found.scale or usual, name, found.origin, preparation)


def _read_npy(path: Path, labels: LabelColumn) -> _Found:
    _refuse_labels(path, labels, "holds one array. Save samples and labels as .npz")
    train = _part(path, "x", load_numpy(path)["x"], None)
    return _Found({"train": train}, _name(path))


def _read_csv(path: Path, labels: LabelColumn) -> _Found:
    table = read_csv(path, labels.name, labels.needed)
    origin = f"{_name(path)} ({table.remark})"
    preparation = Preparation(table.columns, labels.name)
    return _Found({"train": (table.x, table.labels, path)}, origin, preparation)


def _read_hdf5(path: Path, labels: LabelColumn) -> _Found:
    with hdf5.open_foreign(path) as file:
        if hdf5.text(file, "kind") != KIND:
            arrays = {k: a for k, a in file.items() if isinstance(a, hdf5.Dataset)}
            memory.demand(sum(math.prod(a.shape) * 8 for a in arrays.values()), path)
            return _named({k: a[()] for k, a in arrays.items()}, path, labels)
    _refuse_labels(path, labels, "is a data set, which says what its labels are")
    with Dataset.open(path) as dataset:
        preparation, parts = dataset.preparation, {}
        for split in dataset.splits:
            stored, found = dataset.stored(split), None
            if stored.labels is not None:
                found = np.array(preparation.names(stored.labels))
            parts[split] = stored.x, found, path
        origin = f"the data set {_name(path)} ({dataset.digest[:12]})"
        return _Found(parts, origin, preparation, dataset.scale)


def _read_folder(path: Path, labels: LabelColumn) -> _Found:
    _refuse_labels(path, labels, "is a folder, whose labels have their own place")
    if not any(path.glob("train-images*")) and is_image_folder(path):
        what, pairs = "pictures", read_image_folder(path)
    else:
        splits = read_idx_folder(path)
        what, pairs = "IDX files", {k: (s.x, s.labels) for k, s in splits.items()}
    parts = {split: (*pair, path) for split, pair in pairs.items()}
    return _Found(parts, f"{what} of the folder {_name(path)}")


_READERS: dict[str, _Reader] = {
    ".npy": _read_npy,
    ".npz": lambda path, labels: _named(load_numpy(path), path, labels),
    ".mat": lambda path, labels: _named(load_mat(path), path, labels),
    ".csv": _read_csv,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}


def _refuse_labels(path: Path, labels: LabelColumn, why: str) -> None:
    if labels.name and labels.needed:
        raise ConfigError(
            f"--labels names a column or array; {path} {why}. Leave it out."
        )


def _name(path: Path) -> str:
    return path.resolve().name


def _named(arrays: Mapping[str, object], path: Path, labels: LabelColumn) -> _Found:
    """Return the splits among named arrays, or the only array as ``train``."""
    words = (labels.name,) if labels.name else ("labels", "y")
    names = {split: _pick(arrays, split, *words) for split in SPLITS}
    if labels.name and labels.needed and not any(names.values()):
        found = unknown("array", labels.name, arrays)
        raise DataError(f"{path}: --labels: {found}")
    parts = {}
    for split, name in names.items():
        x = _pick(arrays, split, "x")
        if x is not None:
            parts[split] = _part(path, x, arrays[x], arrays.get(name or ""))
        elif name is not None and split != "train":
            raise DataError(
                f"{path} must have samples for the labels {name!r}; "
                f"found {shapes(arrays)}. Call the array '{split}_x'."
            )
    if "train" not in parts:
        tables = [k for k, a in arrays.items() if k not in names.values() and _full(a)]
        if len(tables) != 1 or parts:
            raise DataError(
                f"{path} must hold one array, or arrays named x and labels, train_x "
                "and train_labels, or x_train and y_train, likewise for test and "
                f"validation; found {shapes(arrays)}. Rename them, or name the labels "
                "with --labels."
            )
        [only] = tables
        own = arrays.get(names["train"] or "")
        parts["train"] = _part(path, only, arrays[only], own)
    if not any(names.values()):
        warn_of_labels(arrays, "array", "is not used")
    return _Found(parts, _name(path), Preparation(labels=labels.name))


def _pick(arrays: Mapping[str, object], split: str, *words: str) -> str | None:
    """Return which array is a split's: the first word follows it, the last precedes."""
    names = (f"{split}_{words[0]}", f"{words[-1]}_{split}")
    alone = words if split == "train" else ()
    return next((name for name in (*names, *alone) if name in arrays), None)


def _full(array: object) -> bool:
    """Tell arrays from the numbers, texts and structures in a file."""
    return (
        isinstance(array, np.ndarray) and array.dtype.kind in "biufc" and array.size > 1
    )


def _part(path: Path, name: str, x: object, labels: object) -> _Part:
    if not isinstance(x, np.ndarray) or x.ndim < 2 or 0 in x.shape:
        found = f"shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(
            f"{path} must hold samples as the rows of a full array of at least two "
            f"dimensions; found {found} in {name!r}."
        )
    return x.reshape(len(x), -1), labels, f"{path}, array {name!r}"
