"""Pre-training on several ranks does what it does on one."""

import time
from dataclasses import replace

import numpy as np
import pytest

from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.plans import TablePlan
from tests.support.paper import demand_rule
from tests.support.pipeline import (
    CONFIG,
    EPOCHS,
    TABLES,
    assert_same,
    async_plan,
    data,
    each_epoch,
    train,
)
from tests.support.together import left_in_flight, together

pytestmark = pytest.mark.mpi(min_size=2)
SERIAL = SerialCommunicator()
# Outputs too large to leave before somebody receives them: they can be dropped.
LARGE, COARSE = data(3000, 200), replace(CONFIG, minibatch=500)


def alone(world, plan, rows, config=CONFIG):
    """Return what one rank alone does, on all ranks."""
    return world.on_root(lambda: train(SERIAL, plan, rows=rows, config=config))


@pytest.mark.parametrize("n_validation", [30, 0])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_tables(world, name, streamed, n_validation):
    plan, rows = TablePlan(TABLES[name], streamed), data(90, n_validation)
    expected, found = alone(world, plan, rows), train(world, plan, rows=rows)
    waiting = left_in_flight(world)
    with together(world):
        assert found.used == TABLES[name].used
        assert not any(found.dropped)
        assert not waiting
        if n_validation:
            assert_same(found, expected)
        else:
            assert found.digests == expected.digests


def hesitate(state):
    """Let a layer sleep now and then between minibatches."""
    rng = np.random.default_rng(state.index)
    contrast = state.layer.contrast

    def slow(*arguments):
        if rng.random() < 0.5:
            time.sleep(0.02 * rng.random())
        return contrast(*arguments)

    state.layer.contrast = slow


def assert_sensible(recorded, end):
    """Demand what holds of every asynchronous run."""
    table = recorded.schedule()
    table.check()
    assert table.epochs[0] == EPOCHS
    for layer, dropped in enumerate(recorded.dropped):
        assert not set(dropped) & table.needed(layer)
        assert dropped == tuple(sorted(set(dropped)))
    if end != "first-layer":
        assert min(table.epochs) >= EPOCHS
    if end == "all":
        assert not any(
            epochs in dropped
            for epochs, dropped in zip(table.epochs, recorded.dropped, strict=True)
        )
        for below, row in zip(table.epochs, table.used[1:], strict=False):
            assert row[-1] == below


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
    waiting = left_in_flight(world)
    with together(world):
        assert not waiting
        assert_sensible(recorded, end)
    plan = TablePlan(recorded.schedule(), True)
    replayed = train(world, plan, **options)
    serial = alone(world, plan, rows, config)
    waiting = left_in_flight(world)
    with together(world):
        assert_same(replayed, recorded)
        assert_same(serial, recorded)
        assert not waiting


def test_a_slow_rank_above_lets_outputs_drop(world):
    """Rank 0 has ended before the others have done their first epoch."""

    def late(state, _):
        if world.rank > 0 and state.epoch == 0:
            time.sleep(0.5)

    options = {"rows": LARGE, "config": COARSE}
    recorded = train(world, async_plan(), **options, prepare=each_epoch(late))
    serial = alone(world, TablePlan(recorded.schedule(), True), LARGE, COARSE)
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
    found = train(world, plan, prepare=slowed({0: 0.4}, times))
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
