"""Killed between two steps on files: the run says what it is, and nothing is lost."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mpilayer.config import DataConfig
from mpilayer.data.dataset import Dataset
from mpilayer.data.preparation import Preparation
from mpilayer.data.recipe import make_data
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.store import checkpoint
from tests.support.runs import pretrain, run_finetune
from tests.unit.runs.conftest import STACK, TUNE, digests, make_session

# Nothing is streamed: more epochs change nothing before.
SAME = replace(STACK, activations="transformed")
LONGER = replace(SAME, epochs=(4,))
STEPS = ("replace", "rename", "unlink")


class Killed(BaseException):
    """Ends a run as a signal would."""


def kill(number, work):
    """Kill some work before a step on files; tell whether it had so many."""
    done = 0

    def counted(step):
        def take(path, *arguments, **options):
            nonlocal done
            if path.name == ".lock":  # a killed process does not come to that
                return step(path, *arguments, **options)
            done += 1
            if done > number:
                raise Killed
            return step(path, *arguments, **options)

        return take

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(Path, name, counted(getattr(Path, name)))
        try:
            work()
        except Killed:
            return True
    return False


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory):
    """Give a pre-trained run that tests copy."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain(small, run, SAME, make_session())
    return run


@pytest.fixture
def killed(tmp_path):
    """Give copies of a run, in each of which some work was killed a step later."""
    target = tmp_path / "run"

    def kills(run, work):
        for number in range(12):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(run, target)
            assert kill(number, lambda: work(target))
            yield target

    return kills


def test_a_run_that_is_made_longer(small, pretrained, killed, tmp_path):
    longer = digests(pretrain(small, tmp_path / "whole", LONGER, make_session()))
    shorter = digests(pretrained)
    seen = []
    for run in killed(
        pretrained, lambda run: pretrain(small, run, LONGER, make_session(resume=True))
    ):
        session = make_session()
        _, summary = resume(run, session)
        # The weights that were there are not trained again.
        assert "going on after epochs 0" not in " ".join(session.said)
        for file in (run / "checkpoints").iterdir():
            checkpoint.load(file)
        seen.append(digests(summary))
    assert all(found in (shorter, longer) for found in seen)
    assert (seen[0], seen[-1]) == (shorter, longer)


def test_settings_of_fine_tuning_come_with_their_threads(pretrained, killed):
    seen = []
    for run in killed(pretrained, lambda run: run_finetune(run, TUNE, make_session())):
        sections, session = RunDirectory(run).read_config(), make_session()
        begun = "finetune" in sections
        assert ("finetune_threads" in sections["launch"]) == begun
        command, _ = resume(run, session)
        assert command == ("finetune" if begun else "pretrain")
        assert RunDirectory(run).is_complete("finetune") == begun
        if not begun:
            assert session.said == [
                f"{run} is pre-trained to the end; there is nothing to do. Fine-tune "
                f"it with 'mpilayer finetune {run}'"
            ]
            run_finetune(run, TUNE, make_session(resume=True))
        seen.append(begun)
    assert (seen[0], seen[-1]) == (False, True)


def test_fine_tuning_anew_never_passes_for_complete(pretrained, killed, tmp_path):
    """What has been removed is not said to be there."""
    tuned = shutil.copytree(pretrained, tmp_path / "tuned")
    run_finetune(tuned, TUNE, make_session())
    other = replace(TUNE, seed=7)
    for run in killed(
        tuned, lambda run: run_finetune(run, other, make_session(), replace=True)
    ):
        directory = RunDirectory(run)
        if directory.is_complete("finetune"):
            checkpoint.load(directory.checkpoint("finetuned"))
        resume(run, make_session())
        assert directory.is_complete("finetune")
        checkpoint.load(directory.checkpoint("finetuned"))


def test_a_run_of_scaled_data_that_has_hardly_begun(small, tmp_path):
    """Whatever was written first, the same command and --resume auto begin anew."""
    data = tmp_path / "scaled.h5"
    make_data(DataConfig(source=str(small), scale="minmax"), data)
    left = set()
    for number in range(14, 24):
        run = tmp_path / f"run-{number}"
        begin = make_session(resume=True)
        assert kill(number, lambda s=begin, r=run: pretrain(data, r, STACK, s))
        left |= {path.name for path in run.glob("*")}
        if run.is_dir() and not (run / "config.toml").exists():
            # Killed while it was written, too.
            (run / ".preparation.json.7.tmp").write_text("{")
        pretrain(data, run, STACK, make_session(resume=True))
        content = RunDirectory(run).read_summary("preparation.json")
        with Dataset.open(data) as dataset:
            found = Preparation.from_json(content, dataset.n_visible, run)
            assert found == dataset.preparation
            assert found.scaling is not None
    assert {"preparation.json", "config.toml"} <= left
