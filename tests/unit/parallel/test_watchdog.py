"""Beats around a ring: who hears nothing while it listens names the one before it."""

import signal
import time
from types import SimpleNamespace

import pytest

from mpilayer import ending
from mpilayer.parallel import watchdog
from mpilayer.parallel.comm import Requests, SerialCommunicator
from mpilayer.parallel.watchdog import Pulse


class Ring:
    """One of three ranks; what it sends is kept, what comes the test says."""

    rank, size = 1, 3

    def __init__(self):
        self.sent, self.coming = [], []

    def start_send(self, array, destination, tag):
        self.sent.append((destination, int(array[0])))
        return Requests()

    def start_receive(self, array, source, tag):
        assert source == 0

        def test():
            if self.coming:
                array[0] = self.coming.pop(0)
                return True
            return False

        return SimpleNamespace(test=test)

    def barrier(self):
        pass


class Ended(Exception):
    """All ranks have been ended."""


@pytest.fixture
def clock(monkeypatch):
    """Give a clock that the test moves, and no thread."""
    now = [0.0]
    monkeypatch.setattr(watchdog, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Pulse, "_tick", lambda self: None)

    def end_all(code):
        raise Ended(code)

    monkeypatch.setattr(ending, "end_all", end_all)
    before = signal.getsignal(signal.SIGURG)
    yield now
    signal.signal(signal.SIGURG, before)


def live(pulse, clock, seconds, step=1.0):
    """Let time pass, with a look at the beats after every step."""
    for _ in range(round(seconds / step)):
        clock[0] += step
        pulse.beat()


@pytest.fixture
def ring():
    return Ring()


@pytest.fixture
def pulse(ring, clock):
    return Pulse(ring, 10.0)


def test_it_beats_and_names_the_silent_one(ring, pulse, clock, capfd):
    ring.coming = [1, 1]
    live(pulse, clock, 10)
    assert ring.sent == 10 * [(2, 1)]
    with pytest.raises(Ended, match="75"):
        live(pulse, clock, 2)
    assert "mpilayer: rank 0 has sent nothing for 1" in capfd.readouterr().err


def test_one_beat_in_time_is_enough(ring, pulse, clock):
    for _ in range(5):
        live(pulse, clock, 9)
        ring.coming = [1]
    assert len(ring.sent) == 45


def test_its_own_sleep_is_no_silence_of_others(pulse, clock):
    live(pulse, clock, 3000, step=1000.0)
    with pytest.raises(Ended):
        live(pulse, clock, 12)


def test_at_its_end_it_waits_for_the_last_beat_and_sends_one(ring, pulse, clock):
    ring.coming = [1, 1, 0]
    pulse.close()
    assert ring.coming == []
    live(pulse, clock, 100)
    assert ring.sent == [(2, 0)]


def test_one_rank_alone_has_no_watch(clock):
    before = signal.getsignal(signal.SIGURG)
    watchdog.watch(SerialCommunicator(), 1.0)
    assert signal.getsignal(signal.SIGURG) is before


def test_the_thread_makes_the_main_thread_beat(monkeypatch):
    ring, before = Ring(), signal.getsignal(signal.SIGURG)
    monkeypatch.setattr(watchdog, "_BEAT_SECONDS", 0.01)
    pulse = Pulse(ring, 100.0)
    until = time.monotonic() + 30
    while len(ring.sent) < 3:
        assert time.monotonic() < until
    ring.coming = [0]
    pulse.close()
    assert ring.sent[-1] == (2, 0)
    signal.signal(signal.SIGURG, before)
