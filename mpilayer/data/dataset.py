"""The data set: one HDF5 file, written once, from which any rank reads any rows.

Its layout, in three versions, is in docs/formats.md. A value is what is stored times
``scale``, plus ``offset``, and then scaled as the preparation says.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray, Array32, StoredRows, row_blocks
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import SPLITS, Split, as_labels, check_splits
from mpilayer.data.table import (
    LARGEST,
    NARROW,
    UNITS,
    FileTable,
    Progress,
    Unit,
    check_finite,
    counted,
    slab_rows,
)
from mpilayer.errors import ConfigError, DataError

KIND = "mpilayer-dataset"
FORMAT_VERSION = 3
PIXEL_SCALE = 1 / 255

_ADVICE = "Make a data set with 'mpilayer data prepare'."
_SAMPLES = (".npy", ".npz", ".mat", ".csv")
_COMPACT = 1e10  # times what two bytes can say: less than LARGEST
_CHUNK_BYTES = 512 * 1024
_NOTHING = Preparation()


@dataclass(frozen=True)
class _Stored:
    """A split in an open file: samples, perhaps labels, and what is stored."""

    x: Any
    labels: Any
    unit: Unit


def write_dataset(
    path: Path,
    splits: Mapping[str, Split],
    *,
    name: str,
    origin: str,
    scale: float,
    offset: float = 0.0,
    preparation: Preparation = _NOTHING,
    progress: Progress = lambda *_: None,
) -> None:
    """Write a data set, in one step if there was one before; local.

    A stored 1 has the value ``scale``, see :data:`PIXEL_SCALE`, plus ``offset``, before
    values are scaled as the preparation says.

    ConfigError: a scale that no data set has. DataError: splits of different widths or
    types, rows that are not finite, or a file that cannot be written.
    """
    check_splits(splits)
    unit = Unit(float(scale), float(offset))
    if not unit.is_legal:
        raise ConfigError(
            f"a data set must have {UNITS}; found {scale} and {offset}. "
            "Change --stored-scale."
        )
    # The oldest version that says all: older programs read what they can.
    version = 1 + (bool(preparation) or any(s.is_real for s in splits.values()))
    if splits["train"].x.dtype not in (np.uint8, np.float32) or offset:
        version = 3
    # Written once, read twice.
    n_bytes = 3 * sum(split.x.nbytes for split in splits.values())
    done = counted(progress, "writing and checking", n_bytes)
    with hdf5.create(path, kind=KIND, version=version, checked=done) as file:
        hdf5.set_text(file, "name", name)
        hdf5.set_text(file, "origin", origin)
        for split_name in SPLITS:
            if split_name in splits:
                group = file.create_group(split_name)
                _write_split(group, splits[split_name], unit, done)
        preparation.store(file)


class Dataset(AbstractContextManager["Dataset"]):
    """A data set opened for reading; a context manager, local.

    It has ``n_visible`` values in a sample, and ``splits`` in the order train,
    validation, test. ``digest`` is the SHA-256 of the content as the file carries it,
    ``unit`` what is stored in the training rows.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file
        self._closing = ExitStack()
        if "train" not in file:
            found = ", ".join(sorted(file)) or "nothing"
            raise DataError(f"{path} must have a group 'train'; found {found}.")
        there = [name for name in SPLITS if name in file]
        self._splits = {name: _checked_split(path, name, file[name]) for name in there}
        self.splits = tuple(self._splits)
        self.n_visible = int(self._splits["train"].x.shape[1])
        for name, stored in self._splits.items():
            n_columns = stored.x.shape[1]
            if n_columns != self.n_visible:
                raise DataError(
                    f"all splits of {path} must have the same number of columns; found "
                    f"{self.n_visible} in train and {n_columns} in {name}. {_ADVICE}"
                )
        self.name = hdf5.text(file, "name", path.stem)
        self.origin = hdf5.text(file, "origin")
        self.digest = hdf5.text(file, "digest")
        self.unit = self._splits["train"].unit
        self.preparation = Preparation.load(file, self.n_visible, path)

    @classmethod
    def open(cls, path: Path, like: Path | None = None) -> Self:
        """Open a file and check its layout, not its content.

        ``like`` is a run that it is for, to advise how samples become a data set.

        DataError: missing, not HDF5, another kind, a newer version, or another layout.
        """
        advise = partial(_advice, path, like)
        with hdf5.reading(path), ExitStack() as stack:
            opened = hdf5.open_read(
                path, kind=KIND, version=FORMAT_VERSION, advise=advise
            )
            dataset = cls(path, stack.enter_context(opened))
            dataset._closing = stack.pop_all()
        return dataset

    def __exit__(self, *_: object) -> None:
        # HDF5 is not to blame for what became of the rows.
        self._closing.close()

    def n_samples(self, split: str) -> int:
        """Return the number of rows of a split."""
        return int(self._stored(split).x.shape[0])

    def held_as(self, split: str) -> tuple[Any, float]:
        """Return the type in which ``compact_rows`` are, and the value of a 1."""
        none = self.compact_rows(split, 0, 0)
        if isinstance(none, StoredRows):
            return none.values.dtype, none.scale
        return none.dtype, 1.0

    def chunk_rows(self, split: str) -> int:
        """Return how many rows of a split HDF5 reads at least."""
        chunks = self._stored(split).x.chunks
        return int(chunks[0]) if chunks else 1

    def rows(self, split: str, start: int = 0, stop: int | None = None) -> Array32:
        """Return rows ``start`` to ``stop``, scaled, (stop - start, n_visible).

        Besides them, some 4 MiB of memory are used at a time.

        DataError: no such split, rows outside it, values that are NaN or above
        ``LARGEST``, a damaged file, or more than there is memory.
        """
        start, stop = self._bounds(split, start, stop)
        memory.demand((stop - start) * self.n_visible * 4, self.path)
        result = np.empty((stop - start, self.n_visible), np.float32)
        for begin, slab in self._slabs(split, start, stop):
            out = result[begin - start : begin - start + len(slab)]
            self._scale(split, slab, out)
            if slab.dtype != np.uint8 or self.preparation.scaling is not None:
                check_finite(out, begin, f"{split}/x of {self.path}", LARGEST)
        return result

    def compact_rows(
        self, split: str, start: int = 0, stop: int | None = None
    ) -> Array32 | StoredRows:
        """Return rows of a split, one or two bytes a number where they are stored so.

        Not if values have an offset, or a scaling of columns.
        """
        stored = self._stored(split)
        dtype, (scale, offset) = stored.x.dtype, stored.unit
        plain = not offset and scale <= _COMPACT and self.preparation.scaling is None
        if dtype == np.float32 or not plain:
            return self.rows(split, start, stop)
        start, stop = self._bounds(split, start, stop)
        memory.demand((stop - start) * self.n_visible * dtype.itemsize, self.path)
        values = np.empty((stop - start, self.n_visible), dtype)
        for begin, slab in self._slabs(split, start, stop):
            values[begin - start : begin - start + len(slab)] = slab
            if dtype.kind == "f":
                check_finite(slab, begin, f"{split}/x of {self.path}")
        return StoredRows(values, scale)

    def stored(self, split: str) -> Split:
        """Return a split as it is stored, before any scaling: rows are read later."""
        x = FileTable.of(self._stored(split).x, self.path, narrow=True)
        return Split(x, self.labels(split))

    def labels(
        self, split: str, start: int = 0, stop: int | None = None
    ) -> AnyArray | None:
        """Return the labels of rows, as ``rows``; None if there are none.

        int64, or float32 if they are real numbers.
        """
        start, stop = self._bounds(split, start, stop)
        stored = self._stored(split).labels
        if stored is None:
            return None
        memory.demand((stop - start) * 8, self.path)
        with hdf5.reading(self.path):
            return as_labels(stored[start:stop])

    def summary(self) -> dict[str, Any]:
        """Return what the file holds, ready for JSON; reads everything, as ``rows``."""
        return {
            "name": self.name,
            "origin": self.origin,
            "digest": self.digest,
            "format_version": int(self._file.attrs["format_version"]),
            "n_visible": self.n_visible,
            "preparation": self.preparation.to_json(),
            "splits": {split: self._split_summary(split) for split in self.splits},
        }

    def verify(self) -> None:
        """Compare the content with the digest; DataError if they differ."""
        with hdf5.reading(self.path):
            hdf5.verify_digest(self._file, self.path, DataError)

    @property
    def stamp(self) -> list[int]:
        """What changes when a program changes the file, or another takes its place."""
        # Unlike the time of the last writing, that of the last change cannot be set.
        found = self.path.stat()
        return [found.st_ino, found.st_size, found.st_ctime_ns]

    def ensure(self, stamp: Sequence[int] | None = None) -> None:
        """Make sure that no row that is read is another than was written.

        Its own checksums show what memory, disk or network have done to a file. One
        without, made by an older version, is read as a whole; so is one that had
        another ``stamp`` before, or an empty one if nobody knows.
        """
        with hdf5.reading(self.path):
            checked = hdf5.has_checksums(self._file)
        if not checked or stamp not in (None, self.stamp):
            self.verify()

    def _split_summary(self, split: str) -> dict[str, Any]:
        stored, labels, limits = self._stored(split), self.labels(split), []
        for begin, slab in self._slabs(split, 0, self.n_samples(split)):
            check_finite(slab, begin, f"{split}/x of {self.path}")
            values = np.empty(slab.shape, np.float32)
            self._scale(split, slab, values)
            limits += [float(values.min()), float(values.max())]
        found = {
            "n_samples": self.n_samples(split),
            "dtype": str(stored.x.dtype),
            **stored.unit._asdict(),
            "minimum": min(limits),
            "maximum": max(limits),
            "label_counts": None,
        }
        if labels is not None and labels.dtype.kind == "f":
            found["label_range"] = [float(labels.min()), float(labels.max())]
        elif labels is not None:
            classes, counts = np.unique(labels, return_counts=True)
            names = map(str, self.preparation.names(classes))
            found["label_counts"] = dict(zip(names, counts.tolist(), strict=True))
        return found

    def _scale(self, split: str, slab: AnyArray, out: Array32) -> None:
        """Write the values of stored rows; here alone they are scaled."""
        self._stored(split).unit.values(slab, out)
        if self.preparation.scaling is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                self.preparation.scaling.apply(out)

    def _slabs(
        self, split: str, start: int, stop: int
    ) -> Iterator[tuple[int, AnyArray]]:
        """Yield first row and stored values of slabs of whole chunks."""
        x = self._stored(split).x
        slab = slab_rows(x, self.path)
        for k in range(start // slab, -(-stop // slab)):
            begin = max(start, k * slab)
            with hdf5.reading(self.path):
                values = x[begin : min(stop, (k + 1) * slab)]
            yield begin, values

    def _bounds(self, split: str, start: int, stop: int | None) -> tuple[int, int]:
        n = self.n_samples(split)
        stop = n if stop is None else stop
        if not 0 <= start <= stop <= n:
            raise DataError(
                f"rows of {split} in {self.path} must lie in 0 to {n}; "
                f"asked for {start} to {stop}."
            )
        return start, stop

    def _stored(self, split: str) -> _Stored:
        if split not in self._splits:
            raise DataError(
                f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}. "
                "Choose one of these with --split, or make the data set again with "
                "that split."
            )
        return self._splits[split]


