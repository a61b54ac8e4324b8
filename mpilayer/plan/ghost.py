"""One rank of many, whose others are not there; and others that only keep cores busy.

``python -m mpilayer.plan.ghost`` is such another one: it works at what it is sent until
the process that has started it ends, or ends it.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mpilayer.parallel.comm import SerialCommunicator

Work = Callable[[], object]

_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class Ghost(SerialCommunicator):
    """The first of so many ranks, without the others: its own work, and no waiting.

    What all would tell one another is what it says itself.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def allgather(self, item: Any) -> list[Any]:
        """Return what it says, as every rank's word."""
        return [item] * self.size


class Company:
    """Processes beside this one that do the same work, as ranks of a host would.

    ``make`` makes it of the arguments, in each process; all of them can be pickled.
    """

    def __init__(self, size: int, make: Callable[..., Work], *arguments: Any) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(size)
        ]
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(pickle.dumps((make, arguments)))
                process.stdin.close()
        for process in self._processes:
            if process.stdout is not None:
                process.stdout.readline()  # it is at work
        self._send(signal.SIGSTOP)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let them work while the block runs."""
        self._send(signal.SIGCONT)
        try:
            yield
        finally:
            self._send(signal.SIGSTOP)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _send(self, number: int) -> None:
        for process in self._processes:
            process.send_signal(number)


def main() -> None:
    """Work until nobody is there any more who wants it."""
    with suppress(OSError, AttributeError):  # stopped, it would see nothing of that
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    parent = os.getppid()
    make, arguments = pickle.load(sys.stdin.buffer)
    work: Work = make(*arguments)
    work()
    sys.stdout.write("at work\n")
    sys.stdout.flush()
    while os.getppid() == parent:
        work()


if __name__ == "__main__":
    main()
