"""The communicator of one process, and waiting."""

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.parallel import comm
from mpilayer.parallel.comm import SerialCommunicator, wait_until

SERIAL = SerialCommunicator()


def test_one_rank():
    assert (SERIAL.rank, SERIAL.size) == (0, 1)
    assert SERIAL.allgather({"a": 1}) == [{"a": 1}]
    assert SERIAL.on_root(lambda: 3) == SERIAL.everywhere(lambda: 3) == 3
    SERIAL.barrier()
    values = np.arange(3.0)
    assert SERIAL.start_sum(values).test()
    assert SERIAL.start_max(values).test()
    assert values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("collectively", [SERIAL.on_root, SERIAL.everywhere])
def test_errors_are_everybody_s(collectively):
    def fail():
        raise ConfigError("wrong")

    with pytest.raises(ConfigError, match="wrong") as caught:
        collectively(fail)
    assert caught.value.collective
    with pytest.raises(ZeroDivisionError):
        collectively(lambda: 1 / 0)


def test_there_is_nobody_else():
    array = np.zeros(1)
    with pytest.raises(RuntimeError, match="nobody to send to"):
        SERIAL.start_send(array, 0, 1)
    with pytest.raises(RuntimeError, match="nobody to receive from"):
        SERIAL.start_receive(array, 0, 1)


class Clock:
    """A clock that runs on only when somebody sleeps, or offers the core."""

    def __init__(self, monkeypatch):
        self.now, self.slept, self.offered = 0.0, [], 0
        monkeypatch.setattr(comm.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(comm.time, "sleep", self.sleep)
        monkeypatch.setattr(comm.os, "sched_yield", self.offer)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def offer(self):
        self.offered += 1
        self.now += 1e-5


@pytest.mark.parametrize("eager", [0.0, 0.01])
def test_waiting_leaves_the_core(monkeypatch, eager):
    clock = Clock(monkeypatch)
    waited = wait_until(lambda: clock.now > 0.4, eager)
    assert waited == clock.now == pytest.approx(0.4, abs=0.01)
    assert clock.offered == pytest.approx(eager / 1e-5, abs=2)
    assert sum(clock.slept) == pytest.approx(waited - eager, abs=1e-4)
    # Asking is work, too: not again at once, and seldom in a long wait.
    assert min(clock.slept) > 1e-5
    assert len(clock.slept) < 400


def test_what_is_ready_is_not_waited_for(monkeypatch):
    clock = Clock(monkeypatch)
    asked = []

    def ready():
        asked.append(0)
        return len(asked) > 3

    assert wait_until(lambda: True) == 0
    assert 0 < wait_until(ready, eager=1.0) < 1e-4
    assert len(asked) == 4
    assert clock.slept == []


def test_a_wait_with_a_limit(monkeypatch):
    clock = Clock(monkeypatch)
    waited = wait_until(lambda: False, at_most=2.0)
    assert waited == clock.now == pytest.approx(2, abs=0.01)


def test_an_error_ends_the_wait():
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: bool(1 / 0))
