"""Whole experiments: from data to evaluation, gone on with, changed, refused."""

import json
import signal
from importlib.util import find_spec

import numpy as np
import pytest

from tests.e2e.conftest import contents, digests, read_summary
from tests.support import launch
from tests.support.breaks import assert_same, slowly

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


@pytest.fixture
def folder(tmp_path, tiny):
    """Give a folder with two experiments and their data."""
    (tmp_path / "tiny.h5").symlink_to(tiny)
    (tmp_path / "deep.toml").write_text(DEEP)
    (tmp_path / "sparse.toml").write_text(SPARSE)
    images = np.random.default_rng(0).normal(size=(3, 40, 40))
    np.save(tmp_path / "images.npy", images)
    return tmp_path


def carry_out(folder, *arguments, **options):
    return launch.run("run", *arguments, cwd=folder, **options)


def completed(run):
    return (run / "complete").read_text().split()


def test_a_deep_experiment_is_the_commands_one_after_the_other(folder):
    result = carry_out(folder, "deep.toml", "--threads", 1, ranks=2).ok()
    assert "pre-trained" in result.stdout
    assert "Next:" not in result.stdout
    assert "Results: runs/deep" in result.stdout
    assert completed(folder / "runs/deep")[-1] == "experiment"
    drawn = find_spec("matplotlib") is not None
    assert (folder / "runs/deep/report.html").is_file() == drawn
    assert ("no report" in result.stderr) == (not drawn)
    options = ["--layers", "14,8,4", "--epochs", 3, "--minibatch", 50, "--threads", 1]
    launch.run("pretrain", "tiny.h5", "--run", "alone", *options, cwd=folder).ok()
    assert digests(folder / "alone") == digests(folder / "runs/deep/deep")
    found = json.loads((folder / "runs/deep/evaluate.json").read_text())["deep"]
    summary = read_summary(folder / "runs/deep/deep")
    assert found["error"] == pytest.approx(summary["test_error"])


@pytest.mark.parametrize(
    ("task", "model", "told"),
    [
        ("classify", "classifier", "Wrong classes, percent"),
        ("regress", "regressor", "Squared error of the labels"),
    ],
)
def test_an_experiment_with_labels(folder, task, model, told):
    arguments = ["deep.toml", "--set", f"finetune.task={task}", "--threads", 1]
    result = carry_out(folder, *arguments, ranks=2 * (task == "classify")).ok()
    assert told in result.stdout
    assert completed(folder / "runs/deep/deep") == ["pretrain", task]
    found = json.loads((folder / "runs/deep/evaluate.json").read_text())["deep"]
    assert (found["model"], found["split"]) == (model, "test")
    summary = read_summary(folder / "runs/deep/deep")[f"{task}_error"]["test"]
    expected = summary if task == "classify" else summary**0.5
    assert found["error"] == pytest.approx(expected, rel=1e-5)
    if find_spec("matplotlib") is not None:
        text = (folder / "runs/deep/report.html").read_text()
        assert f'id="{task}-error"' in text
        assert ('table confusion"' in text) == (task == "classify")
    again = carry_out(folder, *arguments, "--resume", "auto").ok()
    assert again.stderr.count("there is nothing to do") == 4


def test_labels_are_looked_for_before_training(folder):
    np.save(folder / "bare.npy", np.random.default_rng(0).random((300, 20)))
    arguments = ["--set", "data.source=bare.npy", "data.path=bare.h5"]
    arguments += ["finetune.task=classify"]
    result = carry_out(folder, "deep.toml", *arguments, ranks=2)
    launch.assert_user_error(result, "the train rows must have labels")
    assert not (folder / "runs/deep/deep").exists()


def test_complete_steps_are_skipped(folder):
    carry_out(folder, "deep.toml").ok()
    before = contents(folder / "runs/deep")
    result = carry_out(folder, "deep.toml", "--resume", "auto").ok()
    assert result.stderr.count("there is nothing to do") == 4
    for command in (["evaluate"], ["report"], ["resume"]):
        refused = launch.run(*command, "runs/deep", cwd=folder)
        words = ["Name a run in it, such as runs/deep/deep."]
        words += ["'mpilayer run runs/deep/experiment.toml --resume auto'"]
        launch.assert_user_error(refused, *words)
    again = carry_out(folder, "runs/deep/experiment.toml", "--resume", "auto").ok()
    assert again.stderr.count("there is nothing to do") == 4
    after = contents(folder / "runs/deep")
    before.pop("complete"), after.pop("complete")
    assert after == before


def test_more_epochs_go_on_where_fine_tuning_was(folder):
    carry_out(folder, "deep.toml").ok()
    more = ["--set", "finetune.epochs=4", "--resume", "auto"]
    result = carry_out(folder, "deep.toml", *more).ok()
    assert "going on after epoch 2" in result.stderr
    assert "evaluate is complete" not in result.stderr
    assert read_summary(folder / "runs/deep/deep")["finetune_epochs"] == 4
    assert "epochs = 4" in (folder / "runs/deep/experiment.toml").read_text()


