"""Types of arrays, and the precision everything is computed in.

Data, weights and matrix products are float32; sums that are reported or compared are
float64. Samples are rows, in C order.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array32: TypeAlias = npt.NDArray[np.float32]
"""Data, weights, activations."""

Array64: TypeAlias = npt.NDArray[np.float64]
"""Sums and statistics."""

AnyArray: TypeAlias = npt.NDArray[Any]

ROW_BLOCK = 2000
"""Rows treated at a time when all rows pass through a layer: stays in cache."""


def row_blocks(n_rows: int, block: int = ROW_BLOCK) -> list[slice]:
    """Return the slices that cut ``n_rows`` rows into blocks of at most ``block``."""
    return [slice(i, min(i + block, n_rows)) for i in range(0, n_rows, block)]


class StoredRows:
    """Rows of one or two bytes a number, float32 only where training looks at them.

    Four times as many fit into memory, or twice. ``values`` (n_samples, n_columns) are
    integers or float16, of which each stands for itself times ``scale``.
    """

    def __init__(self, values: AnyArray, scale: float) -> None:
        self.values, self.scale = values, scale

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, where: slice | AnyArray) -> Array32:
        """Return some rows."""
        return self.values[where] * np.float32(self.scale)

    def take(self, indices: AnyArray, axis: int, out: Array32, mode: str) -> Array32:  # noqa: ARG002
        """Write some rows into ``out``: ``numpy.take`` asks for it."""
        values = self.values.take(indices, axis, mode="clip")
        return np.multiply(values, np.float32(self.scale), out)

    def limits(self) -> tuple[float, float]:
        """Return the least and the largest number."""
        scale = np.float32(self.scale)
        return float(self.values.min() * scale), float(self.values.max() * scale)
