"""What a run has lost, or finds damaged: it is made again, and no result changes."""

import re
import shutil
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from mpilayer.errors import CheckpointError, ScheduleError, UnfinishedWarning
from mpilayer.runs import drive
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.runs.evaluate import evaluate
from mpilayer.store import checkpoint
from tests.support.runs import run_finetune, run_sparse
from tests.unit.runs.conftest import (
    SPARSE,
    TUNE,
    digests,
    make_session,
    stopped,
    tuned_weights,
)


@pytest.fixture
def half(copy):
    """Give a run that was interrupted."""
    return copy("half")


@pytest.fixture
def ended(copy):
    """Give one that nobody interrupted."""
    return copy("whole")


@pytest.fixture(scope="module")
def expected(made):
    """Give the layers that either has at its end."""
    return digests(made / "whole")


def test_a_run_that_is_taken_away_while_it_is_waited_for(half, monkeypatch):
    @contextmanager
    def waiting(run, session):
        (run / "config.toml").unlink()
        yield

    monkeypatch.setattr(drive, "holding", waiting)
    with pytest.raises(CheckpointError, match="must be the directory of a run"):
        resume(half, make_session())
    assert any((half / "checkpoints").iterdir())


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
def test_what_no_result_depends_on(half, expected, lose, told):
    lose(half)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        resume(half, make_session())
    assert re.search(told, " ".join(str(one.message) for one in seen))
    assert digests(half) == expected
    assert RunDirectory(half).is_complete("pretrain")
    assert not (half / "monitor").exists()


@pytest.mark.parametrize("name", ["summary.json", "complete"])
@pytest.mark.parametrize("damage", ["gone", "rubbish"])
@pytest.mark.filterwarnings("ignore::mpilayer.errors.DamageWarning")
def test_what_an_end_has_left_is_made_again(ended, expected, name, damage):
    """And then what had begun after it goes on."""
    stopped(0, run_finetune, ended, TUNE)
    path = ended / name
    path.unlink()
    if damage == "rubbish":
        path.write_bytes(b"\xff{}")
    command, summary = resume(ended, make_session())
    assert command == "finetune"
    assert summary["finetune_epochs"] == 2
    assert RunDirectory(ended).completed() == ["pretrain", "finetune"]
    assert digests(ended) == expected


@pytest.mark.parametrize(
    ("name", "before", "after", "error"),
    [
        ("config.toml", "seed = 0", "seed = 1", CheckpointError),
        ("schedule.json", "1, 2, 3, 4", "1, 1, 3, 4", ScheduleError),
    ],
)
@pytest.mark.filterwarnings("ignore::mpilayer.errors.DamageWarning")
def test_a_changed_digit_never_changes_the_result(half, name, before, after, error):
    text = (half / name).read_text()
    assert before in text
    (half / name).write_text(text.replace(before, after, 1))
    with pytest.raises(error, match=f"{name} must be as it was written"):
        resume(half, make_session())


# --- the weights that an end has left


def test_a_layer_that_was_removed_is_trained_again(ended, expected):
    """Where it is missing, the advice is to resume: that must not lead back.

    Who is killed meanwhile goes on again.
    """
    RunDirectory(ended).checkpoint("layer-2").unlink()
    with pytest.raises(CheckpointError, match=r"has no checkpoint\. Go on"):
        run_finetune(ended, TUNE, make_session())
    stopped(2, resume, ended)
    assert RunDirectory(ended).completed() == []
    session = make_session()
    resume(ended, session)
    assert not [line for line in session.said if "nothing to do" in line]
    assert digests(ended) == expected
    run_finetune(ended, TUNE, make_session())


def test_fine_tuning_is_made_again(ended, expected):
    """Its weights, its summary, or a layer below it."""
    first = run_finetune(ended, TUNE, make_session())
    before = tuned_weights(ended)
    checkpoint.remove(RunDirectory(ended).checkpoint("finetuned"))
    with pytest.warns(UnfinishedWarning, match=f"'mpilayer resume {ended}'"):
        evaluate(ended, "validation", make_session())
    assert resume(ended, make_session())[0] == "finetune"
    np.testing.assert_equal(tuned_weights(ended), before)

    (ended / "summary.json").unlink()
    command, summary = resume(ended, make_session())
    assert command == "finetune"
    assert summary["finetuned"] == first["finetuned"]
    assert summary.keys() == first.keys()

    RunDirectory(ended).checkpoint("layer-1").unlink()
    resume(ended, make_session())
    assert digests(ended) == expected
    np.testing.assert_equal(tuned_weights(ended), before)
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
