"""Processes that keep cores busy end with the one that has started them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLED = """
import functools, os, signal, time
from mpilayer.plan.ghost import Company
company = Company(1, functools.partial, time.sleep, 0.01)
print(company._processes[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_company_that_is_stopped_ends_with_a_killed_process():
    command = [sys.executable, "-c", KILLED]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    status = Path(f"/proc/{int(told.stdout)}/stat")
    until = time.monotonic() + 10
    while status.exists() and status.read_text().split()[2] != "Z":
        assert time.monotonic() < until, status.read_text()
        time.sleep(0.05)
