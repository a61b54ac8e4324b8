"""Another user of the host talks to the sentinel: nobody listens."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from tests.support import launch
from tests.support.small import write_pixels

NOBODY = 65534

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0,
    reason="needs Linux, and root to become another user",
)


def as_a_stranger(work):
    """Do some work in a process of another user; demand that it could."""
    child = os.fork()
    if child == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def addresses(run):
    """Return the names of the sockets of the sentinels that look after a run."""
    sockets = Path("/proc/net/unix").read_text()
    found = re.findall(r"@(mpilayer-(\d+)-\d+)$", sockets, re.MULTILINE)
    return {name for name, pid in found if str(run) in command_line(pid)}


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_stranger_cannot_end_a_process(tmp_path):
    data, run = write_pixels(tmp_path / "tiny.h5"), tmp_path / "run"
    options = ["--layers", "8,6", "--minibatch", 50, "--epochs", 10**6]
    victim = subprocess.Popen(["sleep", "600"])
    words = (struct.pack("ii", 7, victim.pid), struct.pack("i", 7), b"")

    def talk():
        for name, said in product(names, words):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect("\0" + name)
                with suppress(BrokenPipeError):  # it may have hung up by now
                    connection.sendall(said)

    try:
        line = ["pretrain", data, "--run", run, *options]
        with launch.started(*line, ranks=2, limit=120) as job:
            job.wait_for(run / "metrics" / "layer-2.jsonl")
            names = addresses(run)
            assert names
            as_a_stranger(talk)
            time.sleep(1.5)
            lines = (run / "metrics" / "layer-2.jsonl").read_text().count("\n")
            job.wait_for(run / "metrics" / "layer-2.jsonl", lines + 1)
            assert victim.poll() is None
            job.signal(signal.SIGINT)
            result = job.finish()
        if not launch.is_open_mpi():  # whose launcher ends the ranks at once
            assert result.code == 75, str(result)
        assert "has died" not in result.stderr
    finally:
        victim.kill()
        victim.wait()
