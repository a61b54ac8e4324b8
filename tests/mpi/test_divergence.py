"""A layer whose weights become infinite ends the training of all ranks."""

from functools import partial

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.errors import TrainingError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.notice import Notice
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.groups import RowGroups
from mpilayer.train.plans import TablePlan
from mpilayer.train.pretrain import Keeper
from tests.mpi.test_teams import teams
from tests.support.pipeline import EPOCHS, TABLES, async_plan, each_epoch, train
from tests.support.together import assert_all_received, caught, together
from tests.support.toys import randomize, rows

pytestmark = pytest.mark.mpi(min_size=2)
PLANS = {
    **{
        name: TablePlan(table, True)
        for name, table in TABLES.items()
        if min(table.epochs) > 1
    },
    "async": async_plan(),
    "async, first layer": async_plan("first-layer"),
    "async, no extra": async_plan(extra=0),
    "teams": TablePlan(TABLES["lockstep"], True),
}


def diverging(layer, epoch):
    """Return what lets a layer diverge in an epoch."""

    def steepen(state, _):
        if (state.index, state.epoch + 1) == (layer, epoch):
            state.learning_rate = 1e30

    return each_epoch(steepen)


# When the first layer's end is the end, those above may not come so far.
CASES = [
    (name, layer)
    for name in PLANS
    for layer in range(4)
    if layer == 0 or name != "async, first layer"
    if layer in (0, 3) or name != "teams"
]


@pytest.mark.parametrize(("name", "layer"), CASES)
def test_a_layer_that_diverges_ends_all_ranks(world, name, layer):
    """Found by all ranks of a team, told once, on all."""
    for epoch in (1, 2):
        notice = Notice(world)
        options = teams(world, layer) if name == "teams" else {}
        options["prepare"] = diverging(layer, epoch)
        found = caught(partial(train, world, PLANS[name], Keeper(notice), **options))
        notice.close()
        assert_all_received(world)
        everywhere = world.allgather(found)
        with together(world):
            assert found[::2] == (TrainingError, True)
            assert f"layer {layer + 1} are not after epoch {epoch}:" in found[1]
            assert everywhere == [found] * world.size


@pytest.mark.parametrize("hosts", [lambda w: (), lambda w: [0] * w.size])
def test_fine_tuning_that_diverges(world, hosts):
    stack = DeepAutoencoder([LayerShape(12, 8, "linear"), LayerShape(8, 4)])
    settings = {"minibatch": 20, "optimizer": "sgd", "loss": "squared"}
    config = FinetuneConfig(epochs=5, learning_rate=1e6, **settings)
    groups = RowGroups(world, hosts(world))
    strata = groups.strata(90, 20)
    mine, stack = rows(90)[slice(*strata.rows)], randomize(stack)
    state = FinetuneState(stack, config, groups.team)
    found = caught(lambda: list(finetune(state, strata, mine, rows(0), groups)))
    everywhere = world.allgather(found)
    with together(world):
        assert found[::2] == (TrainingError, True)
        assert "fine-tuning" in found[1]
        assert everywhere == [found] * world.size
        assert np.isfinite(state.best).all()
        assert state.epoch <= EPOCHS
