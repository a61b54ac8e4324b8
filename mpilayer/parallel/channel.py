"""Channels from one layer to the next: nothing grows, nothing is lost, nothing spins.

A channel has an *outlet*, where the lower layer leaves its outputs, and an *inlet*,
where the upper layer takes them. Both layers on one rank share a :class:`LocalChannel`;
on neighbouring ranks an ``Outbox`` sends to an ``Inbox`` (``mailbox.py``). Each end has
two buffers, one in use and one under way; where newer outputs replace older ones the
inlet has a third, so that the newest can arrive while another one is ready.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mpilayer.arrays import Array32, row_blocks

BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs of a layer.

    Attributes
    ----------
    train : ndarray (n_samples, n_visible)
        One row a sample.
    sample, validation : ndarray (n_samples, n_visible)
        Training rows and other ones on which errors are measured; perhaps none. Apart
        from ``train``, because both are always encoded with the same weights: those at
        the end of the epoch.
    """

    train: Array32
    sample: Array32
    validation: Array32

    @staticmethod
    def empty(counts: tuple[int, int, int], n_columns: int) -> "Rows":
        """Return buffers for so many rows of each kind."""
        return Rows(*(np.empty((n, n_columns), np.float32) for n in counts))

    @property
    def parts(self) -> tuple[Array32, Array32, Array32]:
        """The three arrays."""
        return self.train, self.sample, self.validation

    def blocks(self) -> Iterator[tuple[Array32, int, slice]]:
        """Yield (rows, which of the parts, where they lie there) in order."""
        for which, rows in enumerate(self.parts):
            block = max(1, BLOCK_BYTES // (4 * max(1, rows.shape[1])))
            for where in row_blocks(len(rows), block):
                yield rows[where], which, where


Fill = Callable[[Array32, int, slice], None]
"""Writes a block of an output: (rows to write, which of the parts, which rows)."""

Output = tuple[int, Rows]
"""The epoch in which a layer made it, and the buffer that holds it."""


class Outlet:
    """Where a layer leaves its outputs; this one has no room for any.

    Attributes
    ----------
    dropped : list of int
        Epochs whose outputs a newer one replaced before they could leave.
    saved : int
        Epoch of the lower layer's last checkpoint; every output and the end tell it.
    """

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self.saved = 0

    def has_room(self) -> bool:
        """Tell whether ``acquire`` would return a buffer."""
        return False

    def acquire(self) -> Rows:
        """Return a buffer for the next output, giving up one that still waits."""
        raise RuntimeError("the last layer's outputs go nowhere")

    def leave(self, epoch: int, rows: Rows, fill: Fill) -> None:
        """Fill an acquired buffer with the output of an epoch, and let it go."""

    def end(self, stop: bool, pause: bool = False) -> None:
        """Say that nothing newer will come.

        With ``stop``, that everything stops; with ``pause``, that the lower layer was
        interrupted and saved, and would have gone on.
        """

    def progress(self) -> bool:
        """Move messages on; tell whether everything has left."""
        return True


class Inlet:
    """Where a layer takes its inputs.

    Attributes
    ----------
    stopped : bool
        The layer below said that everything stops.
    ended, paused : bool
        Nothing newer will come; ``paused``: because the layer below was interrupted.
    saved : int
        Epoch of the last checkpoint of the layer below, as its newest message says.
    only_newest : bool
        Set it when nothing is taken for now: outputs give way to newer ones at once.
    """

    stopped = ended = paused = only_newest = False
    saved = 0
    _current: Output | None = None  # in use
    _ready: Output | None = None  # arrived whole, not taken yet

    def newest(self) -> int:
        """Return the epoch of the newest output that has arrived, −1 if none has."""
        output = self._ready or self._current
        return output[0] if output else -1

    def take(self, epoch: int) -> Rows:
        """Return the output of an epoch: the one in use, or the newest."""
        if self._ready is not None and self._ready[0] == epoch:
            if self._current is not None:
                self._free_again(self._current[1])
            self._current, self._ready = self._ready, None
            self.progress()
        if self._current is None or self._current[0] != epoch:
            raise RuntimeError(f"output {epoch} was asked for but is not there")
        return self._current[1]

    def progress(self) -> bool:
        """Move messages on; tell whether nothing is under way."""
        return True

    def _free_again(self, rows: Rows) -> None:
        """Take a buffer back."""


class Source(Inlet):
    """The inlet of the first layer: the data, always there."""

    ended = True

    def __init__(self, rows: Rows) -> None:
        self._current = 0, rows


class Sink(Outlet):
    """The outlet of the last layer: nobody wants its outputs."""


class LocalChannel(Outlet, Inlet):
    """Both ends of a channel within one rank; nothing travels.

    With ``replace`` a newer output may replace one that was not taken (asynchronous);
    else the lower layer must wait until it is.
    """

    def __init__(self, buffers: tuple[Rows, Rows], replace: bool) -> None:
        super().__init__()
        self._buffers, self._replace = buffers, replace

    def has_room(self) -> bool:
        """Tell whether the newest output was taken, or may be replaced."""
        return self._replace or self._ready is None

    def acquire(self) -> Rows:
        """Return the buffer that is not in use."""
        if self._ready is not None:
            self.dropped.append(self._ready[0])
            self._ready = None
        first, second = self._buffers
        in_use = self._current is not None and self._current[1] is first
        return second if in_use else first

    def leave(self, epoch: int, rows: Rows, fill: Fill) -> None:
        """Fill the buffer and make it the newest output."""
        for block, which, where in rows.blocks():
            fill(block, which, where)
        self._ready = epoch, rows

    def end(self, stop: bool, pause: bool = False) -> None:
        """Say that nothing newer will come."""
        self.paused, self.ended = pause, not pause
        self.stopped = self.stopped or stop
