"""Tables of samples: finite numbers, in memory or in files that it may not hold.

Numbers are float32, or of a narrower type that a :class:`Unit` makes values of.
"""

import math
import tempfile
import weakref
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray, Array32
from mpilayer.errors import DataError, FileError

_SLAB_BYTES = 4 << 20
# Where the chunks of a file are larger than that, each is read several times.
_MOST_SLAB_BYTES = 64 << 20

LARGEST = 1e15
"""What values may be: sums of squares of larger ones leave float32."""

_LEAST_SCALE = 1e-12  # and its inverse the most
UNITS = (
    f"an attribute 'scale', a float64 of {_LEAST_SCALE:g} to {1 / _LEAST_SCALE:g}, and "
    f"perhaps an 'offset', one of at most {LARGEST:g}"
)
"""What a :class:`Unit` must be, in words."""

NARROW = ("uint8", "int8", "uint16", "int16", "float16")
"""Types in which numbers may stay: half of float32, or less."""

Progress = Callable[[str, int, int | None], None]
"""Called with what is done, or a file's name, and the bytes done and to do, or None."""


class Unit(NamedTuple):
    """What numbers stand for: each for itself times ``scale``, plus ``offset``."""

    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def told_by(cls, array: Any) -> "Unit | None":
        """Return what an array of HDF5 says itself (CF conventions, 8.1), if it does.

        DataError: something else than numbers, or such as no data set has.
        """
        attributes = getattr(array, "attrs", {})
        if "scale_factor" not in attributes:
            return None
        told = [attributes["scale_factor"], attributes.get("add_offset", 0.0)]
        unit = cls(math.nan)
        with suppress(TypeError, ValueError):
            unit = cls(*(float(np.asarray(value).item()) for value in told))
        if not unit.is_legal:
            found = " and ".join(map(str, told))
            raise DataError(
                f"scale_factor must be a number of {_LEAST_SCALE:g} to "
                f"{1 / _LEAST_SCALE:g}, and add_offset one of at most {LARGEST:g}; "
                f"found {found}. Mend them, or give --stored-scale."
            )
        return unit

    @property
    def is_legal(self) -> bool:
        """Tell whether a data set may have it, see :data:`UNITS`."""
        if not all(isinstance(number, float) for number in self):
            return False
        fits = _LEAST_SCALE <= self.scale <= 1 / _LEAST_SCALE
        return fits and abs(self.offset) <= LARGEST

    def values(self, numbers: AnyArray, out: Array32 | None = None) -> Array32:
        """Return what numbers stand for, perhaps in ``out``."""
        if out is None:
            out = np.empty(numbers.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(numbers, np.float32(self.scale), out=out)
            if self.offset:
                out += np.float32(self.offset)
        return out


def counted(progress: Progress, what: str, n_bytes: int) -> Callable[[int], None]:
    """Return what is told of bytes as they are done, of all that are to do."""
    done = 0

    def more(n_more: int) -> None:
        nonlocal done
        done += n_more
        progress(what, done, n_bytes)

    return more


class Values:
    """What the numbers of a table stand for, and ``told`` how many bytes are read."""

    def __init__(
        self, x: "AnyArray | FileTable", unit: Unit, told: Callable[[int], object]
    ) -> None:
        self._x, self._unit, self._told = x, unit, told

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, where: slice) -> Array32:
        """Return the values of some rows."""
        numbers = self._x[where]
        self._told(numbers.nbytes)
        return self._unit.values(numbers)


def stored_type(dtype: np.dtype[Any], narrow: bool = False) -> np.dtype[Any]:
    """Return the type in which samples have numbers of a type.

    That itself if it is uint8 or, where ``narrow`` ones stay, one of :data:`NARROW`;
    float32 for others. DataError: not real numbers.
    """
    if dtype.kind not in "biuf":
        raise DataError(
            f"samples must be real numbers; found {dtype}. Convert them to float32."
        )
    native = dtype.newbyteorder("=")
    stays = native == np.uint8 or (narrow and str(native) in NARROW)
    return native if stays else np.dtype(np.float32)


