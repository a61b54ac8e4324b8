"""A small process on each host that says which rank has died.

Launchers notice that a process has died, but not which rank it was, and some wait for
the others for ever. Every rank holds a connection to the sentinel of its host, says in
which run it works, and says a word before it ends by itself. A connection that breaks
without is that of the rank that died first, since events come in their order. The
sentinel prints its number, lets a rank that is left abort the job, and after a while
ends those of its host itself. Which processes these are, the kernel says: the socket is
open to all users of the host, and only its owner's ranks are heard.

``python sentinel.py SOCKET HOST`` is the program; it imports the standard library only,
for it must be there at once.
"""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_NUMBER = struct.Struct("i")
_CREDENTIALS = struct.Struct("iii")  # struct ucred: pid, uid, gid
_FAREWELL = b"."
_RUN = b"R"
_CONNECT_SECONDS = 10.0
# Between a death and the end of the ranks that are left on the host.
_PATIENCE = 5.0
# A launcher that is told to abort drops what it has not passed on yet.
_HEARD_SECONDS = 0.3

SIGNAL = signal.SIGUSR2
"""Tells a rank that another one has died."""


class Watched:
    """The connection of a rank, which this process is, to the sentinel of its host."""

    def __init__(self, rank: int, connection: socket.socket) -> None:
        self._connection = connection
        connection.sendall(_NUMBER.pack(rank))

    def say_farewell(self) -> None:
        """Say that what follows is not an accident: all ranks end, well or not."""
        with suppress(OSError):
            self._connection.sendall(_FAREWELL)

    def name_run(self, run: str) -> None:
        """Say in which run this rank is at work; empty: in none."""
        text = os.fsencode(run)
        with suppress(OSError):
            self._connection.sendall(_RUN + _NUMBER.pack(len(text)) + text)


def start(host: str) -> str:
    """Start the sentinel of this host; return the name of its socket. Local."""
    name = f"mpilayer-{os.getpid()}-{time.monotonic_ns()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + name)
    listener.listen(1024)
    # The ranks' standard input is not the sentinel's, nor their terminal's Ctrl-C.
    process = subprocess.Popen(
        [sys.executable, "-ISs", str(Path(__file__)), str(listener.fileno()), host],
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    # Nobody waits for it: it outlives the ranks, and would be warned of as forgotten.
    process.returncode = 0
    listener.close()
    return name


def watch(name: str, rank: int, abort: Callable[[], object]) -> Watched:
    """Connect this rank to the sentinel that ``start`` has named. Local.

    ``abort`` ends all ranks, when one has died. Without a sentinel: OSError.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_SECONDS)
    connection.connect("\0" + name)
    signal.signal(SIGNAL, lambda *_: abort())
    return Watched(rank, connection)


class _Rank(NamedTuple):
    connection: socket.socket
    number: int
    pid: int


def guard(listener: socket.socket, host: str) -> None:
    """Wait until a rank says farewell, or has died. What the program does."""
    watched: dict[int, _Rank] = {}
    run = ""
    events = select.epoll()
    events.register(listener, select.EPOLLIN)
    listener.settimeout(_CONNECT_SECONDS)
    deadline = time.monotonic() + _CONNECT_SECONDS
    while watched or time.monotonic() < deadline:
        for number, _ in events.poll(timeout=1.0):
            if number == listener.fileno():
                if (rank := _welcome(listener)) is not None:
                    watched[rank.connection.fileno()] = rank
                    events.register(rank.connection, select.EPOLLIN)
                    deadline = 0.0
                continue
            connection = watched[number].connection
            word = _read(connection)
            if word == _RUN:
                run = _read_run(connection)
                continue
            if not word:
                # A launcher ends the others at once: who was first cannot be seen then.
                dead = {n for n, rank in watched.items() if _is_closed(rank.connection)}
                gone = [watched.pop(n) for n in sorted({number, *dead})]
                _report(gone, host, [rank.pid for rank in watched.values()], run)
            return


def _welcome(listener: socket.socket) -> _Rank | None:
    """Return a rank that has come; None for another user's, or a broken word."""
    connection, _ = listener.accept()
    option = socket.SO_PEERCRED
    found = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(found)
    ours = user == os.geteuid() and pid > 0
    if ours and (hello := _read(connection, _NUMBER.size)):
        return _Rank(connection, _NUMBER.unpack(hello)[0], pid)
    connection.close()
    return None


def _read_run(connection: socket.socket) -> str:
    length = _read(connection, _NUMBER.size)
    return os.fsdecode(_read(connection, *_NUMBER.unpack(length))) if length else ""


def _read(connection: socket.socket, size: int = 1) -> bytes:
    """Read so many bytes; none if the connection breaks before."""
    content = b""
    with suppress(OSError):
        while len(content) < size:
            piece = connection.recv(size - len(content))
            if not piece:
                break
            content += piece
    return content if len(content) == size else b""


def _is_closed(connection: socket.socket) -> bool:
    """Tell whether the other end is gone, and has said all that it had to."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _report(gone: list[_Rank], host: str, left: list[int], run: str) -> None:
    """Say which ranks, each with its process, are gone; end those that are left."""
    names = []
    for rank in gone:
        rank.connection.close()
        names.append(f"rank {rank.number} (process {rank.pid} on {host})")
    verb = "has" if len(gone) == 1 else "have"
    with suppress(OSError):
        sys.stderr.write(
            f"mpilayer: {' and '.join(names)} {verb} died; ending all ranks. Go on "
            f"from the last checkpoint with 'mpilayer resume {run or 'DIR'}'.\n"
        )
        sys.stderr.flush()
    _wait_for(left, _HEARD_SECONDS)
    # One is enough to abort the job; those of its host must end in any case.
    for number, seconds in ((SIGNAL, _PATIENCE), (signal.SIGKILL, 0.0)):
        for process in left[:1] if number == SIGNAL else left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        _wait_for(left, seconds)


def _wait_for(processes: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(map(lives, processes)) and time.monotonic() < end:
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Tell whether a process is there; ended ones may stay, where nobody reaps them."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return words[0] not in "ZX"


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _listener:
        guard(_listener, sys.argv[2])
