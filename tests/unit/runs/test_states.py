"""What is said of runs that are not at their end, at work, or of another kind."""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest

from mpilayer import memory
from mpilayer.cli.results import show_comparison
from mpilayer.config import FinetuneConfig, as_values
from mpilayer.errors import CheckpointError, ConfigError, DataError, UnfinishedWarning
from mpilayer.interrupt import Interrupted
from mpilayer.runs import tasks
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.runs.evaluate import evaluate
from mpilayer.runs.session import RunLock
from mpilayer.runs.tasks import chosen_task, load_model, load_trained
from mpilayer.runs.use import export, write_rows
from mpilayer.train.evaluate import PCA
from tests.support.runs import pretrain, run_compare, run_finetune, run_sparse
from tests.unit.runs.conftest import SPARSE, STACK, make_session, stopped

TUNE = FinetuneConfig(epochs=6, minibatch=10)


@pytest.fixture
def begun(run):
    """Give a run whose fine-tuning was interrupted after epoch 4 of 6."""
    stopped(3, run_finetune, run, TUNE)
    return run


# --- fine-tuning that has not ended


def test_an_interrupted_fine_tuning_is_gone_on_with(begun):
    words = (
        f"after epoch 4 of 6. Go on with 'mpilayer resume {begun}', or start again "
        "from the pre-trained stack with --replace"
    )
    with pytest.raises(ConfigError, match=words):
        run_finetune(begun, TUNE, make_session())
    resume(begun, make_session())
    load_trained(RunDirectory(begun))  # and no warning is left
    with pytest.raises(ConfigError, match="must not be fine-tuned yet"):
        run_finetune(begun, TUNE, make_session())


def test_who_uses_it_is_told(begun, small, tmp_path, monkeypatch):
    words = f"^fine-tuning of {begun} has not ended: 4 of 6 epochs"
    for use in (
        lambda: evaluate(begun, "validation", make_session()),
        lambda: write_rows("codes", begun, small, tmp_path / "codes.h5"),
        lambda: write_rows("reconstructions", begun, small, tmp_path / "rows.h5"),
        lambda: export(begun, tmp_path / "model.npz"),
    ):
        with pytest.warns(UnfinishedWarning) as seen:
            use()
        assert re.search(f"{words}; go on with 'mpilayer resume", str(seen[0].message))
    monkeypatch.setattr(tasks, "at_work", lambda _: True)
    with pytest.warns(UnfinishedWarning, match=f"{words}.$"):
        load_trained(RunDirectory(begun))


@pytest.mark.parametrize(
    ("section", "words"),
    [("finetune", "^fine-tuning of"), ("classify", "^training of the classifier of")],
)
def test_fine_tuning_that_was_killed_before_it_saved(run, section, words):
    directory = RunDirectory(run)
    directory.write_config({section: as_values(TUNE)})
    with pytest.warns(UnfinishedWarning, match=f"{words} .* has saved nothing yet; "):
        assert load_model(directory, chosen_task(run, None))[0] == "pretrained"


# --- at work, or interrupted


def test_what_cannot_be_used_yet(small, tmp_path, monkeypatch):
    stopped(1, pretrain, small, tmp_path / "deep", STACK)
    stopped(0, run_sparse, small, tmp_path / "sparse", SPARSE)
    for path in (tmp_path / "sparse" / "checkpoints").iterdir():
        path.unlink()
    stands = "it was interrupted. Go on with 'mpilayer resume"
    works = r"come that far yet \(a launch is at work in it\). Wait for it"
    for found, words in ((True, works), (False, stands), (None, stands)):
        monkeypatch.setattr(tasks, "at_work", lambda _, found=found: found)
        for name in ("deep", "sparse"):
            with pytest.raises(CheckpointError, match=words):
                load_trained(RunDirectory(tmp_path / name))


# --- comparisons


@pytest.fixture
def compared(small, tmp_path):
    """Give a comparison on one rank."""
    run_compare(small, tmp_path / "both", SPARSE, make_session())
    return RunDirectory(tmp_path / "both")


def without_shards(directory, **launch):
    """Make a run one of a former version."""
    config = directory.read_config()
    del config["sparse"]["shards"]
    directory.write_config({"sparse": config["sparse"], "launch": launch})


def test_a_comparison_of_one_shard(compared, capsys):
    """There is no gap."""
    path = compared.path / "compare.json"
    before, session = path.read_bytes(), make_session()
    _, found = resume(compared.path, session)
    assert {**found, "seal": json.loads(before)["seal"]} == json.loads(before)
    assert session.said == [
        f"{compared.path} is compared to the end; there is nothing to do"
    ]
    show_comparison(found)
    told = capsys.readouterr().out
    assert "With one shard both are the same" in told
    for words in ("gap, measured", "gap, 99 %", "against the average", "Distance"):
        assert words not in told
    assert path.read_bytes() == before


def test_a_comparison_of_a_former_version(compared):
    """It noted its ranks, which were its shards, and goes on with as many."""
    without_shards(compared, compare_ranks=3)
    compared.set_complete("compare", False)
    for name in ("average", "exact"):
        shutil.rmtree(compared.path / name)
    _, found = resume(compared.path, make_session())
    assert [run["gap"]["shards"] for run in found["runs"].values()] == [3, 3]
    assert found["runs"]["exact"]["gap"]["measured"] > 0


