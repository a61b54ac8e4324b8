"""Checkpoints damaged at any place: the one before is used, never wrong weights."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mpilayer.errors import CheckpointError
from mpilayer.interrupt import Interrupted
from mpilayer.runs.checkpoints import Cut
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.runs.model import run_shapes
from mpilayer.store import checkpoint
from mpilayer.train.plans import plan_of
from tests.support.runs import pretrain, run_finetune, run_sparse
from tests.unit.runs.conftest import SPARSE, STACK, digests, make_session
from tests.unit.runs.conftest import TUNE as SHORT

PLACES = 100
LONG = replace(STACK, epochs=(6,))
TUNE = replace(SHORT, epochs=6)
MORE = replace(SPARSE, evaluations=20)


def damages(n_bytes, seed):
    """Yield what can be done to a file: a byte flipped, an end cut off."""
    rng = np.random.default_rng(seed)
    for where in rng.integers(0, n_bytes, PLACES):
        yield f"flipped {where}", _flip(int(where), 1 << int(rng.integers(8)))
    for length in rng.integers(0, n_bytes, PLACES // 4):
        yield f"cut to {length}", lambda content, n=int(length): content[:n]


def _flip(where, bits):
    def flip(content):
        changed = bytearray(content)
        changed[where] ^= bits
        return bytes(changed)

    return flip


def assert_same_content(found, expected):
    """Demand the same arrays and attributes, to the bit."""
    assert found[0].keys() == expected[0].keys()
    for name, array in expected[0].items():
        assert found[0][name].dtype == array.dtype
        np.testing.assert_array_equal(found[0][name], array)
    assert found[1] == expected[1]


def stopped(work):
    """Demand that a run is asked to end on its way."""
    with pytest.raises(Interrupted):
        work()


@pytest.fixture(scope="module")
def broken(small, tmp_path_factory):
    """Give interrupted runs by the name of a file, and summaries of uninterrupted ones.

    A pre-training, a fine-tuning and a sparse run, each about half way.
    """
    folder = tmp_path_factory.mktemp("broken")
    runs = [folder / name for name in ("layer-1", "finetuned", "sparse")]
    stack, tuned, sparse = runs
    stopped(lambda: pretrain(small, stack, LONG, make_session(7)))
    whole = [pretrain(small, tuned, LONG, make_session())]
    shutil.copytree(tuned, folder / "whole")
    whole.append(run_finetune(folder / "whole", TUNE, make_session()))
    stopped(lambda: run_finetune(tuned, TUNE, make_session(3)))
    whole.append(run_sparse(small, folder / "other", MORE, make_session()))
    stopped(lambda: run_sparse(small, sparse, MORE, make_session(9)))
    return {run.name: (run, summary) for run, summary in zip(runs, whole, strict=True)}


@pytest.fixture
def copy(broken, tmp_path):
    """Give a function that copies an interrupted run."""
    return lambda name: shutil.copytree(broken[name][0], tmp_path / name)


@pytest.mark.parametrize("layer", [0, 1])
def test_layers_go_back_to_checkpoints_that_are_whole(copy, layer):
    run = RunDirectory(copy("layer-1"))
    plan = plan_of(run_shapes(run)[0], run.read_table())
    newest = Cut.newest(run, plan, 2).candidates
    path = run.layer_file(layer, newest[layer])
    whole, expected = path.read_bytes(), checkpoint.load(path)
    found = 0
    for name, damage in damages(len(whole), layer):
        path.write_bytes(damage(whole))
        cut = Cut.newest(run, plan, 2)
        if cut.candidates == newest:
            assert_same_content(checkpoint.load(path), expected)
            continue
        found += 1
        assert 0 < cut.candidates[layer].epoch < newest[layer].epoch, name
        (remark,) = cut.remarks
        assert remark.startswith(f"{path} must "), name
        assert remark.endswith("Going on from an older one."), name
        for index, candidate in enumerate(cut.candidates):
            assert candidate.epoch >= newest[index].epoch - 2, name
            checkpoint.load(run.layer_file(index, candidate))
    assert found > PLACES


@pytest.mark.parametrize("schedule", ["greedy", "lockstep"])
def test_a_layer_that_has_ended_is_not_lost_with_its_file(small, tmp_path, schedule):
    config = replace(LONG, schedule=schedule, layers=(8, 6, 5))
    whole = pretrain(small, tmp_path / "whole", config, make_session())
    run = RunDirectory(tmp_path / "run")
    limit = 9
    while not run.layer_checkpoint(0).exists():
        shutil.rmtree(run.path, ignore_errors=True)
        stopped(lambda n=limit: pretrain(small, run.path, config, make_session(n)))
        limit += 1
    path = run.layer_checkpoint(0)
    path.write_bytes(_flip(3000, 1)(path.read_bytes()))
    session = make_session()
    _, again = resume(run.path, session)
    assert f"warning: {path} must" in session.said[0]
    assert "going on after epochs 5" in " ".join(session.said)
    assert digests(again) == digests(whole)
    assert not list(run.checkpoints.glob("*.e*"))


@pytest.mark.parametrize("name", ["finetuned", "sparse"])
def test_the_last_one_or_the_one_before_it(copy, name):
    """Whatever is damaged, and with a remark."""
    path = RunDirectory(copy(name)).checkpoint(name)
    previous = path.with_name(f"{name}.previous.h5")
    last, before = checkpoint.load(path), checkpoint.load(previous)
    whole, found = path.read_bytes(), 0
    for where, damage in damages(len(whole), 3):
        path.write_bytes(damage(whole))
        *state, remark = checkpoint.load_newest(path)
        assert_same_content(state, before if remark else last)
        if remark:
            found += 1
            assert remark.startswith(f"{path} must "), where
            assert remark.endswith("The one before it is used."), where
    assert found > PLACES
    previous.unlink()
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.load_newest(path)


@pytest.mark.parametrize("name", ["layer-1", "finetuned", "sparse"])
def test_what_goes_on_after_damage_is_what_was_never_damaged(broken, copy, name):
    """And the whole checkpoint is kept until there is a newer one."""
    run, (_, expected) = copy(name), broken[name]
    *_, path = [
        run / "checkpoints" / f"{name}.h5",
        *sorted((run / "checkpoints").glob(f"{name}.e*.h5")),
    ]
    whole = path.read_bytes()
    path.write_bytes(_flip(len(whole) // 2, 1)(whole))
    session = make_session()
    _, summary = resume(run, session)
    assert any(line.startswith(f"warning: {path}") for line in session.said)
    for key in ("train_error", "validation_error", "digest", "pretrained"):
        assert summary.get(key) == expected.get(key), key
    if name == "layer-1":
        assert digests(summary) == digests(expected)


def test_a_damaged_file_does_not_take_the_place_of_a_whole_one(copy):
    """Killed right after it went on, before the next checkpoint is in its place."""
    run = copy("finetuned")
    path = run / "checkpoints" / "finetuned.h5"
    path.write_bytes(path.read_bytes()[:-7000])
    stopped(lambda: run_finetune(run, TUNE, make_session(0, resume=True)))
    for file in path.parent.glob("finetuned*.h5"):
        checkpoint.load(file)
