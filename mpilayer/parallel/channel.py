"""Channels from one layer to the next: nothing grows, nothing is lost, nothing spins.

A channel has an *outlet*, where the lower layer leaves its outputs, and an *inlet*,
where the upper layer takes them. Both layers on one rank share a :class:`LocalChannel`;
on neighbouring ranks an ``Outbox`` sends to an ``Inbox``. Each end has two buffers, one
in use and one under way; where newer outputs replace older ones the inlet has a third,
so that the newest can arrive while another one is ready.

On the wire an output is a header (epoch, epoch of the last checkpoint) and then its
rows in blocks, so that no message nears 2³¹ elements. A receive for a header is always
posted; those for the rows follow when it has come. A header's sending is complete when
it was received: small rows may leave at once, but no queue of outputs grows.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpilayer.arrays import AnyArray, Array32, StoredRows, row_blocks
from mpilayer.far import FarRows, RowFile
from mpilayer.parallel.comm import Communicator, Request, Requests
from mpilayer.parallel.team import ALONE, Team

BLOCK_BYTES = 8 << 20

_HEADER_TAG, _ROWS_TAG, _STOP_TAG = 1, 2, 3
# In the place of an epoch.
_END, _PAUSE = -1, -2


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs of a layer: arrays (n_samples, n_visible).

    Errors are measured on ``sample``, training rows, and ``validation``; perhaps none.
    They are apart, because both are always encoded with the same weights: those at the
    end of the epoch.
    """

    train: Array32 | StoredRows | FarRows
    sample: Array32
    validation: Array32

    @staticmethod
    def empty(
        counts: tuple[int, int, int],
        n_columns: int,
        team: Team = ALONE,
        file: RowFile | None = None,
    ) -> "Rows":
        """Return buffers for so many rows of each kind, in a team's memory.

        Those of training rows may lie in a ``file`` instead.
        """
        train, *others = counts
        first = team.array((train, n_columns)) if file is None else file
        return Rows(first, *(team.array((n, n_columns)) for n in others))

    @property
    def parts(self) -> tuple[Array32 | StoredRows | FarRows, Array32, Array32]:
        """All of them."""
        return self.train, self.sample, self.validation

    def blocks(self) -> Iterator[tuple[Array32, int, slice]]:
        """Yield (rows, which of the parts, where they lie there) in order.

        Not those of a file: it goes from hand to hand.
        """
        for which, rows in enumerate(self.parts):
            if isinstance(rows, FarRows):
                continue
            block = max(1, BLOCK_BYTES // (4 * max(1, rows.shape[1])))
            for where in row_blocks(len(rows), block):
                yield rows[where], which, where


Output = tuple[int, Rows]
"""The epoch in which a layer made it, and the buffer that holds it."""


class Outlet:
    """Where a layer leaves its outputs; as it is, for the last one: no room for any."""

    saved = 0
    """Epoch of the lower layer's last checkpoint; every output and the end tell it."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        """Epochs whose outputs a newer one replaced before they could leave."""

    def has_room(self) -> bool:
        """Tell whether ``acquire`` would return a buffer."""
        return False

    def acquire(self) -> Rows:
        """Return a buffer for the next output, giving up one that still waits."""
        raise RuntimeError("the last layer's outputs go nowhere")

    def leave(self, epoch: int, rows: Rows) -> None:
        """Let an acquired buffer go, which holds the output of an epoch."""

    def end(self, stop: bool, pause: bool = False) -> None:
        """Say that nothing newer will come.

        With ``stop``, that everything stops; with ``pause``, that the lower layer was
        interrupted and saved, and would have gone on.
        """

    def progress(self) -> bool:
        """Move messages on; tell whether everything has left."""
        return True


class Inlet:
    """Where a layer takes its inputs."""

    stopped = False  # the layer below said that everything stops
    ended = paused = False  # nothing newer will come; paused: it was interrupted
    only_newest = False  # set it when nothing is taken: outputs give way at once
    saved = 0  # epoch of the lower layer's last checkpoint, by its newest message
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


class LocalChannel(Outlet, Inlet):
    """Both ends of a channel within one rank; nothing travels.

    With ``replace`` a newer output may replace one that was not taken (asynchronous);
    else the lower layer must wait until it is.
    """

    def __init__(self, buffers: Sequence[Rows], replace: bool) -> None:
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

    def leave(self, epoch: int, rows: Rows) -> None:
        """Make the buffer the newest output."""
        self._ready = epoch, rows

    def end(self, stop: bool, pause: bool = False) -> None:
        """Say that nothing newer will come."""
        self.paused, self.ended = pause, not pause
        self.stopped = self.stopped or stop


class Outbox(Outlet):
    """The sending end of a channel between ranks; ``replace`` as of ``LocalChannel``.

    ``destination`` is the rank of the layer above; the buffers are two.
    """

    def __init__(
        self,
        comm: Communicator,
        destination: int,
        buffers: Sequence[Rows],
        replace: bool,
    ) -> None:
        super().__init__()
        self._comm, self._destination = comm, destination
        self._free, self._replace = list(buffers), replace
        self._flying: deque[tuple[Rows, Requests]] = deque()
        self._waiting: Output | None = None
        self._farewell = Requests()

    def has_room(self) -> bool:
        """Tell whether a buffer is free, or holds what may be replaced."""
        return bool(self._free) or (self._replace and self._waiting is not None)

    def acquire(self) -> Rows:
        """Return a buffer that is not under way."""
        if not self._free:
            self._drop_waiting()
        return self._free[0]

    def leave(self, epoch: int, rows: Rows) -> None:
        """Send the buffer, or let it wait while another one is under way."""
        self._drop_waiting()
        self._free = [other for other in self._free if other is not rows]
        if self._replace and self._flying:
            self._waiting = epoch, rows
            self.progress()
        else:
            self._send(epoch, rows)

    def end(self, stop: bool, pause: bool = False) -> None:
        """Say that nothing newer will come, once what waits has been sent."""
        if stop:
            self._drop_waiting()
        self._send_waiting()
        last = np.array([_PAUSE if pause else _END, self.saved], np.int64)
        stops = np.array([0 if stop else 1], np.int64)
        words = [(last, _HEADER_TAG), (stops, _STOP_TAG)]
        if stop:
            words.reverse()  # the more urgent one first
        for array, tag in words:
            self._farewell.add(self._start(array, tag))

    def progress(self) -> bool:
        """Move messages on; tell whether everything has been sent."""
        while self._flying and self._flying[0][1].test():
            self._free.append(self._flying.popleft()[0])
        if not self._flying:
            self._send_waiting()
        gone = self._farewell.test()
        return gone and not (self._flying or self._waiting)

    def _drop_waiting(self) -> None:
        if self._waiting is not None:
            self.dropped.append(self._waiting[0])
            self._free.append(self._waiting[1])
            self._waiting = None

    def _send_waiting(self) -> None:
        if self._waiting is not None:
            (epoch, rows), self._waiting = self._waiting, None
            self._send(epoch, rows)

    def _send(self, epoch: int, rows: Rows) -> None:
        if isinstance(rows.train, RowFile):
            rows.train.hand_over(epoch)
        header = np.array([epoch, self.saved], np.int64)
        # Synchronous: rows may be small enough to leave at once, one after the other.
        requests = Requests(self._start(header, _HEADER_TAG, synchronous=True))
        for block, _, _ in rows.blocks():
            requests.add(self._start(block, _ROWS_TAG))
        self._flying.append((rows, requests))

    def _start(self, array: AnyArray, tag: int, synchronous: bool = False) -> Request:
        return self._comm.start_send(array, self._destination, tag, synchronous)


class Inbox(Inlet):
    """The receiving end of a channel between ranks.

    ``source`` is the rank of the layer below; the buffers are two, or three with
    ``replace``: an output that was not taken gives way to a newer one as soon as that
    is there. What is ready is always the newest that has arrived (Santara et al. 2016
    §3.1).
    """

    def __init__(
        self, comm: Communicator, source: int, buffers: Sequence[Rows], replace: bool
    ) -> None:
        self._comm, self._source = comm, source
        self._free, self._replace = list(buffers), replace
        self._arriving: tuple[Output, Requests] | None = None
        self._header, self._stop = np.zeros(2, np.int64), np.zeros(1, np.int64)
        self._header_request: Request | None = None
        self._header_waits = False
        self._stop_request: Request | None = self._start(self._stop, _STOP_TAG)
        self._expect_header()

    def progress(self) -> bool:
        """Move messages on; tell whether nothing is under way or still to come."""
        if self._stop_request is not None and self._stop_request.test():
            self._stop_request = None
            self.stopped = self._stop[0] == 0
        while self._move_on():
            # Small outputs have all arrived together: go on to the newest.
            pass
        return (self.ended or self.paused) and self._stop_request is None

    def _move_on(self) -> bool:
        """Take one step in receiving; tell whether another may follow at once."""
        arrived = False
        if self._arriving is not None:
            output, requests = self._arriving
            if not requests.test():
                return False
            self._arriving, arrived = None, True
            self._drop_ready()
            self._ready = output
            self._expect_header()
        if self._header_request is not None and self._header_request.test():
            self._header_request = None
            self._header_waits = True
        if self._header_waits:
            self._read_header()
        return arrived or self._arriving is not None

    def _expect_header(self) -> None:
        self._header_request = self._start(self._header, _HEADER_TAG)

    def _read_header(self) -> None:
        epoch, self.saved = map(int, self._header)
        if epoch in (_END, _PAUSE):
            # Who hears of an end knows whether it is that of everything.
            if self._stop_request is None:
                self._header_waits = False
                self.ended, self.paused = epoch == _END, epoch == _PAUSE
            return
        if self.stopped or self.only_newest:
            # Nobody will use it: make room for what must still be received.
            self._drop_ready()
        if self._free and (self._replace or self._ready is None):
            self._header_waits = False
            rows = self._free.pop()
            if isinstance(rows.train, RowFile):
                rows.train.take_over(epoch)
            parts = (self._start(block, _ROWS_TAG) for block, _, _ in rows.blocks())
            self._arriving = (epoch, rows), Requests(*parts)

    def _drop_ready(self) -> None:
        if self._ready is not None:
            self._free_again(self._ready[1])
            self._ready = None

    def _free_again(self, rows: Rows) -> None:
        self._free.append(rows)

    def _start(self, array: AnyArray, tag: int) -> Request:
        return self._comm.start_receive(array, self._source, tag)
