"""Files of other programs: arrays, tables, folders of IDX files or of pictures.

Each kind has a reader, which finds rows and labels as they are; whatever it finds is
checked, and its labels are numbered, in one place. Rows of HDF5 files and of large
``.npy`` files stay there until they are asked for.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray
from mpilayer.data.array_files import (
    load_mat,
    load_npy,
    load_numpy,
    read_idx_folder,
    shapes,
)
from mpilayer.data.csv import read_csv
from mpilayer.data.dataset import KIND, PIXEL_SCALE, Dataset
from mpilayer.data.images import is_image_folder, read_image_folder
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import SPLITS, Split, label_vector, numbered, warn_of_labels
from mpilayer.data.table import FileRows, FileTable, Unit, spooled, told_of
from mpilayer.errors import ConfigError, DataError, RunWarning, unknown
from mpilayer.words import few

_NOTHING = Preparation()
_LISTED = 5
# Values that were never written take no room in a file, but time.
_LARGE = 1 << 30


@dataclass(frozen=True, eq=False)
class Source(AbstractContextManager["Source"]):
    """What one source holds, or several; a context manager while rows are read."""

    splits: dict[str, Split]  # train; validation and test if it tells them apart
    unit: Unit  # of bytes that nobody tells more of 1/255, as of pixels
    name: str  # of the first file or folder, without its ending
    origin: str  # what was read, and what was taken for what
    preparation: Preparation  # with a scaling only if the source is a data set
    closing: ExitStack

    def __exit__(self, *_: object) -> None:
        self.closing.close()


@dataclass(frozen=True)
class Names:
    """The columns or arrays that hold labels and samples; without a name, the usual.

    If a source that ``labels`` are ``needed`` of has none, that is an error. The
    classes of labels that are texts may be known, from a data set or run that messages
    name.
    """

    labels: str = ""
    needed: bool = True
    classes: tuple[str, ...] = ()
    known_from: str = ""
    samples: str = ""


@dataclass(frozen=True, eq=False)
class _Found:
    """All that a reader has found; only data sets tell the ``unit`` of all rows."""

    parts: "Mapping[str, _Part]"
    origin: str
    preparation: Preparation = _NOTHING
    unit: Unit | None = None


_Part = tuple[Any, object, str]
"""Rows and labels of a split as they were found, and where, for messages."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """A split of one source."""

    split: str
    path: Path
    where: str
    x: AnyArray | FileTable
    labels: AnyArray | None
    unit: Unit


_Reader = Callable[[Path, Names, ExitStack], _Found]
_ANY = Names()


def read_source(
    path: Path,
    names: Names = _ANY,
    others: Sequence[Path] = (),
    unit: Unit | None = None,
    room: Path | None = None,
) -> Source:
    """Read any file or folder that a data set can be made from; local.

    Which these are, and how their arrays are called, docs/data.md says. An array of
    more than two dimensions has a row for each first index.

    Splits of ``others`` follow on those of the first; what can only be read as a whole
    then waits in a file in the folder ``room``. Narrow numbers keep their type where a
    ``unit`` is given, or an array of HDF5 tells it: ``scale_factor`` and ``add_offset``
    (CF conventions, 8.1).

    DataError: missing, damaged, of an unknown kind, or without a table of real numbers;
    or a row without a label, or one of no known class; or sources of different widths,
    types, units, columns or scalings. ConfigError: labels or samples were named of a
    source in which they have no name.
    """
    paths, found, pieces = (path, *others), list[_Found](), list[_Piece]()
    with ExitStack() as stack:
        for one in paths:
            with warnings.catch_warnings():
                if found:  # what is told of the first holds for all
                    warnings.simplefilter("ignore", RunWarning)
                found.append(_read(one, names, stack))
            for split, part in found[-1].parts.items():
                told = unit or found[-1].unit
                pieces.append(_piece(split, one, part, told, room if others else None))
                _check_alike(pieces[0], pieces[-1])
            _check_prepared(paths, found)
        splits, classes = _splits(pieces, names, few([*map(str, paths)], _LISTED))
        return Source(
            splits,
            pieces[0].unit,
            path.resolve().stem,
            few([content.origin for content in found], _LISTED),
            replace(found[0].preparation, classes=classes),
            stack.pop_all(),
        )


def _read(path: Path, names: Names, stack: ExitStack) -> _Found:
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
    return reader(path, names, stack)


def _piece(
    split: str, path: Path, part: _Part, unit: Unit | None, room: Path | None
) -> _Piece:
    """Return a split of a source: in memory only if there is no ``room`` elsewhere."""
    x, labels, where = part
    with told_of(where):
        unit = unit or Unit.told_by(x)
        if isinstance(x, np.ndarray) and room is not None:
            x = FileTable.of(spooled(x, room), path, where, unit is not None)
        elif isinstance(x, np.ndarray) and unit is None:
            x = x.reshape(len(x), -1)
        elif not isinstance(x, FileTable):
            x = FileTable.of(x, path, where, unit is not None)
    vector = None if labels is None else label_vector(labels)
    usual = Unit(PIXEL_SCALE if x.dtype == np.uint8 else 1.0)
    return _Piece(split, path, where, x, vector, unit or usual)


def _check_alike(first: _Piece, other: _Piece) -> None:
    """Check that rows of two sources, or splits, go together."""
    kinds = [(p.x.shape[1], str(p.x.dtype)) for p in (first, other)]
    if first.path != other.path and kinds[0] != kinds[1]:
        (width, dtype), (found, kind) = kinds
        raise DataError(
            "all sources must have the same number of columns and type; found "
            f"{width} of {dtype} in {first.path} and {found} of {kind} in "
            f"{other.path}. Leave one out, or make them alike."
        )
    if first.unit != other.unit:
        raise DataError(
            "numbers must stand for the same everywhere (scale and offset); found "
            f"{tuple(first.unit)} in {first.where}, and {tuple(other.unit)} in "
            f"{other.where}. Give --stored-scale, or make them alike."
        )


def _check_prepared(paths: Sequence[Path], found: Sequence[_Found]) -> None:
    """Check that the last source has the columns and scaling of the first."""
    first, last = found[0].preparation, found[-1].preparation
    last.check_columns(paths[len(found) - 1], first, paths[0])
    if first.scaling != last.scaling:
        raise DataError(
            f"all sources must be scaled alike, or not at all; {paths[len(found) - 1]} "
            f"and {paths[0]} differ. Prepare the data from their sources."
        )


def _splits(
    pieces: Sequence[_Piece], names: Names, where: str
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return the splits of all sources, and the names of classes."""
    alone = len({piece.path for piece in pieces}) == 1
    keys = [p.split if alone else f"{p.split} of {p.path}" for p in pieces]
    vectors = {
        key: p.labels
        for key, p in zip(keys, pieces, strict=True)
        if p.labels is not None
    }
    with told_of(where):
        numbers, classes = numbered(vectors, names.classes, names.known_from)
    parts: dict[str, list[Split]] = {}
    for key, piece in zip(keys, pieces, strict=True):
        with told_of(piece.where):
            one = Split(piece.x, numbers.get(key))
        parts.setdefault(piece.split, []).append(one)
    for split, some in parts.items():
        lacking = [p.where for p in pieces if p.split == split and p.labels is None]
        if 0 < len(lacking) < len(some):
            raise DataError(
                f"all sources must have labels of the {split} rows, or none; "
                f"{lacking[0]} has none. Leave it out, or give it labels."
            )
    return {split: Split.joined(some) for split, some in parts.items()}, classes


