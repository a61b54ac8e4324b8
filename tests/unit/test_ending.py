"""What a process says that an unexpected error ends."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading
from mpilayer import ending

class Exception(RuntimeError):
    __module__ = "mpi4py.MPI"

signal.signal(signal.SIGUSR2, lambda *_: os._exit(7))
told = sys.argv[1] == "told"
if told:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR2)).start()
ending.share_fate(3, end=os._exit)
raise Exception("process_vm_readv failed")
"""


@pytest.mark.parametrize(("told", "code"), [("told", 7), ("not told", 1)])
def test_an_error_of_mpi_waits_for_the_word_that_another_rank_has_died(told, code):
    line = [sys.executable, "-c", PROGRAM, told]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert result.returncode == code
    assert ("rank 3 failed" in result.stderr) == (told == "not told")
    assert ("process_vm_readv" in result.stderr) == (told == "not told")
