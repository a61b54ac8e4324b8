"""Assertions of all ranks: a test fails on every rank, or on none."""

from collections.abc import Iterator
from contextlib import contextmanager

from mpilayer.parallel.comm import Communicator


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


def left_in_flight(world: Communicator) -> bool:
    """Tell whether a message waits on any rank that nobody received. Collective."""
    world.barrier()
    return any(world.allgather(world._comm.Iprobe()))  # type: ignore[attr-defined]
