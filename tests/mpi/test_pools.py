"""Rows in files: the bits of one rank on several, also stopped, and by any clock."""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.far import Scratch
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.finetune import FinetuneState, finetune, validation_rows
from mpilayer.train.groups import RowGroups
from mpilayer.train.plans import TablePlan
from tests.mpi.test_teams import CONFIG, LAYOUTS, ROWS
from tests.support import toys
from tests.support.pipeline import (
    TABLES,
    alone,
    assert_same,
    assert_sensible,
    async_plan,
    interrupted,
    train,
)
from tests.support.small import pixels
from tests.support.together import assert_all_received, together

pytestmark = pytest.mark.mpi(min_size=2)
SETTINGS = {"config": replace(CONFIG, minibatch=8)}
# A pool of any layer has 64 of 81 rows, in chunks of 8.
HELD = 256 + 2 * 64 * 4 * (195 + 130)


@pytest.fixture
def far(world):
    """Give the options of one rank, and of all: each in a folder of its own."""
    # pytest's folder is each rank's, and all ranks would tidy up there at once.
    folder = world.on_root(lambda: Path(mkdtemp()))
    stored = toys.Far(pixels(81, 65), 1 / 255)
    given = []
    for name in ("alone", "all"):
        scratch = Scratch(folder / name, HELD)
        world.on_root(scratch.make)
        data = Rows(stored, ROWS.sample, ROWS.validation)
        given.append({**SETTINGS, "rows": data, "scratch": scratch})
    yield given
    world.barrier()
    world.on_root(lambda: shutil.rmtree(folder))


@pytest.mark.parametrize(
    ("name", "streamed"), [("lockstep", True), ("greedy", False), ("gaps", True)]
)
def test_tables(world, far, name, streamed):
    plan, (one, every) = TablePlan(TABLES[name], streamed), far
    expected = alone(world, plan, **one)
    for layout in LAYOUTS[world.size][: 1 + (name == "lockstep")]:
        found = train(world, plan, **every, layout=layout)
        assert_all_received(world)
        with together(world):
            assert_same(found, expected)


def test_stopped_and_replayed(world, far):
    """An asynchronous run leaves outputs that nobody takes."""
    plan, (one, every) = async_plan("stipulated"), far
    layout = LAYOUTS[world.size][0]
    stage = interrupted(world, plan, world.size - 1, 2, **every, layout=layout)
    ended = train(world, plan, None, stage, **every, layout=layout)
    assert_all_received(world)
    expected = alone(world, TablePlan(ended.schedule(), True), **one)
    with together(world):
        assert_sensible(ended, "stipulated")
        assert_same(expected, ended)


@pytest.mark.parametrize("parallel", ["units", "rows"])
def test_fine_tuning(world, parallel):
    train_rows, validation = toys.rows(230), toys.rows(600, seed=1)
    config = FinetuneConfig(epochs=2, minibatch=20, slices=2 * (parallel == "units"))

    def tuned(groups):
        with groups:
            stack = DeepAutoencoder([LayerShape(12, 130)])
            stack = toys.randomize(stack, deviation=0.3)
            state = FinetuneState(stack, config, groups.team)
            strata = replace(groups.strata(230, 20), piece=4)
            mine = toys.Far(train_rows[slice(*strata.rows)])
            part = slice(*validation_rows(600, groups.comm))
            tested = toys.Far(validation[part])
            records = list(finetune(state, strata, mine, tested, groups))
            state.leave()
            return stack.parameters.vector, records[-1].validation_error

    expected = world.on_root(lambda: tuned(RowGroups(SerialCommunicator())))
    hosts = ["here"] * world.size if parallel == "units" else ()
    found = tuned(RowGroups(world, hosts))
    with together(world):
        if parallel == "units":
            np.testing.assert_equal(found, expected)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
