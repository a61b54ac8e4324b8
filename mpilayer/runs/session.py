"""The ranks of a launch: their time, how they talk to the user, the lock on the run."""

import fcntl
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import ending, environment, interrupt
from mpilayer.errors import CheckpointError, FileError, MpilayerError, file_errors
from mpilayer.interrupt import Interrupted
from mpilayer.parallel import watchdog
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.start import Placement, place, start, working_in
from mpilayer.runs.directory import LOCK, RunDirectory, check_links
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.sums import EAGER_SECONDS

Goals = dict[str, int | None]
"""Name of a metrics file to the epochs it will hold; None if nobody knows."""

Say = Callable[[str], object]
"""Tells the user a line."""

Display = Callable[[RunDirectory, Goals], AbstractContextManager[object]]
"""Makes the context in which the progress of a run is shown."""

# A request to end is heeded this much earlier than the time for it seems to need.
_MARGIN = 1.5
# What ending a job well may take after the last checkpoint.
_JOB_RESERVE = 30.0

PATIENCE = 10.0
"""Seconds to wait for another launch: ranks outlive a killed launcher for a moment."""

_PAUSE = 0.1
_HOW = os.O_RDWR | os.O_NOFOLLOW


@dataclass(frozen=True)
class Safety:
    """When a run saves and when it gives way. Nothing of it changes the result."""

    checkpoint_every: int = 0  # epochs, iterations or passes; 0: by the clock alone
    checkpoint_seconds: float = 60.0  # until it saves, at the next boundary
    max_time: float = 0.0  # seconds of this launch until it saves and ends; 0: never
    resume: bool = False  # it goes on with a run that is there already
    peer_timeout: float = 0.0  # seconds a rank may be silent; 0: a generous number


def _nothing(*_: object) -> AbstractContextManager[None]:
    """Say, or show, nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Session:
    """The ranks of this launch, and how they talk to the user."""

    comm: Communicator
    placement: Placement
    say: Say = _nothing  # from rank 0 alone, as is progress
    display: Display = _nothing
    safety: Safety = Safety()
    deadline: float = math.inf  # in seconds since 1970; everything must be saved then
    threads: int = 0  # of BLAS, that the user asks for; 0: those of the run, or 1

    @staticmethod
    def begin(
        threads: int = 0,
        say: Say = _nothing,
        display: Display = _nothing,
        safety: Safety = Safety(),
    ) -> "Session":
        """Start the ranks and their threads. Collective on the world."""
        began = time.time()
        comm = start()
        job_end = comm.on_root(environment.job_end)
        ends = [job_end - _JOB_RESERVE if job_end else math.inf]
        if safety.max_time:
            ends.append(began + safety.max_time)
        placement = place(comm, threads or 1)
        watchdog.watch(comm, safety.peer_timeout)
        if comm.rank > 0:
            say = display = _nothing
        return Session(comm, placement, say, display, safety, min(ends), threads)

    def with_threads(self, threads: int) -> "Session":
        """Return the session with so many BLAS threads a rank. Collective."""
        if threads == self.placement.threads:
            return self
        return replace(self, placement=place(self.comm, threads))

    def must_stop(self, unit_seconds: float) -> bool:
        """Tell whether this rank was asked to end, or time would run out. Local.

        It takes ``unit_seconds`` until the question can be asked again.
        """
        if interrupt.requested():
            return True
        return time.time() + _MARGIN * unit_seconds > self.deadline

    def spent(self, *seconds: float) -> tuple[bool, dict[str, Any]]:
        """Tell whether any rank must stop; and where all spent seconds. Collective.

        The next question comes after as many ``seconds`` of several kinds. What a line
        of metrics says of the ranks is nothing where there is only one.
        """
        told = np.zeros((self.comm.size + 1, len(seconds)))
        told[self.comm.rank], told[-1] = seconds, self.must_stop(sum(seconds))
        *ranks, stops = sum_over_ranks(self.comm, told).tolist()
        pairs = zip(self.placement.hosts, ranks, strict=True)
        every = {"ranks": [[host, *own] for host, own in pairs]}
        return any(stops), every if self.comm.size > 1 else {}

    def is_due(self, units: int, seconds: float) -> bool:
        """Tell whether to save, so many epochs and seconds after the last time."""
        every, longest = self.safety.checkpoint_every, self.safety.checkpoint_seconds
        return units > 0 and (0 < every <= units or seconds >= longest)

    def listening(self) -> AbstractContextManager[None]:
        """Return the context in which signals ask to save and end."""
        return interrupt.listening(partial(ending.end_all, interrupt.EXIT_RESUME))

    def interrupted(self, go_on: str, where: str = "") -> Interrupted:
        """Return what all ranks raise after they have saved. Collective."""
        # A signal may have come to one rank alone, and not to the one that tells.
        asked = self.comm.allgather(interrupt.requested())
        reason = next(filter(None, asked), "the time limit")
        return Interrupted(
            f"saved and stopped{where} because of {reason}; go on with {go_on}"
        )

    def announce(self, useful: int = 0, shared: int = 0) -> None:
        """Say where the ranks run: once it is sure that there is something to do.

        Also if cores are idle, and so many ranks are ``useful``; and how many bytes
        ranks of a host share.
        """
        self.say(self.placement.describe(useful))
        if shared:
            self.say(f"ranks of a host share {shared / 1e6:.3g} MB of memory")
        self.warn(self.placement.crowded)
        self.warn(self.placement.mixed)

    def warn(self, words: str) -> None:
        """Tell the user what is odd; nothing if there are no words for it."""
        if words:
            self.say(f"warning: {words}")

    @property
    def eager(self) -> float:
        """Seconds that a rank waits for a reduction before it sleeps."""
        # One that offers its core while it waits slows down those that share it.
        return 0.0 if self.placement.crowded else EAGER_SECONDS

    def launch(self, before: float) -> dict[str, Any]:
        """Return what this rank's lines of metrics say of where and when. Collective.

        ``began`` is when second 0 of training was, since 1970, the same on all ranks;
        ``before`` are seconds of training before this launch.
        """
        began = self.comm.on_root(time.time) - before
        return {"host": self.placement.hosts[self.comm.rank], "began": began}

    def facts(self) -> dict[str, Any]:
        """Return what a summary says about the ranks."""
        return {
            "ranks": self.comm.size,
            "threads_per_rank": self.placement.threads,
            "hosts": len(set(self.placement.hosts)),
            "crowded": bool(self.placement.crowded),
            "mpi": self.placement.library,
        }


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return value if math.isfinite(value) else None


# --- the lock: one launch at a time writes into a run


@contextmanager
def holding(run: Path, session: Session) -> Iterator[None]:
    """Keep other launches out of a run while the block runs. Collective.

    The folder is made if there is none, and goes with the block if nothing is in it.
    All ranks hold the lock: any of them may outlive the others. Where files cannot be
    locked, the block runs all the same. CheckpointError, on every rank: another launch
    is at work there, what is written is a link, or settings have changed. FileError: a
    file of the run cannot be used; it says how the run goes on then.
    """
    comm, lock, settings = session.comm, RunLock(run), run / "config.toml"
    comm.on_root(lambda: check_links(run))
    if session.safety.resume and comm.on_root(settings.is_file):
        comm.on_root(lambda: RunDirectory(run).read_config(strict=True))
    if comm.rank == 0 and not lock.take():
        session.say(f"waiting for another launch in {run} to end")
    comm.on_root(lock.insist)
    if comm.rank > 0:
        lock.share()
    # One rank that fails alone leaves others that may still be writing.
    quiet = comm.size == 1
    try:
        with working_in(str(run)), file_errors():
            yield
        quiet = True
    except (MpilayerError, Interrupted) as error:
        if isinstance(error, FileError):
            again = "the same command and --resume auto"
            error.go_on = RunDirectory(run).go_on if settings.is_file() else again
        quiet = quiet or getattr(error, "collective", True)
        raise
    finally:
        lock.release(quiet)


def at_work(run: Path) -> bool | None:
    """Tell whether another launch is at work in a run; None if nobody knows. Local.

    A lock that seems free may be held on another host: not all file systems pass it
    on. What a launch there has left behind proves nothing.
    """
    path = run / LOCK
    try:
        # Asked for by name, NFS may deny a new file for a minute.
        if path not in run.iterdir():
            return False
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        host, process = _holder(path)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return (host, process) != (socket.gethostname(), str(os.getpid()))
    except OSError:
        return None
    finally:
        os.close(file)
    return False if host == socket.gethostname() else None


def _holder(path: Path) -> tuple[str, str]:
    """Return the host and the process that a lock's file names, or empty texts."""
    with suppress(OSError):
        host, _, process = path.read_text("utf-8", "replace").partition(" ")
        return host, process
    return "", ""


