"""The ranks of a launch: their threads, their time, and how they talk to the user."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from mpilayer import ending, environment, interrupt
from mpilayer.parallel import watchdog
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.start import Placement, place, start
from mpilayer.runs.directory import RunDirectory
from mpilayer.train.sums import EAGER_SECONDS

Goals = dict[str, int | None]
"""Name of a metrics file to the epochs it will hold; None if nobody knows."""

Display = Callable[[RunDirectory, Goals], AbstractContextManager[object]]
"""Makes the context in which the progress of a run is shown."""

# A request to end is heeded this much earlier than the time for it seems to need.
_MARGIN = 1.5
# What ending a job well may take after the last checkpoint.
_JOB_RESERVE = 30.0


@dataclass(frozen=True)
class Safety:
    """When a run saves and when it gives way. Nothing of it changes the result.

    Attributes
    ----------
    checkpoint_every : int
        Save after so many epochs, iterations or passes; 0: by the clock alone.
    checkpoint_seconds : float
        Save at the next boundary after so many seconds.
    max_time : float
        Save and end after so many seconds of this launch; 0: never.
    resume : bool
        Go on with a run that is there already.
    peer_timeout : float
        End the job when a rank has been silent for so many seconds; 0: generous.
    """

    checkpoint_every: int = 0
    checkpoint_seconds: float = 60.0
    max_time: float = 0.0
    resume: bool = False
    peer_timeout: float = 0.0


def _silent(_: str) -> None:
    """Say nothing."""


def _no_display(_: RunDirectory, __: Goals) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True)
class Session:
    """The ranks of this launch, and how they talk to the user.

    ``say`` tells a line, ``display`` shows progress, both from rank 0 alone. At the
    ``deadline``, in seconds since 1970, everything must be saved; infinite if never.
    """

    comm: Communicator
    placement: Placement
    say: Callable[[str], None] = _silent
    display: Display = field(default=_no_display)
    safety: Safety = field(default_factory=Safety)
    deadline: float = math.inf

    @staticmethod
    def begin(
        threads: int = 0,
        say: Callable[[str], None] = _silent,
        display: Display = _no_display,
        safety: Safety | None = None,
    ) -> "Session":
        """Start the ranks and their threads. Collective on the world."""
        began = time.time()
        comm = start()
        safety = safety or Safety()
        job_end = comm.on_root(environment.job_end)
        ends = [job_end - _JOB_RESERVE if job_end else math.inf]
        if safety.max_time:
            ends.append(began + safety.max_time)
        placement = place(comm, threads)
        watchdog.watch(comm, safety.peer_timeout)
        return Session(
            comm,
            placement,
            say if comm.rank == 0 else _silent,
            display if comm.rank == 0 else _no_display,
            safety,
            min(ends),
        )

    def must_stop(self, unit_seconds: float) -> bool:
        """Tell whether this rank was asked to end, or time would run out. Local.

        It takes ``unit_seconds`` until the question can be asked again.
        """
        if interrupt.requested():
            return True
        return time.time() + _MARGIN * unit_seconds > self.deadline

    def is_due(self, units: int, seconds: float) -> bool:
        """Tell whether to save, so many epochs and seconds after the last time."""
        every = self.safety.checkpoint_every
        return units > 0 and (
            (every > 0 and units >= every) or seconds >= self.safety.checkpoint_seconds
        )

    def listening(self) -> AbstractContextManager[None]:
        """Return the context in which signals ask to save and end."""
        return interrupt.listening(_give_up)

    def interrupted(self, directory: RunDirectory) -> interrupt.Interrupted:
        """Return what all ranks raise after they have saved."""
        reason = interrupt.requested() or "the time limit"
        return interrupt.Interrupted(
            f"saved and stopped because of {reason}; go on with "
            f"'mpilayer resume {directory.path}'"
        )

    def announce(self) -> None:
        """Say where the ranks run: once it is sure that there is something to do."""
        self.say(self.placement.describe())
        self.warn(self.placement.crowded)

    def warn(self, words: str) -> None:
        """Tell the user what is odd; nothing if there are no words for it."""
        if words:
            self.say(f"warning: {words}")

    def warn_of_idle_ranks(self, minibatch: int) -> None:
        """Say that minibatches have not a row for every rank."""
        if self.comm.size > minibatch:
            self.warn(
                f"{self.comm.size} ranks share minibatches of {minibatch} rows; some "
                "have nothing to do"
            )

    @property
    def eager(self) -> float:
        """Seconds that a rank waits for a reduction before it sleeps."""
        # One that offers its core while it waits slows down those that share it.
        return 0.0 if self.placement.crowded else EAGER_SECONDS

    def facts(self) -> dict[str, Any]:
        """Return what a summary says about the ranks."""
        threads = sorted(set(self.placement.threads))
        return {
            "ranks": self.comm.size,
            "threads_per_rank": threads[0] if len(threads) == 1 else threads[-1],
            "hosts": len(set(self.placement.hosts)),
            "crowded": bool(self.placement.crowded),
            "mpi": self.placement.library,
        }


def _give_up() -> None:
    ending.end_all(interrupt.EXIT_RESUME)


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return value if math.isfinite(value) else None
