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
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
connection.connect(chr(0) + name)
connection.sendall(struct.pack("i", number))
for run in sys.argv[5:]:
    connection.sendall(b"R" + struct.pack("i", len(run)) + run.encode())
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
                [sys.executable, "-c", RANK, name, str(i), last, str(seconds), *named]
            )
            for i, (last, seconds, *named) in enumerate(ranks)
        ]
        said = guard.communicate(timeout=30)[1]
        codes = [process.wait(timeout=30) for process in processes]
        return said, codes, processes

    return run


@pytest.mark.parametrize("runs", [(), ("runs/a", "")])
def test_a_farewell_is_no_accident(guarded, runs):
    said, codes, _ = guarded(("farewell", 0.5, *runs), ("farewell", 0.6))
    assert (said, codes) == ("", [0, 0])


@pytest.mark.parametrize(("runs", "told"), [(["runs/a"], "runs/a"), (["a", ""], "DIR")])
def test_a_rank_that_dies_is_named_with_its_run_and_the_others_end(guarded, runs, told):
    said, codes, processes = guarded(("farewell", 60), ("nothing", 0.5, *runs))
    pid = processes[1].pid
    assert said.startswith(f"mpilayer: rank 1 (process {pid} on here) has died;")
    assert said.endswith(f"checkpoint with 'mpilayer resume {told}'.\n")
    # Its default action ends a process that does not listen to the signal.
    assert codes[0] == -sentinel.SIGNAL


def test_ranks_that_died_together_are_all_named(monkeypatch, capsys):
    """A launcher has killed rank 0 before the sentinel could look at rank 1."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        name = f"test-{os.getpid()}-{time.monotonic_ns()}"
        listener.bind("\0" + name)
        listener.listen(4)
        for rank in (0, 1):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                other.connect("\0" + name)
                other.sendall(sentinel._NUMBER.pack(rank))
        monkeypatch.setattr(sentinel, "_wait_for", lambda *_: None)
        sentinel.guard(listener, "here")
    me = f"(process {os.getpid()} on here)"
    said = capsys.readouterr().err
    assert said.startswith(f"mpilayer: rank 0 {me} and rank 1 {me} have died; ending")
