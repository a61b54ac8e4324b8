"""For peers that neither answer nor die: says who is silent, and ends the job.

Launchers notice dead processes, not hung ones or lost networks. In the data-parallel
modes no wait is much longer than an evaluation; in pre-training a rank may wait for
hours, so every rank sends the next one a beat now and then.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, sleep

import numpy as np

from mpilayer.interrupt import EXIT_RESUME
from mpilayer.parallel.comm import Communicator, Request, limited_waits, wait_until
from mpilayer.parallel.start import abort

LEAST_SECONDS = 600.0
"""Silence that is never taken for an end, unless the user says so."""

LONGEST = 30
"""Silence that is taken for an end, in the longest intervals heard so far."""

_ROLL_CALL_TAG, _BEAT_TAG = 5, 6
_ROLL_CALL_SECONDS = 10.0
_BEAT_SECONDS = 1.0
_LAST_WORDS_SECONDS = 2.0
# A launcher that is told to end everything may drop what it has not passed on yet.
_HEARD_SECONDS = 0.3


@contextmanager
def impatient(comm: Communicator, seconds: float) -> Iterator[None]:
    """End the job if a wait in the block takes so long. Local.

    Parameters
    ----------
    comm : Communicator
        Whose waits are meant: all ranks wait for the same things.
    seconds : float
        0: ``LEAST_SECONDS``.
    """
    limit = seconds or LEAST_SECONDS
    with limited_waits(limit, lambda: _end_for_silence(comm, limit)):
        yield


class Pulse:
    """Beats from the rank below to this one, and from this one to the rank above.

    Parameters
    ----------
    comm : Communicator
        Ranks in the order of their layers. Making and closing it is collective.
    seconds : float
        Silence to bear; 0: ``LONGEST`` intervals, at least ``LEAST_SECONDS``.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        comm: Communicator,
        seconds: float,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._comm, self._given, self._clock = comm, seconds, clock
        self._heard = self._sent = clock()
        self._longest = 0.0
        self._word = np.ones(1, np.int64)
        self._beat = np.ones(1, np.int64)
        self._sending: Request | None = None
        self._expected: Request | None = None
        if comm.rank > 0:
            self._expect()

    def beat(self) -> None:
        """Send a beat if the last one is some time ago, and listen."""
        now = self._clock()
        above = self._comm.rank + 1
        free = self._sending is None or self._sending.test()
        if above < self._comm.size and now - self._sent > _BEAT_SECONDS and free:
            self._sending = self._comm.start_send(self._beat, above, _BEAT_TAG)
            self._sent = now
        while self._expected is not None and self._expected.test():
            self._longest = max(self._longest, now - self._heard)
            self._heard = now
            self._expected = None
            if self._word[0]:
                self._expect()
        if self._expected is not None and now - self._heard > self.limit:
            below = self._comm.rank - 1
            _say_and_end(f"rank {below} has sent nothing", now - self._heard)

    @property
    def limit(self) -> float:
        """Seconds of silence that end the job."""
        return self._given or max(LEAST_SECONDS, LONGEST * self._longest)

    def close(self) -> None:
        """Send the last beat, and receive that of the rank below. Collective."""
        above = self._comm.rank + 1
        last = np.zeros(1, np.int64)
        if above < self._comm.size:
            if self._sending is not None:
                wait_until(self._sending.test)
            self._sending = self._comm.start_send(last, above, _BEAT_TAG)
        wait_until(self._is_quiet)

    def _is_quiet(self) -> bool:
        while self._expected is not None and self._expected.test():
            self._expected = None
            if self._word[0]:
                self._expect()
        sent = self._sending is None or self._sending.test()
        return sent and self._expected is None

    def _expect(self) -> None:
        below = self._comm.rank - 1
        self._expected = self._comm.start_receive(self._word, below, _BEAT_TAG)


def _end_for_silence(comm: Communicator, waited: float) -> None:
    """Find out who is silent by a roll call, and end all ranks."""
    present = _roll_call(comm)
    silent = [rank for rank in range(comm.size) if rank not in present]
    if comm.rank > min(present):
        wait_until(lambda: False, at_most=_LAST_WORDS_SECONDS)  # rank 0 says it
    names = ", ".join(map(str, silent)) or "nobody"
    _say_and_end(f"rank {names} does not answer", waited)


def _roll_call(comm: Communicator) -> set[int]:
    """Return the ranks that wait, too, and say so within some seconds."""
    word = np.ones(1, np.int64)
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    for rank in others:
        comm.start_send(word, rank, _ROLL_CALL_TAG)
    calls = {
        rank: comm.start_receive(np.empty(1, np.int64), rank, _ROLL_CALL_TAG)
        for rank in others
    }
    present = {comm.rank}

    def complete() -> bool:
        present.update(rank for rank, call in calls.items() if call.test())
        return len(present) == comm.size

    wait_until(complete, at_most=_ROLL_CALL_SECONDS)
    return present


def _say_and_end(what: str, seconds: float) -> None:
    sys.stderr.write(
        f"mpilayer: {what} for {seconds:.0f} s; ending all ranks. Go on from the last "
        "checkpoint with 'mpilayer resume DIR'; if that rank was only slow, give a "
        "larger --peer-timeout.\n"
    )
    sys.stderr.flush()
    sleep(_HEARD_SECONDS)
    abort(EXIT_RESUME)
