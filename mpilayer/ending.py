"""How this process ends, and all ranks with it; standard library only.

A rank that ends alone must not leave the others waiting. Launchers notice one that a
signal ends; MPICH's does not notice one that exits before MPI has joined it to the
others. So an error that nobody expected, and Ctrl-C, end a process by a signal until
then, and by MPI from then on.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

EXIT_INTERRUPTED = 130

# A launcher that is told to end everything drops what it has not passed on yet.
_HEARD_SECONDS = 0.3

# MPI fails on the others when a rank dies, such as MPICH that copies from its memory:
# the sentinel, or the launcher, knows better what happened, and ends this process.
_DEATH_IS_TOLD_SECONDS = 2.0


def by_signal(_: int) -> None:
    """End this process so that every launcher notices."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


_rank = 0
_end: Callable[[int], object] | None = None


def share_fate(rank: int, end: Callable[[int], object] = by_signal) -> None:
    """Let this process, a rank, end all with an exit code when it fails. Local."""
    global _rank, _end
    _rank, _end = rank, end
    sys.excepthook = _fail
    if is_joined() and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, lambda *_: end_all(EXIT_INTERRUPTED))


def is_joined() -> bool:
    """Tell whether MPI has joined several ranks, which it can end."""
    return _end not in (None, by_signal)


def end_all(code: int) -> NoReturn:
    """End this process, and with it all ranks, at once; also from signal handlers."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or in the middle of writing
            stream.flush()
    if _end is not None:
        time.sleep(_HEARD_SECONDS)
        _end(code)
    os._exit(code)


def say(text: str) -> None:
    """Write lines to standard error, even in the middle of writing others."""
    with suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))


def _fail(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say which rank has met an error that nobody expected, and end all."""
    if issubclass(kind, RuntimeError) and "decrement id ref count" in str(error):
        # h5py drops this one: a full disk, of which the writer has its own error.
        return
    if kind.__module__ == "mpi4py.MPI":
        time.sleep(_DEATH_IS_TOLD_SECONDS)
    text = "".join(traceback.format_exception(kind, error, trace))
    say(f"mpilayer: rank {_rank} failed; ending all ranks.\n{text}")
    end_all(1)
