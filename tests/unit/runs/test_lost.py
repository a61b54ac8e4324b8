"""What a run has lost, or finds damaged, that no result depends on."""

import shutil
import warnings

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig
from mpilayer.errors import (
    CheckpointError,
    DamageWarning,
    FileWarning,
    ScheduleError,
    UnfinishedWarning,
)
from mpilayer.interrupt import Interrupted
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.resume import resume
from mpilayer.runs.use import evaluate
from mpilayer.store import checkpoint
from tests.support.runs import pretrain, run_finetune, run_sparse
from tests.unit.runs.conftest import make_session

STACK = PretrainConfig(layers=(8, 5), epochs=(6,), minibatch=10)
TUNE = FinetuneConfig(epochs=2, minibatch=10, optimizer="adam")
SPARSE = SparseConfig(hidden=5, evaluations=10)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Give a run that nobody interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(small, run, STACK, make_session())
    return run


@pytest.fixture(scope="module")
def half(small, tmp_path_factory):
    """Give a run that was interrupted."""
    run = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(Interrupted):
        pretrain(small, run, STACK, make_session(limit=8))
    return run


@pytest.fixture
def copy(half, tmp_path):
    """Give a copy of it."""
    return shutil.copytree(half, tmp_path / "run")


def digests(run):
    return [layer["digest"] for layer in RunDirectory(run).read_summary()["layers"]]


def empty(path):
    path.write_bytes(b"")


def other(path):
    path.write_bytes(b"\x93NUMPY" + path.read_bytes()[20:])


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [empty, other, folder])
def test_a_damaged_file_for_a_picture(copy, whole, damage):
    damage(min((copy / "monitor").glob("*.npy")))
    with pytest.warns(FileWarning, match="will have gaps"):
        resume(copy, make_session())
    assert digests(copy) == digests(whole)
    assert RunDirectory(copy).is_complete("pretrain")
    assert not (copy / "monitor").exists()


@pytest.mark.parametrize("folder", ["metrics", "monitor"])
def test_a_folder_that_was_removed(copy, whole, folder):
    shutil.rmtree(copy / folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        resume(copy, make_session())
    assert digests(copy) == digests(whole)
    assert RunDirectory(copy).is_complete("pretrain")


def test_lost_metrics_are_told_of(copy):
    shutil.rmtree(copy / "metrics")
    with pytest.warns(DamageWarning, match=r"must have \d lines; 0 are whole"):
        resume(copy, make_session())


def test_checkpoints_that_were_removed_are_made_again(copy, whole):
    shutil.rmtree(copy / "checkpoints")
    resume(copy, make_session())
    assert digests(copy) == digests(whole)


@pytest.mark.parametrize("name", ["summary.json", "complete"])
@pytest.mark.parametrize("damage", ["gone", "rubbish"])
def test_what_an_end_has_left_is_made_again(whole, tmp_path, name, damage):
    """And then what had begun after it goes on."""
    run = shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(Interrupted):
        run_finetune(run, TUNE, make_session(limit=0))
    path = run / name
    path.unlink()
    if damage == "rubbish":
        path.write_bytes(b"\xff{}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        command, summary = resume(run, make_session())
    assert command == "finetune"
    assert summary["finetune_epochs"] == 2
    assert RunDirectory(run).completed() == ["pretrain", "finetune"]
    assert digests(run) == digests(whole)


def test_a_summary_that_is_gone_is_made_again_for_all_commands(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    expected = run_finetune(run, TUNE, make_session())
    (run / "summary.json").unlink()
    command, summary = resume(run, make_session())
    assert command == "finetune"
    assert summary["finetuned"] == expected["finetuned"]
    assert summary.keys() == expected.keys()


@pytest.mark.parametrize(
    ("name", "before", "after", "error"),
    [
        ("config.toml", "seed = 0", "seed = 1", CheckpointError),
        ("schedule.json", "1, 2, 3, 4", "1, 1, 3, 4", ScheduleError),
    ],
)
def test_a_changed_digit_never_changes_the_result(copy, name, before, after, error):
    path = copy / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        with pytest.raises(error, match=f"{name} must be as it was written"):
            resume(copy, make_session())


# --- the weights that an end has left


def weights_of(run, name):
    path = RunDirectory(run).checkpoint(name)
    return checkpoint.load_newest(path)[0]


@pytest.mark.parametrize("name", ["layer-1", "layer-2"])
def test_a_layer_that_was_removed_is_trained_again(whole, tmp_path, name):
    """Where it is missing, the advice is to resume: that must not lead back."""
    run, session = shutil.copytree(whole, tmp_path / "run"), make_session()
    RunDirectory(run).checkpoint(name).unlink()
    with pytest.raises(CheckpointError, match=r"has no checkpoint\. Go on"):
        run_finetune(run, TUNE, make_session())
    resume(run, session)
    assert not [line for line in session.said if "nothing to do" in line]
    assert digests(run) == digests(whole)
    run_finetune(run, TUNE, make_session())


def test_who_is_killed_then_goes_on_again(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    RunDirectory(run).checkpoint("layer-2").unlink()
    with pytest.raises(Interrupted):
        resume(run, make_session(limit=2))
    assert not RunDirectory(run).is_complete("pretrain")
    assert RunDirectory(run).read_completed() == []
    resume(run, make_session())
    assert digests(run) == digests(whole)


def test_fine_tuned_weights_that_were_removed_are_made_again(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    run_finetune(run, TUNE, make_session())
    before = weights_of(run, "finetuned")
    checkpoint.remove(RunDirectory(run).checkpoint("finetuned"))
    with pytest.warns(UnfinishedWarning, match=f"'mpilayer resume {run}'"):
        evaluate(run, "validation", make_session())
    command, _ = resume(run, make_session())
    assert command == "finetune"
    after = weights_of(run, "finetuned")
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_a_layer_below_a_fine_tuned_stack(whole, tmp_path):
    """Both are made again, or stay as they were."""
    run = shutil.copytree(whole, tmp_path / "run")
    run_finetune(run, TUNE, make_session())
    before = weights_of(run, "finetuned")
    RunDirectory(run).checkpoint("layer-1").unlink()
    resume(run, make_session())
    assert digests(run) == digests(whole)
    after = weights_of(run, "finetuned")
    assert all(np.array_equal(before[k], after[k]) for k in before)
    run_finetune(run, TUNE, make_session(), replace=True)


def test_sparse_weights_that_were_removed_are_made_again(small, tmp_path):
    run = tmp_path / "run"
    before = run_sparse(small, run, SPARSE, make_session())
    checkpoint.remove(RunDirectory(run).checkpoint("sparse"))
    with pytest.raises(CheckpointError, match=f"'mpilayer resume {run}'"):
        evaluate(run, "validation", make_session())
    after = resume(run, make_session())[1]
    assert after["digest"] == before["digest"]
    evaluate(run, "validation", make_session())
