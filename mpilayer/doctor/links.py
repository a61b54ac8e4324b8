"""Measures messages between ranks: few, short, and every rank takes part in each step.

Who measures how often is rank 0's word, heard by all: nobody waits for a message that
does not come.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.doctor.facts import Links, PingPong, Sum
from mpilayer.doctor.machine import read_process
from mpilayer.parallel.comm import Communicator, Request, wait_until

_SMALL, _LARGE = 8, 4_000_000
_SUMS = (32_000, 11_000_000)
"""Bytes of the gradients of a small layer, and of the stack 784-1000-500-250-30."""

# Seconds for all ping-pongs, for those of one pair, and for the sums of one size.
_PAIRS_BUDGET = 0.8
_PAIR_BUDGET = 0.2
_SUM_BUDGET = 0.3
_MOST_ROUNDS = 100
_EAGER = 1.0
_TAG = 77


def measure(comm: Communicator, hosts: tuple[str, ...]) -> Links:
    """Return the speed of messages. Collective; a second or two.

    Parameters
    ----------
    comm : Communicator
        All ranks.
    hosts : tuple of str
        Host of each rank.
    """
    if comm.size == 1:
        return Links((), 0, ())
    began = time.perf_counter()
    partners = partners_of(hosts)
    pairs = []
    for partner in partners:
        if not comm.on_root(lambda: time.perf_counter() - began < _PAIRS_BUDGET):
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


def neighbour(comm: Communicator, host: str, pid: int) -> str | None:
    """Try to read the memory of the next rank on this host. Collective.

    Returns
    -------
    str or None
        Why it cannot be read, empty if it can; None without such a rank or call.
    """
    target = np.arange(8.0)
    everyone = comm.allgather((host, pid, target.ctypes.data))
    others = [where for where in everyone if where[0] == host and where[1] != pid]
    found = None
    if others:
        later = [rank for rank in others if rank[1] > pid] or others
        found = read_process(later[0][1], later[0][2], target.nbytes)
    # Until all have read, the array must stay where it is.
    comm.allgather(target.nbytes)
    return found


def clock(comm: Communicator) -> float:
    """Return this rank's clock, at one moment for all ranks. Collective."""
    comm.barrier()
    return time.time()


def _trip(comm: Communicator, partner: int, array: AnyArray) -> float:
    """Return the seconds of a message, half of there and back; equal on all ranks."""

    def there_and_back() -> None:
        other = partner - comm.rank
        ways: list[Callable[[], Request]] = [
            lambda: comm.start_send(array, other, _TAG),
            lambda: comm.start_receive(array, other, _TAG),
        ]
        for way in ways if comm.rank == 0 else reversed(ways):
            wait_until(way().test, _EAGER)

    taking_part = comm.rank in (0, partner)
    times = _times(comm, there_and_back if taking_part else None, _PAIR_BUDGET)
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
    comm: Communicator, work: Callable[[], None] | None, budget: float
) -> list[float]:
    """Return the seconds of each round, as many as there is time for. Collective.

    Ranks without work wait for the others, and leave their core to them.
    """
    comm.barrier()
    warm_up = _clocked(work)
    rounds = comm.on_root(
        lambda: min(_MOST_ROUNDS, max(1, int(budget / max(warm_up, 1e-6))))
    )
    times = [_clocked(work) for _ in range(rounds)]
    comm.barrier()
    return times


def _clocked(work: Callable[[], None] | None) -> float:
    began = time.perf_counter()
    if work is not None:
        work()
    return time.perf_counter() - began
