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
from mpilayer.parallel.comm import Communicator, wait_until

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


def measure(comm: Communicator, hosts: tuple[str, ...]) -> Links:
    """Return the speed of messages between ranks, each on its host.

    Collective; a second or two.
    """
    if comm.size == 1:
        return Links()
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
    """Return the seconds of each round, as many as there is time for. Collective.

    Ranks without work wait for the others, and leave their core to them.
    """

    def clocked() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    comm.barrier()
    warm_up = clocked()
    rounds = comm.on_root(
        lambda: min(_MOST_ROUNDS, max(1, int(budget / max(warm_up, 1e-6))))
    )
    times = [clocked() for _ in range(rounds)]
    comm.barrier()
    return times
