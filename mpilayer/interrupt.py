"""Requests to end: signals set a flag that training looks at; standard library only.

While a block of :func:`listening` runs, SIGTERM, SIGUSR1 and the first SIGINT only note
their name. Training looks at :func:`requested` where it can save. If that takes longer
than the time of grace, the job ends at once: its last checkpoint is whole.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_RESUME = 75
"""Exit code of a run that was asked to end and can be resumed (EX_TEMPFAIL)."""

GRACE_SECONDS = 60.0
"""Time from a request until a job that has not saved ends without."""

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_requested = ""


class Interrupted(Exception):
    """All ranks have saved and end, because one was asked to; the text says how.

    It is not an error: the program ends with ``EXIT_RESUME``.
    """


def requested() -> str:
    """Return the name of the signal that asked this process to end, or nothing."""
    return _requested


@contextmanager
def listening(
    give_up: Callable[[], object], grace: float = GRACE_SECONDS
) -> Iterator[None]:
    """Note signals instead of ending while the block runs. Local.

    ``give_up`` ends the whole job; called ``grace`` seconds after the first signal.
    """
    global _requested
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _requested = ""
    former = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, _: object) -> None:
        global _requested
        _requested = _requested or signal.Signals(number).name
        # The second Ctrl-C is not to be discussed.
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, former[signal.SIGINT])
        signal.setitimer(signal.ITIMER_REAL, grace)

    def end(_: int, __: object) -> None:
        sys.stderr.write(
            f"mpilayer: not saved within {grace:g} s after {_requested}; ending with "
            "the last checkpoint.\n"
        )
        give_up()

    alarm = signal.signal(signal.SIGALRM, end)
    for number in _SIGNALS:
        signal.signal(number, note)
    # What is left after training is short, and worth more than a warning of the end:
    # its default would kill the process, which may have saved a moment ago.
    needless = {signal.SIGUSR1}
    try:
        yield
    except Interrupted:
        needless.add(signal.SIGTERM)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        for number, handler in former.items():
            idle = number in needless and handler == signal.SIG_DFL
            signal.signal(number, _do_nothing if idle else handler)


def _do_nothing(_: int, __: object) -> None:
    """Take no notice; unlike SIG_IGN, programs that this one starts do not inherit."""
