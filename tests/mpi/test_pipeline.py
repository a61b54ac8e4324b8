"""Pre-training on several ranks does what it does on one."""

import time
from dataclasses import replace

import pytest

from mpilayer.parallel import channel
from mpilayer.train.plans import TablePlan
from tests.support.paper import demand_rule
from tests.support.pipeline import (
    CONFIG,
    TABLES,
    alone,
    assert_same,
    assert_sensible,
    async_plan,
    data,
    each_epoch,
    hesitate,
    train,
)
from tests.support.together import assert_all_received, together

pytestmark = pytest.mark.mpi(min_size=2)
# Outputs too large to leave before somebody receives them: they can be dropped.
LARGE, COARSE = data(3000, 200), replace(CONFIG, minibatch=500)


@pytest.mark.parametrize("n_validation", [30, 0])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_tables(world, name, streamed, n_validation, monkeypatch):
    """An output travels in several blocks."""
    monkeypatch.setattr(channel, "BLOCK_BYTES", 1000)
    plan, rows = TablePlan(TABLES[name], streamed), data(90, n_validation)
    expected, found = alone(world, plan, rows=rows), train(world, plan, rows=rows)
    assert_all_received(world)
    with together(world):
        assert found.used == TABLES[name].used
        assert not any(found.dropped)
        if n_validation:
            assert_same(found, expected)
        else:
            assert found.digests == expected.digests


CASES = {
    "nobody hesitates": ((), data(), CONFIG),
    "first layer": ((0,), LARGE, COARSE),
    "all": ((0, 1, 2, 3), LARGE, COARSE),
}


@pytest.mark.parametrize("end", ["stipulated", "all", "first-layer"])
@pytest.mark.parametrize("case", CASES)
def test_an_asynchronous_run_can_be_replayed(world, end, case):
    hesitant, rows, config = CASES[case]

    def prepare(state):
        if state.index in hesitant:
            hesitate(state)

    options = {"rows": rows, "config": config}
    recorded = train(world, async_plan(end), **options, prepare=prepare)
    assert_all_received(world)
    with together(world):
        assert_sensible(recorded, end)
    plan = TablePlan(recorded.schedule(), True)
    replayed = train(world, plan, **options)
    serial = alone(world, plan, **options)
    assert_all_received(world)
    with together(world):
        assert_same(replayed, recorded)
        assert_same(serial, recorded)


def test_a_slow_rank_above_lets_outputs_drop(world):
    """Rank 0 has ended before the others have done their first epoch."""

    def late(state, _):
        if world.rank > 0 and state.epoch == 0:
            time.sleep(0.5)

    options = {"rows": LARGE, "config": COARSE}
    recorded = train(world, async_plan(), **options, prepare=each_epoch(late))
    serial = alone(world, TablePlan(recorded.schedule(), True), **options)
    with together(world):
        assert_sensible(recorded, "all")
        assert any(recorded.dropped)
        assert_same(serial, recorded)


def slowed(pauses, times):
    """Return what lets layers pause in their epochs, and notes when those run.

    Parameters
    ----------
    pauses : mapping of int to float
        Seconds of each epoch of a layer, in parts between minibatches.
    times : dict
        Receives (began, ended) of every epoch by layer; one clock for all ranks of a
        host.
    """

    def prepare(state):
        index = state.index
        trained, contrast = state.train_epoch, state.layer.contrast
        pause = pauses.get(index, 0) / 5

        def train_epoch(*arguments):
            began = time.perf_counter()
            trained(*arguments)
            times.setdefault(index, []).append((began, time.perf_counter()))

        def slow(*arguments):
            time.sleep(pause)
            return contrast(*arguments)

        state.train_epoch = train_epoch
        if pause:
            state.layer.contrast = slow

    return prepare


def merged(world, times):
    """Return the times of all layers. Collective."""
    return {index: t for part in world.allgather(times) for index, t in part.items()}


def course(found, clocks, layer):
    """Return what a layer used, when it began to, and when that was made."""
    starts = [began for began, _ in clocks[layer]]
    return found.used[layer], starts, [ended for _, ended in clocks[layer - 1]]


@pytest.mark.parametrize("end", ["all", "first-layer"])
def test_above_a_slow_layer(world, end):
    """It does its epochs on the first output, sleeps, and wakes for every newer one."""
    plan, times = async_plan(end, 1, epochs=(5, 5, 3, 3)), {}
    found = train(world, plan, prepare=slowed({0: 0.8}, times))
    clocks = merged(world, times)
    with together(world):
        # An end with the first layer comes before its last output.
        most = (1, 1, 1, 1, 1, 2, 3, 4, 5)[: None if end == "all" else -1]
        assert found.used[1] == most
        for layer, stipulated in ((1, 5), (2, 3), (3, 3)):
            demand_rule(*course(found, clocks, layer), stipulated, 1, slack=0.2)


@pytest.mark.parametrize("rows", [data(100), data(4000, 200)], ids=["small", "large"])
def test_a_slow_layer_takes_the_newest(world, rows):
    """Above and below the limit under which MPI sends messages at once."""
    config, times = replace(CONFIG, minibatch=len(rows.train) // 5), {}
    plan = async_plan(epochs=(25, 5, 5, 5))
    prepare = slowed({0: 0.1, 1: 0.5}, times)
    found = train(world, plan, rows=rows, config=config, prepare=prepare)
    clocks = merged(world, times)
    with together(world):
        for layer in (1, 2, 3):
            # Both ends move messages on between minibatches, a tenth of a second apart.
            demand_rule(*course(found, clocks, layer), 5, 2, slack=0.35)
        assert found.used[1][1] > 2, "the test must be able to fail"
