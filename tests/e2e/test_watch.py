"""The live view: runs of all kinds, once and live, on a terminal and on none."""

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.lock import RunLock
from mpilayer.store.metrics import MetricsWriter
from tests.support import launch

SPARSE = ["--hidden", 5, "--output", "linear", "--evaluations", 30]


def look(run, *options, **more):
    """Return one view, which fits."""
    result = launch.run("watch", run, "--once", *options, **more).ok()
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80, result
    return result.stdout


@pytest.fixture(scope="module")
def descended(tiny, tmp_path_factory):
    """Give a sparse run that tests only read."""
    run = tmp_path_factory.mktemp("sparse") / "run"
    launch.run("sparse", tiny, "--run", run, *SPARSE).ok()
    return run


@pytest.fixture
def run_again(run_copy):
    """Give a pre-trained run that looks as if it were under way."""
    start_again(run_copy)
    lock = RunLock(run_copy)
    assert lock.take()
    yield run_copy
    lock.release(remove=True)


def start_again(run):
    """Take the last epoch from a pre-trained run."""
    directory = RunDirectory(run)
    directory.set_complete("pretrain", False)
    path = directory.metrics_file("layer-4")
    path.write_text(path.read_text().splitlines()[0] + "\n")


def test_a_finished_run(pretrained):
    text = look(pretrained, cwd=pretrained.parent)
    assert "pre-training, finished" in text
    assert "20-14" in text
    assert text.count("2/2") == 4


def test_a_run_under_way(run_again):
    text = look("run", cwd=run_again.parent)
    assert text.startswith("run: pre-training, running, 0:0")
    assert "1/2" in text


@pytest.mark.parametrize("known", [True, False])
def test_a_run_that_does_not_move(run_again, known):
    for path in (run_again / "metrics").iterdir():
        os.utime(path, (time.time() - 4000,) * 2)
    if not known:
        lock = run_again / ".lock"
        lock.unlink()
        lock.write_text("elsewhere 17")
    text = look("run", cwd=run_again.parent)
    assert "has not moved for 1:06:4" in text
    assert " left" in text.splitlines()[0]


@pytest.mark.parametrize("left", ["", "a killed launch"])
def test_an_interrupted_run(run_copy, left):
    """At once, however young its metrics are."""
    start_again(run_copy)
    if left:
        (run_copy / ".lock").write_text(f"{socket.gethostname()} 17")
    lines = look("run", cwd=run_copy.parent).splitlines()
    words = "run: pre-training, interrupted; go on with 'mpilayer resume run'"
    assert lines[0] == words
    (row,) = (line.split() for line in lines if "1/2" in line)
    assert row[-2] == "-"


def test_an_interrupted_experiment(run_copy):
    start_again(run_copy)
    folder = run_copy.parent / "exp"
    folder.mkdir()
    (folder / "experiment.toml").touch()
    run_copy.rename(folder / "deep")
    text = " ".join(look("exp", cwd=folder.parent).split())
    assert "go on with 'mpilayer run exp/experiment.toml --resume auto'" in text


def test_fine_tuning(run_copy):
    launch.run("finetune", run_copy, "--epochs", 3).ok()
    text = look("run", cwd=run_copy.parent)
    assert "fine-tuning, finished" in text
    assert "3/3" in text
    assert text.count("2/2") == 4


def test_a_sparse_run(descended):
    text = look("run", cwd=descended.parent)
    assert "sparse, finished" in text
    assert "of at most 30" in text
    assert "█" in text


def test_without_utf8(descended):
    variables = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    text = look("run", cwd=descended.parent, variables=variables)
    assert text.isascii()
    assert "#" in text


def test_a_comparison(tiny, tmp_path):
    arguments = ["compare", tiny, "--run", "run", *SPARSE]
    launch.run(*arguments, cwd=tmp_path).ok()
    text = look("run", cwd=tmp_path)
    assert "run/average: sparse, finished" in text
    assert "run/exact: sparse, finished" in text


def test_no_terminal_means_once(run_again):
    assert launch.run("watch", run_again, limit=30).ok().stdout.count("layer") == 1


def test_what_is_no_run(tmp_path):
    result = launch.run("watch", "none", "--once", cwd=tmp_path)
    launch.assert_user_error(result, "must be the directory of a run")
    result = launch.run("watch", ".", "--every", "0", cwd=tmp_path)
    launch.assert_user_error(result, "--every", "must be seconds")


