"""Communicators as training sees them: a dozen calls, with or without MPI."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.errors import MpilayerError, file_errors
from mpilayer.interrupt import Interrupted

T = TypeVar("T")

# A wait first yields the core, then sleeps ever longer: a rank that waits long uses
# next to nothing of it, one that waits briefly is soon back.
_FIRST_PAUSE = 20e-6
_LONGEST_PAUSE = 4e-3


class Request(Protocol):
    """A message or reduction under way; leave its array alone until it is done."""

    def test(self) -> bool:
        """Move the message on, and tell whether it is complete."""


class Requests:
    """Several that belong together; complete when all are."""

    def __init__(self, *requests: Request) -> None:
        self._left = list(requests)

    def add(self, request: Request) -> None:
        """Let another one belong to them."""
        self._left.append(request)

    def test(self) -> bool:
        """Move all messages on, also behind one that has not left; tell if complete."""
        self._left = [request for request in self._left if not request.test()]
        return not self._left


class SharedMemory:
    """Memory that the ranks of one host share; as it is, that of one rank.

    Collective, but for ``fence``.
    """

    def allocate(self, n_bytes: int) -> Any:
        """Return a buffer of zeros that all ranks see."""
        return np.zeros(n_bytes, np.uint8)

    def barrier(self) -> Request:
        """Start waiting until all ranks have come here."""
        return Requests()

    def fence(self) -> None:
        """See what the others wrote before they came to the barrier. Local."""

    def free(self) -> None:
        """Give all buffers back."""


class Communicator:
    """A group of ranks: by itself, the one rank of a process without MPI.

    Arrays travel as buffers, objects as pickles (control only).
    """

    rank = 0
    size = 1
    library = "none"

    def on_root(self, work: Callable[[], T]) -> T:
        """Return rank 0's result everywhere, or raise its MpilayerError. Collective."""
        outcome: Any = self.broadcast(_attempt(work) if self.rank == 0 else None)
        if isinstance(outcome, MpilayerError):
            raise outcome.of_all_ranks()
        result: T = outcome
        return result

    def everywhere(self, work: Callable[[], T]) -> T:
        """Do ``work`` on every rank and return the rank's own result. Collective.

        An MpilayerError of any rank, the lowest such one, is raised on every rank.
        """
        outcome: Any = _attempt(work)
        failed = outcome if isinstance(outcome, MpilayerError) else None
        for error in self.allgather(failed):
            if isinstance(error, MpilayerError):
                raise error.of_all_ranks()
        result: T = outcome
        return result

    def allgather(self, item: Any) -> list[Any]:
        """Return every rank's object, in the order of ranks. Collective."""
        return [item]

    def unlike_first(self, item: Any) -> int:
        """Return the lowest rank with another object than rank 0, or 0. Collective."""
        items = self.allgather(item)
        return next((rank for rank, own in enumerate(items) if own != items[0]), 0)

    def broadcast(self, item: T, meanwhile: Callable[[], object] = lambda: None) -> T:  # noqa: ARG002
        """Return rank 0's object everywhere; ``meanwhile`` is called while waiting."""
        return item

    def split(self, colour: int, key: int = 0) -> "Communicator":  # noqa: ARG002
        """Return the ranks with this rank's colour, by key and rank. Collective."""
        return self

    def free(self) -> None:
        """Give it back, as MPI libraries have some 2,000 at a time. Collective."""

    def shared_memory(self) -> SharedMemory:
        """Return what allocates memory for all ranks, which are of one host."""
        return SharedMemory()

    def start_sum(self, array: AnyArray) -> Request:  # noqa: ARG002
        """Start adding an array over all ranks, in place. Collective, non-blocking."""
        return Requests()

    def start_max(self, array: AnyArray) -> Request:  # noqa: ARG002
        """Start to find the largest of all ranks, in place. Collective, likewise."""
        return Requests()

    def start_send(
        self, array: AnyArray, destination: int, tag: int, synchronous: bool = False
    ) -> Request:
        """Start sending, ``synchronous``: done only when its receiving began. Local."""
        raise NotImplementedError("one rank alone has nobody to send to")

    def start_receive(self, array: AnyArray, source: int, tag: int) -> Request:
        """Start receiving into a contiguous array. Local."""
        raise NotImplementedError("one rank alone has nobody to receive from")

    def neighbours(self) -> int:
        """Return how many ranks, this one included, can share memory; collective."""
        return self.size

    def barrier(self) -> None:
        """Wait for all ranks, without using the core. Collective."""


class SerialCommunicator(Communicator):
    """The one rank of a process without MPI."""


def _attempt(work: Callable[[], T]) -> T | MpilayerError:
    try:
        with file_errors():
            return work()
    except MpilayerError as error:
        return error


def is_shared(error: BaseException) -> bool:
    """Tell whether all ranks raise an error; after a defect the others never come."""
    expected = isinstance(error, MpilayerError | Interrupted)
    return expected and getattr(error, "collective", True)


@contextmanager
def owned(comm: Communicator) -> Iterator[Communicator]:
    """Give a communicator, and free it at the end of the block. Collective."""
    try:
        yield comm
    except BaseException as error:
        if is_shared(error):
            comm.free()
        raise
    comm.free()


def wait_until(
    ready: Callable[[], bool], eager: float = 0.0, at_most: float = math.inf
) -> float:
    """Wait until ``ready()`` holds, without burning the core; return the seconds.

    In the first ``eager`` seconds the core is only offered to others, for waits that
    are short as a rule; after ``at_most`` it returns, ready or not.
    """
    began = time.perf_counter()
    pause = _FIRST_PAUSE
    while not ready():
        waited = time.perf_counter() - began
        if waited < eager:
            os.sched_yield()
            continue
        if waited > at_most:
            break
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE)
    return time.perf_counter() - began
