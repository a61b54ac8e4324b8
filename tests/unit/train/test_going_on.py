"""Pre-training that is interrupted anywhere ends as if nothing had happened."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.plans import BEGINNING, TablePlan
from mpilayer.train.restart import consistent, newest_cut
from tests.support.pipeline import (
    CONFIG,
    EPOCHS,
    N_LAYERS,
    TABLES,
    Memory,
    Stage,
    assert_same,
    async_plan,
    candidates,
    train,
)

SERIAL = SerialCommunicator()
ENDS = [(end, cut) for end in ("stipulated", "all", "first-layer") for cut in (1, 0)]


def after(steps):
    """Return a clock that stops after so many steps of the pipeline."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps


def moments(kept):
    """Yield what is on disk after each save."""
    for n in range(len(kept) + 1):
        yield kept[:n]


@pytest.fixture(scope="module")
def whole():
    """Give a function that trains a table to the end, once, with all its saves."""

    @cache
    def get(name, streamed=True, every=1, config=CONFIG):
        plan = TablePlan(TABLES[name], streamed)
        found = train(SERIAL, plan, Memory(every), config=config)
        assert_same(found, train(SERIAL, plan, config=config))
        return found

    return get


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_lost_after_any_save(whole, name, streamed, every):
    plan = TablePlan(TABLES[name], streamed)
    expected, done = whole(name, streamed, every), set()
    for kept in moments(expected.kept):
        before = Stage(kept, expected.records)
        cut = before.cut(plan)
        if cut not in done:
            assert_same(train(SERIAL, plan, None, before, cut), expected)
        done.add(cut)
    assert len(done) > 1


@pytest.mark.parametrize("method", ["rbm", "autoencoder"])
@pytest.mark.parametrize("name", ["lockstep", "gaps"])
def test_any_checkpoints_that_go_together_will_do(whole, name, method):
    config = replace(CONFIG, method=method, weight_decay=0.001)
    plan = TablePlan(TABLES[name], True)
    expected, rng = whole(name, config=config), np.random.default_rng(5)
    saved, done = candidates(expected.kept), set()
    before = Stage(expected.kept, expected.records)
    for _ in range(40):
        some = [[c for c in own if rng.random() < 0.4] for own in saved]
        cut = newest_cut(plan, some)
        if cut not in done:
            found = train(SERIAL, plan, None, before, cut, config=config)
            assert_same(found, expected)
        done.add(cut)
    assert len(done) > 1


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_lost_again_and_again(whole, name, streamed):
    plan = TablePlan(TABLES[name], streamed)
    expected, rng = whole(name, streamed), np.random.default_rng(7)
    stage, n_epochs = Stage(), sum(expected.epochs)
    for _ in range(6):
        limit = int(rng.integers(1, n_epochs))
        stage = train(SERIAL, plan, Memory(1), stage, limit=limit)
    assert_same(train(SERIAL, plan, None, stage), expected)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_stopped_at_any_moment(whole, name, streamed):
    """Everything that was done is saved, and nothing is done twice."""
    plan = TablePlan(TABLES[name], streamed)
    expected = whole(name, streamed)
    n_epochs, done = sum(expected.epochs), set()
    for asked in range(2 * n_epochs):
        stage = train(SERIAL, plan, Memory(0, after(asked)))
        cut = stage.cut(plan)
        assert tuple(mine.epoch for mine in cut) == stage.epochs, asked
        assert stage.interrupted == (stage.epochs != expected.epochs)
        if cut not in done:
            assert_same(train(SERIAL, plan, None, stage), expected)
        done.add(cut)
    assert len(done) > 4


@pytest.mark.parametrize("name", ["lockstep", "gaps"])
def test_stopped_again_and_again(whole, name):
    """Each time a little is done, after outputs have gone up once more."""
    plan = TablePlan(TABLES[name], True)
    expected, stage = whole(name), Stage()
    launches = 0
    while not stage.digests or stage.interrupted:
        stage = train(SERIAL, plan, Memory(0, after(12)), stage)
        launches += 1
    assert launches > 1
    assert_same(stage, expected)


def test_a_request_before_anything_is_done():
    stage = train(SERIAL, TablePlan(TABLES["lockstep"], True), Memory(0, lambda: True))
    assert stage.interrupted
    assert stage.epochs == (0,) * N_LAYERS
    assert stage.cut(TablePlan(TABLES["lockstep"], True)) == (BEGINNING,) * N_LAYERS


def test_a_request_when_all_is_done_comes_too_late(whole):
    expected = whole("lockstep")
    stage = train(SERIAL, TablePlan(TABLES["lockstep"], True), Memory(0, after(10**6)))
    ended = train(
        SERIAL, TablePlan(TABLES["lockstep"], True), Memory(0, lambda: True), stage
    )
    assert_same(ended, expected)
    assert not ended.interrupted


def assert_replays(stage, streamed, end):
    """Demand a table that can be executed, and gives these weights."""
    assert not stage.interrupted
    table = stage.schedule()
    table.check()
    assert_same(stage, train(SERIAL, TablePlan(table, streamed)))
    for layer, dropped in enumerate(stage.dropped):
        assert not set(dropped) & table.needed(layer)
        assert dropped == tuple(sorted(set(dropped)))
    assert table.epochs[0] == EPOCHS
    if end != "first-layer":
        assert min(table.epochs) >= EPOCHS


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("end", "cut_short"), ENDS)
@pytest.mark.parametrize("extra", [0, 2])
def test_an_asynchronous_run_lost_after_any_save(end, cut_short, streamed, extra):
    plan = async_plan(end, extra, streamed, cut_short)
    first, done = train(SERIAL, plan, Memory(1)), set()
    for kept in moments(first.kept):
        before = Stage(kept, first.records)
        cut = before.cut(plan)
        assert consistent(plan, cut)
        if cut not in done:
            found = train(SERIAL, plan, None, before, cut)
            assert_replays(found, streamed, end)
            for mine, records, old in zip(
                cut, found.records, first.records, strict=True
            ):
                assert records[: mine.epoch] == old[: mine.epoch]
        done.add(cut)
    assert len(done) > 4


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("end", "cut_short"), ENDS)
@pytest.mark.parametrize("extra", [0, 2])
def test_an_asynchronous_run_stopped_at_any_moment(end, cut_short, streamed, extra):
    plan = async_plan(end, extra, streamed, cut_short)
    done = set()
    for asked in range(2 * sum(train(SERIAL, plan).epochs)):
        stage = train(SERIAL, plan, Memory(0, after(asked)))
        cut = stage.cut(plan)
        assert tuple(mine.epoch for mine in cut) == stage.epochs, asked
        if cut in done:
            continue
        done.add(cut)
        if stage.interrupted:
            stage = train(SERIAL, plan, None, stage)
        assert_replays(stage, streamed, end)
    assert len(done) > 4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("end", ["stipulated", "all", "first-layer"])
def test_an_asynchronous_run_stopped_and_lost_again_and_again(end, seed):
    streamed, rng = bool(seed % 2), np.random.default_rng(seed)
    plan = async_plan(end, streamed=streamed)
    stage = Stage()
    for _ in range(5):
        limit, asked = (int(n) for n in rng.integers(1, 12, 2))
        stage = train(SERIAL, plan, Memory(1, after(asked)), stage, limit=limit)
    assert_replays(train(SERIAL, plan, None, stage), streamed, end)
