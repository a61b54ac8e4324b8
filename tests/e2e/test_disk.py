"""Disks that are full, or may not be written, while a run is on."""

import os
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from mpilayer.store import checkpoint
from tests.support import launch
from tests.support.breaks import METRICS, OFTEN, slowly
from tests.support.small import contents

# What fails in which call, in every kind of training, is in ``tests/robust``.
CASES = [("pretrain", 2), ("finetune", 0), ("sparse", 2)]


def mount(*arguments):
    """Mount a file system, and return the exit code."""
    return subprocess.run(
        ["mount", *map(str, arguments)], capture_output=True
    ).returncode


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or mount("-t", "tmpfs", "-o", "size=600k", "tmpfs", folder):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(run):
    """Leave no room."""
    ballast = run.parent / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    yield
    ballast.unlink()


@contextmanager
def read_only(run):
    """Let nobody write into a folder, not even root."""
    if os.geteuid() or mount("--bind", run, run):
        pytest.skip("needs the right to mount a file system")
    try:
        # Refused while a file is open for writing by this way.
        while mount("-o", "remount,bind,ro", run):
            time.sleep(0.002)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(run)], check=True)


def whole_files(run):
    """Return the checkpoints with their digests, without what is being written."""
    found = contents(run / "checkpoints")
    return {name: digest for name, digest in found.items() if ".tmp" not in name}


def break_off(trainings, kind, run, ranks, trouble, *words):
    """Let trouble come while a run is on; demand a message, then and afterwards.

    There is no way to go on either; what it would go on from stays.
    """
    # So slowly that a busy machine brings the trouble before the end.
    options = {"ranks": ranks, "program": slowly(0.15)}
    with trainings.started(kind, run, OFTEN, **options) as job:
        job.wait_for(run / "metrics" / f"{METRICS[kind]}.jsonl", 3)
        with trouble(run):
            first = job.finish()
            before = whole_files(run)
            results = [first, launch.run("resume", run, ranks=ranks)]
            assert whole_files(run).items() <= before.items()
    for result in results:
        assert result.code == 2, str(result)
        assert "mpilayer: error:" in result.stderr, str(result)
        assert all(word in result.stderr for word in words), str(result)
        assert "Traceback" not in result.stderr, str(result)
        assert "failed; ending all ranks" not in result.stderr, str(result)
    for path in (run / "checkpoints").glob("[!.]*.h5"):
        checkpoint.load(path)
    launch.run("resume", run, ranks=ranks).ok()
    trainings.assert_whole(run, kind, ranks * (kind != "pretrain"))


@pytest.mark.parametrize(("kind", "ranks"), CASES)
def test_a_full_disk(trainings, small_disk, kind, ranks):
    words = "no space left on device"
    break_off(trainings, kind, small_disk / "run", ranks, full, words)


@pytest.mark.parametrize(("kind", "ranks"), [(kind, 2 - n) for kind, n in CASES])
def test_a_disk_that_becomes_read_only(trainings, tmp_path, kind, ranks):
    run = tmp_path / "run"
    words = [f"{run}/", "must be writable; read-only file system"]
    break_off(trainings, kind, run, ranks, read_only, *words)