# --- its groups: written, checked, and advice where they are none


def _advice(path: Path, like: Path | None, file: Any) -> str:
    """Return what to do with a path, perhaps an open ``file``, that is no data set."""
    if file is not None:
        if not isinstance(file.get("images"), hdf5.Dataset):
            return _ADVICE
        command = ("mpilayer", "data", "patches", str(path), "-o", "patches.h5")
        return f"Make a data set of its images: {shlex.join(command)}"
    if (path / "config.toml").is_file():
        run = shlex.quote(str(path))
        return (
            f"It is a run: look at it with 'mpilayer evaluate {run}' or 'mpilayer "
            f"report {run}'."
        )
    samples = path.suffix.lower() in _SAMPLES and path.is_file()
    if not (samples or path.is_dir()) or not path.name:
        return _ADVICE
    out = str(path.with_name(f"{path.stem if samples else path.name}.h5"))
    alike = () if like is None else ("--like", str(like))
    command = ("mpilayer", "data", "prepare", str(path), *alike, "-o", out)
    return f"Make a data set of it: {shlex.join(command)}"


def _checked_split(path: Path, name: str, group: Any) -> _Stored:
    """Return what a group of an open file holds; DataError if it is not well formed."""
    items = dict(group) if isinstance(group, hdf5.Group) else {}
    x, labels = items.get("x"), items.get("labels")
    shape = getattr(x, "shape", None)
    where, fault = f"{path}, group {name!r}", ""
    if x is None or shape is None or len(shape) != 2 or 0 in shape:
        found = "none" if shape is None else f"shape {shape}"
        fault = f" must have 'x' of shape (n_samples, n_visible); found {found}"
    elif str(x.dtype) not in (*NARROW, "float32"):
        fault = f": x must be {', '.join(NARROW)} or float32; found {x.dtype}"
    elif not (unit := Unit(x.attrs.get("scale"), x.attrs.get("offset", 0.0))).is_legal:
        fault = f": x must have {UNITS}; found {unit.scale} and {unit.offset}"
    elif labels is not None:
        fits = getattr(labels, "shape", None) == shape[:1]
        if not fits or (labels.dtype.kind not in "iu" and labels.dtype != np.float32):
            found = f"labels of shape {getattr(labels, 'shape', None)}"
            fault = (
                f" must have {shape[0]} integer labels or float32 ones, one a row of "
                f"x; found {labels.dtype if fits else found}"
            )
    if fault:
        raise DataError(f"{where}{fault}. {_ADVICE}")
    return _Stored(x, labels, Unit(*map(float, unit)))


def _write_split(
    group: Any, split: Split, unit: Unit, written: Callable[[int], None]
) -> None:
    """Write a split into its group of an open file, and tell of bytes ``written``."""
    (n, n_visible), dtype = split.x.shape, split.x.dtype
    chunk = min(n, max(1, _CHUNK_BYTES // (n_visible * dtype.itemsize)))
    form = {"chunks": (chunk, n_visible), "fletcher32": True}
    if dtype.kind != "f":  # floats hardly shrink, and would take longer to read
        form |= {"compression": "gzip", "compression_opts": 4}
    x = group.create_dataset("x", split.x.shape, dtype, **form)
    for rows in row_blocks(n, chunk):
        x[rows] = block = split.x[rows]
        written(block.nbytes)
    x.attrs["scale"] = unit.scale
    if unit.offset:
        x.attrs["offset"] = unit.offset
    if split.labels is not None:
        n = min(n, _CHUNK_BYTES // split.labels.itemsize)
        group.create_dataset("labels", data=split.labels, chunks=(n,), fletcher32=True)