def test_other_settings_are_no_way_to_go_on(folder):
    carry_out(folder, "deep.toml").ok()
    other = ["--set", "pretrain.seed=4", "--resume", "auto"]
    result = carry_out(folder, "deep.toml", *other)
    launch.assert_user_error(result, "must go on with the settings", "--seed was 0")


def test_a_sparse_experiment_makes_its_data(folder):
    arguments = ["sparse.toml", "--run", "here", "--set", "data.count=300"]
    result = carry_out(folder, *arguments, ranks=2).ok()
    assert "making here/data.h5" in result.stderr
    assert read_summary(folder / "here/sparse")["n_rows"] == 300
    assert (folder / "here/compare/compare.json").is_file()
    found = json.loads((folder / "here/evaluate.json").read_text())
    assert list(found) == ["sparse", "compare/average", "compare/exact"]
    again = carry_out(folder, *arguments, "--resume", "auto").ok()
    assert "making" not in again.stderr
    arguments[-1] = "data.count=200"
    result = carry_out(folder, *arguments, "--resume", "auto")
    launch.assert_user_error(result, "--count was 300, is 200")


def test_a_time_limit_passes_through(folder):
    arguments = ["deep.toml", "--set", "pretrain.epochs=3000", "--max-time", 2]
    result = carry_out(folder, *arguments, ranks=2)
    assert result.code == 75, result
    assert "--resume auto" in result.stderr
    assert "experiment" not in completed(folder / "runs/deep")


def test_a_signal_saves_and_the_rest_is_done_later(folder):
    often = ["deep.toml", "--set", "finetune.epochs=9", "--checkpoint-every", 1]
    run = folder / "runs/deep/deep"
    with launch.started("run", *often, cwd=folder, program=slowly(0.1)) as job:
        job.wait_for(run / "metrics/finetune.jsonl")
        job.signal(signal.SIGUSR1)
        result = job.finish()
    assert result.code == 75, result
    assert "in step finetune because of SIGUSR1" in result.stderr
    carry_out(folder, *often, "--resume", "auto").ok()
    carry_out(folder, *often, "--run", "whole").ok()
    assert_same(run, folder / "whole/deep")


def test_an_experiment_is_not_overwritten(folder):
    carry_out(folder, "sparse.toml").ok()
    result = carry_out(folder, "sparse.toml")
    launch.assert_user_error(result, "holds an experiment already", "--replace")
    (folder / "runs/sparse/mine.txt").write_text("precious")
    result = carry_out(folder, "sparse.toml", "--replace")
    launch.assert_user_error(result, "other files (mine.txt)")
    (folder / "runs/sparse/mine.txt").unlink()
    carry_out(folder, "sparse.toml", "--replace").ok()
    result = carry_out(folder, "sparse.toml", "--run", ".")
    launch.assert_user_error(result, "holds other files")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "finetune.epoch=3"], ["unknown key 'epoch'"]),
        (["--set", "data.path=none.h5"], ["none.h5 is not a file", "data.path"]),
        (["--set", "finetune.minibatch=231"], ["231 in [finetune] with 230"]),
        (["--set", "pretrain.layers=5", "pretrain.loss=l1"], ["unknown loss"]),
        (["--resume", "auto", "--replace"], ["--resume and --replace"]),
    ],
    ids=lambda value: value[-1],
)
def test_nothing_is_trained_before_all_is_checked(folder, options, words):
    launch.assert_user_error(carry_out(folder, "deep.toml", *options), *words)
    assert not (folder / "runs/deep/deep").exists()


def test_what_finds_no_data_leaves_nothing(folder, refused):
    words = "there is no none.npy"
    arguments = ["run", "sparse.toml", "--set", "data.source=none.npy"]
    refused(words, *arguments, ranks=2)


@pytest.mark.parametrize("kind", ["pretrain", "finetune", "sparse", "experiment"])
def test_a_template_is_read_back(folder, pretrained, kind):
    launch.run("config", kind, "-o", "made.toml", cwd=folder).ok()
    text = launch.run("config", kind, cwd=folder).ok().stdout
    assert (folder / "made.toml").read_text() == text
    result = launch.run("config", kind, "-o", "made.toml", cwd=folder)
    launch.assert_user_error(result, "made.toml exists", "--replace")
    commands = {
        "pretrain": ["pretrain", "no.h5", "--run", "x", "--config", "made.toml"],
        "finetune": ["finetune", "no", "--config", "made.toml"],
        "sparse": ["sparse", "no.h5", "--run", "x", "--config", "made.toml"],
        "experiment": ["run", "made.toml", "--set", "data.path=no.h5"],
    }
    # The settings are accepted: what is missed is the data, or the run.
    result = launch.run(*commands[kind], cwd=folder)
    launch.assert_user_error(result, "no")
    assert "unknown" not in result.stderr


def test_config_of_unknown_kind():
    result = launch.run("config", "spares")
    launch.assert_user_error(result, "unknown kind 'spares'", "'sparse'?")
