"""Several ranks to a layer: the bits of one rank, whoever has which slice."""

import numpy as np
import pytest

from mpilayer.arrays import StoredRows
from mpilayer.config import PretrainConfig
from mpilayer.data.dataset import PIXEL_SCALE
from mpilayer.models.base import LayerShape
from mpilayer.parallel.team import ALONE, Team
from mpilayer.train.layer import LayerState, monitored
from mpilayer.train.plans import TablePlan
from tests.support import toys
from tests.support.pipeline import (
    EPOCHS,
    TABLES,
    alone,
    assert_same,
    assert_sensible,
    async_plan,
    data,
    hesitate,
    interrupted,
    train,
)
from tests.support.small import pixels
from tests.support.together import assert_all_received, together

pytestmark = pytest.mark.mpi(min_size=2)
CONFIG = PretrainConfig(
    layers=(195, 130, 70, 64), slices=(3, 2, 1, 1), epochs=(EPOCHS,), minibatch=20
)
ROWS = data(81, 30, n_visible=65)
ONE = {"config": CONFIG, "rows": ROWS}
# By the number of ranks.
LAYOUTS = {
    2: ("1-4:2",),
    3: ("1:2 2-4:1", "1:1 2-4:2", "1-4:3"),
    4: ("1:2 2-4:2", "1-3:3 4:1", "1:1 2:2 3-4:1", "1-4:4"),
}


def in_bytes():
    """Return rows of a byte a number, none to validate."""
    stored = StoredRows(pixels(81, 65), PIXEL_SCALE)
    return monitored(stored, np.empty((0, 65), np.float32), 50)


def teams(world, which):
    """Return the options of training in teams."""
    layouts = LAYOUTS[world.size]
    return {**ONE, "layout": layouts[which % len(layouts)]}


@pytest.mark.parametrize("name", TABLES)
def test_tables(world, name):
    """With rows in bytes, none to validate, too."""
    which = list(TABLES).index(name)
    plan = TablePlan(TABLES[name], streamed=bool(which % 2))
    made = in_bytes if which % 3 == 0 else lambda: ROWS
    expected = alone(world, plan, config=CONFIG, rows=made())
    found = train(world, plan, **{**teams(world, which), "rows": made()})
    assert_all_received(world)
    with together(world):
        assert found.used == TABLES[name].used
        assert found.digests == expected.digests
        if made is not in_bytes:
            assert_same(found, expected)


SIGMOID, AUTOENCODER = LayerShape(65, 195), {"method": "autoencoder"}


@pytest.mark.parametrize(
    ("shape", "n_rows", "options"),
    [
        (SIGMOID, 50, {}),
        (LayerShape(13, 195), 50, {"cd_steps": 2}),
        (LayerShape(17, 200), 41, {"weight_decay": 0.01}),
        (LayerShape(130, 193), 41, {"minibatch": 1}),
        (LayerShape(33, 195, "linear"), 19, {"learning_rate": (0.01,)}),
        (LayerShape(1, 195), 50, {"cd_steps": 3}),
        (SIGMOID, 1, {}),
        (SIGMOID, 41, AUTOENCODER),
        (LayerShape(17, 195), 50, {**AUTOENCODER, "tied": False}),
        (LayerShape(13, 193), 41, {**AUTOENCODER, "weight_decay": 0.01}),
        (SIGMOID, 7, {**AUTOENCODER, "tied": False, "loss": "cross-entropy"}),
        (LayerShape(130, 195), 33, {**AUTOENCODER, "minibatch": 1, "tied": False}),
    ],
)
def test_layers(world, shape, n_rows, options):
    """Both epochs' momenta, and what a layer passes on."""
    settings = {"layers": (shape.n_hidden,), "momentum_switch": 1, "minibatch": 20}
    config = PretrainConfig(**{**settings, **options}, slices=(3,))
    rows = toys.rows(n_rows, shape.n_visible)

    def trained(team):
        state = LayerState(config, [shape], 0, team)
        own, passed = (
            team.array((n_rows, n)) for n in (shape.n_visible, shape.n_hidden)
        )
        if team.is_head:
            own[:] = rows
        for _ in range(2):
            state.train_epoch(own, passed)
        return [*state.arrays().values(), passed.copy()]

    expected = world.on_root(lambda: trained(ALONE))
    with Team(world) as team:
        found = trained(team)
    with together(world):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def hesitates(state):
    """The head's clock alone decides; a follower that hesitates only delays."""
    if state.index in (0, 2):
        hesitate(state)


@pytest.mark.parametrize(("name", "rank"), [("gaps", -1), ("async", 0)])
def test_stopped(world, name, rank):
    """By the head or a follower; other teams go on, and one rank alone."""
    rank %= world.size
    plan = async_plan() if name == "async" else TablePlan(TABLES[name], True)
    stage = interrupted(world, plan, rank, 2, **teams(world, rank))
    cut = stage.cut(plan)
    options = {**teams(world, rank + 1), "prepare": hesitates}
    ended = train(world, plan, None, stage, **options)
    assert_all_received(world)
    if name == "async":
        expected = alone(world, TablePlan(ended.schedule(), True), **ONE)
    else:
        expected = alone(world, plan, **ONE)
        serial = alone(world, plan, stage, **ONE)
        with together(world):
            assert stage.interrupted
            assert_same(serial, expected)
    with together(world):
        assert tuple(mine.epoch for mine in cut) == stage.epochs
        assert_same(ended, expected)
        if name == "async":
            assert_sensible(ended, "all")
