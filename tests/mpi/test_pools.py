"""Rows in files: the bits of one rank on several, also stopped, and by any clock.

Fine-tuning on such rows is in ``test_data_parallel.py``.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pytest

from mpilayer.far import Scratch
from mpilayer.parallel.channel import Rows
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
