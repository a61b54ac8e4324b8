"""Whole experiments: from data to evaluation, gone on with, changed, refused."""

import json
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from tests.support import launch
from tests.support.breaks import assert_same, slowly
from tests.support.command import call, refuse, said, told
from tests.support.small import contents, digests, read_summary

DEEP = """
[data]
path = "tiny.h5"
[pretrain]
layers = [14, 8, 4]
epochs = 3
minibatch = 50
[finetune]
epochs = 2
minibatch = 50
"""

SPARSE = """
[data]
source = "images.npy"
make = "patches"
count = 400
size = 5
[sparse]
hidden = 4
evaluations = 20
[compare]
evaluations = 10
"""
TWO = "mpiexec -n 2"
AGAIN = "run deep.toml --resume auto"
DRAWN = find_spec("matplotlib") is not None

# Another launch, at work in a run until its input ends.
HOLD = """
import sys
from pathlib import Path
from mpilayer.runs.session import RunLock
print(RunLock(Path(sys.argv[1])).take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path, tiny):
    """Give a folder with two experiments and their data."""
    (tmp_path / "tiny.h5").symlink_to(tiny)
    (tmp_path / "deep.toml").write_text(DEEP)
    (tmp_path / "sparse.toml").write_text(SPARSE)
    images = np.random.default_rng(0).normal(size=(3, 40, 40))
    np.save(tmp_path / "images.npy", images)
    return tmp_path


def completed(run):
    return (run / "complete").read_text().split()


def evaluated(run):
    return json.loads((run / "evaluate.json").read_text())


def test_a_deep_experiment_is_the_commands_one_after_the_other(folder):
    run = folder / "runs" / "deep"
    result = call(folder, f"{TWO} run deep.toml --threads 1").ok()
    assert "pre-trained" in result.stdout
    assert "Next:" not in result.stdout
    assert "Results: runs/deep" in result.stdout
    assert completed(run)[-1] == "experiment"
    assert (run / "report.html").is_file() == DRAWN
    assert ("no report" in result.stderr) == (not DRAWN)
    options = "--layers 14,8,4 --epochs 3 --minibatch 50 --threads 1"
    said(folder, f"pretrain tiny.h5 --run alone {options}")
    assert digests(folder / "alone") == digests(run / "deep")
    error = read_summary(run / "deep")["test_error"]
    assert evaluated(run)["deep"]["error"] == pytest.approx(error)


@pytest.mark.parametrize(
    ("task", "ranks", "model", "words"),
    [
        ("classify", 2, "classifier", "Wrong classes, percent"),
        ("regress", 0, "regressor", "Squared error of the labels"),
    ],
)
def test_an_experiment_with_labels(folder, task, ranks, model, words):
    run = folder / "runs" / "deep"
    line = f"run deep.toml --set finetune.task={task} --threads 1"
    assert words in said(folder, line, ranks=ranks)
    assert completed(run / "deep") == ["pretrain", task]
    found = evaluated(run)["deep"]
    assert (found["model"], found["split"]) == (model, "test")
    error = read_summary(run / "deep")[f"{task}_error"]["test"]
    expected = error if task == "classify" else error**0.5
    assert found["error"] == pytest.approx(expected, rel=1e-5)
    if DRAWN:
        text = (run / "report.html").read_text()
        assert f'id="{task}-error"' in text
        assert ('table confusion"' in text) == (task == "classify")


def test_it_goes_on_where_it_was_and_not_with_other_settings(folder):
    run = folder / "runs" / "deep"
    said(folder, "run deep.toml")
    before = contents(run)
    for line in (AGAIN, "run runs/deep/experiment.toml --resume auto"):
        assert told(folder, line).count("there is nothing to do") == 4
    after = contents(run)
    before.pop("complete"), after.pop("complete")
    assert after == before
    for command in ("evaluate", "report", "resume"):
        words = "Name a run in it, such as runs/deep/deep."
        whole = "'mpilayer run runs/deep/experiment.toml --resume auto'"
        refuse(folder, f"{command} runs/deep", words, whole)
    words = ("must go on with the settings", "--seed was 0")
    refuse_late(folder, f"{AGAIN} --set pretrain.seed=4", *words)
    text = told(folder, f"{AGAIN} --set finetune.epochs=4")
    assert "going on after epoch 2" in text
    assert "evaluate is complete" not in text
    assert read_summary(run / "deep")["finetune_epochs"] == 4
    assert "epochs = 4" in (run / "experiment.toml").read_text()


def refuse_late(folder, line, *words, **options):
    """Demand a refusal by one of the steps, behind words of others."""
    launch.assert_user_error(call(folder, line, **options), *words)


def test_a_sparse_experiment_makes_its_data(folder):
    line, again = "run sparse.toml --run here --set data.count", "--resume auto"
    assert "making here/data.h5" in told(folder, f"{TWO} {line}=300")
    assert read_summary(folder / "here" / "sparse")["n_rows"] == 300
    assert (folder / "here" / "compare" / "compare.json").is_file()
    names = ["sparse", "compare/average", "compare/exact"]
    assert list(evaluated(folder / "here")) == names
    assert "making" not in told(folder, f"{line}=300 {again}")
    refuse_late(folder, f"{line}=200 {again}", "--count was 300, is 200")
    refuse_late(folder, f"{line}=300", "holds an experiment already", "--replace")
    (folder / "here" / "mine.txt").write_text("precious")
    refuse_late(folder, f"{line}=300 --replace", "other files (mine.txt)")
    (folder / "here" / "mine.txt").unlink()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder / "here" / "sparse"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=launch.ROOT,
    ) as other:
        assert other.stdout.readline() == b"True\n"
        refuse_late(folder, f"{line}=200 --replace", "nobody is at work", "here/sparse")
        assert read_summary(folder / "here" / "sparse")["n_rows"] == 300
        other.stdin.close()
    said(folder, f"{line}=200 --replace")
    refuse_late(folder, "run sparse.toml --run .", "holds other files")


def test_a_signal_saves_and_the_rest_is_done_later(folder):
    line = "run deep.toml --set finetune.epochs=9 --checkpoint-every 1"
    run = folder / "runs" / "deep" / "deep"
    with launch.started(*line.split(), cwd=folder, program=slowly(0.1)) as job:
        job.wait_for(run / "metrics" / "finetune.jsonl")
        job.signal(signal.SIGUSR1)
        result = job.finish()
    assert result.code == 75, result
    assert "in step finetune because of SIGUSR1" in result.stderr
    assert "--resume auto" in result.stderr
    assert "experiment" not in completed(run.parent)
    again = f"{line} --resume auto"
    assert call(folder, f"{again} --max-time 0.01").code == 75
    said(folder, again)
    said(folder, f"{line} --run whole")
    assert_same(run, folder / "whole" / "deep")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--set finetune.epoch=3", ("unknown key 'epoch'",)),
        ("--set data.path=none.h5", ("none.h5 is not a file", "data.path")),
        ("--set finetune.minibatch=231", ("231 in [finetune] with 230",)),
        ("--set pretrain.layers=5 pretrain.loss=l1", ("unknown loss",)),
        ("--resume auto --replace", ("--resume and --replace",)),
        # Before training, but not before the data are made.
        ("--set data.source=bare.npy data.path=bare.h5 finetune.task=classify",
         ("the train rows must have labels",)),
    ],
)  # fmt: skip
def test_nothing_is_trained_before_all_is_checked(folder, options, words):
    np.save(folder / "bare.npy", np.random.default_rng(0).random((300, 20)))
    refuse_late(folder, f"run deep.toml {options}", *words)
    assert not (folder / "runs" / "deep" / "deep").exists()


def test_what_finds_no_data_leaves_nothing(folder):
    line = f"{TWO} run sparse.toml --set data.source=none.npy"
    refuse(folder, line, "there is no none.npy")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("pretrain", "pretrain no.h5 --run x --config made.toml"),
        ("finetune", "finetune no --config made.toml"),
        ("sparse", "sparse no.h5 --run x --config made.toml"),
        ("experiment", "run made.toml --set data.path=no.h5"),
    ],
)
def test_a_template_is_read_back(tmp_path, kind, line):
    """The settings are accepted: what is missed is the data, or the run."""
    said(tmp_path, f"config {kind} -o made.toml")
    assert (tmp_path / "made.toml").read_text() == said(tmp_path, f"config {kind}")
    refuse(tmp_path, f"config {kind} -o made.toml", "made.toml exists", "--replace")
    result = call(tmp_path, line)
    launch.assert_user_error(result, "no")
    assert "unknown" not in result.stderr


def test_config_of_unknown_kind(tmp_path):
    refuse(tmp_path, "config spares", "unknown kind 'spares'", "'sparse'?")
