"""Assertions of all ranks: a test fails on every rank, or on none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from mpilayer.errors import MpilayerError
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import shard_bounds

# How many of n rows each of so many ranks has.
SPLITS = {
    "even": lambda n, ranks: [b - a for a, b in shard_bounds(n, ranks)],
    "uneven": lambda n, ranks: [1] * (ranks - 1) + [n - ranks + 1],
    "rank 0 has none": lambda n, ranks: [0, *SPLITS["even"](n, ranks - 1)],
    "the last has all": lambda n, ranks: [0] * (ranks - 1) + [n],
}


def shares(rows: np.ndarray, ranks: int, split: str = "even") -> list[np.ndarray]:
    """Return each rank's rows."""
    return np.split(rows, np.cumsum(SPLITS[split](len(rows), ranks))[:-1])


def share(comm: Communicator, rows: np.ndarray, split: str = "even") -> np.ndarray:
    """Return this rank's rows."""
    return shares(rows, comm.size, split)[comm.rank]


def caught(work: Callable[[], object]) -> tuple[type, str, bool] | None:
    """Return the kind of an error, its words, and whether all ranks raise it."""
    try:
        work()
    except MpilayerError as error:
        return type(error), str(error), error.collective
    return None


class FailedTogether(AssertionError):
    """A failure that every rank raises."""


@contextmanager
def together(comm: Communicator) -> Iterator[None]:
    """Gather every rank's verdict on the block, then let all fail if one did.

    Collective; the block itself must not communicate.
    """
    verdict = ""
    try:
        yield
    except Exception as error:
        verdict = f"{type(error).__name__}: {error}"
    failed = [
        f"rank {rank}: {text}"
        for rank, text in enumerate(comm.allgather(verdict))
        if text
    ]
    if failed:
        raise FailedTogether("\n".join(failed))


def assert_all_received(world: Communicator) -> None:
    """Demand that no message waits on any rank that nobody received. Collective."""
    world.barrier()
    waiting = world._comm.Iprobe()  # type: ignore[attr-defined]
    with together(world):
        assert not waiting
