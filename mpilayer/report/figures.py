"""The door to matplotlib, which the ``plot`` extra brings."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray

_PIXELS = 150


def available() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_filters(filters: AnyArray, path: Path, title: str) -> None:
    """Draw what each hidden unit responds to most, as tiles in grey.

    Parameters
    ----------
    filters : ndarray (n_hidden, height, width)
        Each tile has its own scale, symmetric about grey = 0.
    path : Path
        The picture to write; its ending says the format.
    title : str
        One line.
    """
    columns = int(np.ceil(np.sqrt(1.3 * len(filters))))
    rows = -(-len(filters) // columns)
    figure = _figure(0.6 * columns, 0.6 * rows + 0.5)
    for number, tile in enumerate(filters):
        axes = figure.add_subplot(rows, columns, number + 1)
        bound = float(np.abs(tile).max()) or 1.0
        axes.imshow(tile, cmap="gray", vmin=-bound, vmax=bound)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=7)
    figure.savefig(path)


def _figure(width: float, height: float) -> Any:
    # Without pyplot there are no windows, no global state, nothing to close.
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=_PIXELS, layout="constrained")
