"""What does not fit is refused before it is held."""

import subprocess
import sys

import pytest

from mpilayer import memory
from mpilayer.errors import DataError

LIMITED = """
from mpilayer import memory

memory.available = lambda: 200_000_000
memory.limit_process()
print(len(bytearray(100_000_000)))
try:
    bytearray(300_000_000)
except MemoryError:
    print("refused")
"""


def test_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2 * 10**9)
    memory.demand(2 * 10**9, "a.h5")
    with pytest.raises(DataError, match=r"a\.h5 must fit .* 2.5 GB, and 2 GB are"):
        memory.demand(2_500_000_000, "a.h5")
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.demand(10**30, "a.h5")


def test_a_process_with_a_limit():
    command = [sys.executable, "-c", LIMITED]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["100000000", "refused"]
