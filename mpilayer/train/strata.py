"""Minibatches of which every rank has its part, whatever the number of ranks.

The training rows are cut into as many contiguous *strata* as a minibatch has rows, and
every minibatch takes one row from each, in a new random order every epoch. A rank owns
contiguous strata, reads only their rows, and takes its slice of every minibatch: equal
shares, and the same minibatches for any number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.partition import shard_bounds
from mpilayer.rng import stream

_LEVELS = 1 << 16
"""Of the numbers that dropout draws."""


Step: TypeAlias = tuple[AnyArray, int]
"""A rank's row numbers in a minibatch, and the rows that all ranks have in it."""


@dataclass(frozen=True)
class Strata:
    """The part of a rank in every minibatch.

    ``n_rows`` are the training rows of all ranks, ``bounds`` start and stop of each of
    this rank's strata among them, ``first`` the number of its first stratum. So many
    rows of each stratum as a ``piece`` has are met together, or all of them if it is 0.
    """

    n_rows: int
    bounds: tuple[tuple[int, int], ...]
    first: int
    piece: int = 0

    @staticmethod
    def of_rank(n_rows: int, minibatch: int, rank: int, n_ranks: int) -> "Strata":
        """Return the strata of a rank; neighbours differ by one stratum at most."""
        strata = shard_bounds(n_rows, minibatch)
        start, stop = shard_bounds(minibatch, n_ranks)[rank]
        return Strata(n_rows, tuple(strata[start:stop]), start)

    @property
    def rows(self) -> tuple[int, int]:
        """Start and stop of the rows that the rank must hold."""
        if not self.bounds:
            return (0, 0)
        return (self.bounds[0][0], self.bounds[-1][1])

    def rounds(
        self, seed: int, epoch: int, minibatch: int
    ) -> list[tuple[list[slice], Iterator[Step]]]:
        """Return which rows are met together in turn, and their minibatches.

        Rows are counted from ``rows[0]``. All strata have their pieces at the same
        places, and in the same new order. Minibatches are taken in order, too.
        """
        # Strata differ by one row, which the piece at their end has.
        whole, origin = self.n_rows // minibatch, self.rows[0]
        pieces = row_blocks(whole, self.piece or max(1, whole)) or [slice(0, 0)]
        turn = stream(seed, "finetune pieces", epoch).permutation(len(pieces))
        streams = [
            stream(seed, "finetune", epoch, self.first + i)
            for i in range(len(self.bounds))
        ]
        rounds = []
        for piece in (pieces[i] for i in turn):
            last = piece.stop == whole
            parts = [
                slice(start - origin + piece.start, end - origin)
                for start, stop in self.bounds
                for end in [stop if last else start + piece.stop]
            ]
            over = self.n_rows % minibatch if last else 0
            n = piece.stop - piece.start
            rounds.append((parts, _minibatches(parts, streams, n, (minibatch, over))))
        return rounds

    def minibatches(self, seed: int, epoch: int, minibatch: int) -> Iterator[AnyArray]:
        """Yield this rank's local row numbers in every minibatch of an epoch."""
        for _, steps in self.rounds(seed, epoch, minibatch):
            for chosen, _ in steps:
                yield chosen


def _minibatches(
    parts: list[slice],
    streams: list[np.random.Generator],
    whole: int,
    sizes: tuple[int, int],
) -> Iterator[Step]:
    """Yield minibatches of a row of each part: ``whole`` ones, and one of what is over.

    The ``sizes`` are what these have, of all ranks.
    """
    orders = [
        part.start + order.permutation(part.stop - part.start)
        for part, order in zip(parts, streams, strict=True)
    ]
    minibatch, over = sizes
    table = np.array([order[:whole] for order in orders], np.intp)
    for chosen in np.ascontiguousarray(table.reshape(len(orders), whole).T):
        yield chosen, minibatch
    if over:
        yield np.array([o[whole] for o in orders if len(o) > whole], np.intp), over


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout: what stays is divided by the probability that it does.

    Of the inputs of each step, ``widths``, the ``parts`` in [0, 1) are left out. Every
    rank draws the masks of the whole ``minibatch`` and takes its part: some tenths of a
    millisecond, and no number depends on the ranks. Srivastava et al. 2014.
    """

    parts: tuple[float, ...]
    widths: tuple[int, ...]
    minibatch: int
    seed: int

    def mask(self, k: int, epoch: int, step: int) -> Array32 | None:
        """Return the factors (minibatch, width) on what enters step k of the stack.

        Of the minibatch ``step`` of that epoch; None where nothing is left out.
        """
        if not self.parts[k]:
            return None
        rng = stream(self.seed, "dropout", epoch, step, k)
        shape = (self.minibatch, self.widths[k])
        drawn = rng.integers(_LEVELS, size=shape, dtype=np.uint16)
        threshold = min(round(self.parts[k] * _LEVELS), _LEVELS - 1)
        stays = np.float32(_LEVELS / (_LEVELS - threshold))
        return np.multiply(drawn >= threshold, stays, dtype=np.float32)


@dataclass(frozen=True)
class Shifts:
    """Images moved by up to ``most`` pixels each way; where they have left it is 0.

    Every rank draws the moves of the whole ``minibatch``, and takes its part.
    """

    most: int
    height: int
    width: int
    minibatch: int
    seed: int

    def moved(self, rows: Array32, first: int, epoch: int, step: int) -> Array32:
        """Return copies of rows (n_samples, height * width) that have moved.

        They are those from ``first`` on of the minibatch ``step`` of that epoch.
        """
        rng, most = stream(self.seed, "shifts", epoch, step), self.most
        drawn = rng.integers(-most, most + 1, size=(self.minibatch, 2))
        n, shape = len(rows), (self.height, self.width)
        images = rows.reshape(n, *shape)
        wide = np.pad(images, ((0, 0), (most, most), (most, most)))
        windows = sliding_window_view(wide, shape, (1, 2))
        down, right = drawn[first : first + n].T
        found: Array32 = windows[np.arange(n), most - down, most - right]
        return found.reshape(rows.shape)
