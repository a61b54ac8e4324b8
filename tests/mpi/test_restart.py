"""Pre-training on several ranks is interrupted, and goes on on any number of them."""

import time

import numpy as np
import pytest

from mpilayer.parallel.comm import wait_until
from mpilayer.parallel.notice import Notice
from mpilayer.train.plans import TablePlan
from mpilayer.train.restart import consistent
from tests.support.pipeline import (
    FOUR,
    TABLES,
    Memory,
    Stage,
    alone,
    assert_same,
    async_plan,
    interrupted,
    train,
)
from tests.support.together import assert_all_received, together

pytestmark = pytest.mark.mpi(min_size=2)
LOCKSTEP = TablePlan(TABLES["lockstep"], True)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", ["lockstep", "refresh", "simulate", "gaps"])
def test_stopped_by_any_rank(world, name, streamed):
    plan = TablePlan(TABLES[name], streamed)
    expected = alone(world, plan)
    for rank in {0, 1, world.size - 1}:
        for epochs in (3,) if rank else (1, 3):
            stage = interrupted(world, plan, rank, epochs)
            assert_all_received(world)
            cut = stage.cut(plan)
            ended = train(world, plan, None, stage)
            serial = alone(world, plan, stage)
            with together(world):
                # Nothing that was done is lost.
                assert tuple(mine.epoch for mine in cut) == stage.epochs
                assert stage.interrupted == (stage.epochs != expected.epochs)
                assert_same(ended, expected)
                assert_same(serial, expected)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_lost_at_any_moment(world, name, streamed):
    """Of each rank's saves some have been written: more of one, fewer of another."""
    plan, rng = TablePlan(TABLES[name], streamed), np.random.default_rng(3)
    whole, done = train(world, plan, Memory(1)), set()
    for _ in range(6):
        written = rng.random(4)
        n = [sum(k.layer == i for k in whole.kept) for i in range(4)]
        kept = [
            k
            for i in range(4)
            for k in [k for k in whole.kept if k.layer == i][: int(written[i] * n[i])]
        ]
        stage = Stage(kept, whole.records)
        cut = stage.cut(plan)
        if cut in done:
            continue
        done.add(cut)
        ended = train(world, plan, None, stage)
        with together(world):
            assert_same(ended, whole)


@pytest.mark.parametrize("end", ["stipulated", "all", "first-layer"])
@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("streamed", [True, False])
def test_an_asynchronous_run_can_be_replayed_with_its_interruptions(
    world, end, extra, streamed
):
    plan = async_plan(end, extra, streamed)
    for rank in (0, world.size - 1):
        stage = interrupted(world, plan, rank, 2, every=1)
        first = stage.cut(plan)
        stage = interrupted(world, plan, 0, 1, stage, every=1)
        second = stage.cut(plan)
        ended = train(world, plan, None, stage)
        assert_all_received(world)
        replayed = alone(world, TablePlan(ended.schedule(), streamed))
        with together(world):
            assert consistent(plan, first)
            assert consistent(plan, second)
            assert all(a.epoch <= b.epoch for a, b in zip(first, second, strict=True))
            ended.schedule().check()
            assert_same(ended, replayed)
            assert not any(
                set(dropped) & ended.schedule().needed(layer)
                for layer, dropped in enumerate(ended.dropped)
            )


def test_a_slow_rank_above_hears_that_it_shall_end(world):
    """Outputs that it has not taken do not hold up the word."""
    plan = async_plan()
    stage = interrupted(world, plan, 0, 3, delay=0.1 * (world.rank > 0))
    assert_all_received(world)
    cut = stage.cut(plan)
    ended = train(world, plan, None, stage)
    replayed = alone(world, TablePlan(ended.schedule(), True))
    with together(world):
        assert stage.interrupted
        assert tuple(mine.epoch for mine in cut) == stage.epochs
        assert_same(ended, replayed)


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_layers_without_extra_epochs_end_before_those_below(world, delay):
    """What still comes from below when a layer has ended holds nobody up."""
    plan = async_plan(extra=0)
    stage = interrupted(world, plan, 0, 10**6, delay=delay * (world.rank == 0))
    assert_all_received(world)
    with together(world):
        assert not stage.interrupted
        assert stage.epochs == FOUR


# --- the notice


def noticed(world, raised_by, late=0.0, wait=False):
    """Let ranks raise a notice; return whether each has seen it. Collective."""
    notice = Notice(world)
    before = any(world.allgather(notice.is_raised()))
    time.sleep(late)
    for _ in range(raised_by.count(world.rank)):
        notice.raise_it()
    if wait:
        wait_until(notice.is_raised)
        world.barrier()
    notice.close()
    assert_all_received(world)
    with together(world):
        assert not before
    return world.allgather(notice.is_raised())


@pytest.mark.parametrize("times", [1, 2])
def test_a_notice_of_any_rank_reaches_all(world, times):
    for rank in range(world.size):
        found = noticed(world, [rank] * times, wait=True)
        with together(world):
            assert all(found)


def test_a_notice_of_all_or_none_or_when_the_others_are_closing(world):
    """The last rank raises it although nobody looks any more."""
    last = world.size - 1
    for raised_by, late in (
        ([], 0.001 * world.rank),
        (list(range(world.size)), 0.0),
        ([last], 0.02 * (world.rank == last)),
    ):
        found = noticed(world, raised_by, late)
        with together(world):
            assert set(found) == {bool(raised_by)}