def slab_rows(array: Any, path: Path) -> int:
    """Return how many rows of an array are read at a time: whole chunks, some MiB.

    DataError: a chunk does not fit into memory.
    """
    row_bytes = max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)
    chunk = int((getattr(array, "chunks", None) or (1,))[0])
    memory.demand(chunk * row_bytes, path)
    step = max(1, _SLAB_BYTES // (chunk * row_bytes)) * chunk
    return int(min(step, max(1, _MOST_SLAB_BYTES // row_bytes)))


class FileRows:
    """Rows of an array that lies in a file from a byte on, in C order."""

    def __init__(
        self, file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...], first: int
    ) -> None:
        self.dtype, self.shape = np.dtype(dtype), shape
        self._file, self._first = file, first
        weakref.finalize(self, file.close)

    def __getitem__(self, rows: slice) -> AnyArray:
        """Return some rows; DataError if the file has become shorter."""
        start, stop, _ = rows.indices(self.shape[0])
        width = math.prod(self.shape[1:])
        self._file.seek(self._first + start * width * self.dtype.itemsize)
        numbers = np.fromfile(self._file, self.dtype, (stop - start) * width)
        if len(numbers) < (stop - start) * width:
            raise DataError("the file must stay as it is while it is read; it was cut.")
        return numbers.reshape(stop - start, width)


def spooled(array: AnyArray, folder: Path) -> FileRows:
    """Return the rows of an array from a file without a name, which ends with them."""
    stored_type(array.dtype)  # must be that of numbers
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        rows = FileRows(file, array.dtype, array.shape, 0)
        # Unlike tofile, this tells why it fails.
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
    except OSError as error:
        raise FileError.of(
            error, folder, "It must hold the rows for a while."
        ) from error
    return rows


class _Part(NamedTuple):
    """An array of a file, of which rows are read when they are asked for."""

    array: Any  # (n_samples, ...): has dtype, shape and slices of rows
    where: str  # for messages
    path: Path
    step: int  # rows read at a time


class FileTable:
    """A table whose rows are read when they are asked for, slab by slab.

    Its numbers are those of one array, or of several after one another, each row in C
    order, of the type in which data sets have them. Slices of it are arrays; what is
    not finite is found then.
    """

    def __init__(
        self,
        parts: Sequence[_Part],
        dtype: np.dtype[Any],
        chosen: npt.NDArray[np.intp] | None = None,
    ) -> None:
        self.dtype, self._parts, self._chosen = dtype, parts, chosen
        self._starts = np.cumsum([0, *(part.array.shape[0] for part in parts)])
        n_rows = int(self._starts[-1]) if chosen is None else len(chosen)
        self.shape = n_rows, math.prod(parts[0].array.shape[1:])
        self._held: tuple[int, AnyArray] = 0, np.empty((0, self.shape[1]), dtype)

    @classmethod
    def of(
        cls, array: Any, path: Path, where: str = "", narrow: bool = False
    ) -> "FileTable":
        """Return the rows of an array; ``narrow`` numbers may keep their type."""
        part = _Part(array, where or str(path), path, slab_rows(array, path))
        return cls([part], stored_type(array.dtype, narrow))

    @classmethod
    def joined(cls, tables: "Sequence[FileTable]") -> "FileTable":
        """Return the rows of whole tables of one width and type after one another."""
        return cls([p for table in tables for p in table._parts], tables[0].dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes of all numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def take(self, rows: npt.NDArray[np.intp], axis: int = 0) -> "FileTable":  # noqa: ARG002
        """Return a table of some rows, in ascending order; nothing is read."""
        chosen = rows if self._chosen is None else self._chosen[rows]
        return FileTable(self._parts, self.dtype, chosen)

    def __getitem__(self, where: slice) -> AnyArray:
        """Return some rows; DataError if they cannot be read, or are not finite."""
        start, stop, _ = where.indices(len(self))
        rows = np.arange(start, stop)
        if self._chosen is not None:
            rows = self._chosen[start:stop]
        out, done = np.empty((len(rows), self.shape[1]), self.dtype), 0
        while done < len(rows):
            begin, slab = self._slab(int(rows[done]))
            upto = int(np.searchsorted(rows, begin + len(slab)))
            out[done:upto] = slab[rows[done:upto] - begin]
            done = upto
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        """Return all rows, as NumPy asks for them."""
        return np.asarray(self[:], dtype)

    def _slab(self, row: int) -> tuple[int, AnyArray]:
        """Return the slab that a row is in, and which row is its first."""
        begin, slab = self._held
        if begin <= row < begin + len(slab):
            return self._held
        k = bisect(self._starts, row) - 1
        part, start = self._parts[k], int(self._starts[k])
        self._held = 0, slab[:0]  # never two of them
        del slab
        begin = (row - start) // part.step * part.step
        with hdf5.reading(part.path):
            numbers = part.array[begin : begin + part.step]
            numbers = numbers.reshape(len(numbers), -1)
            if self.dtype == np.float32:
                numbers = to_float32(numbers)
            numbers = numbers.astype(self.dtype, copy=False)
        if self.dtype.kind == "f":
            with told_of(part.where):
                check_finite(numbers, begin, "x")
        self._held = start + begin, numbers
        return self._held


def check_finite(
    x: AnyArray,
    first_row: int,
    what: str,
    most: float = np.inf,
    remedy: str = "Mend or leave out such samples",
) -> None:
    """Refuse NaN, and values that are infinite or further from 0 than ``most``.

    Of a table called ``what``, ``x`` (n, n_columns) are the rows from ``first_row`` on.
    """
    legal = np.isfinite(x) if most == np.inf else np.abs(x) <= most
    if not legal.all():
        row, column = np.argwhere(~legal)[0]
        limit = "" if most == np.inf else f" of at most {most:g}"
        if np.isfinite(x[row, column]):
            remedy = "Scale the data"
        raise DataError(
            f"{what} must hold finite float32 numbers{limit}; row {first_row + row}, "
            f"column {column} is {x[row, column]}. {remedy}."
        )


def to_float32(x: AnyArray) -> Array32:
    """Return float32 in C order; what it cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32, order="C", copy=False)


@contextmanager
def told_of(where: object) -> Iterator[None]:
    """Let a ``DataError`` of the block say what it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
