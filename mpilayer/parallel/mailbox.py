"""The two ends of a channel between ranks.

On the wire an output is a header (epoch, epoch of the last checkpoint) and then its
rows in blocks, so that no message nears 2³¹ elements. A receive for a header is always
posted; those for the rows follow when it has come. A header's sending is complete when
it was received: small rows may leave at once, but no queue of outputs grows.
"""

from collections.abc import Sequence

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.parallel.channel import Fill, Rows
from mpilayer.parallel.comm import Communicator, Request

_HEADER_TAG, _ROWS_TAG, _STOP_TAG = 1, 2, 3
# In the place of an epoch.
_END, _PAUSE = -1, -2


class Outbox:
    """The sending end of a channel between ranks.

    Parameters
    ----------
    comm : Communicator
        Holds both ranks.
    destination : int
        Rank of the layer above.
    buffers : tuple of Rows
        Two of them.
    replace : bool
        See ``LocalChannel``.
    """

    def __init__(
        self,
        comm: Communicator,
        destination: int,
        buffers: tuple[Rows, Rows],
        replace: bool,
    ) -> None:
        self._comm, self._destination = comm, destination
        self._free = list(buffers)
        self._replace = replace
        self._flying: list[tuple[Rows, list[Request]]] = []
        self._waiting: tuple[int, Rows] | None = None
        self._farewell: list[Request] = []
        self.dropped: list[int] = []
        self.saved = 0
        self.bytes_sent = 0

    def has_room(self) -> bool:
        """Tell whether a buffer is free, or holds what may be replaced."""
        return bool(self._free) or (self._replace and self._waiting is not None)

    def acquire(self) -> Rows:
        """Return a buffer that is not under way."""
        if not self._free:
            self._drop_waiting()
        return self._free[0]

    def leave(self, epoch: int, rows: Rows, fill: Fill) -> None:
        """Fill the buffer; each block is sent while the next one is computed."""
        self._drop_waiting()
        self._free = [other for other in self._free if other is not rows]
        if self._replace and self._flying:
            for block, which, where in rows.blocks():
                fill(block, which, where)
            self._waiting = (epoch, rows)
            self.progress()
        else:
            self._send(epoch, rows, fill)

    def end(self, stop: bool, pause: bool = False) -> None:
        """Say that nothing newer will come, once what waits has been sent."""
        if stop:
            self._drop_waiting()
            self._farewell.append(self._start(np.zeros(1, np.int64), _STOP_TAG))
        elif self._waiting is not None:
            epoch, rows = self._waiting
            self._waiting = None
            self._send(epoch, rows)
        last = np.array([_PAUSE if pause else _END, self.saved], np.int64)
        self._farewell.append(self._start(last, _HEADER_TAG))
        if not stop:
            self._farewell.append(self._start(np.ones(1, np.int64), _STOP_TAG))

    def progress(self) -> bool:
        """Move messages on; tell whether everything has been sent."""
        for rows, requests in list(self._flying):
            requests[:] = [request for request in requests if not request.test()]
            if not requests:
                self._flying.pop(0)
                self._free.append(rows)
            else:
                break
        if self._waiting is not None and not self._flying:
            epoch, rows = self._waiting
            self._waiting = None
            self._send(epoch, rows)
        self._farewell = [r for r in self._farewell if not r.test()]
        return not (self._flying or self._waiting or self._farewell)

    def _drop_waiting(self) -> None:
        if self._waiting is not None:
            self.dropped.append(self._waiting[0])
            self._free.append(self._waiting[1])
            self._waiting = None

    def _send(self, epoch: int, rows: Rows, fill: Fill | None = None) -> None:
        header = np.array([epoch, self.saved], np.int64)
        # Synchronous: rows may be small enough to leave at once, one after the other.
        requests = [self._start(header, _HEADER_TAG, synchronous=True)]
        for block, which, where in rows.blocks():
            if fill is not None:
                fill(block, which, where)
            requests.append(self._start(block, _ROWS_TAG))
            self.bytes_sent += block.nbytes
        self._flying.append((rows, requests))

    def _start(self, array: AnyArray, tag: int, synchronous: bool = False) -> Request:
        return self._comm.start_send(array, self._destination, tag, synchronous)


class Inbox:
    """The receiving end of a channel between ranks.

    Parameters
    ----------
    comm : Communicator
        Holds both ranks.
    source : int
        Rank of the layer below.
    buffers : sequence of Rows
        Two of them, three with ``replace``.
    replace : bool
        An output that was not taken gives way to a newer one as soon as that is there:
        what is ready is always the newest that has arrived (Santara et al. 2016 §3.1).
    """

    def __init__(
        self,
        comm: Communicator,
        source: int,
        buffers: Sequence[Rows],
        replace: bool,
    ) -> None:
        self._comm, self._source = comm, source
        self._free = list(buffers)
        self._replace = replace
        self._current: tuple[int, Rows] | None = None
        self._ready: tuple[int, Rows] | None = None
        self._arriving: tuple[int, Rows, list[Request]] | None = None
        self._header = np.zeros(2, np.int64)
        self._header_request: Request | None = None
        self._header_waits = False
        self._stop = np.zeros(1, np.int64)
        self._stop_request: Request | None = comm.start_receive(
            self._stop, source, _STOP_TAG
        )
        self.stopped = False
        self.ended = False
        self.paused = False
        self.saved = 0
        self.only_newest = False
        self._expect_header()

    def newest(self) -> int:
        """Return the epoch of the newest output that has arrived whole."""
        slot = self._ready or self._current
        return slot[0] if slot else -1

    def take(self, epoch: int) -> Rows:
        """Return the output of an epoch, free an older one, and receive into that."""
        if self._ready is not None and self._ready[0] == epoch:
            if self._current is not None:
                self._free.append(self._current[1])
            self._current, self._ready = self._ready, None
            self.progress()
        if self._current is None or self._current[0] != epoch:
            raise RuntimeError(f"output {epoch} was asked for but is not there")
        return self._current[1]

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
            epoch, rows, requests = self._arriving
            requests[:] = [request for request in requests if not request.test()]
            if requests:
                return False
            self._arriving, arrived = None, True
            if self._ready is not None:
                self._free.append(self._ready[1])
            self._ready = (epoch, rows)
            self._expect_header()
        if self._header_request is not None and self._header_request.test():
            self._header_request = None
            self._header_waits = True
        if self._header_waits:
            self._read_header()
        return arrived or self._arriving is not None

    def _expect_header(self) -> None:
        self._header_request = self._comm.start_receive(
            self._header, self._source, _HEADER_TAG
        )

    def _read_header(self) -> None:
        epoch, self.saved = map(int, self._header)
        if epoch in (_END, _PAUSE):
            # Who hears of an end knows whether it is that of everything.
            if self._stop_request is None:
                self._header_waits = False
                self.ended, self.paused = epoch == _END, epoch == _PAUSE
            return
        if (self.stopped or self.only_newest) and self._ready is not None:
            # Nobody will use it: make room for what must still be received.
            self._free.append(self._ready[1])
            self._ready = None
        if self._free and (self._replace or self._ready is None):
            self._header_waits = False
            rows = self._free.pop()
            requests = [
                self._comm.start_receive(block, self._source, _ROWS_TAG)
                for block, _, _ in rows.blocks()
            ]
            self._arriving = (epoch, rows, requests)