def _read_npy(path: Path, names: Names, _: ExitStack) -> _Found:
    _refuse(path, names, "holds one array. Save samples and labels as .npz")
    train = _part(path, "x", load_npy(path), None)
    return _Found({"train": train}, _name(path))


def _read_csv(path: Path, names: Names, _: ExitStack) -> _Found:
    _refuse(path, replace(names, labels=""), "is one table")
    table = read_csv(path, names.labels, names.needed)
    origin = f"{_name(path)} ({table.remark})"
    preparation = Preparation(table.columns, names.labels)
    return _Found({"train": (table.x, table.labels, str(path))}, origin, preparation)


def _read_hdf5(path: Path, names: Names, stack: ExitStack) -> _Found:
    file = stack.enter_context(hdf5.open_foreign(path))
    with hdf5.reading(path):
        if hdf5.text(file, "kind") != KIND:
            items = {**dict(file), **hdf5.datasets(file)}
            arrays = {k: a for k, a in items.items() if isinstance(a, hdf5.Dataset)}
            if sum(array.nbytes for array in arrays.values()) > _LARGE:
                hdf5.check_written(file, path, DataError)
            return _named(arrays, path, names)
    _refuse(path, names, "is a data set, which says what is what")
    dataset = stack.enter_context(Dataset.open(path))
    preparation, parts = dataset.preparation, {}
    for split in dataset.splits:
        stored, found = dataset.stored(split), None
        if stored.labels is not None:
            found = np.array(preparation.names(stored.labels))
        parts[split] = stored.x, found, str(path)
    origin = f"the data set {_name(path)} ({dataset.digest[:12]})"
    return _Found(parts, origin, preparation, dataset.unit)