def test_several_ranks_are_refused(pretrained):
    result = launch.run("watch", pretrained, "--once", ranks=2)
    launch.assert_user_error(result, "must run as one process; found 2 ranks")


class Terminal:
    """A command on a terminal of 80 columns."""

    def __init__(self, *arguments, cwd):
        own, theirs = pty.openpty()
        variables = launch.environment() | {"TERM": "xterm", "COLUMNS": "80"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mpilayer", *map(str, arguments)],
            cwd=cwd,
            env=variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._own, self.text = own, ""

    def wait_for(self, words, seconds=30.0):
        """Read until the words are on the screen, or, for None, until the end."""
        end = time.monotonic() + seconds
        while words is None or words not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self._own], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self._own, 65536).decode(errors="replace")
                except OSError:  # nobody writes any more
                    return
        return

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._own)


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def start(*arguments):
        opened.append(Terminal(*arguments, cwd=tmp_path))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_live_until_the_run_is_complete(run_copy, terminal):
    start_again(run_copy)  # interrupted: it may go on
    lines = (run_copy / "metrics" / "layer-1.jsonl").read_text().splitlines()
    screen = terminal("watch", "run", "--every", "0.1")
    screen.wait_for("1/2")
    assert screen.process.poll() is None
    directory = RunDirectory(run_copy)
    with MetricsWriter(directory.metrics_file("layer-4")) as writer:
        writer.write({**json.loads(lines[-1]), "layer": 4})
    directory.set_complete("pretrain")
    screen.wait_for(None)
    assert screen.process.wait(10) == 0
    assert "finished" in screen.text


def test_ctrl_c_ends_the_view_quietly(run_copy, terminal):
    start_again(run_copy)
    screen = terminal("watch", "run", "--every", "0.1")
    screen.wait_for("1/2")
    screen.process.send_signal(signal.SIGINT)
    screen.wait_for(None)
    assert screen.process.wait(10) == 0
    assert "Traceback" not in screen.text


def test_a_file_that_lost_its_last_lines(run_copy, terminal):
    start_again(run_copy)
    screen = terminal("watch", "run", "--every", "0.1")
    screen.wait_for("1/2")
    path = run_copy / "metrics" / "layer-4.jsonl"
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").write_text("")
    path.with_suffix(".new").replace(path)
    screen.wait_for("0/2")


@pytest.mark.parametrize("there", ["nothing", "a folder", "a launch that begins"])
def test_a_run_that_is_not_there_yet_is_waited_for(
    pretrained, tmp_path, terminal, there
):
    run = tmp_path / "soon"
    if there != "nothing":
        run.mkdir()
    if there == "a launch that begins":
        (run / ".lock").touch()
        (run / "metrics").mkdir()
        (run / "schedule.json").touch()
    screen = terminal("watch", "soon", "--every", "0.1")
    screen.wait_for("soon: waiting for a run to begin; Ctrl-C ends")
    assert screen.process.poll() is None
    no_config = shutil.ignore_patterns("config.toml")
    shutil.copytree(pretrained, run, ignore=no_config, dirs_exist_ok=True)
    shutil.copy(pretrained / "config.toml", tmp_path / "config.toml")
    (tmp_path / "config.toml").rename(run / "config.toml")
    screen.wait_for(None)
    assert screen.process.wait(10) == 0
    assert "finished" in screen.text


def test_ctrl_c_ends_waiting(terminal):
    screen = terminal("watch", "never", "--every", "0.1")
    screen.wait_for("waiting for a run")
    screen.process.send_signal(signal.SIGINT)
    screen.wait_for(None)
    assert screen.process.wait(10) == 0
    assert "Traceback" not in screen.text


def test_what_cannot_become_a_run_is_not_waited_for(tmp_path, terminal):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    (tmp_path / "file").touch()
    for name in ("other", "file"):
        screen = terminal("watch", name)
        screen.wait_for(None)
        assert screen.process.wait(10) == 2
        assert "must be the directory of a run" in screen.text
    # Without a terminal, or with --once, nobody waits.
    for options in ([], ["--once"]):
        result = launch.run("watch", "none", *options, cwd=tmp_path)
        launch.assert_user_error(result, "must be the directory of a run")
