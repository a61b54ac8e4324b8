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