def _read_folder(path: Path, names: Names, _: ExitStack) -> _Found:
    _refuse(path, names, "is a folder, whose labels have their own place")
    if not any(path.glob("train-images*")) and is_image_folder(path):
        what, pairs = "pictures", read_image_folder(path)
    else:
        splits = read_idx_folder(path)
        pairs = {k: (np.asarray(s.x), s.labels) for k, s in splits.items()}
        what = "IDX files"
    parts = {split: (*pair, str(path)) for split, pair in pairs.items()}
    return _Found(parts, f"{what} of the folder {_name(path)}")


_READERS: dict[str, _Reader] = {
    ".npy": _read_npy,
    ".npz": lambda path, names, _: _named(load_numpy(path), path, names),
    ".mat": lambda path, names, _: _named(load_mat(path), path, names),
    ".csv": _read_csv,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}


def _refuse(path: Path, names: Names, why: str) -> None:
    for option, given in (
        ("labels", names.needed and names.labels),
        ("dataset", names.samples),
    ):
        if given:
            raise ConfigError(
                f"--{option} names a column or array; {path} {why}. Leave it out."
            )


def _name(path: Path) -> str:
    return path.resolve().name


def _named(arrays: Mapping[str, object], path: Path, names: Names) -> _Found:
    """Return the splits among named arrays, or the only array as ``train``."""
    words = (names.labels.strip("/"),) if names.labels else ("labels", "y")
    own = {split: _pick(arrays, split, *words) for split in SPLITS}
    if names.labels and names.needed and not any(own.values()):
        found = unknown("array", words[0], arrays)
        raise DataError(f"{path}: --labels: {found}")
    samples = names.samples.strip("/")
    if samples and samples not in arrays:
        found = unknown("array", samples, arrays)
        raise DataError(f"{path}: --dataset: {found}")
    parts = {}
    for split, name in own.items():
        x = _pick(arrays, split, "x")
        if samples:
            x, name = (samples, name) if split == "train" else (None, None)
        if x is not None:
            parts[split] = _part(path, x, arrays[x], arrays.get(name or ""))
        elif name is not None and split != "train":
            raise DataError(
                f"{path} must have samples for the labels {name!r}; "
                f"found {shapes(arrays)}. Call the array '{split}_x'."
            )
    if "train" not in parts:
        tables = [k for k, a in arrays.items() if k not in own.values() and _full(a)]
        tables = [k for k in tables if "/" not in k] or tables
        if len(tables) != 1 or parts:
            raise DataError(
                f"{path} must hold one array, or arrays named x and labels, train_x "
                "and train_labels, or x_train and y_train, likewise for test and "
                f"validation; found {shapes(arrays)}. Rename them, or name the samples "
                "with --dataset, the labels with --labels."
            )
        [only] = tables
        given = arrays.get(own["train"] or "")
        parts["train"] = _part(path, only, arrays[only], given)
    if not any(own.values()):
        warn_of_labels(arrays, "array", "is not used")
    return _Found(parts, _name(path), Preparation(labels=names.labels))


def _pick(arrays: Mapping[str, object], split: str, *words: str) -> str | None:
    """Return which array is a split's: the first word follows it, the last precedes."""
    names = (f"{split}_{words[0]}", f"{words[-1]}_{split}")
    alone = words if split == "train" else ()
    return next((name for name in (*names, *alone) if name in arrays), None)


def _full(array: Any) -> bool:
    """Tell arrays from the numbers, texts and structures in a file."""
    if not isinstance(array, np.ndarray | hdf5.Dataset):
        return False
    return array.dtype.kind in "biufc" and math.prod(array.shape or ()) > 1


def _part(path: Path, name: str, x: object, labels: object) -> _Part:
    shape = x.shape if isinstance(x, np.ndarray | hdf5.Dataset | FileRows) else None
    if shape is None or len(shape) < 2 or 0 in shape:
        found = f"shape {shape}" if shape is not None else type(x).__name__
        raise DataError(
            f"{path} must hold samples as the rows of a full array of at least two "
            f"dimensions; found {found} in {name!r}."
        )
    if isinstance(labels, hdf5.Dataset):
        memory.demand(labels.nbytes, path)
        labels = labels[()]
    return x, labels, f"{path}, array {name!r}"
