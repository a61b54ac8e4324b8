"""The data set: one HDF5 file, written once, from which any rank reads any rows.

Layout, version 1: a group for each split, ``train`` always, ``validation`` and ``test``
if there are any. Each has ``x`` (n_samples, n_visible) and perhaps ``labels``
(n_samples,). A value is what is stored times the attribute ``scale`` of ``x``: pixels
stay bytes with scale 1/255, everything else is float32 with scale 1. The root has the
attributes ``name`` and ``origin`` besides those of :mod:`mpilayer.hdf5`.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray, Array32
from mpilayer.data.split import Split, as_int64, check_finite, count_labels
from mpilayer.errors import ConfigError, DataError

KIND = "mpilayer-dataset"
FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
PIXEL_SCALE = 1 / 255
LARGEST = 1e15
"""What values may be: sums of squares of larger ones leave float32."""

_ADVICE = "Make a data set with 'mpilayer data prepare'."
_SAMPLES = (".npy", ".npz", ".mat", ".csv")
_IMAGES = "images"
_CHUNK_BYTES = 512 * 1024
_SLAB_BYTES = 4 * 1024 * 1024
_GZIP_LEVEL = 4
_LEAST_SCALE = 1e-12  # and its inverse the most


def write_dataset(
    path: Path, splits: Mapping[str, Split], *, name: str, origin: str, scale: float
) -> None:
    """Write a data set; local.

    Parameters
    ----------
    path : Path
        The file; replaced in one step if it exists.
    splits : mapping of str to Split
        ``train`` and perhaps ``validation`` and ``test``; of one width and type.
    name : str
        What to call the data.
    origin : str
        Where they come from.
    scale : float
        Value of a stored 1; see :data:`PIXEL_SCALE`.

    Raises
    ------
    ConfigError
        No split ``train``, or one of an unknown name.
    DataError
        Splits of different widths or types, or a file that cannot be written.
    """
    _check_splits(splits)
    with hdf5.create(path, kind=KIND, version=FORMAT_VERSION) as file:
        hdf5.set_text(file, "name", name)
        hdf5.set_text(file, "origin", origin)
        for split_name in SPLITS:
            if split_name in splits:
                group = file.create_group(split_name)
                _write_split(group, splits[split_name], scale)


class Dataset:
    """A data set opened for reading; a context manager, local.

    Attributes
    ----------
    path : Path
        The file.
    name, origin : str
        What the data are called, and where they come from.
    digest : str
        SHA-256 of the content, as the file carries it.
    n_visible : int
        Values in a sample.
    splits : tuple of str
        Those present, in the order train, validation, test.
    scale : float
        Value of a stored 1 in the training rows.

    Examples
    --------
    >>> with Dataset.open(Path("mnist.h5")) as dataset:  # doctest: +SKIP
    ...     first = dataset.rows("train", 0, 100)
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file
        self._closing = ExitStack()
        self.splits = tuple(name for name in SPLITS if name in file)
        if "train" not in self.splits:
            raise DataError(f"{path} must have a group 'train'; found {_listed(file)}.")
        self._stored_splits = {
            name: _checked_split(path, name, file[name]) for name in self.splits
        }
        self.n_visible = int(self._stored("train").x.shape[1])
        for name, stored in self._stored_splits.items():
            n_columns = stored.x.shape[1]
            if n_columns != self.n_visible:
                raise DataError(
                    f"all splits of {path} must have the same number of columns; found "
                    f"{self.n_visible} in train and {n_columns} in {name}. {_ADVICE}"
                )
        self.name = hdf5.text(file, "name", path.stem)
        self.origin = hdf5.text(file, "origin")
        self.digest = hdf5.text(file, "digest")
        self.scale = self._stored("train").scale
        self._version = int(file.attrs["format_version"])

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and check its layout, not its content.

        Raises
        ------
        DataError
            Missing, not HDF5, another kind, a newer version, or another layout.
        """
        with hdf5.reading(path), ExitStack() as stack:
            file = stack.enter_context(
                hdf5.open_read(
                    path,
                    kind=KIND,
                    version=FORMAT_VERSION,
                    advice=_advice(path),
                    advise=lambda found: _advice_for(path, found),
                )
            )
            dataset = cls(path, file)
            dataset._closing = stack.pop_all()
        return dataset

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def n_samples(self, split: str) -> int:
        """Return the number of rows of a split."""
        return int(self._stored(split).x.shape[0])

    def rows(self, split: str, start: int = 0, stop: int | None = None) -> Array32:
        """Read contiguous rows.

        Parameters
        ----------
        split : str
            ``"train"``, ``"validation"`` or ``"test"``.
        start, stop : int
            First row, and the one after the last; all rows by default.

        Returns
        -------
        ndarray of float32, (stop - start, n_visible), scaled
            Besides it, some 4 MiB of memory are used at a time.

        Raises
        ------
        DataError
            No such split, rows outside it, values that are NaN or above ``LARGEST``, a
            damaged file, or more than there is memory.
        """
        start, stop = self._bounds(split, start, stop)
        memory.demand((stop - start) * self.n_visible * 4, self.path)
        result = np.empty((stop - start, self.n_visible), np.float32)
        for begin, slab in self._slabs(split, start, stop):
            out = result[begin - start : begin - start + len(slab)]
            with np.errstate(over="ignore"):
                np.multiply(slab, np.float32(self._stored(split).scale), out=out)
            if slab.dtype.kind == "f":
                check_finite(out, begin, f"{split}/x of {self.path}", LARGEST)
        return result

    def labels(
        self, split: str, start: int = 0, stop: int | None = None
    ) -> npt.NDArray[np.int64] | None:
        """Read the labels of contiguous rows, (stop - start,); None if there are none.

        Raises
        ------
        DataError
            As for :meth:`rows`.
        """
        start, stop = self._bounds(split, start, stop)
        stored = self._stored(split).labels
        if stored is None:
            return None
        memory.demand((stop - start) * 8, self.path)
        with hdf5.reading(self.path):
            return as_int64(stored[start:stop])

    def summary(self) -> dict[str, Any]:
        """Return what the file holds, ready for JSON; reads everything once.

        Raises
        ------
        DataError
            As for :meth:`rows`.
        """
        return {
            "name": self.name,
            "origin": self.origin,
            "digest": self.digest,
            "format_version": self._version,
            "n_visible": self.n_visible,
            "splits": {split: self._split_summary(split) for split in self.splits},
        }

    def verify(self) -> None:
        """Compare the content with the digest.

        Raises
        ------
        DataError
            They differ, or the file cannot be read.
        """
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
        another stamp before.

        Parameters
        ----------
        stamp : sequence of int, optional
            What ``stamp`` was, empty if nobody knows.

        Raises
        ------
        DataError
            As for :meth:`verify`.
        """
        with hdf5.reading(self.path):
            checked = hdf5.has_checksums(self._file)
        if not checked or stamp not in (None, self.stamp):
            self.verify()

    def _split_summary(self, split: str) -> dict[str, Any]:
        stored = self._stored(split)
        scale, lowest, highest = stored.scale, np.inf, -np.inf
        for begin, slab in self._slabs(split, 0, self.n_samples(split)):
            check_finite(slab, begin, f"{split}/x of {self.path}")
            lowest = min(lowest, float(slab.min()) * scale)
            highest = max(highest, float(slab.max()) * scale)
        labels = self.labels(split)
        return {
            "n_samples": self.n_samples(split),
            "dtype": str(stored.x.dtype),
            "scale": scale,
            "minimum": lowest,
            "maximum": highest,
            "label_counts": None if labels is None else count_labels(labels),
        }

    def _slabs(
        self, split: str, start: int, stop: int
    ) -> Iterator[tuple[int, AnyArray]]:
        """Yield first row and stored values of slabs of whole chunks."""
        x = self._stored(split).x
        chunk = x.chunks[0] if x.chunks else 1
        chunk_bytes = chunk * self.n_visible * x.dtype.itemsize
        memory.demand(chunk_bytes, self.path)
        slab = chunk * max(1, _SLAB_BYTES // chunk_bytes)
        begin = start
        while begin < stop:
            end = min(stop, (begin // slab + 1) * slab)
            with hdf5.reading(self.path):
                values = x[begin:end]
            yield begin, values
            begin = end

    def _bounds(self, split: str, start: int, stop: int | None) -> tuple[int, int]:
        n = self.n_samples(split)
        stop = n if stop is None else stop
        if not 0 <= start <= stop <= n:
            raise DataError(
                f"rows of {split} in {self.path} must lie in 0 to {n}; "
                f"asked for {start} to {stop}."
            )
        return start, stop

    def _stored(self, split: str) -> "_Stored":
        if split not in self._stored_splits:
            raise DataError(
                f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}. "
                "Choose one of these with --split, or make the data set again with "
                "that split."
            )
        return self._stored_splits[split]


@dataclass(frozen=True)
class _Stored:
    """A split in an open file: samples, perhaps labels, and the value of a stored 1."""

    x: Any
    labels: Any
    scale: float


def _advice(path: Path) -> str:
    """Return what to do with a path that is no HDF5 file."""
    samples = path.suffix.lower() in _SAMPLES and path.is_file()
    if not (samples or path.is_dir()) or not path.name:
        return _ADVICE
    name = f"{path.stem if samples else path.name}.h5"
    command = ("mpilayer", "data", "prepare", str(path))
    out = str(path.with_name(name))
    return f"Make a data set of it: {shlex.join((*command, '-o', out))}"


def _advice_for(path: Path, file: Any) -> str:
    """Return what to do with an HDF5 file of another kind: it may hold images."""
    if not isinstance(file.get(_IMAGES), hdf5.Dataset):
        return _ADVICE
    command = ("mpilayer", "data", "patches", str(path), "-o", "patches.h5")
    return f"Make a data set of its images: {shlex.join(command)}"


def _check_splits(splits: Mapping[str, Split]) -> None:
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise ConfigError(
            "a data set must have a split 'train', may have 'validation' and 'test'; "
            f"found {_listed(splits)}."
        )
    train = splits["train"].x
    for name, split in splits.items():
        if (split.x.shape[1], split.x.dtype) != (train.shape[1], train.dtype):
            raise DataError(
                "all splits must have the same number of columns and type; found "
                f"{train.shape[1]} of {train.dtype} in train and "
                f"{split.x.shape[1]} of {split.x.dtype} in {name}."
            )


def _write_split(group: Any, split: Split, scale: float) -> None:
    n, n_visible = split.x.shape
    row_bytes = n_visible * split.x.dtype.itemsize
    chunk = (min(n, max(1, _CHUNK_BYTES // row_bytes)), n_visible)
    # Floats hardly shrink, and would take longer to read.
    pixels = split.x.dtype == np.uint8
    packing = {"compression": "gzip", "compression_opts": _GZIP_LEVEL} if pixels else {}
    x = group.create_dataset(
        "x", data=split.x, chunks=chunk, fletcher32=True, **packing
    )
    x.attrs["scale"] = float(scale)
    if split.labels is not None:
        n = min(n, _CHUNK_BYTES // split.labels.itemsize)
        group.create_dataset("labels", data=split.labels, chunks=(n,), fletcher32=True)


def _checked_split(path: Path, name: str, group: Any) -> _Stored:
    """Return what a group of an open file holds, if it is well formed."""
    where, items = f"{path}, group {name!r}", {}
    if isinstance(group, hdf5.Group):
        items = dict(group)
    x, labels = items.get("x"), items.get("labels")
    shape = getattr(x, "shape", None)
    if x is None or shape is None or len(shape) != 2 or 0 in shape:
        found = "none" if shape is None else f"shape {shape}"
        raise DataError(
            f"{where} must have 'x' of shape (n_samples, n_visible); found {found}. "
            f"{_ADVICE}"
        )
    if x.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"{where}: x must be uint8 or float32; found {x.dtype}. {_ADVICE}"
        )
    scale = x.attrs.get("scale")
    if not isinstance(scale, float) or not _LEAST_SCALE <= scale <= 1 / _LEAST_SCALE:
        raise DataError(
            f"{where}: x must have an attribute 'scale', a float64 of {_LEAST_SCALE:g} "
            f"to {1 / _LEAST_SCALE:g}; found {scale}. {_ADVICE}"
        )
    if labels is not None:
        _check_stored_labels(where, labels, shape[0])
    return _Stored(x, labels, float(scale))


def _check_stored_labels(where: str, labels: Any, n_samples: int) -> None:
    shape = getattr(labels, "shape", None)
    if shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where} must have {n_samples} integer labels, one a row of x; "
            f"found labels of shape {shape}. {_ADVICE}"
        )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
