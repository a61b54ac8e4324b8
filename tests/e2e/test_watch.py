"""The live view: runs of all kinds, once and live, on a terminal and on none."""

import io
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
from contextlib import chdir
from pathlib import Path

import pytest
from rich.console import Console

from mpilayer.cli import watch
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import RunLock
from mpilayer.store.metrics import MetricsWriter
from tests.support import launch

SPARSE = ["--hidden", 5, "--output", "linear", "--evaluations", 30]


def look(run):
    """Return one view, which fits."""
    out = io.StringIO()
    console = Console(file=out, width=80)
    with chdir(run.parent):
        console.print(watch.Watched(Path(run.name)).look(console))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return out.getvalue()


@pytest.fixture(scope="module")
def descended(tiny, tmp_path_factory):
    """Give a comparison of two sparse runs that tests only read."""
    run = tmp_path_factory.mktemp("compare") / "run"
    launch.run("compare", tiny, "--run", run, *SPARSE).ok()
    return run


def start_again(run):
    """Take the last epoch from a pre-trained run."""
    directory = RunDirectory(run)
    directory.set_complete("pretrain", False)
    path = directory.metrics_file("layer-4")
    path.write_text(path.read_text().splitlines()[0] + "\n")


def test_a_finished_run(pretrained):
    text = look(pretrained)
    assert "pre-training, finished" in text
    assert "20-14" in text
    assert text.count("2/2") == 4


def test_a_run_under_way(run_copy):
    start_again(run_copy)
    lock = RunLock(run_copy)
    assert lock.take()
    # Without a terminal it is shown once.
    shown = launch.run("watch", "run", cwd=run_copy.parent, limit=30).ok()
    lock.release(remove=True)
    assert shown.stdout.startswith("run: pre-training, running, 0:0")
    assert "1/2" in shown.stdout
    assert (shown.stdout.count("layer"), shown.stderr) == (1, "")


@pytest.mark.parametrize("known", [True, None])
def test_a_run_that_does_not_move(run_copy, monkeypatch, known):
    start_again(run_copy)
    for path in (run_copy / "metrics").iterdir():
        os.utime(path, (time.time() - 4000,) * 2)
    monkeypatch.setattr(watch, "at_work", lambda _: known)
    text = look(run_copy)
    assert "has not moved for 1:06:4" in text
    assert " left" in text.splitlines()[0]


@pytest.mark.parametrize("left", ["", "a killed launch"])
def test_an_interrupted_run(run_copy, left):
    """At once, however young its metrics are."""
    start_again(run_copy)
    if left:
        (run_copy / ".lock").write_text(f"{socket.gethostname()} 17")
    lines = look(run_copy).splitlines()
    words = "run: pre-training, interrupted; go on with 'mpilayer resume run'"
    assert lines[0] == words
    (row,) = (line.split() for line in lines if "1/2" in line)
    assert row[-2] == "-"


def test_an_interrupted_experiment(run_copy):
    folder = run_copy.parent / "exp"
    folder.mkdir()
    (folder / "experiment.toml").touch()
    assert "exp: no step has begun" in look(folder)
    start_again(run_copy)
    run_copy.rename(folder / "deep")
    text = " ".join(look(folder).split())
    assert "go on with 'mpilayer run exp/experiment.toml --resume auto'" in text


def test_fine_tuning(run_copy):
    launch.run("finetune", run_copy, "--epochs", 3).ok()
    text = look(run_copy)
    for said, times in {"fine-tuning, finished": 1, "3/3": 1, "2/2": 4}.items():
        assert text.count(said) == times


def test_sparse_runs_of_a_comparison(descended):
    text = look(descended)
    for said in ("average: sparse, finished", "exact: sparse, finished", "█"):
        assert said in text
    assert text.count("of at most 30") == 2
    assert look(descended / "average").startswith("average: sparse, finished")


def test_without_utf8(descended):
    variables = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    options = ("--once", descended / "exact")
    text = launch.run("watch", *options, variables=variables).ok().stdout
    assert text.isascii()
    assert "#" in text


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


def assert_ended(screen, code=0):
    """Demand that a command ends by itself, without a traceback."""
    screen.wait_for(None)
    assert screen.process.wait(10) == code
    assert "Traceback" not in screen.text


def test_live_until_the_run_is_complete(run_copy, terminal):
    start_again(run_copy)  # interrupted: it may go on
    lines = (run_copy / "metrics" / "layer-1.jsonl").read_text().splitlines()
    screen = terminal("watch", "run", "--every", "0.1")
    screen.wait_for("1/2")
    path = run_copy / "metrics" / "layer-4.jsonl"
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").write_text("")
    path.with_suffix(".new").replace(path)
    screen.wait_for("0/2")  # it has lost its last lines
    assert screen.process.poll() is None
    directory = RunDirectory(run_copy)
    with MetricsWriter(directory.metrics_file("layer-4")) as writer:
        for line in lines:
            writer.write({**json.loads(line), "layer": 4})
    directory.set_complete("pretrain")
    assert_ended(screen)
    assert "finished" in screen.text


@pytest.mark.parametrize(
    ("run", "words"), [("run", "1/2"), ("never", "waiting for a run")]
)
def test_ctrl_c_ends_the_view_quietly(run_copy, terminal, run, words):
    start_again(run_copy)
    screen = terminal("watch", run, "--every", "0.1")
    screen.wait_for(words)
    screen.process.send_signal(signal.SIGINT)
    assert_ended(screen)


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
    assert_ended(screen)
    assert "finished" in screen.text


def test_what_cannot_become_a_run_is_not_waited_for(tmp_path, terminal):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    (tmp_path / "file").touch()
    for name in ("other", "file"):
        screen = terminal("watch", name)
        assert_ended(screen, code=2)
        assert "must be the directory of a run" in screen.text
    # Without a terminal nobody waits.
    result = launch.run("watch", "none", cwd=tmp_path)
    launch.assert_user_error(result, "must be the directory of a run")
