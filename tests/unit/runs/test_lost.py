"""What a run has lost, or finds damaged: it is made again, and no result changes."""

import re
import shutil
import warnings
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from mpilayer.errors import (
    CheckpointError,
    DamageWarning,
    ScheduleError,
    UnfinishedWarning,
)
from mpilayer.interrupt import Interrupted
from mpilayer.runs import drive
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.runs.evaluate import evaluate
from mpilayer.store import checkpoint
from tests.support.runs import pretrain, run_finetune, run_sparse
from tests.unit.runs.conftest import SPARSE, STACK, TUNE, digests, make_session

LONG = replace(STACK, epochs=(6,))


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Give a run that nobody interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(small, run, LONG, make_session())
    return run


@pytest.fixture(scope="module")
def half(small, tmp_path_factory):
    """Give a run that was interrupted."""
    run = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(Interrupted):
        pretrain(small, run, LONG, make_session(limit=8))
    return run


@pytest.fixture
def copy(half, tmp_path):
    """Give a copy of it."""
    return shutil.copytree(half, tmp_path / "run")


@pytest.fixture
def ended(whole, tmp_path):
    """Give a copy of the other."""
    return shutil.copytree(whole, tmp_path / "run")


def test_a_run_that_is_taken_away_while_it_is_waited_for(copy, monkeypatch):
    @contextmanager
    def waiting(run, session):
        (run / "config.toml").unlink()
        yield

    monkeypatch.setattr(drive, "holding", waiting)
    with pytest.raises(CheckpointError, match="must be the directory of a run"):
        resume(copy, make_session())
    assert any((copy / "checkpoints").iterdir())


def picture(run):
    return min((run / "monitor").glob("*.npy"))


def cut_head(path):
    path.write_bytes(b"\x93NUMPY" + path.read_bytes()[20:])


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (lambda run: picture(run).write_bytes(b""), "will have gaps"),
        (lambda run: cut_head(picture(run)), "will have gaps"),
        (lambda run: folder(picture(run)), "will have gaps"),
        (lambda run: shutil.rmtree(run / "monitor"), ""),
        (lambda run: shutil.rmtree(run / "metrics"), r"have \d lines; 0 are whole"),
        (lambda run: shutil.rmtree(run / "checkpoints"), ""),
    ],
    ids=["empty", "cut", "folder", "monitor", "metrics", "checkpoints"],
)
def test_what_no_result_depends_on(copy, whole, lose, told):
    lose(copy)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        resume(copy, make_session())
    assert re.search(told, " ".join(str(one.message) for one in seen))
    assert digests(copy) == digests(whole)
    assert RunDirectory(copy).is_complete("pretrain")
    assert not (copy / "monitor").exists()


@pytest.mark.parametrize("name", ["summary.json", "complete"])
@pytest.mark.parametrize("damage", ["gone", "rubbish"])
def test_what_an_end_has_left_is_made_again(ended, whole, name, damage):
    """And then what had begun after it goes on."""
    with pytest.raises(Interrupted):
        run_finetune(ended, TUNE, make_session(limit=0))
    path = ended / name
    path.unlink()
    if damage == "rubbish":
        path.write_bytes(b"\xff{}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        command, summary = resume(ended, make_session())
    assert command == "finetune"
    assert summary["finetune_epochs"] == 2
    assert RunDirectory(ended).completed() == ["pretrain", "finetune"]
    assert digests(ended) == digests(whole)


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


def weights_of(run):
    return checkpoint.load_newest(RunDirectory(run).checkpoint("finetuned"))[0]


def assert_same_weights(run, before):
    after = weights_of(run)
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_a_layer_that_was_removed_is_trained_again(ended, whole):
    """Where it is missing, the advice is to resume: that must not lead back.

    Who is killed meanwhile goes on again.
    """
    RunDirectory(ended).checkpoint("layer-2").unlink()
    with pytest.raises(CheckpointError, match=r"has no checkpoint\. Go on"):
        run_finetune(ended, TUNE, make_session())
    with pytest.raises(Interrupted):
        resume(ended, make_session(limit=2))
    assert RunDirectory(ended).completed() == []
    session = make_session()
    resume(ended, session)
    assert not [line for line in session.said if "nothing to do" in line]
    assert digests(ended) == digests(whole)
    run_finetune(ended, TUNE, make_session())


def test_fine_tuning_is_made_again(ended, whole):
    """Its weights, its summary, or a layer below it."""
    expected = run_finetune(ended, TUNE, make_session())
    before = weights_of(ended)
    checkpoint.remove(RunDirectory(ended).checkpoint("finetuned"))
    with pytest.warns(UnfinishedWarning, match=f"'mpilayer resume {ended}'"):
        evaluate(ended, "validation", make_session())
    assert resume(ended, make_session())[0] == "finetune"
    assert_same_weights(ended, before)

    (ended / "summary.json").unlink()
    command, summary = resume(ended, make_session())
    assert command == "finetune"
    assert summary["finetuned"] == expected["finetuned"]
    assert summary.keys() == expected.keys()

    RunDirectory(ended).checkpoint("layer-1").unlink()
    resume(ended, make_session())
    assert digests(ended) == digests(whole)
    assert_same_weights(ended, before)
    run_finetune(ended, TUNE, make_session(), replace=True)


def test_sparse_weights_that_were_removed_are_made_again(small, tmp_path):
    run = tmp_path / "run"
    before = run_sparse(small, run, SPARSE, make_session())
    checkpoint.remove(RunDirectory(run).checkpoint("sparse"))
    with pytest.raises(CheckpointError, match=f"'mpilayer resume {run}'"):
        evaluate(run, "validation", make_session())
    after = resume(run, make_session())[1]
    assert after["digest"] == before["digest"]
    evaluate(run, "validation", make_session())
