"""Words among all ranks that nobody waits for: a notice, and the consent of all."""

import numpy as np

from mpilayer.parallel.comm import Communicator, Request, Requests, wait_until

_TAG = 4


class Notice:
    """A flag that any rank can raise, and that all see soon.

    Making and closing it is collective on ``comm``; the rest is local.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self._others = [rank for rank in range(comm.size) if rank != comm.rank]
        self._words = {rank: np.zeros(1, np.int64) for rank in self._others}
        self._expected = {
            rank: comm.start_receive(word, rank, _TAG)
            for rank, word in self._words.items()
        }
        self._sent: Requests | None = None
        self._raised = False

    def raise_it(self) -> None:
        """Raise the flag, everywhere."""
        self._send(1)
        self._raised = True

    def is_raised(self) -> bool:
        """Tell whether any rank has raised it, as far as is known here."""
        for rank, request in list(self._expected.items()):
            if request.test():
                del self._expected[rank]
                self._raised = self._raised or bool(self._words[rank][0])
        return self._raised

    def close(self) -> None:
        """Clear up; every rank must get here. Collective."""
        sent = self._send(0)

        def is_quiet() -> bool:
            self.is_raised()
            return sent.test() and not self._expected

        wait_until(is_quiet)

    def _send(self, word: int) -> Requests:
        """Send a word to all others, if none was sent before."""
        if self._sent is None:
            array = np.array([word], np.int64)
            sent = [self._comm.start_send(array, rank, _TAG) for rank in self._others]
            self._sent = Requests(*sent)
        return self._sent


class Consent:
    """A vote that every rank casts once, at a moment of its own.

    All calls are local and return at once. Every rank must ask ``is_closed`` until it
    is; before that there is no other collective call on ``comm``.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self._yes = np.zeros(1)
        self._sum: Request | None = None

    def vote(self, yes: bool) -> None:
        """Cast this rank's vote, if it has not voted."""
        if self._sum is None:
            self._yes[0] = yes
            # A sum that is complete has every rank's part.
            self._sum = self._comm.start_sum(self._yes)

    def is_given(self) -> bool:
        """Tell whether all ranks have voted yes, as far as is known here."""
        done = self._sum is not None and self._sum.test()
        return done and self._yes[0] == self._comm.size

    def is_closed(self) -> bool:
        """Vote no unless this rank has voted; tell whether all votes are known."""
        self.vote(False)
        return self._sum is not None and self._sum.test()
