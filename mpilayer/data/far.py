"""Rows of a data set that stay in it, and are read as they are needed."""

from pathlib import Path
from typing import Any

from mpilayer import memory
from mpilayer.arrays import AnyArray, StoredRows
from mpilayer.data.dataset import Dataset
from mpilayer.far import FarRows

# Bytes that are soon read, whatever is used of them.
_SOON = 1 << 22


class DataRows(FarRows):
    """Rows of a split, perhaps only a part of them; local.

    Every rank that it travels to opens the data set for itself.
    """

    def __init__(
        self, path: Path, split: str, start: int = 0, stop: int | None = None
    ) -> None:
        self._path, self._split, self._start = path, split, start
        self._dataset: Dataset | None = None
        with Dataset.open(path) as dataset:
            stop = dataset.n_samples(split) if stop is None else stop
            self._piece = dataset.chunk_rows(split)
            shape = stop - start, dataset.n_visible
            super().__init__(shape, *dataset.held_as(split))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_dataset": None}

    def read(self, start: int, stop: int) -> AnyArray:
        """Return rows as they are stored; if they are damaged, a ``DataError``."""
        if self._dataset is None:
            self._dataset = Dataset.open(self._path)
        where = self._start + start, self._start + stop
        found = self._dataset.compact_rows(self._split, *where)
        return found.values if isinstance(found, StoredRows) else found

    def slow(self, n_rows: int) -> str:
        """Return a warning if to read so many rows many more of them must be read.

        A ``DataError`` says that these do not fit into memory.
        """
        size, few = self._piece * self.row_bytes, _SOON // self.row_bytes
        if self._piece <= max(n_rows, few):
            return ""
        advice = (
            f"Smaller ones are made by: h5repack -l {self._split}/x:CHUNK="
            f"{max(1, few // 8)}x{self.shape[1]} {self._path} OTHER.h5"
        )
        memory.demand(size, f"a piece of the rows in {self._path}", advice)
        return (
            f"{self._path} keeps rows in pieces of {size / 1e6:.3g} MB, each of which "
            f"is read whole for every {n_rows} rows of it: that is slow. {advice}"
        )
