"""A team: ranks of one host that work on the same layers, and share memory.

Its first rank, the *head*, decides what comes next; the others follow its orders. No
rank decides alone: what the clock or a message says here it may not say there, and
collective calls in another order hang. One rank by itself is a team, too.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf, prod
from pathlib import Path
from socket import gethostname
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.errors import CommunicationError
from mpilayer.parallel.comm import (
    Communicator,
    Request,
    SerialCommunicator,
    is_shared,
    wait_until,
)

T = TypeVar("T")

# Where MPI libraries lay shared memory.
_SHARED = Path("/dev/shm")
# What a window takes besides: MPICH 5 was seen to take 4 to 14 kB.
_WINDOW = 1 << 14
# Numbers in a line of the cache, which two ranks shall seldom share.
_TILE = 16


class Team:
    """The ranks of a communicator, all on one host. Collective to make and to close.

    A rank waits ``eager`` seconds for the others before it sleeps, 0 where ranks share
    cores; those that it has spent at barriers are ``waited``. ``ranks`` is what they
    are called elsewhere.
    """

    def __init__(
        self, comm: Communicator, eager: float = 0.0, ranks: Sequence[int] = ()
    ) -> None:
        self.rank, self.size = comm.rank, comm.size
        self.ranks = tuple(ranks) or tuple(range(comm.size))
        self.waited = 0.0
        self._comm, self._eager = comm, eager
        self._memory = comm.shared_memory()

    @property
    def is_head(self) -> bool:
        """Whether this rank decides."""
        return self.rank == 0

    def array(self, shape: tuple[int, ...], dtype: Any = np.float32) -> AnyArray:
        """Return zeros that all ranks of the team see; collective."""
        size = prod(shape) * np.dtype(dtype).itemsize
        content = self._memory.allocate(size)
        array: AnyArray = np.frombuffer(content, dtype, prod(shape)).reshape(shape)
        return array

    def broadcast(self, item: T, meanwhile: Callable[[], object] = lambda: None) -> T:
        """Return the head's object everywhere; collective.

        ``meanwhile`` is called again and again where it must be waited for.
        """
        return self._comm.broadcast(item, meanwhile)

    def share(self, array: AnyArray | None) -> AnyArray:
        """Return the head's array, in the memory of all; collective."""
        if self.size == 1 and array is not None:
            return array
        form: Any = None if array is None else (array.shape, array.dtype)
        shared = self.array(*self.broadcast(form))
        if array is not None:
            shared[:] = array
        self.barrier()
        return shared

    def barrier(self) -> None:
        """Wait until all ranks are here, and have written what they wrote; collective.

        The core is offered to others, who may need it.
        """
        self.wait(self.arrive())

    def arrive(self) -> Request:
        """Begin a barrier: this rank has written what it wrote; collective.

        What it does until it waits takes no time from the others.
        """
        return self._memory.barrier()

    def wait(self, barrier: Request) -> None:
        """Wait until all ranks have arrived; see ``barrier``. Local."""
        if self.size > 1:
            self.waited += wait_until(barrier.test, eager=self._eager)
            self._memory.fence()

    def columns(self, n: int) -> slice:
        """Return the part of ``n`` columns that is this rank's to compute."""
        # The last tile takes the rest: NumPy adds a single column in another order.
        ends = [_TILE * (max(1, n // _TILE) * r // self.size) for r in range(self.size)]
        ends.append(n)
        return slice(ends[self.rank], ends[self.rank + 1])

    def owns(self, which: int) -> bool:
        """Tell whether a piece of work is this rank's, if they are dealt in turn."""
        return which % self.size == self.rank

    def close(self) -> None:
        """Give the shared memory back; its arrays must not be used any more."""
        self._memory.free()

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or is_shared(error):
            self.close()


class Sketch(Team):
    """A team of so many ranks as it would be: its arrays are counted, not made. Local.

    ``n_bytes`` is what its ranks would share; one rank shares nothing.
    """

    def __init__(self, size: int) -> None:
        super().__init__(SerialCommunicator())
        # Not the head: what would be drawn or read once is not.
        self.size, self.rank, self.n_bytes = size, -1, 0

    def array(self, shape: tuple[int, ...], dtype: Any = np.float32) -> AnyArray:
        """Return what looks like the array, and has no memory."""
        if self.size > 1:
            self.n_bytes += prod(shape) * np.dtype(dtype).itemsize + _WINDOW
        return np.broadcast_to(np.zeros((), dtype), shape)

    def share(self, array: AnyArray | None) -> AnyArray:
        """Return the array that the head would share."""
        if array is None:
            raise RuntimeError("a sketch of a team has its head's arrays")
        self.array(array.shape, array.dtype)
        return array


class _Host(NamedTuple):
    """What a rank says of its host."""

    name: str
    needed: int  # by the rank's team, if it is the head
    left: float


def check_room(comm: Communicator, n_bytes: int, remedy: str) -> int:
    """Check that every host has the memory that its teams will share; collective.

    Else what does not fit would end a rank without a word, as it is written. This
    rank's team will share ``n_bytes``, given by its head, others 0 (local). ``remedy``
    says how less would be shared, after "or". Return what the host shares that shares
    most.

    Raises
    ------
    CommunicationError
        On every rank: a host has less, or MPI lets its ranks share no memory.
    """
    told: list[_Host] = comm.allgather(_Host(gethostname(), n_bytes, _shared_left()))
    needed = Counter[str]()
    for rank in told:
        needed[rank.name] += rank.needed
    if not needed.total():
        return 0
    neighbours = comm.allgather(comm.neighbours())
    for name, need in needed.items():
        there = [i for i, rank in enumerate(told) if rank.name == name]
        if need and min(neighbours[i] for i in there) < len(there):
            raise CommunicationError(
                f"ranks of one host must be able to share memory; on {name} MPI lets "
                f"each share it with {neighbours[there[0]] - 1} others of "
                f"{len(there)}. Take MPIR_CVAR_NOLOCAL and the like out of the "
                f"environment, or {remedy}."
            ).of_all_ranks()
        left = min(told[i].left for i in there)
        if need > left:
            raise CommunicationError(
                f"{_SHARED} must hold what ranks of a host share; on {name} that is "
                f"{need / 1e6:.3g} MB, and {left / 1e6:.3g} MB are free. Make it "
                f"larger (docker: --shm-size), or {remedy}."
            ).of_all_ranks()
    return max(needed.values())


def _shared_left() -> float:
    """Return the bytes left where MPI libraries lay what ranks share."""
    try:
        found = os.statvfs(_SHARED)
    except OSError:
        return inf  # it is elsewhere
    return found.f_bavail * found.f_frsize


ALONE = Team(SerialCommunicator())
"""The team of a rank that has its layers for itself."""
