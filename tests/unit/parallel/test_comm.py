"""The communicator of one process, and waiting."""

import time

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.parallel.comm import SerialCommunicator, wait_until

SERIAL = SerialCommunicator()


def test_one_rank():
    assert (SERIAL.rank, SERIAL.size) == (0, 1)
    assert SERIAL.allgather({"a": 1}) == [{"a": 1}]
    assert SERIAL.on_root(lambda: 3) == SERIAL.everywhere(lambda: 3) == 3
    SERIAL.barrier()
    values = np.arange(3.0)
    assert SERIAL.start_sum(values).test()
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


@pytest.mark.parametrize("eager", [0.0, 0.01])
def test_waiting_leaves_the_core(eager):
    began, used = time.perf_counter(), time.process_time()
    waited = wait_until(lambda: time.perf_counter() - began > 0.4, eager)
    used = time.process_time() - used
    assert waited == pytest.approx(time.perf_counter() - began, abs=0.1)
    assert waited > 0.39
    assert used - eager < 0.1 * waited


def test_what_is_ready_is_not_waited_for():
    asked = []

    def ready():
        asked.append(0)
        return len(asked) > 3

    assert wait_until(lambda: True) < 0.01
    assert wait_until(ready, eager=1.0) < 0.1
    assert len(asked) == 4


def test_an_error_ends_the_wait():
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: bool(1 / 0))
