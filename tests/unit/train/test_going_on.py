"""Pre-training that is interrupted ends as if nothing had happened: real weights.

What comes next at any moment is tested in ``test_pilot.py``.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.plans import TablePlan
from mpilayer.train.restart import consistent, newest_cut
from tests.support.pipeline import (
    CONFIG,
    EPOCHS,
    TABLES,
    Memory,
    Stage,
    assert_same,
    async_plan,
    candidates,
    train,
)

SERIAL = SerialCommunicator()
LOCKSTEP = TablePlan(TABLES["lockstep"], True)
SOME = pytest.mark.parametrize("name", ["lockstep", "gaps"])
ENDS = pytest.mark.parametrize(
    ("end", "extra", "streamed", "cut_short"),
    [
        ("stipulated", 2, True, True),
        ("all", 2, False, False),
        ("first-layer", 0, True, True),
        ("all", 0, True, True),
    ],
)


def after(steps):
    """Return a clock that stops after so many steps of the pipeline."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps


@pytest.fixture(scope="module")
def whole():
    """Give a function that trains a table to the end, once, with all its saves."""

    @cache
    def get(name, streamed=True, config=CONFIG):
        plan = TablePlan(TABLES[name], streamed)
        found = train(SERIAL, plan, Memory(1), config=config)
        assert_same(found, train(SERIAL, plan, config=config))
        return found

    return get


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("method", ["rbm", "autoencoder"])
@SOME
def test_any_checkpoints_that_go_together_will_do(whole, name, method, streamed):
    config = replace(CONFIG, method=method, weight_decay=0.001)
    plan = TablePlan(TABLES[name], streamed)
    expected = whole(name, streamed, config=config)
    rng, before = np.random.default_rng(5), Stage(expected.kept, expected.records)
    saved, done = candidates(expected.kept), set()
    for _ in range(40):
        some = [[c for c in own if rng.random() < 0.4] for own in saved]
        cut = newest_cut(plan, some)
        if cut not in done:
            found = train(SERIAL, plan, None, before, cut, config=config)
            assert_same(found, expected)
        done.add(cut)
    assert len(done) > 1


@pytest.mark.parametrize("streamed", [True, False])
@SOME
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


def test_a_request_when_all_is_done_comes_too_late(whole):
    expected = whole("lockstep")
    stage = train(SERIAL, LOCKSTEP, Memory(0, after(10**6)))
    ended = train(SERIAL, LOCKSTEP, Memory(0, lambda: True), stage)
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


@ENDS
def test_an_asynchronous_run_lost_after_any_save(end, extra, streamed, cut_short):
    plan = async_plan(end, extra, streamed, cut_short)
    first, done = train(SERIAL, plan, Memory(1)), set()
    for n_saved in range(len(first.kept) + 1):
        before = Stage(first.kept[:n_saved], first.records)
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


@ENDS
def test_an_asynchronous_run_stopped_at_any_moment(end, extra, streamed, cut_short):
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
