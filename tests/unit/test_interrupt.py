"""Signals that ask to end."""

import os
import signal
import threading
import time

import pytest

from mpilayer.interrupt import Interrupted, listening, requested

ALL = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGALRM)


class SecondError(Exception):
    """What the former handler of SIGINT raises."""


@pytest.fixture
def former():
    """Give handlers of this test's own, and count what reaches them."""
    seen = []

    def note(number, _):
        seen.append(number)
        if number == signal.SIGINT:
            raise SecondError

    before = {number: signal.signal(number, note) for number in ALL}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers):
    """Send signals to this process; their handlers have run when this returns."""
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(0)


def handlers():
    return [signal.getsignal(number) for number in ALL]


def never():
    pytest.fail("the time of grace is not over")


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGTERM],
        [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1],
        [signal.SIGINT],
        [signal.SIGTERM, signal.SIGINT],
    ],
)
def test_signals_only_set_a_flag_and_the_first_is_the_reason(former, signals):
    before = handlers()
    with listening(never, grace=0.05):
        assert requested() == ""
        send(*signals)
        assert requested() == signals[0].name
    assert handlers() == before
    # What follows may still ask why it has ended; no alarm rings any more.
    assert requested() == signals[0].name
    time.sleep(0.1)
    assert former == []
    with listening(never):
        assert requested() == ""


def test_the_second_sigint_ends_at_once(former):
    before = handlers()
    with pytest.raises(SecondError), listening(never):
        send(signal.SIGINT, signal.SIGINT)
    assert former == [signal.SIGINT]
    assert handlers() == before


def test_the_time_of_grace(former, capsys):
    calls = []
    with listening(lambda: calls.append(0), grace=0.05):
        send(signal.SIGTERM)
        assert calls == []
        time.sleep(0.2)
        assert calls == [0]
    assert "not saved within 0.05 s after SIGTERM" in capsys.readouterr().err
    assert former == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_that_has_saved_is_not_killed_by_another_signal(former, number):
    for default in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(default, signal.SIG_DFL)
    with listening(never):
        pass
    send(signal.SIGUSR1)  # a warning after training is not heard
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(Interrupted), listening(never):
        raise Interrupted
    send(number)


def test_a_block_within_a_block(former):
    before = handlers()
    with listening(never):
        middle = handlers()
        with listening(never):
            send(signal.SIGTERM)
        assert handlers() == middle
        assert requested() == "SIGTERM"
    assert handlers() == before
    assert former == []


def test_a_thread_leaves_the_handlers_alone(former):
    before, found = handlers(), []

    def work():
        with listening(never):
            found.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == before == handlers()
