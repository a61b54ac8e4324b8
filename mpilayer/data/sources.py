"""Files of other programs: arrays, tables, folders of IDX files or of pictures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray
from mpilayer.data.csv import read_csv
from mpilayer.data.dataset import KIND, PIXEL_SCALE, Dataset
from mpilayer.data.folders import is_image_folder, read_image_folder
from mpilayer.data.idx import read_idx_folder
from mpilayer.data.labels import label_vector, numbered, warn_of_labels
from mpilayer.data.layout import SPLITS
from mpilayer.data.mat import load_mat
from mpilayer.data.npy import load_npy, load_npz, shapes
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError, DataError, unknown

Splits = dict[str, Split]

_NOTHING = Preparation()
_NAMES = "x and labels, train_x and train_labels, or x_train and y_train"


@dataclass(frozen=True, eq=False)
class Source:
    """What a source holds.

    Attributes
    ----------
    splits : dict of str to Split
        ``train``, and ``validation`` and ``test`` if the source tells them apart.
    scale : float
        Value of a stored 1: 1/255 for bytes, which are taken for pixels, else 1.
    name : str
        The file's or folder's name, without its ending.
    origin : str
        What was read, and what was taken for what.
    preparation : Preparation
        Names of columns and classes, where the labels come from; if the source is a
        data set, how its values are scaled.
    """

    splits: Splits
    scale: float
    name: str
    origin: str
    preparation: Preparation


@dataclass(frozen=True)
class LabelColumn:
    """The column or array that holds the labels.

    Attributes
    ----------
    name : str
        Empty: the usual one, if it is there.
    needed : bool
        Whether a source must have it.
    classes : tuple of str
        Those of labels that are texts, if they are known; else all that are found.
    known_from : str
        What knows them, for the message.
    """

    name: str = ""
    needed: bool = True
    classes: tuple[str, ...] = ()
    known_from: str = ""


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows and labels of a split as they were found, and where, for messages."""

    x: AnyArray
    labels: object
    where: str


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

    Parameters
    ----------
    path : Path
        A folder of IDX files with MNIST's names, or of image files, perhaps in a folder
        for each class; or a file: ``.npy``, one array; ``.npz``, ``.mat`` and ``.h5``,
        arrays named ``x`` and ``labels``, ``train_x`` and ``train_labels``, or
        ``x_train`` and ``y_train``, and likewise for ``validation`` and ``test``, or
        one array of any name; ``.h5`` may be a data set, too; ``.csv``, numbers
        separated by commas, perhaps with a header.
    labels : LabelColumn
        Where the labels are.

    Returns
    -------
    Source
        An array of more than two dimensions has a row for each first index.

    Raises
    ------
    DataError
        Missing, damaged, of an unknown kind, or without a table of real numbers; or a
        row without a label, or one of no known class.
    ConfigError
        Labels were named of a source whose labels have no name.
    """
    if not path.exists():
        raise DataError(
            f"{path} must be a file or folder of samples; found nothing there."
        )
    found = _reader(path)(path, labels)
    splits, classes = _splits(path, found.parts, labels)
    usual = PIXEL_SCALE if splits["train"].x.dtype == np.uint8 else 1.0
    return Source(
        splits,
        found.scale or usual,
        path.resolve().stem,
        found.origin,
        replace(found.preparation, classes=classes),
    )


def _splits(
    path: Path, parts: Mapping[str, _Part], wanted: LabelColumn
) -> tuple[Splits, tuple[str, ...]]:
    """Return checked splits, and the names of classes if labels are texts."""
    labels = {
        split: label_vector(part.labels)
        for split, part in parts.items()
        if part.labels is not None
    }
    try:
        numbers, classes = numbered(labels, wanted.classes, wanted.known_from)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    splits = {}
    for name, part in parts.items():
        try:
            splits[name] = Split(part.x, numbers.get(name))
        except DataError as error:
            raise DataError(f"{part.where}: {error}") from error
    return splits, classes


def _read_npy(path: Path, labels: LabelColumn) -> _Found:
    _refuse_labels(path, labels, "holds one array. Save samples and labels as .npz")
    return _Found({"train": _part(path, "x", load_npy(path), None)}, _name(path))


def _read_npz(path: Path, labels: LabelColumn) -> _Found:
    return _named(path, load_npz(path), labels)


def _read_mat(path: Path, labels: LabelColumn) -> _Found:
    return _named(path, load_mat(path), labels)


def _read_csv(path: Path, labels: LabelColumn) -> _Found:
    table = read_csv(path, labels.name, labels.needed)
    return _Found(
        {"train": _Part(table.x, table.labels, str(path))},
        f"{_name(path)} ({table.remark})",
        Preparation(table.columns, labels.name),
    )


def _read_hdf5(path: Path, labels: LabelColumn) -> _Found:
    with hdf5.open_foreign(path) as file:
        if hdf5.text(file, "kind") != KIND:
            arrays = {k: a for k, a in file.items() if isinstance(a, hdf5.Dataset)}
            memory.demand(sum(math.prod(a.shape) * 8 for a in arrays.values()), path)
            return _named(path, {k: a[()] for k, a in arrays.items()}, labels)
    _refuse_labels(path, labels, "is a data set, which says what its labels are")
    with Dataset.open(path) as dataset:
        parts = {}
        for split in dataset.splits:
            stored, found = dataset.stored(split), None
            if stored.labels is not None:
                found = np.array(dataset.preparation.names(stored.labels))
            parts[split] = _Part(stored.x, found, str(path))
        return _Found(
            parts,
            f"the data set {_name(path)} ({dataset.digest[:12]})",
            dataset.preparation,
            dataset.scale,
        )


def _read_folder(path: Path, labels: LabelColumn) -> _Found:
    _refuse_labels(path, labels, "is a folder, whose labels have their own place")
    if not any(path.glob("train-images*")) and is_image_folder(path):
        found, what = read_image_folder(path), "pictures"
        parts = {split: _Part(*pair, str(path)) for split, pair in found.items()}
    else:
        splits, what = read_idx_folder(path), "IDX files"
        parts = {k: _Part(s.x, s.labels, str(path)) for k, s in splits.items()}
    return _Found(parts, f"{what} of the folder {_name(path)}")


_READERS: dict[str, _Reader] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
    ".csv": _read_csv,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}


def _reader(path: Path) -> _Reader:
    if path.is_dir():
        return _read_folder
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} must end in {', '.join(_READERS)} or be a folder of IDX files or "
            f"pictures; found the ending {path.suffix!r}."
        )
    return reader


def _refuse_labels(path: Path, labels: LabelColumn, why: str) -> None:
    if labels.name and labels.needed:
        raise ConfigError(
            f"--labels names a column or array; {path} {why}. Leave it out."
        )


def _name(path: Path) -> str:
    return path.resolve().name


def _named(path: Path, arrays: Mapping[str, object], labels: LabelColumn) -> _Found:
    """Return the splits among named arrays, or the only array as ``train``."""
    names = {split: _pick(arrays, _label_names(split, labels.name)) for split in SPLITS}
    if labels.name and labels.needed and not any(names.values()):
        words = unknown("array", labels.name, arrays)
        raise DataError(f"{path}: --labels: {words}")
    parts = {}
    for split, name in names.items():
        x, found = _pick(arrays, _x_names(split)), arrays.get(name or "")
        if x is not None:
            parts[split] = _part(path, x, arrays[x], found)
        elif name is not None and split != "train":
            raise DataError(
                f"{path} must have samples for the labels {name!r}; "
                f"found {shapes(arrays)}. Call the array {_x_names(split)[0]!r}."
            )
    if "train" not in parts:
        others = {k: a for k, a in arrays.items() if k not in names.values()}
        only = _only_table(path, arrays, others, bool(parts))
        parts["train"] = _part(
            path, only, arrays[only], arrays.get(names["train"] or "")
        )
    if not any(names.values()):
        warn_of_labels(arrays, "array", "is not used")
    return _Found(parts, _name(path), Preparation(labels=labels.name))


def _only_table(
    path: Path,
    arrays: Mapping[str, object],
    others: Mapping[str, object],
    split: bool,
) -> str:
    """Return the name of the only array besides labels, which holds the samples."""
    tables = [name for name, a in others.items() if _is_table(a)]
    if len(tables) != 1 or split:
        raise DataError(
            f"{path} must hold one array, or arrays named {_NAMES}, likewise for test "
            f"and validation; found {shapes(arrays)}. Rename them, or name the labels "
            "with --labels."
        )
    return tables[0]


def _x_names(split: str) -> tuple[str, ...]:
    return (f"{split}_x", f"x_{split}") + (("x",) if split == "train" else ())


def _label_names(split: str, name: str) -> tuple[str, ...]:
    if name:
        return (f"{split}_{name}", f"{name}_{split}", *[name] * (split == "train"))
    names = (f"{split}_labels", f"y_{split}")
    return names + (("labels", "y") if split == "train" else ())


def _pick(arrays: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _is_table(array: object) -> bool:
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
    return _Part(x.reshape(len(x), -1), labels, f"{path}, array {name!r}")
