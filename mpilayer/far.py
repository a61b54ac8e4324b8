"""Rows that do not fit into memory, and stay in files; local.

What trains on them holds some at a time: see :mod:`mpilayer.train.pools`.
"""

import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import ROW_BLOCK, AnyArray, Array32, StoredRows, row_blocks
from mpilayer.errors import DataError, FileError


class FarRows(ABC):
    """Rows of a ``shape`` (n_samples, n_columns) that are read when they are asked for.

    ``dtype`` is that of what is stored, float32 or narrower; ``scale``, the value of a
    stored 1, of narrow numbers.
    """

    def __init__(self, shape: tuple[int, int], dtype: Any, scale: float = 1.0) -> None:
        self.shape, self.dtype, self.scale = shape, np.dtype(dtype), scale

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, as stored."""
        return int(self.shape[1] * self.dtype.itemsize)

    @abstractmethod
    def read(self, start: int, stop: int) -> AnyArray:
        """Return rows as they are stored; in any thread."""

    def values(self, stored: AnyArray) -> Array32 | StoredRows:
        """Return what stored rows are to those who train on them."""
        return stored if stored.dtype == np.float32 else StoredRows(stored, self.scale)

    def __getitem__(self, where: slice | AnyArray) -> Array32:
        """Return some rows: those of a slice, or of ascending indices."""
        if isinstance(where, slice):
            start, stop, _ = where.indices(len(self))
            return self.values(self.read(start, stop))[:]
        # Those close to one another are read together.
        cuts = np.flatnonzero(np.diff(where // ROW_BLOCK)) + 1
        parts = [
            self[part[0] : part[-1] + 1][part - part[0]]
            for part in np.split(where, cuts)
            if len(part)
        ]
        return np.concatenate([self[:0], *parts])

    def limits(self) -> tuple[float, float]:
        """Return the least and the largest number; reads all that may say it."""
        if self.dtype == np.uint8 and self.scale <= 1 / 255:
            return 0.0, 1.0  # at most: nobody asks for more
        blocks = (self[block] for block in row_blocks(len(self)))
        found = [(float(block.min()), float(block.max())) for block in blocks]
        return min(least for least, _ in found), max(most for _, most in found)


class RowFile(FarRows):
    """Outputs of a layer in a file that is written again and again; float32.

    It goes from one rank to another by its name: nothing is copied.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        super().__init__(shape, np.float32)
        self._path = path

    def read(self, start: int, stop: int) -> AnyArray:
        """Return rows, which must have been written."""
        shape, offset = (stop - start, self.shape[1]), start * self.row_bytes
        found = np.fromfile(self._path, np.float32, shape[0] * shape[1], offset=offset)
        return found.reshape(shape)

    def write(self, start: int, rows: Array32) -> None:
        """Write rows, the first of which is number ``start``; in any thread.

        FileError: there is no room, or another reason.
        """
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            with os.fdopen(file, "wb") as target:
                target.seek(start * self.row_bytes)
                target.write(np.ascontiguousarray(rows).data)
        except OSError as error:  # which seldom knows the file
            raise FileError.of(error, self._path) from error

    def hand_over(self, epoch: int) -> None:
        """Leave what is written, the output of an epoch, to who takes it over."""
        self._path.replace(self._between(epoch))

    def take_over(self, epoch: int) -> None:
        """Have what another one, of the same layer, has handed over."""
        self._between(epoch).replace(self._path)

    def _between(self, epoch: int) -> Path:
        return self._path.with_suffix(f".e{epoch:06}")


class Scratch:
    """A folder for what does not fit into memory, and the bytes that are held of it.

    ``held`` are, of rows and outputs together, those of one layer at a time.
    """

    def __init__(self, folder: Path, held: int) -> None:
        self._folder, self.held = folder, held

    def make(self) -> None:
        """Make the folder anew."""
        self.clear()
        self._folder.mkdir()

    def clear(self) -> None:
        """Remove it, if there is one."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def check_room(self, n_bytes: int) -> None:
        """Check that there is room on the disk; else a ``DataError``."""
        there = next(p for p in self._folder.absolute().parents if p.exists())
        # What a killed launch has left there goes first.
        old = sum(path.stat().st_size for path in self._folder.glob("*"))
        left = shutil.disk_usage(there).free + old
        if n_bytes > left:
            raise DataError(
                f"{there} must have room for what layers pass on; that is "
                f"{n_bytes / 1e9:.3g} GB, and {left / 1e9:.3g} GB are free. Choose "
                "another --run, fewer units, or more --memory if there is some."
            )

    def rows(self, layer: int, which: str, shape: tuple[int, int]) -> RowFile:
        """Return a file for outputs of a layer: ``which`` of several."""
        return RowFile(self._folder / f"layer-{layer + 1}.{which}", shape)
