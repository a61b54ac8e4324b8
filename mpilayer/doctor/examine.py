"""The order of an examination: the job, the ranks, their facts, then measurements.

Of messages between ranks there are few and short ones, and every rank takes part in
each step. Who measures how often is rank 0's word, heard by all: nobody waits for a
message that does not come.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Timer
from time import perf_counter, sleep

import numpy as np

from mpilayer import environment
from mpilayer.arrays import AnyArray
from mpilayer.doctor import folder, machine
from mpilayer.doctor.facts import Facts, Links, PingPong, Space, Sum, size
from mpilayer.doctor.verdicts import more_shm, shm_suffices
from mpilayer.errors import CommunicationError
from mpilayer.parallel.comm import Communicator, SerialCommunicator, wait_until
from mpilayer.parallel.start import place, start

Say = Callable[[str], None]

_PATIENCE = 120.0
_HEARD_SECONDS = 0.3
_LAST_WORDS_SECONDS = 3.0
_SMALL, _LARGE = 8, 4_000_000
# Bytes of the gradients of a small layer, and of the stack 784-1000-500-250-30.
_SUMS = (32_000, 11_000_000)

# Seconds for all ping-pongs, for those of one pair, and for the sums of one size.
_PAIRS_BUDGET = 0.8
_PAIR_BUDGET = 0.2
_SUM_BUDGET = 0.3
_MOST_ROUNDS = 100
_EAGER = 1.0
_TAG = 77
_NO_ANSWER = (
    "mpilayer: error: ranks must be able to reach one another; after {seconds:.0f} s "
    "nobody answers. See that no firewall is between the hosts, and that MPI uses a "
    "network that all have (MPICH: HYDRA_IFACE, UCX_NET_DEVICES; Open MPI: "
    "OMPI_MCA_btl_tcp_if_include)."
)


def examine(directory: Path, threads: int, say: Say) -> tuple[Communicator, Facts]:
    """Return the ranks, and what is known of them and of the directory for runs.

    Collective on the world; ranks that are not joined examine the same things, each for
    itself. ``threads`` are those of BLAS on each rank, ``say`` tells the user what
    cannot wait for the report: why ranks may, or do, end.
    """
    job = machine.job()
    warn(machine.space(machine.SHM), say)
    with patience(_PATIENCE, say):
        comm, failure = join()
        placement = place(comm, threads)
        mine = machine.describe(comm.rank, placement.threads)
        facts = Facts(
            software=comm.on_root(lambda: machine.software(library())),
            launch=machine.launch(comm.size, failure),
            job=job,
            ranks=tuple(comm.allgather(mine)),
            folder=folder.examine(directory, comm),
            links=_measure(comm, placement.hosts),
        )
    return comm, facts


def warn(shm: Space | None, say: Say) -> None:
    """Tell before MPI starts what may end all ranks as it does, without a word."""
    n_ranks = environment.launched_size()
    if n_ranks > 1 and shm is not None and not shm_suffices(shm, 1):
        say(
            f"warning: /dev/shm has {size(shm.size)}, {size(shm.free)} free: should "
            f"MPI crash as it starts, that is why. {more_shm('')}"
        )


def join() -> tuple[Communicator, str]:
    """Return all ranks, or this one alone and why they cannot be joined."""
    if refusal := machine.refusal():
        return SerialCommunicator(), refusal
    try:
        return start(), ""
    except CommunicationError as error:
        return SerialCommunicator(), str(error)
    except RuntimeError as error:
        # So mpi4py says that it cannot load its library.
        text = (
            f"{environment.launched_size()} processes were started together, which "
            f"needs an MPI library; mpi4py finds none ({error}). Load your cluster's "
            "MPI module, or install mpilayer[mpi]."
        )
        return SerialCommunicator(), " ".join(text.split())


def library() -> str | None:
    """Return the MPI library that this process has loaded, None if it has none."""
    mpi = sys.modules.get("mpilayer.parallel.mpi")
    return None if mpi is None else str(mpi.library())


@contextmanager
def patience(seconds: float, say: Say) -> Iterator[None]:
    """End this process, with a word, if the block takes too long.

    A rank that waits for others cannot be told that there is nobody; the launcher ends
    the others.
    """

    def give_up() -> None:
        say(_NO_ANSWER.format(seconds=seconds))
        # When one rank ends, the launcher may end the others and drop their words.
        first = environment.launched_rank() == 0
        sleep(_HEARD_SECONDS if first else _LAST_WORDS_SECONDS)
        if mpi := sys.modules.get("mpilayer.parallel.mpi"):
            mpi.say_farewell()
        os._exit(1)

    timer = Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _measure(comm: Communicator, hosts: tuple[str, ...]) -> Links:
    """Return the speed of messages between ranks. Collective; a second or two."""
    if comm.size == 1:
        return Links()
    began = perf_counter()
    partners = partners_of(hosts)
    pairs = []
    for partner in partners:
        if not comm.on_root(lambda: perf_counter() - began < _PAIRS_BUDGET):
            break
        latency, seconds = (
            _trip(comm, partner, np.zeros(n, np.uint8)) for n in (_SMALL, _LARGE)
        )
        pairs.append(PingPong(partner, hosts[partner], latency, _LARGE / seconds))
    sums = tuple(Sum(n, _sum_time(comm, n)) for n in _SUMS)
    return Links(tuple(pairs), len(partners) - len(pairs), sums)


def partners_of(hosts: tuple[str, ...]) -> list[int]:
    """Return the first rank on each other host than rank 0's; rank 1 without any."""
    others = {host: hosts.index(host) for host in hosts if host != hosts[0]}
    return list(others.values()) or [1]


def _trip(comm: Communicator, partner: int, array: AnyArray) -> float:
    """Return the seconds of a message, half of there and back; equal on all ranks."""
    other = partner - comm.rank

    def send() -> None:
        wait_until(comm.start_send(array, other, _TAG).test, _EAGER)

    def receive() -> None:
        wait_until(comm.start_receive(array, other, _TAG).test, _EAGER)

    ways = {0: (send, receive), partner: (receive, send)}.get(comm.rank, ())
    times = _times(comm, lambda: [way() for way in ways], _PAIR_BUDGET)
    return comm.on_root(lambda: median(times) / 2)


def _sum_time(comm: Communicator, n_bytes: int) -> float:
    """Return the seconds of a sum on the slowest rank; the same on all ranks."""
    array = np.ones(n_bytes // 4, np.float32)

    def add() -> None:
        array.fill(1)
        wait_until(comm.start_sum(array).test, _EAGER)

    times = _times(comm, add, _SUM_BUDGET)
    seconds: float = max(comm.allgather(median(times)))
    return seconds


def _times(
    comm: Communicator, work: Callable[[], object], budget: float
) -> list[float]:
    """Return the seconds of each round, as many as there is time for. Collective."""

    def clocked() -> float:
        began = perf_counter()
        work()
        return perf_counter() - began

    comm.barrier()
    warm_up = clocked()
    rounds = comm.on_root(
        lambda: min(_MOST_ROUNDS, max(1, int(budget / max(warm_up, 1e-6))))
    )
    times = [clocked() for _ in range(rounds)]
    comm.barrier()
    return times
