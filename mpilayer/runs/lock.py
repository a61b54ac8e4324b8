"""The lock of a run: one launch at a time writes into it."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpilayer.errors import CheckpointError, FileError, MpilayerError, file_errors
from mpilayer.interrupt import Interrupted
from mpilayer.parallel.start import working_in
from mpilayer.runs.directory import LOCK, RunDirectory, check_links
from mpilayer.runs.session import Session

PATIENCE = 10.0
"""Seconds to wait for another launch: ranks outlive a killed launcher for a moment."""

_PAUSE = 0.1
_HOW = os.O_RDWR | os.O_NOFOLLOW


@contextmanager
def holding(run: Path, session: Session) -> Iterator[None]:
    """Keep other launches out of a run while the block runs. Collective.

    The folder is made if there is none, and goes with the block if nothing is in it.
    Where files cannot be locked, the block runs all the same.

    All ranks hold the lock: any of them may outlive the others.

    Raises
    ------
    CheckpointError
        On every rank: another launch is at work there, or a part of the run that is
        written is a link, or its settings are not those that it began with.
    FileError
        A file of the run cannot be written or read; it says how the run goes on then.
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
            error.go_on = "the same command and --resume auto"
            if settings.is_file():
                error.go_on = f"'mpilayer resume {run}'"
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

    The ranks of a launch share it. Rank 0 takes it for itself before: that succeeds
    only when no rank of another launch is left.
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
