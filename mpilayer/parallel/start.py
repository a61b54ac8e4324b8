"""Starts the ranks, and gives each its share of the cores."""

import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from mpilayer import environment
from mpilayer.errors import MpilayerError
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.words import count, plural


@dataclass(frozen=True)
class Placement:
    """Where the ranks run."""

    hosts: tuple[str, ...]  # of each rank
    threads: tuple[int, ...]  # of BLAS, of each rank
    crowded: str  # a warning when ranks must share cores, else empty
    library: str  # of MPI, or "none"

    def describe(self) -> str:
        """Return one line for the start of a log."""
        n_hosts = len(set(self.hosts))
        threads = sorted(set(self.threads))
        each = str(threads[0]) if len(threads) == 1 else f"{threads[0]}-{threads[-1]}"
        return (
            f"{count(len(self.hosts), 'rank')} on {count(n_hosts, 'host')}, {each} "
            f"BLAS {plural('thread', threads[-1])} each, MPI: {self.library}"
        )


def start(failure: MpilayerError | None = None) -> Communicator:
    """Return the world; MPI is started only if a launcher started several processes.

    ``failure`` is what has gone wrong before on this rank: the others must not wait.
    Raises that of the lowest rank on all; CommunicationError if they cannot be joined.
    """
    if environment.launched_size() == 1:
        return SerialCommunicator()
    from mpilayer.parallel import mpi

    return mpi.world(failure)


_runs: list[str] = []


@contextmanager
def working_in(run: str) -> Iterator[None]:
    """Let the message of a rank's death in the block say which run goes on. Local.

    A run of an inner block goes on with that of the outer one.
    """
    mpi = None if _runs else sys.modules.get("mpilayer.parallel.mpi")
    _runs.append(run)
    try:
        if mpi is not None:
            mpi.name_run(run)
        yield
    finally:
        _runs.pop()
        if mpi is not None:
            mpi.name_run("")


def hosts(comm: Communicator) -> list[str]:
    """Return the host of every rank. Collective."""
    return comm.allgather(socket.gethostname())


def place(comm: Communicator, threads: int = 0) -> Placement:
    """Give each rank its share of its host's cores as BLAS threads. Collective.

    ``threads`` are those of each rank; 0: what the environment asks for, else the
    share.
    """
    host, mine = socket.gethostname(), environment.cores()
    everyone: list[tuple[str, frozenset[int]]] = comm.allgather((host, mine))
    # A core is split among those that may use it.
    users = Counter((name, core) for name, cores in everyone for core in cores)
    shares = (sum(1 / users[name, core] for core in cores) for name, cores in everyone)
    given = threads or environment.requested_threads()
    used = tuple(given or max(1, int(share + 1e-9)) for share in shares)
    # The limits stay until the process ends.
    threadpool_limits(limits=used[comm.rank])
    return Placement(
        hosts=tuple(name for name, _ in everyone),
        threads=used,
        crowded=_crowding(everyone, used),
        library=comm.library,
    )


def _crowding(
    everyone: list[tuple[str, frozenset[int]]], threads: tuple[int, ...]
) -> str:
    for host in sorted({name for name, _ in everyone}):
        there = [rank for rank, (name, _) in enumerate(everyone) if name == host]
        cores = frozenset().union(*(everyone[rank][1] for rank in there))
        wanted = sum(threads[rank] for rank in there)
        if wanted > len(cores):
            return (
                f"{wanted} BLAS threads share the {len(cores)} cores of {host}: ranks "
                "will hold one another up. Start fewer ranks."
            )
    return ""