@pytest.mark.parametrize(
    ("asked", "shards", "told"), [(None, 1, True), (0, 1, True), (3, 3, False)]
)
def test_an_average_of_a_former_version(small, tmp_path, asked, shards, told):
    """It did not say over how many shards: the ranks of now, or what the user knows."""
    run, session = tmp_path / "run", make_session(resume=True)
    stopped(4, run_sparse, small, run, replace(SPARSE, shards=3))
    without_shards(RunDirectory(run))
    with pytest.raises(ConfigError, match="got 61 shards with 60 training rows"):
        run_sparse(small, run, replace(SPARSE, shards=61), session)
    if asked is None:
        resume(run, session)
    else:
        run_sparse(small, run, replace(SPARSE, shards=asked), session)
    words = "warning: the run does not say over how many shards it averages"
    assert any(line.startswith(words) for line in session.said) == told
    assert RunDirectory(run).read_config()["sparse"]["shards"] == shards


@pytest.mark.parametrize("train", [run_sparse, run_compare])
def test_more_shards_than_fit_into_memory(monkeypatch, small, tmp_path, train):
    """What every block adds is kept: here 60 times 1.2 MB, of which 70 are free."""
    monkeypatch.setattr(memory, "available", lambda ranks: 70 * 10**6)
    config = replace(SPARSE, hidden=12_000, shards=60)
    with pytest.raises(DataError, match="Use fewer shards than 60"):
        train(small, tmp_path / "run", config, make_session())
    assert not (tmp_path / "run").exists()


def test_a_complete_average_of_a_former_version(small, tmp_path):
    """Its summary says how many ranks, and so shards, there were."""
    run, session = tmp_path / "run", make_session(resume=True)
    run_sparse(small, run, replace(SPARSE, shards=3), make_session())
    directory = RunDirectory(run)
    without_shards(directory)
    directory.write_summary({**directory.read_summary(), "ranks": 3})
    with pytest.raises(ConfigError, match="--shards was 3, is 2"):
        run_sparse(small, run, replace(SPARSE, shards=2), session)
    run_sparse(small, run, replace(SPARSE, evaluations=12), session)
    assert "sparsity term averaged over 3 shards of 60 rows" in session.said
    assert not any("former version" in line for line in session.said)


def test_what_a_run_averages_over_stays(small, tmp_path):
    """Whatever the ranks: here it begins as if on three."""
    runs = [tmp_path / "whole", tmp_path / "broken"]
    for run, session in zip(runs, (make_session(), make_session(4)), strict=True):
        with suppress(Interrupted):
            run_sparse(small, run, replace(SPARSE, shards=3), session)
    found = run_sparse(small, runs[1], SPARSE, again := make_session(resume=True))
    assert "sparsity term averaged over 3 shards of 60 rows" in again.said
    assert found["digest"] == RunDirectory(runs[0]).read_summary()["digest"]
    with pytest.raises(ConfigError, match="--shards was 3, is 2"):
        run_sparse(small, runs[1], replace(SPARSE, shards=2), again)


# --- runs of another kind


def test_only_the_same_command_goes_on(small, tmp_path):
    for train, config, sections, kind in (
        (pretrain, STACK, ("sparse",), "a sparse run"),
        (run_sparse, SPARSE, ("pretrain",), "a pre-trained run"),
        (run_sparse, SPARSE, ("sparse", "compare"), "a comparison"),
        (run_compare, SPARSE, ("pretrain",), "a pre-trained run"),
    ):
        (tmp_path / "config.toml").unlink(missing_ok=True)
        RunDirectory(tmp_path).write_config({section: {} for section in sections})
        words = f"is {kind}. Go on with 'mpilayer resume {tmp_path}'"
        with pytest.raises(ConfigError, match=words):
            train(small, tmp_path, config, make_session(resume=True))


def test_an_experiment_is_no_run(run):
    (run.parent / "experiment.toml").touch()
    words = (
        f"that of an experiment. Name a run in it, such as {run}. The whole goes on "
        f"with 'mpilayer run {run.parent}/experiment.toml --resume auto'."
    )
    with pytest.raises(CheckpointError, match=words):
        RunDirectory.open(run.parent)


def test_what_is_no_run_is_not_waited_for(tmp_path):
    lock, session = RunLock(tmp_path), make_session()
    assert lock.take()
    with pytest.raises(CheckpointError, match="must be the directory of a run"):
        run_finetune(tmp_path, TUNE, session)
    lock.release(remove=True)
    assert session.said == []


def test_principal_components_that_would_take_too_long(small, tmp_path, monkeypatch):
    monkeypatch.setattr(PCA, "MOST_NUMBERS", 100)
    session = make_session()
    summary = pretrain(small, tmp_path / "run", STACK, session)
    assert summary["pca"] == dict.fromkeys(("train", "validation", "test"))
    assert summary["train_error"] > 0
    message = "PCA of 60 rows with 12 columns would take too long: its error is left"
    assert sum(message in line for line in session.said) == 1
    again = make_session()
    result = evaluate(tmp_path / "run", "validation", again)
    assert result["pca_error"] is None
    assert result["error"] > 0
    assert any(message in line for line in again.said)
