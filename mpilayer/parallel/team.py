"""A team: ranks of one host that work on the same layers, and share memory.

Its first rank, the *head*, decides what comes next; the others follow its orders. No
rank decides alone: what the clock or a message says here it may not say there, and
collective calls in another order hang. One rank by itself is a team, too.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.errors import ConfigError, MpilayerError
from mpilayer.interrupt import Interrupted
from mpilayer.parallel.comm import (
    Communicator,
    Request,
    SerialCommunicator,
    wait_until,
)

T = TypeVar("T")

# Of a cache line's numbers: two ranks never write to the same line.
_TILE = 16

# Where MPI libraries lay shared memory.
_SHARED = Path("/dev/shm")

Order = tuple[Any, ...]
"""What a team does next: its name, and plain numbers."""


def check_room(n_bytes: int, team: "Team") -> None:
    """Check that a team's host has so many bytes of shared memory left. Local.

    What a team of one rank has is no shared memory.

    Raises
    ------
    ConfigError
        It has not. To be raised on all ranks by the caller.
    """
    with suppress(OSError):
        there = os.statvfs(_SHARED)
        left = there.f_bavail * there.f_frsize
        if team.is_head and team.size > 1 and n_bytes > left:
            raise ConfigError(
                f"ranks of a host need shared memory for what they share; it takes "
                f"{n_bytes / 1e6:.3g} MB, and {_SHARED} has {left / 1e6:.3g} MB left. "
                "Make it larger (containers: --shm-size), start one rank on each host, "
                "or, to fine-tune, train with --parallel rows."
            )


class Team:
    """The ranks of a communicator, all on one host. Collective to make and to close.

    Parameters
    ----------
    comm : Communicator
        The team's own.
    eager : float
        Seconds that a rank waits for the others before it sleeps; 0 where ranks share
        cores.
    ranks : sequence of int
        What its ranks are called elsewhere.

    Attributes
    ----------
    waited : float
        Seconds that this rank has spent at barriers.
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

    def broadcast(self, item: T) -> T:
        """Return the head's object everywhere; collective."""
        return self._comm.broadcast(item)

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

    def tell(self, order: Order) -> None:
        """Let the followers do something; on the head."""
        self._comm.broadcast(order)

    def hear(self, meanwhile: Callable[[], object]) -> Order:
        """Return the head's next order; on followers, which may wait for long.

        ``meanwhile`` is called again and again while nothing is heard.
        """
        order: Order = self._comm.broadcast((), meanwhile)
        return order

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a defect of one rank the others never come: then all are ended.
        expected = error is None or isinstance(error, MpilayerError | Interrupted)
        if expected and getattr(error, "collective", True):
            self.close()


ALONE = Team(SerialCommunicator())
"""The team of a rank that has its layers for itself."""
