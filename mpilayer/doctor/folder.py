"""Tries what a run does with its folder: write, flush, move, lock, share."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from mpilayer import files, hdf5
from mpilayer.doctor.facts import Folder
from mpilayer.doctor.machine import space
from mpilayer.environment import read
from mpilayer.errors import DataError, reason
from mpilayer.parallel.comm import Communicator
from mpilayer.rng import stream

# What is written: a megabyte.
_ROWS = (256, 1024)

_PATIENCE = 3.0
_LOOK_EVERY = 0.02


def examine(path: Path, comm: Communicator) -> Folder:
    """Return what can be done in a folder; leave nothing there. Collective."""
    tried = comm.on_root(lambda: attempt(path))
    if tried.failure or comm.size == 1:
        return tried
    return replace(tried, seen=_seen(path, comm))


def attempt(path: Path) -> Folder:
    """Return what this rank can do in a folder. Local."""
    mount, kind = mount_of(path.resolve(), read(Path("/proc/mounts")))
    locking = os.environ.get("HDF5_USE_FILE_LOCKING", "")
    found = Folder(str(path.resolve()), mount, kind, locking, space(path))
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=path) as folder:
            began = time.perf_counter()
            hdf5_failure = _failure(_write_hdf5, Path(folder) / "rows.h5")
            return replace(
                found,
                seconds=time.perf_counter() - began,
                failure=_failure(_replace, Path(folder) / "text"),
                hdf5_failure=hdf5_failure,
                lock_failure=_failure(_lock, Path(folder) / "locked.h5"),
            )
    except OSError as error:
        return replace(found, failure=reason(error))


def mount_of(path: Path, mounts: str) -> tuple[str, str]:
    """Return mount point and type of the file system of a path without links.

    ``mounts`` is the text of ``/proc/mounts``; both are empty if it does not say.
    """
    best = ("", "")
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        point = words[1].replace("\\040", " ")
        # Of two mounts on one point the later one hides the other.
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, words[2])
    return best


def _failure(work: Callable[[Path], None], path: Path) -> str:
    """Do something with a file, and return why it failed: empty if it did not."""
    try:
        work(path)
    except (OSError, DataError) as error:
        cause = error.__cause__ or error
        return reason(cause) if isinstance(cause, OSError) else str(error)
    return ""


def _replace(path: Path) -> None:
    """Replace a file in one step and flush it, as checkpoints and summaries are."""
    for content in ("old", "new"):
        files.write(path, content)
    if path.read_text() != "new":
        raise OSError("a file that was moved over another one did not replace it")


def _write_hdf5(path: Path) -> None:
    """Write a file and read it back, with the locks that mpilayer's files have."""
    rows = stream(0, "doctor").random(_ROWS, dtype=np.float32)
    with hdf5.create(path, kind="mpilayer-doctor", version=1) as file:
        file["rows"] = rows
    with hdf5.open_read(path, kind="mpilayer-doctor", version=1) as file:
        hdf5.verify_digest(file, path, DataError)


def _lock(path: Path) -> None:
    with hdf5.File(path, "w", locking=True) as file:
        file["rows"] = np.arange(3)


def _seen(path: Path, comm: Communicator) -> tuple[float | None, ...]:
    """Return after how many seconds each rank sees a file that rank 0 writes."""
    name = comm.on_root(lambda: _leave(path))
    if not name:
        return ()
    try:
        return tuple(comm.allgather(_look(path / name)))
    finally:
        if comm.rank == 0:
            with suppress(OSError):
                (path / name).unlink()


def _leave(path: Path) -> str:
    """Write a file that has its name in it; return that, empty if it fails."""
    name = f".doctor-{os.getpid()}-{time.time_ns()}"
    failure = _failure(lambda file: files.write(file, name), path / name)
    return "" if failure else name


def _look(file: Path) -> float | None:
    """Return the seconds until a file is there, whole; None if it does not come."""
    began = time.perf_counter()
    while time.perf_counter() - began < _PATIENCE:
        # Listing the folder renews what a network file system remembers of it.
        with suppress(OSError):
            list(file.parent.iterdir())
        if read(file) == file.name:
            return time.perf_counter() - began
        time.sleep(_LOOK_EVERY)
    return None
