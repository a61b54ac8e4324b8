"""One vector, named views: what optimizers, messages, digests and checkpoints share."""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise, starmap
from math import prod

import numpy as np

from mpilayer.arrays import AnyArray

Shapes = Mapping[str, tuple[int, ...]]


class Parameters:
    """A contiguous ``vector`` (size,) with named, reshaped views.

    They lie in it in the order of ``shapes``. float64 is for sums, and for optimizers
    that need the digits. A ``vector`` that is given is used as it is, not copied.

    Examples
    --------
    >>> p = Parameters({"weights": (2, 3), "bias": (3,)})
    >>> p["weights"][:] = 1
    >>> float(p.vector.sum())
    6.0
    """

    def __init__(
        self,
        shapes: Shapes,
        dtype: type = np.float32,
        vector: AnyArray | None = None,
    ) -> None:
        self.shapes = dict(shapes)
        ends = list(accumulate(map(prod, self.shapes.values()), initial=0))
        self.vector = np.zeros(ends[-1], dtype) if vector is None else vector
        self._slices = dict(
            zip(self.shapes, starmap(slice, pairwise(ends)), strict=True)
        )
        self._views = self.views(self.vector)

    def __getitem__(self, name: str) -> AnyArray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def items(self) -> Iterator[tuple[str, AnyArray]]:
        """Yield names and views."""
        yield from self._views.items()

    def span(self, first: str, last: str = "") -> slice:
        """Return where the views from ``first`` to ``last`` lie in the vector."""
        return slice(self._slices[first].start, self._slices[last or first].stop)

    def views(self, vector: AnyArray) -> dict[str, AnyArray]:
        """Return views by name into another vector of this layout."""
        return {
            name: vector[where].reshape(self.shapes[name])
            for name, where in self._slices.items()
        }

    def like(self) -> "Parameters":
        """Return zeros of the same layout."""
        return Parameters(self.shapes, self.vector.dtype.type)

    def copy(self) -> "Parameters":
        """Return an independent copy."""
        twin = self.like()
        twin.vector[:] = self.vector
        return twin

    def split(self, vectors: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Return copies of vectors of this layout in named pieces: what files hold.

        The piece ``weights`` of the vector ``velocity`` is ``velocity/weights``.
        """
        return {
            f"{group}/{name}": vector[where].reshape(self.shapes[name]).copy()
            for group, vector in vectors.items()
            for name, where in self._slices.items()
        }

    def join(
        self, arrays: Mapping[str, AnyArray], vectors: Mapping[str, AnyArray]
    ) -> None:
        """Fill vectors of this layout with what ``split`` has made of others."""
        for group, vector in vectors.items():
            for name, where in self._slices.items():
                vector[where] = arrays[f"{group}/{name}"].reshape(-1)

    def is_finite(self) -> bool:
        """Tell whether all numbers, and the sum of their squares, are finite."""
        # A dot product makes no copy, and takes a millisecond for millions.
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(np.vdot(self.vector, self.vector)))

    def digest(self) -> str:
        """Return the SHA-256 of the vector: equal digests mean equal bits."""
        return hashlib.sha256(self.vector.tobytes()).hexdigest()
