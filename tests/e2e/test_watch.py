"""The live view: runs of all kinds, once and live, on a terminal and on none."""

import io
import json
import os
import shutil
import signal
import socket
import time
from contextlib import chdir
from pathlib import Path

import pytest
from rich.console import Console

from mpilayer.cli import watch
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import RunLock
from mpilayer.store.metrics import MetricsWriter
from tests.support.command import call, refuse, said
from tests.support.terminal import Terminal


def look(run):
    """Return one view, which fits."""
    out = io.StringIO()
    console = Console(file=out, width=80)
    with chdir(run.parent):
        console.print(watch.Watched(Path(run.name)).look(console))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return out.getvalue()


@pytest.fixture(scope="module")
def runs(tiny, pretrained, tmp_path_factory):
    """Give a folder of finished runs that tests only read."""
    folder = tmp_path_factory.mktemp("runs")
    options = "--hidden 5 --output linear --evaluations 30"
    said(folder, f"compare {tiny} --run compared {options}")
    for name in ("deep", "tuned"):
        shutil.copytree(pretrained, folder / name)
    said(folder, "finetune tuned --epochs 3")
    return folder


@pytest.fixture
def begun(run_copy):
    """Give a pre-trained run without its last epoch, as it was interrupted."""
    directory = RunDirectory(run_copy)
    directory.set_complete("pretrain", False)
    path = directory.metrics_file("layer-4")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    return run_copy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deep", {"pre-training, finished": 1, "20-14": 1, "2/2": 4}),
        ("tuned", {"fine-tuning, finished": 1, "3/3": 1, "2/2": 4}),
        ("compared", {"average: sparse, finished": 1, "exact: sparse, finished": 1,
                      "of at most 30": 2}),
        ("compared/average", {"average: sparse, finished": 1, "of at most 30": 1}),
    ],
)  # fmt: skip
def test_finished_runs(runs, name, words):
    text = look(runs / name)
    assert {said: text.count(said) for said in words} == words
    assert "█" in text


def test_a_run_under_way(begun):
    lock = RunLock(begun)
    assert lock.take()
    # Without a terminal it is shown once.
    shown = call(begun.parent, "watch run", limit=30).ok()
    lock.release(remove=True)
    assert shown.stdout.startswith("run: pre-training, running, 0:0")
    assert "1/2" in shown.stdout
    assert (shown.stdout.count("layer"), shown.stderr) == (1, "")


@pytest.mark.parametrize("known", [True, None])
def test_a_run_that_does_not_move(begun, monkeypatch, known):
    for path in (begun / "metrics").iterdir():
        os.utime(path, (time.time() - 4000,) * 2)
    monkeypatch.setattr(watch, "at_work", lambda _: known)
    text = look(begun)
    assert "has not moved for 1:06:4" in text
    assert " left" in text.splitlines()[0]


@pytest.mark.parametrize("left", ["", "a killed launch"])
def test_an_interrupted_run(begun, left):
    """At once, however young its metrics are."""
    if left:
        (begun / ".lock").write_text(f"{socket.gethostname()} 17")
    first, *lines = look(begun).splitlines()
    assert first == "run: pre-training, interrupted; go on with 'mpilayer resume run'"
    (row,) = (line.split() for line in lines if "1/2" in line)
    assert row[-2] == "-"


def test_an_interrupted_experiment(begun):
    folder = begun.parent / "exp"
    folder.mkdir()
    (folder / "experiment.toml").touch()
    assert "exp: no step has begun" in look(folder)
    begun.rename(folder / "deep")
    text = " ".join(look(folder).split())
    assert "go on with 'mpilayer run exp/experiment.toml --resume auto'" in text


def test_without_utf8(runs):
    variables = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    text = said(runs, "watch --once compared/exact", variables=variables)
    assert text.isascii()
    assert "#" in text


# --- live


def test_live_until_the_run_is_complete(begun, tmp_path):
    lines = (begun / "metrics" / "layer-1.jsonl").read_text().splitlines()
    with Terminal("watch", "run", "--every", 0.1, cwd=tmp_path) as screen:
        screen.wait_for("1/2")  # interrupted: it may go on
        path = begun / "metrics" / "layer-4.jsonl"
        path.with_suffix(".new").write_text("")
        path.with_suffix(".new").replace(path)
        screen.wait_for("0/2")  # it has lost its last lines
        assert screen.process.poll() is None
        with MetricsWriter(path) as writer:
            for line in lines:
                writer.write({**json.loads(line), "layer": 4})
        RunDirectory(begun).set_complete("pretrain")
        screen.assert_ended()
        assert "finished" in screen.text


@pytest.mark.parametrize(
    ("run", "words"), [("run", "1/2"), ("never", "waiting for a run")]
)
def test_ctrl_c_ends_the_view_quietly(begun, run, words):
    with Terminal("watch", run, "--every", 0.1, cwd=begun.parent) as screen:
        screen.wait_for(words)
        screen.process.send_signal(signal.SIGINT)
        screen.assert_ended()


@pytest.mark.parametrize("there", ["nothing", "a folder", "a launch that begins"])
def test_a_run_that_is_not_there_yet_is_waited_for(pretrained, tmp_path, there):
    run = tmp_path / "soon"
    if there != "nothing":
        run.mkdir()
    if there == "a launch that begins":
        (run / ".lock").touch()
        (run / "metrics").mkdir()
        (run / "schedule.json").touch()
    with Terminal("watch", "soon", "--every", 0.1, cwd=tmp_path) as screen:
        screen.wait_for("soon: waiting for a run to begin; Ctrl-C ends")
        assert screen.process.poll() is None
        no_config = shutil.ignore_patterns("config.toml")
        shutil.copytree(pretrained, run, ignore=no_config, dirs_exist_ok=True)
        shutil.copy(pretrained / "config.toml", tmp_path / "config.toml")
        (tmp_path / "config.toml").rename(run / "config.toml")
        screen.assert_ended()
        assert "finished" in screen.text


# --- what is refused


@pytest.mark.parametrize("name", ["other", "file"])
def test_what_cannot_become_a_run_is_not_waited_for(tmp_path, name):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    (tmp_path / "file").touch()
    with Terminal("watch", name, cwd=tmp_path) as screen:
        screen.assert_ended(code=2)
        assert "must be the directory of a run" in screen.text


@pytest.mark.parametrize(
    ("line", "words", "ranks"),
    [
        ("watch none --once", ("must be the directory of a run",), 0),
        # Without a terminal nobody waits.
        ("watch none", ("must be the directory of a run",), 0),
        ("watch . --every 0", ("--every", "must be seconds"), 0),
        ("watch deep --once", ("must run as one process; found 2 ranks",), 2),
    ],
)
def test_what_is_refused(runs, line, words, ranks):
    refuse(runs, line, *words, ranks=ranks)
