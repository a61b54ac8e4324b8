"""Checkpoints damaged at any place: the one before is used, never wrong weights."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mpilayer.runs.checkpoints import Cut
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.runs.tasks import run_shapes
from mpilayer.store import checkpoint
from mpilayer.train.plans import plan_of
from tests.support.runs import pretrain, run_finetune, run_sparse
from tests.unit.runs.conftest import LONG, SPARSE, TUNE, digests, make_session, stopped

PLACES = 100
LONGER = replace(TUNE, epochs=6)
MORE = replace(SPARSE, evaluations=20)


def damages(content, seed):
    """Yield what damage makes of a file: a byte flipped, an end cut off."""
    rng = np.random.default_rng(seed)
    for where in rng.integers(0, len(content), PLACES):
        yield f"flipped {where}", flipped(content, where, 1 << int(rng.integers(8)))
    for length in rng.integers(0, len(content), PLACES // 4):
        yield f"cut to {length}", content[:length]


def flipped(content, where, bits=1):
    changed = bytearray(content)
    changed[where] ^= bits
    return bytes(changed)


@pytest.mark.parametrize("layer", [0, 1])
def test_layers_go_back_to_checkpoints_that_are_whole(copy, layer):
    run = RunDirectory(copy("half"))
    plan = plan_of(run_shapes(run)[0], run.read_table())
    newest = Cut.newest(run, plan, 2).candidates
    path = run.layer_file(layer, newest[layer])
    whole, (arrays, numbers) = path.read_bytes(), checkpoint.load(path)
    found = 0
    for name, content in damages(whole, layer):
        path.write_bytes(content)
        cut = Cut.newest(run, plan, 2)
        if cut.candidates == newest:
            same, attributes = checkpoint.load(path)
            assert attributes == numbers
            assert all(np.array_equal(same[key], arrays[key]) for key in arrays)
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
        stopped(limit, pretrain, small, run.path, config)
        limit += 1
    path = run.layer_checkpoint(0)
    path.write_bytes(flipped(path.read_bytes(), 3000))
    session = make_session()
    _, again = resume(run.path, session)
    assert f"warning: {path} must" in session.said[0]
    assert "going on after epochs 5" in " ".join(session.said)
    assert digests(again) == digests(whole)
    assert not list(run.checkpoints.glob("*.e*"))


@pytest.fixture
def broken(copy, small, tmp_path):
    """Give a function that returns a run stopped half way, and its summary else."""
    run, whole = tmp_path / "run", tmp_path / "whole"

    def breaks(name):
        if name == "layer-1":
            return copy("half"), RunDirectory(copy("whole", "whole")).read_summary()
        if name == "sparse":
            stopped(9, run_sparse, small, run, MORE)
            return run, run_sparse(small, whole, MORE, make_session())
        shutil.copytree(copy("whole"), whole)
        stopped(3, run_finetune, run, LONGER)
        return run, run_finetune(whole, LONGER, make_session())

    return breaks


@pytest.mark.parametrize("name", ["layer-1", "finetuned", "sparse"])
def test_what_goes_on_after_damage_is_what_was_never_damaged(broken, name):
    """And the whole checkpoint is kept until there is a newer one."""
    run, expected = broken(name)
    *_, path = [
        run / "checkpoints" / f"{name}.h5",
        *sorted((run / "checkpoints").glob(f"{name}.e*.h5")),
    ]
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, len(whole) // 2))
    session = make_session()
    _, summary = resume(run, session)
    assert any(line.startswith(f"warning: {path}") for line in session.said)
    for key in ("train_error", "validation_error", "digest", "pretrained"):
        assert summary.get(key) == expected.get(key), key
    if name == "layer-1":
        assert digests(summary) == digests(expected)


def test_a_damaged_file_does_not_take_the_place_of_a_whole_one(broken):
    """Killed right after it went on, before the next checkpoint is in its place."""
    run, _ = broken("finetuned")
    path = run / "checkpoints" / "finetuned.h5"
    path.write_bytes(path.read_bytes()[:-7000])
    stopped(0, run_finetune, run, LONGER, resume=True)
    for file in path.parent.glob("finetuned*.h5"):
        checkpoint.load(file)
