"""A word that any rank can give to all others, while nobody waits for it."""

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.parallel.comm import Communicator, Request, wait_until

_TAG = 4


class Notice:
    """A flag that any rank can raise, and that all see soon.

    Making and closing it is collective; the rest is local.

    Parameters
    ----------
    comm : Communicator
        All ranks that shall see it.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self._others = [rank for rank in range(comm.size) if rank != comm.rank]
        self._words = {rank: np.zeros(1, np.int64) for rank in self._others}
        self._expected = {
            rank: comm.start_receive(word, rank, _TAG)
            for rank, word in self._words.items()
        }
        self._sent: list[tuple[AnyArray, Request]] = []
        self._raised = False

    def raise_it(self) -> None:
        """Raise the flag, everywhere."""
        if not self._sent:
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
        if not self._sent:
            self._send(0)
        wait_until(self._is_quiet)

    def _send(self, word: int) -> None:
        array = np.array([word], np.int64)
        self._sent = [
            (array, self._comm.start_send(array, rank, _TAG)) for rank in self._others
        ]

    def _is_quiet(self) -> bool:
        self.is_raised()
        # A list: every message must move on, also behind one that has not left.
        return not self._expected and all([r.test() for _, r in self._sent])  # noqa: C419
