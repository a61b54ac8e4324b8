"""Whether all ranks agree, found out while nobody waits for it."""

import numpy as np

from mpilayer.parallel.comm import Communicator, Request


class Consent:
    """A vote that every rank casts once, at a moment of its own.

    All calls are local and return at once. Every rank must ask ``is_closed`` until it
    is; before that there is no other collective call on ``comm``.

    Parameters
    ----------
    comm : Communicator
        All ranks that vote.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self._yes = np.zeros(1)
        self._request: Request | None = None

    def vote(self, yes: bool) -> None:
        """Cast this rank's vote, if it has not voted."""
        if self._request is None:
            self._yes[0] = yes
            # A sum that is complete has every rank's part.
            self._request = self._comm.start_sum(self._yes)

    def is_given(self) -> bool:
        """Tell whether all ranks have voted yes, as far as is known here."""
        done = self._request is not None and self._request.test()
        return done and self._yes[0] == self._comm.size

    def is_closed(self) -> bool:
        """Vote no unless this rank has voted; tell whether all votes are known."""
        self.vote(False)
        return self._request is not None and self._request.test()
