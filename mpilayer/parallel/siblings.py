"""The processes that a launcher started together on this host, before MPI joins them.

MPICH's launcher does not notice a process that exits before MPI has joined it to the
others, and MPI itself waits for it for ever. So the ranks of a host first meet: each
opens a door that has its process's number, and waits for those of its siblings. If one
is gone, all ranks end. Other launchers notice by themselves.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpilayer import ending
from mpilayer.environment import read
from mpilayer.parallel.sentinel import lives

_LAUNCHER = "hydra_pmi_proxy"
_PAUSE = 0.02
# The launcher may be busy starting them.
_MISSING_SECONDS = 2.0
# Whoever does not come in this time is another program, which has no door.
_PATIENCE = 60.0


@contextmanager
def met() -> Iterator[None]:
    """Begin the block when all siblings have come to it. Collective on their host.

    Ends all ranks, with a message of the first that is left, if one has ended before.
    """
    parent, expected = os.getppid(), os.environ.get("MPI_LOCALNRANKS", "")
    name = read(Path(f"/proc/{parent}/comm")).strip()
    if not expected.isdigit() or name != _LAUNCHER:
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        with suppress(OSError):  # somebody has taken the name: it only takes longer
            door.bind(_address(os.getpid()))
            door.listen(1024)
        _wait_for_all(parent, int(expected))
        yield


def _wait_for_all(parent: int, expected: int) -> None:
    complete = began = time.monotonic()
    while (now := time.monotonic()) < began + _PATIENCE:
        alive = _children(parent)
        if os.getpid() not in alive:
            return  # this system does not tell
        if len(alive) >= expected:
            complete = now
            if all(map(_is_open, alive)):
                return
        elif now > complete + _MISSING_SECONDS and os.getpid() == min(alive):
            ending.say(
                f"mpilayer: {expected - len(alive)} of {expected} processes of this "
                "host ended before MPI joined the ranks; ending all ranks. What they "
                "have printed may say why.\n"
            )
            ending.end_all(1)
        time.sleep(_PAUSE)


def _children(pid: int) -> list[int]:
    found = read(Path(f"/proc/{pid}/task/{pid}/children")).split()
    return [child for child in map(int, found) if lives(child)]


def _address(pid: int) -> str:
    return f"\0mpilayer-joins-{pid}"


def _is_open(pid: int) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.setblocking(False)
        try:
            visitor.connect(_address(pid))
        except BlockingIOError:
            return True  # so many have come already
        except OSError:
            return False
    return True
