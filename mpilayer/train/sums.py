"""The step of all data-parallel training: sums over ranks, part by part, under way.

Every rank computes on its rows of a minibatch; what it has computed travels while it
goes on, and the parameters change where the sum has come.
"""

from collections import deque
from collections.abc import Callable
from time import perf_counter

from mpilayer.arrays import AnyArray
from mpilayer.parallel.comm import Communicator, Request, wait_until

EAGER_SECONDS = 0.02
"""A sum takes less than a millisecond as a rule: a rank that has a core for itself only
sleeps when it waits longer than this."""

# Part of the time in Allreduce from which on fewer ranks are worth a try.
_COSTLY = 0.25


class Sums:
    """Arrays on their way to becoming sums over all ranks. Collective.

    A rank waits ``eager`` seconds for a sum before it sleeps; those that it has spent
    on sums are ``waited``.
    """

    def __init__(self, comm: Communicator, eager: float = EAGER_SECONDS) -> None:
        self.waited = 0.0
        self._comm, self._eager = comm, eager
        self._under_way: deque[tuple[Request, Callable[[], object]]] = deque()

    def start(
        self, array: AnyArray, then: Callable[[], object], largest: bool = False
    ) -> None:
        """Start adding an array over all ranks, in place; ``then`` follows the sum.

        Or to find the ``largest`` of all ranks.
        """
        began = perf_counter()
        start = self._comm.start_max if largest else self._comm.start_sum
        self._under_way.append((start(array), then))
        done = self._under_way[0][0].test()
        self.waited += perf_counter() - began
        if done:
            self._finish_first()

    def finish(self) -> None:
        """Wait until every sum is there, in the order in which they were started."""
        while self._under_way:
            self._finish_first()

    def _finish_first(self) -> None:
        request, then = self._under_way.popleft()
        self.waited += wait_until(request.test, eager=self._eager)
        then()


def costly_allreduce(
    allreduce: float, seconds: float, ranks: int, work: str, what: str = "Allreduce"
) -> str:
    """Say that Allreduce took much of the seconds of rank 0; empty if it did not."""
    share = allreduce / seconds if seconds > 0 else 0.0
    if ranks == 1 or share <= _COSTLY:
        return ""
    return (
        f"{what} took {share:.0%} of the time: fewer ranks than {ranks} may be "
        f"faster for {work}"
    )
