"""Checkpoints of format version 1, written in November 2026, are read and continued.

They lie in ``tests/reference/checkpoints``: a layer after 2 epochs, a stack after 2
epochs of fine-tuning with Adam, a sparse autoencoder after 3 iterations of L-BFGS; a
README beside them says how they were made. Here the same is trained without a break;
other BLAS libraries than the one at that time round differently.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.optim.lbfgs import LBFGSState
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.runs.checkpoints import restore, saving
from mpilayer.runs.directory import RunDirectory
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.groups import RowGroups
from mpilayer.train.plans import Candidate
from mpilayer.train.pretrain import Snapshot
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.strata import Strata
from tests.support import sparse
from tests.support.pipeline import data, new_states
from tests.support.toys import randomize, rows

FILES = Path(__file__).parents[2] / "reference" / "checkpoints"
SERIAL = SerialCommunicator()


@pytest.fixture
def directory(tmp_path):
    """Give a run directory with copies of all."""
    shutil.copytree(FILES, tmp_path / "checkpoints")
    return RunDirectory(tmp_path)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def assert_same_content(path, *states, **facts):
    """Demand that what is written today has the same names, types and numbers."""
    again = path.with_name("again.h5")
    saving(again, *states, **facts)()
    with h5py.File(path) as old, h5py.File(again) as new:
        found, expected = ({}, {})
        for file, kept in ((old, expected), (new, found)):
            file.visititems(lambda name, item, kept=kept: kept.update({name: item}))
        assert found.keys() == expected.keys()
        for name, item in expected.items():
            if isinstance(item, h5py.Dataset):
                np.testing.assert_array_equal(found[name][()], item[()])
                assert found[name].dtype == item.dtype
        names = set(old.attrs) - {"creator", "digest"}
        assert set(new.attrs) - {"creator", "digest"} >= names
        for name in names:
            assert new.attrs[name] == old.attrs[name]
            assert new.attrs.get_id(name).dtype == old.attrs.get_id(name).dtype


def test_a_layer(directory):
    (candidate,) = directory.layer_candidates(0)
    assert candidate == Candidate(2, 0, False)
    state, whole = new_states()[0], new_states()[0]
    path = directory.layer_file(0, candidate)
    arrays, numbers, _ = restore(path, state)
    snapshot = Snapshot.restore(candidate, arrays, numbers)
    assert_same_content(path, state, snapshot, content="layer")
    assert (snapshot.candidate, snapshot.row, snapshot.dropped) == (
        candidate,
        (0, 0),
        (1,),
    )
    assert (state.epoch, state.optimizer.steps, snapshot.extra_left) == (2, 10, 1)
    for _ in range(2):
        whole.train_epoch(data().train)
    close(state.layer.parameters.vector, whole.layer.parameters.vector)
    for layer in (state, whole):
        layer.train_epoch(data().train)
    close(state.layer.parameters.vector, whole.layer.parameters.vector)


def new_finetune():
    stack = DeepAutoencoder([LayerShape(12, 5), LayerShape(5, 3)])
    config = FinetuneConfig(
        epochs=2, minibatch=20, optimizer="adam", learning_rate=0.01
    )
    return FinetuneState(randomize(stack, deviation=0.3), config)


def tune(state, epochs):
    state.config = replace(state.config, epochs=epochs)
    train, validation = rows(110), rows(40, seed=1)
    strata = Strata.of_rank(len(train), 20, 0, 1)
    return list(finetune(state, strata, train, validation, RowGroups(SERIAL)))


def test_a_fine_tuned_stack(directory):
    state, whole = new_finetune(), new_finetune()
    path = directory.checkpoint("finetuned")
    _, numbers, remark = restore(path, state)
    assert (numbers["seconds"], remark) == (1.5, "")
    state.config = replace(state.config, epochs=4)
    assert_same_content(path, state, content="finetuned", seconds=1.5)
    assert (state.epoch, state.optimizer.steps) == (2, 12)
    records, expected = tune(state, 4), tune(whole, 4)[2:]
    assert [r.epoch for r in records] == [3, 4]
    close([r.train_loss for r in records], [r.train_loss for r in expected])
    assert state.best_epoch == whole.best_epoch
    close(state.best, whole.best)


def new_descent(iterations):
    config = sparse.settings(iterations=iterations, evaluations=100)
    return Descent(sparse.fresh_cost(config, sparse.patches(60)), config)


def descend(first, iterations):
    descent = new_descent(iterations)
    descent.state = first
    *_, last = descent.states()
    return last


def test_a_sparse_autoencoder(directory):
    path, descent = directory.checkpoint("sparse"), new_descent(8)
    _, numbers, remark = restore(path, descent)
    assert_same_content(path, descent, content="sparse", seconds=2.5)
    state = descent.state
    assert isinstance(state, LBFGSState)
    assert (state.iteration, len(state.pairs), remark) == (3, 3, "")
    assert (descent.cost.evaluations, numbers["seconds"]) == (7, 2.5)
    last, whole = descend(state, 8), descend(None, 8)
    assert last.iteration == whole.iteration == 8
    close(last.position, whole.position)
    assert last.cost == pytest.approx(whole.cost, rel=1e-6)
