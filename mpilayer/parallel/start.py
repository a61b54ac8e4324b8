"""Starts the ranks, gives each its BLAS threads, and sees where they are."""

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from threadpoolctl import ThreadpoolController

from mpilayer import environment
from mpilayer.errors import MpilayerError
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.words import count, plural


@dataclass(frozen=True)
class Placement:
    """Where the ranks run."""

    hosts: tuple[str, ...]  # of each rank
    threads: int  # of BLAS, of each rank
    crowded: str  # a warning when ranks must share cores, else empty
    library: str  # of MPI, or "none"
    cores: int = 0  # of all hosts, as far as ranks may use them
    mixed: str = ""  # a warning when ranks do not round alike, else empty

    def describe(self, useful: int = 0) -> str:
        """Return one line for the start of a log.

        If ``useful`` ranks, or fewer, would keep busy cores that are idle, it says so.
        """
        ranks, n_hosts = len(self.hosts), len(set(self.hosts))
        more = min(useful, self.cores // self.threads)
        idle = self.cores - ranks * self.threads
        advice = f"; {idle} of {self.cores} cores idle: mpiexec -n {more}"
        return (
            f"{count(ranks, 'rank')} on {count(n_hosts, 'host')}, {self.threads} "
            f"BLAS {plural('thread', self.threads)} each, MPI: {self.library}"
            f"{advice if more > ranks else ''}"
        )


class _Seat(NamedTuple):
    """Where a rank is."""

    host: str
    cores: frozenset[int]
    whole: frozenset[str]
    kernels: str


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


def place(comm: Communicator, threads: int = 1) -> Placement:
    """Give each rank its BLAS threads, and look where the ranks are. Collective."""
    libraries = ThreadpoolController()
    # The limits stay until the process ends.
    libraries.limit(limits=threads)
    mine = _Seat(
        socket.gethostname(),
        environment.cores(),
        environment.whole_cores(),
        _kernels(libraries.select(user_api="blas").info()),
    )
    seats: list[_Seat] = comm.allgather(mine)
    return Placement(
        hosts=tuple(seat.host for seat in seats),
        threads=threads,
        crowded=_crowding(seats, threads),
        library=comm.library,
        cores=len({(seat.host, core) for seat in seats for core in seat.whole}),
        mixed=_mixture(seats),
    )


def _kernels(libraries: Sequence[Mapping[str, Any]]) -> str:
    """Return what decides how products are rounded, but for threads: NumPy's BLAS."""
    # SciPy brings another one, which may be loaded on some of the ranks.
    numpys = [b for b in libraries if "numpy" in Path(b["filepath"]).parent.name]
    keys = ("internal_api", "version", "architecture")
    told = [
        " ".join(str(b.get(key) or "") for key in keys) for b in numpys or libraries
    ]
    return ", ".join(sorted(told))


def _crowding(seats: Sequence[_Seat], threads: int) -> str:
    for host in sorted({seat.host for seat in seats}):
        there = [seat for seat in seats if seat.host == host]
        cores = frozenset[int]().union(*(seat.cores for seat in there))
        wanted = threads * len(there)
        if wanted > len(cores):
            return (
                f"{wanted} BLAS threads share the {len(cores)} cores of {host}: ranks "
                "will hold one another up. Start fewer ranks."
            )
    return ""


def _mixture(seats: Sequence[_Seat]) -> str:
    found = {seat.kernels: seat.host for seat in reversed(seats)}
    if len(found) < 2:
        return ""
    each = "; ".join(f"{kernels} on {host}" for kernels, host in found.items())
    return (
        f"ranks compute with different BLAS kernels ({each}): the last bits of weights "
        "depend on which rank computes what. For bits that repeat, use hosts of one "
        "kind, or give all ranks the OPENBLAS_CORETYPE of the oldest, such as Haswell"
    )
