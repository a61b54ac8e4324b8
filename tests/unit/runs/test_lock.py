"""One launch at a time may write into a run."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from mpilayer.errors import CheckpointError, ConfigError, DataError, FileError
from mpilayer.interrupt import Interrupted
from mpilayer.runs import session as module
from mpilayer.runs.directory import LOCK
from mpilayer.runs.session import RunLock, at_work, holding
from tests.support.runs import pretrain
from tests.unit.runs.conftest import STACK, make_session

HOLD = """
import sys
from pathlib import Path
from mpilayer.runs.session import holding
from tests.unit.runs.conftest import make_session
with holding(Path(sys.argv[1]), make_session()):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hasty(monkeypatch):
    """Wait for nobody."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)


@pytest.fixture
def holder(tmp_path):
    """Give a process that holds a run, until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=module.__file__.partition("/mpilayer/runs")[0],
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.kill()


def enter(run, session=None):
    with holding(run, session or make_session()):
        pass


def test_the_holder_is_named_until_it_is_killed(holder, hasty, tmp_path):
    run = tmp_path / "run"
    words = (
        f"only one launch at a time may work in a run; process {holder.pid} on "
        f"{socket.gethostname()} works in {run}. Wait until it has ended, or end it."
    )
    for _ in range(2):
        with pytest.raises(CheckpointError) as caught:
            enter(run)
        assert str(caught.value) == words
        assert caught.value.collective
        assert at_work(run)
    assert [p.name for p in run.iterdir()] == [LOCK]
    holder.kill()
    holder.wait()
    assert (run / LOCK).exists()
    assert at_work(run) is False
    enter(run)
    assert not (run / LOCK).exists()
    assert at_work(run) is False
    with holding(run, make_session()):
        assert at_work(run) is False  # nobody else


def no_locks(number):
    """Return what a file system without locks does."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


def test_nobody_knows_who_is_at_work(monkeypatch, tmp_path):
    path = tmp_path / LOCK
    for holder, found in (("elsewhere", None), (socket.gethostname(), False)):
        path.write_text(f"{holder} 17")
        assert at_work(tmp_path) is found
    assert at_work(tmp_path / "none") is None
    monkeypatch.setattr(fcntl, "flock", no_locks(errno.ENOLCK))
    assert at_work(tmp_path) is None


def test_who_ends_soon_is_waited_for(holder, tmp_path):
    session = make_session()
    timer = threading.Timer(0.5, holder.stdin.close)
    timer.start()
    began = time.monotonic()
    enter(tmp_path / "run", session)
    assert 0.4 < time.monotonic() - began < module.PATIENCE
    (said,) = session.said
    assert said == f"waiting for another launch in {tmp_path / 'run'} to end"
    timer.join()


def test_a_rank_that_outlives_rank_0_holds_on(hasty, tmp_path):
    """Ranks die one after the other; the last may still be writing."""
    first, other = RunLock(tmp_path), RunLock(tmp_path)
    assert first.take()
    other.share()
    first.release(remove=False)
    with pytest.raises(CheckpointError, match="only one launch"):
        enter(tmp_path)
    other.release(remove=True)
    enter(tmp_path)


def test_what_was_there_is_left_as_it_was(tmp_path):
    for run in (tmp_path, tmp_path / "a" / "b" / "run"):
        enter(run)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError), holding(tmp_path / "run", make_session()):
        raise ConfigError("wrong")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alone", [True, False])
def test_the_file_stays_where_others_may_still_write(tmp_path, alone):
    class Two:
        rank, size = 0, 2

        def on_root(self, work):
            return work()

    session = make_session(comm=None if alone else Two())
    for error, gone in (
        (DataError("full"), alone),
        (RuntimeError("defect"), alone),
        (Interrupted("saved"), True),
    ):
        with pytest.raises(type(error)), holding(tmp_path, session):
            raise error
        assert (tmp_path / LOCK).exists() != gone


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(monkeypatch, tmp_path, number):
    monkeypatch.setattr(fcntl, "flock", no_locks(number))
    enter(tmp_path)
    with holding(tmp_path, make_session()):
        enter(tmp_path)


def test_a_file_that_was_removed_meanwhile_is_not_held(monkeypatch, tmp_path):
    flock, path = fcntl.flock, tmp_path / LOCK

    def late(file, kind):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with holding(tmp_path, make_session()):
        assert path.exists()


RESUME = "go on with 'mpilayer resume RUN'."
AGAIN = "go on with the same command and --resume auto."


@pytest.mark.parametrize(
    ("number", "start", "end"),
    [
        *((n, "writable", RESUME) for n in (errno.EROFS, errno.EDQUOT, errno.ENOSPC)),
        (errno.EIO, "usable", AGAIN),
    ],
)
def test_errors_of_files_are_told(tmp_path, number, start, end):
    if end == RESUME:
        (tmp_path / "config.toml").touch()
    with pytest.raises(FileError) as caught, holding(tmp_path, make_session()):
        raise OSError(number, "", "a/file")
    words = f"a/file must be {start}; {os.strerror(number).lower()}"
    assert str(caught.value).startswith(words)
    assert str(caught.value).endswith(end.replace("RUN", str(tmp_path)))


@pytest.mark.parametrize("kind", [ConnectionResetError, ZeroDivisionError])
def test_other_errors_pass(tmp_path, kind):
    with pytest.raises(kind), holding(tmp_path, make_session()):
        raise kind


@pytest.mark.parametrize("name", [LOCK, "metrics", "monitor/a.npy", "config.toml"])
def test_links_in_a_run_are_refused(tmp_path, name):
    """But the run itself may be one."""
    mine, run = tmp_path / "mine", tmp_path / "run"
    mine.write_text("mine")
    run.mkdir()
    (tmp_path / "link").symlink_to(run)
    with holding(tmp_path / "link", make_session()):
        assert (run / LOCK).exists()
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(mine)
    with pytest.raises(CheckpointError, match=f"{name} must lie in the run itself"):
        enter(run)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_killed_launch_left_the_file_alone(small, tmp_path, goes_on):
    """Such a folder is new, with and without ``--resume auto``."""
    (tmp_path / LOCK).write_text("gone 1")
    pretrain(small, tmp_path, STACK, make_session(resume=goes_on))
    assert not (tmp_path / LOCK).exists()
