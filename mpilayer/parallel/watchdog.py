"""For ranks that neither answer nor die: says who is silent, and ends the job.

Launchers notice dead processes, not hung ones or lost networks. So every rank sends the
next one a beat now and then, the last one the first, whatever they are doing: a thread
that never calls MPI lets the main thread look after the beats between two steps of
Python, as if a signal had come. A rank that waits, computes or writes goes on beating;
one that is stopped, or hangs in a call to the system, does not.
"""

import atexit
import signal
import threading
from _thread import interrupt_main
from time import perf_counter

import numpy as np

from mpilayer import ending
from mpilayer.interrupt import EXIT_RESUME
from mpilayer.parallel.comm import Communicator, Request, Requests, wait_until

LEAST_SECONDS = 600.0
"""Silence that ends the job, unless the user says otherwise."""

_TAG = 5
_BEAT_SECONDS = 1.0
# Nobody else uses it; by default it is ignored, and no call to the system notices it.
_SIGNAL = signal.SIGURG
_ALIVE, _LAST = 1, 0


def watch(comm: Communicator, seconds: float) -> None:
    """Let the ranks watch over one another until they end, by themselves or all.

    Collective. ``seconds`` is the silence to bear; 0: ``LEAST_SECONDS``.
    """
    main = threading.current_thread() is threading.main_thread()
    if comm.size > 1 and all(comm.allgather(main)):
        atexit.register(Pulse(comm, seconds or LEAST_SECONDS).close)


class Pulse:
    """Beats from the rank before this one, and from this one to the rank after it.

    Making and closing it is collective on at least two ranks; ``limit`` are the seconds
    of silence that end the job.
    """

    def __init__(self, comm: Communicator, limit: float) -> None:
        self._comm, self._limit = comm, limit
        self._before = (comm.rank - 1) % comm.size
        self._word = np.empty(1, np.int64)
        self._expected: Request | None = None
        self._sending = Requests()
        self._silence, self._looked = 0.0, perf_counter()
        self._interval = min(_BEAT_SECONDS, limit / 4)
        self._closing = threading.Event()
        self._expect()
        signal.signal(_SIGNAL, lambda *_: self.beat())
        threading.Thread(target=self._tick, daemon=True).start()

    def close(self) -> None:
        """Wait until every rank gets here, and end the beats. Collective."""
        self._comm.barrier()
        self._closing.set()
        wait_until(self._sending.test)
        self._send(_LAST)
        wait_until(lambda: self._sending.test() and not self._hears())

    def beat(self) -> None:
        """Send a beat, and listen; end the job after too long a silence. Local."""
        if self._closing.is_set():
            return
        now = perf_counter()
        # What this rank has slept itself, stopped or in one long call, does not count
        # as silence.
        self._silence += min(now - self._looked, 2 * self._interval)
        self._looked = now
        if self._sending.test():
            self._send(_ALIVE)
        self._hears()
        if self._silence > self._limit:
            self._closing.set()
            ending.say(
                f"mpilayer: rank {self._before} has sent nothing for "
                f"{self._silence:.0f} s; ending all ranks. Go on from the last "
                "checkpoint with 'mpilayer resume DIR'; if that rank was only slow, "
                "give a larger --peer-timeout.\n"
            )
            ending.end_all(EXIT_RESUME)

    def _tick(self) -> None:
        while not self._closing.wait(self._interval):
            interrupt_main(_SIGNAL)

    def _send(self, word: int) -> None:
        content = np.array([word], np.int64)
        after = (self._comm.rank + 1) % self._comm.size
        self._sending = Requests(self._comm.start_send(content, after, _TAG))

    def _expect(self) -> None:
        self._expected = self._comm.start_receive(self._word, self._before, _TAG)

    def _hears(self) -> bool:
        """Take the beats that have come; tell whether more will."""
        while self._expected is not None and self._expected.test():
            self._silence, self._expected = 0.0, None
            if self._word[0] != _LAST:
                self._expect()
        return self._expected is not None
