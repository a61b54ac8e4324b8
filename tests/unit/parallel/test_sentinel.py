"""The sentinel: hears every rank, names the first that dies."""

import os
import socket
import subprocess
import sys
import time

import pytest

from mpilayer.parallel import sentinel

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs Linux"
)

RANK = """
import socket, struct, sys, time
name, number, last = sys.argv[1], int(sys.argv[2]), sys.argv[3]
import os
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
connection.connect(chr(0) + name)
connection.sendall(struct.pack("ii", number, os.getpid()))
time.sleep(float(sys.argv[4]))
if last == "farewell":
    try:
        connection.sendall(b".")
    except OSError:
        pass  # another rank was first, and the sentinel has gone
time.sleep(0.3)
"""


@pytest.fixture
def guarded(tmp_path):
    """Give a function that starts a sentinel and ranks, and returns what it says."""

    def run(*ranks):
        name = f"test-{os.getpid()}-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind("\0" + name)
            listener.listen(16)
            guard = subprocess.Popen(
                [sys.executable, sentinel.__file__, str(listener.fileno()), "here"],
                pass_fds=[listener.fileno()],
                stderr=subprocess.PIPE,
                text=True,
            )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, name, str(i), last, str(seconds)]
            )
            for i, (last, seconds) in enumerate(ranks)
        ]
        said = guard.communicate(timeout=30)[1]
        codes = [process.wait(timeout=30) for process in processes]
        return said, codes, processes

    return run


def test_a_farewell_is_no_accident(guarded):
    said, codes, _ = guarded(("farewell", 0.5), ("farewell", 0.6))
    assert said == ""
    assert codes == [0, 0]


def test_a_rank_that_dies_is_named_and_the_others_end(guarded):
    said, codes, processes = guarded(("farewell", 60), ("nothing", 0.5))
    pid = processes[1].pid
    assert said.startswith(f"mpilayer: rank 1 (process {pid} on here) has died;")
    assert "mpilayer resume" in said
    # Its default action ends a process that does not listen to the signal.
    assert codes[0] == -sentinel.SIGNAL