class RunLock:
    """A lock on a file, which the operating system lifts when its process ends.

    Ranks of a launch share it. Rank 0 takes it alone first: if no other launch is left.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._path = run, run / LOCK
        self._made: list[Path] = []
        self._file = -1
        self._taken = False

    def take(self) -> bool:
        """Try to take the lock; tell whether nobody else has it. On rank 0."""
        try:
            self._make_folder()
            self._file = os.open(self._path, _HOW | os.O_CREAT, 0o666)
        except OSError:
            self._taken = True  # whoever cannot write here need not be kept out
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current():
                raise BlockingIOError
            with suppress(OSError):
                os.truncate(self._file, 0)
                os.write(self._file, f"{socket.gethostname()} {os.getpid()}".encode())
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._close()
            return False
        except OSError:
            self._close()  # a file system without locks
        self._taken = True
        return True

    def insist(self) -> None:
        """Wait for the lock as long as there is hope; else an error. On rank 0."""
        until = time.monotonic() + PATIENCE
        while not (self._taken or self.take()):
            if time.monotonic() > until:
                host, process = _holder(self._path)
                who = f"process {process} on {host}" if process else "another one"
                raise CheckpointError(
                    f"only one launch at a time may work in a run; {who} works in "
                    f"{self._run}. Wait until it has ended, or end it."
                )
            time.sleep(_PAUSE)

    def share(self) -> None:
        """Hold what rank 0 has taken. On the other ranks."""
        with suppress(OSError):  # no such folder on this host, or no locks
            self._file = os.open(self._path, _HOW)
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def release(self, remove: bool) -> None:
        """Let go; remove the file, and folders that were made for nothing else."""
        if remove and self._taken and self._file >= 0:
            with suppress(OSError):
                self._path.unlink()
                for folder in self._made:
                    folder.rmdir()
        self._close()

    def _make_folder(self) -> None:
        folders = (self._run, *self._run.absolute().parents)
        self._made = self._made or [p for p in folders if not p.exists()]
        self._run.mkdir(parents=True, exist_ok=True)

    def _is_current(self) -> bool:
        """Tell whether the file is still there: its last holder may have removed it."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        return False

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
