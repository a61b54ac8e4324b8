"""The data set: one HDF5 file, written once, from which any rank reads any rows.

Layout: a group for each split, ``train`` always, ``validation`` and ``test`` if there
are any. Each has ``x`` (n_samples, n_visible) and perhaps ``labels`` (n_samples,),
integers or, in version 2, float32. A value is what is stored times the attribute
``scale`` of ``x``: pixels stay bytes with scale 1/255, everything else is float32 with
scale 1. Version 2 may have a :class:`~mpilayer.data.preparation.Preparation`, whose
scaling comes after that. The root has the attributes ``name`` and ``origin`` besides
those of :mod:`mpilayer.hdf5`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray, Array32
from mpilayer.data.layout import (
    ADVICE,
    SPLITS,
    Stored,
    advice,
    check_splits,
    checked_split,
    listed,
    write_split,
)
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split, as_labels, check_finite
from mpilayer.errors import DataError

KIND = "mpilayer-dataset"
FORMAT_VERSION = 2
PIXEL_SCALE = 1 / 255
LARGEST = 1e15
"""What values may be: sums of squares of larger ones leave float32."""

_SLAB_BYTES = 4 * 1024 * 1024
_NOTHING = Preparation()


def write_dataset(
    path: Path,
    splits: Mapping[str, Split],
    *,
    name: str,
    origin: str,
    scale: float,
    preparation: Preparation = _NOTHING,
) -> None:
    """Write a data set, in one step if there was one before; local.

    The splits are ``train`` and perhaps ``validation`` and ``test``, of one width and
    type. A stored 1 has the value ``scale``, see :data:`PIXEL_SCALE`, before values are
    scaled as the preparation says.

    ConfigError: no split ``train``, or one of an unknown name. DataError: splits of
    different widths or types, or a file that cannot be written.
    """
    check_splits(splits)
    # The oldest version that says all: older programs read what they can.
    version = 1 + (bool(preparation) or any(s.is_real for s in splits.values()))
    with hdf5.create(path, kind=KIND, version=version) as file:
        hdf5.set_text(file, "name", name)
        hdf5.set_text(file, "origin", origin)
        for split_name in SPLITS:
            if split_name in splits:
                group = file.create_group(split_name)
                write_split(group, splits[split_name], scale)
        preparation.store(file)


class Dataset:
    """A data set opened for reading; a context manager, local.

    Attributes
    ----------
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
    preparation : Preparation
        What the columns are called, and how values are scaled.

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
            raise DataError(f"{path} must have a group 'train'; found {listed(file)}.")
        self._stored_splits = {
            name: checked_split(path, name, file[name]) for name in self.splits
        }
        self.n_visible = int(self._stored("train").x.shape[1])
        for name, stored in self._stored_splits.items():
            n_columns = stored.x.shape[1]
            if n_columns != self.n_visible:
                raise DataError(
                    f"all splits of {path} must have the same number of columns; found "
                    f"{self.n_visible} in train and {n_columns} in {name}. {ADVICE}"
                )
        self.name = hdf5.text(file, "name", path.stem)
        self.origin = hdf5.text(file, "origin")
        self.digest = hdf5.text(file, "digest")
        self.scale = self._stored("train").scale
        self.preparation = Preparation.load(file, self.n_visible, path)

    @classmethod
    def open(cls, path: Path, like: Path | None = None) -> Self:
        """Open a file and check its layout, not its content.

        ``like`` is a run that it is for, to advise how samples become a data set.

        DataError: missing, not HDF5, another kind, a newer version, or another layout.
        """
        advise = partial(advice, path, like)
        with hdf5.reading(path), ExitStack() as stack:
            opened = hdf5.open_read(
                path, kind=KIND, version=FORMAT_VERSION, advise=advise
            )
            dataset = cls(path, stack.enter_context(opened))
            dataset._closing = stack.pop_all()
        return dataset

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def n_samples(self, split: str) -> int:
        """Return the number of rows of a split."""
        return int(self._stored(split).x.shape[0])

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
            if slab.dtype.kind == "f" or self.preparation.scaling is not None:
                check_finite(out, begin, f"{split}/x of {self.path}", LARGEST)
        return result

    def stored(self, split: str) -> Split:
        """Return all of a split as it is stored, before any scaling; as ``rows``."""
        x = self._stored(split).x
        memory.demand(x.size * x.dtype.itemsize, self.path)
        with hdf5.reading(self.path):
            return Split(x[()], self.labels(split))

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
        """Return what the file holds, ready for JSON; reads everything once.

        DataError: as for :meth:`rows`.
        """
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
        """Compare the content with the digest.

        DataError: they differ, or the file cannot be read.
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
        another ``stamp`` before, or an empty one if nobody knows.

        DataError: as for :meth:`verify`.
        """
        with hdf5.reading(self.path):
            checked = hdf5.has_checksums(self._file)
        if not checked or stamp not in (None, self.stamp):
            self.verify()

    def _split_summary(self, split: str) -> dict[str, Any]:
        stored = self._stored(split)
        lowest, highest = np.inf, -np.inf
        for begin, slab in self._slabs(split, 0, self.n_samples(split)):
            check_finite(slab, begin, f"{split}/x of {self.path}")
            values = np.empty(slab.shape, np.float32)
            self._scale(split, slab, values)
            lowest = min(lowest, float(values.min()))
            highest = max(highest, float(values.max()))
        return {
            "n_samples": self.n_samples(split),
            "dtype": str(stored.x.dtype),
            "scale": stored.scale,
            "minimum": lowest,
            "maximum": highest,
            **self._label_summary(split),
        }

    def _label_summary(self, split: str) -> dict[str, Any]:
        labels = self.labels(split)
        if labels is None:
            return {"label_counts": None}
        if labels.dtype.kind == "f":
            limits = [float(labels.min()), float(labels.max())]
            return {"label_counts": None, "label_range": limits}
        values, counts = np.unique(labels, return_counts=True)
        names = map(str, self.preparation.names(values))
        return {"label_counts": dict(zip(names, counts.tolist(), strict=True))}

    def _scale(self, split: str, slab: AnyArray, out: Array32) -> None:
        """Write the values of stored rows; here alone they are scaled."""
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(slab, np.float32(self._stored(split).scale), out=out)
            if self.preparation.scaling is not None:
                self.preparation.scaling.apply(out)

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

    def _stored(self, split: str) -> Stored:
        if split not in self._stored_splits:
            raise DataError(
                f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}. "
                "Choose one of these with --split, or make the data set again with "
                "that split."
            )
        return self._stored_splits[split]
