"""Two ranks in one process, whose messages arrive when the test says so."""

from dataclasses import dataclass

import numpy as np

from mpilayer.parallel.comm import SerialCommunicator


@dataclass(eq=False)
class Message:
    """A send or a receive under way; ``test`` tells whether it is complete."""

    array: np.ndarray
    tag: int
    sent: np.ndarray | None = None
    done: bool = False

    def test(self) -> bool:
        return self.done


class Wire:
    """Carries messages from rank 0 to rank 1.

    No message is buffered: a send is complete when its receive is. Per tag they arrive
    in order, as MPI promises; between tags in any order. ``lower`` and ``upper`` are
    the communicators of the two ranks.
    """

    def __init__(self) -> None:
        self.sends: list[Message] = []
        self.receives: list[Message] = []
        self.lower, self.upper = End(self, 0), End(self, 1)

    def deliver(self, most: int = 10**9, tags=(1, 2, 3)) -> int:
        """Let so many messages arrive, as far as both sides wait; return how many."""
        delivered = 0
        while delivered < most and (pair := self._match(tags)):
            send, receive = pair
            np.testing.assert_array_equal(
                send.array, send.sent, "a buffer was changed while it was under way"
            )
            assert (send.array.dtype, send.array.shape) == (
                receive.array.dtype,
                receive.array.shape,
            )
            receive.array[...] = send.array
            send.done = receive.done = True
            self.sends.remove(send)
            self.receives.remove(receive)
            delivered += 1
        return delivered

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nobody waits for anything."""
        return not self.sends and not self.receives

    def _match(self, tags):
        for tag in tags:
            send = next((m for m in self.sends if m.tag == tag), None)
            receive = next((m for m in self.receives if m.tag == tag), None)
            if send and receive:
                return send, receive
        return None


class End(SerialCommunicator):
    """The communicator of one of the two ranks."""

    size = 2

    def __init__(self, wire: Wire, rank: int) -> None:
        self._wire, self.rank = wire, rank

    def start_send(self, array, destination, tag, synchronous=False):
        assert (self.rank, destination) == (0, 1)
        assert array.flags.c_contiguous
        message = Message(array, tag, array.copy())
        self._wire.sends.append(message)
        return message

    def start_receive(self, array, source, tag):
        assert (self.rank, source) == (1, 0)
        assert array.flags.c_contiguous
        message = Message(array, tag)
        self._wire.receives.append(message)
        return message
