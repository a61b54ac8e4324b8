"""Dropout: what each row leaves out, the same for any number of ranks."""

from dataclasses import dataclass

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.models.stack import Masks
from mpilayer.rng import stream

_LEVELS = 1 << 16


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout: what stays is divided by the probability that it does.

    Attributes
    ----------
    parts : tuple of float
        Part of the inputs of each step that is left out, in [0, 1).
    widths : tuple of int
        Inputs of each step.
    minibatch : int
        Rows of a minibatch, over all ranks.
    seed : int
        Of the run.

    Notes
    -----
    Srivastava et al. 2014. Every rank draws the masks of the whole minibatch and takes
    its rows: some tenths of a millisecond, and no number depends on the ranks.
    """

    parts: tuple[float, ...]
    widths: tuple[int, ...]
    minibatch: int
    seed: int

    def masks(self, epoch: int, step: int, first: int, n_rows: int) -> Masks:
        """Return the factors of a rank's rows, (n_rows, width) for each step.

        Parameters
        ----------
        epoch, step : int
            The minibatch.
        first, n_rows : int
            Where the rank's rows lie in it.
        """
        if not any(self.parts):
            return ()
        return [
            self._mask(k, epoch, step)[first : first + n_rows] if part else None
            for k, part in enumerate(self.parts)
        ]

    def _mask(self, k: int, epoch: int, step: int) -> Array32:
        rng = stream(self.seed, "dropout", epoch, step, k)
        shape = (self.minibatch, self.widths[k])
        drawn = rng.integers(_LEVELS, size=shape, dtype=np.uint16)
        threshold = min(round(self.parts[k] * _LEVELS), _LEVELS - 1)
        stays = np.float32(_LEVELS / (_LEVELS - threshold))
        return np.multiply(drawn >= threshold, stays, dtype=np.float32)
