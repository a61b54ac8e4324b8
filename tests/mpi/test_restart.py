"""Pre-training on several ranks is interrupted, and goes on on any number of them."""

import time

import numpy as np
import pytest

from mpilayer.parallel.comm import SerialCommunicator, wait_until
from mpilayer.parallel.notice import Notice
from mpilayer.train.plans import TablePlan
from mpilayer.train.restart import consistent
from tests.support.pipeline import FOUR, TABLES, data, pretrain
from tests.support.restart import Course, Memory, Stage, assert_same, train
from tests.support.together import left_in_flight, together

pytestmark = pytest.mark.mpi(min_size=2)
SERIAL = SerialCommunicator()


def serially(world, work):
    """Return what one rank alone does, on all ranks."""
    return world.on_root(work)


def interrupted(world, course, rank, epochs, before=None, every=0, delay=0.0):
    """Train until a rank asks to end after so many epochs of its own; all save."""
    notice, done = Notice(world), []

    def stop():
        if world.rank == rank and len(done) >= epochs:
            notice.raise_it()
        return notice.is_raised()

    def prepare(state):
        trained = state.train_epoch

        def train_epoch(*arguments):
            done.append(0)
            time.sleep(delay)
            trained(*arguments)

        state.train_epoch = train_epoch

    stage = train(world, course, Memory(every, stop), before, prepare=prepare)
    notice.close()
    return stage


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_stopped_by_any_rank(world, name, streamed):
    course = Course(TABLES[name], streamed)
    expected = serially(world, lambda: train(SERIAL, course))
    for rank in range(world.size):
        for epochs in (1, 3):
            stage = interrupted(world, course, rank, epochs)
            waiting = left_in_flight(world)
            cut = stage.cut(course.plan())
            ended = train(world, course, None, stage)
            alone = serially(world, lambda s=stage: train(SERIAL, course, None, s))
            with together(world):
                assert not waiting
                # Nothing that was done is lost.
                assert tuple(mine.epoch for mine in cut) == stage.epochs
                assert stage.interrupted == (stage.epochs != expected.epochs)
                assert_same(ended, expected)
                assert_same(alone, expected)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_lost_at_any_moment(world, name, streamed):
    """Of each rank's saves some have been written: more of one, fewer of another."""
    course, rng = Course(TABLES[name], streamed), np.random.default_rng(3)
    whole, done = train(world, course, Memory(1)), set()
    for _ in range(6):
        written = rng.random(4)
        n = [sum(k.layer == i for k in whole.kept) for i in range(4)]
        kept = [
            k
            for i in range(4)
            for k in [k for k in whole.kept if k.layer == i][: int(written[i] * n[i])]
        ]
        stage = Stage(kept, whole.records)
        cut = stage.cut(course.plan())
        if cut in done:
            continue
        done.add(cut)
        ended = train(world, course, None, stage)
        with together(world):
            assert_same(ended, whole)


def test_serial_checkpoints_go_on_on_several_ranks(world):
    course = Course(TABLES["lockstep"])
    whole = serially(world, lambda: train(SERIAL, course, Memory(1)))
    for n in range(0, len(whole.kept), 3):
        ended = train(world, course, None, Stage(whole.kept[:n], whole.records))
        with together(world):
            assert_same(ended, whole)


def test_stopped_again_and_again(world):
    course, stage, launches = Course(TABLES["lockstep"]), Stage(), 0
    expected = serially(world, lambda: train(SERIAL, course))
    while not stage.digests or stage.interrupted:
        stage = interrupted(world, course, launches % world.size, 1, stage)
        launches += 1
    with together(world):
        assert launches > 1
        assert_same(stage, expected)


@pytest.mark.parametrize("end", ["stipulated", "all", "first-layer"])
@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("streamed", [True, False])
def test_an_asynchronous_run_can_be_replayed_with_its_interruptions(
    world, end, extra, streamed
):
    course = Course(None, streamed, extra, end)
    for rank in range(world.size):
        stage = interrupted(world, course, rank, 2, every=1)
        first = stage.cut(course.plan())
        stage = interrupted(world, course, 0, 1, stage, every=1)
        second = stage.cut(course.plan())
        ended = train(world, course, None, stage)
        waiting = left_in_flight(world)
        table = TablePlan(ended.schedule(), streamed)
        replayed = serially(world, lambda t=table: pretrain(SERIAL, t, data()))
        with together(world):
            assert not waiting
            assert consistent(course.plan(), first)
            assert consistent(course.plan(), second)
            assert all(a.epoch <= b.epoch for a, b in zip(first, second, strict=True))
            ended.schedule().check()
            assert ended.used == replayed.used
            assert_same(ended, replayed)
            assert not any(
                set(dropped) & ended.schedule().needed(layer)
                for layer, dropped in enumerate(ended.dropped)
            )


def test_a_slow_rank_above_hears_that_it_shall_end(world):
    """Outputs that it has not taken do not hold up the word."""
    course = Course(None)
    stage = interrupted(world, course, 0, 3, delay=0.1 * (world.rank > 0))
    waiting = left_in_flight(world)
    cut = stage.cut(course.plan())
    ended = train(world, course, None, stage)
    replayed = serially(
        world, lambda: pretrain(SERIAL, TablePlan(ended.schedule(), True), data())
    )
    with together(world):
        assert not waiting
        assert stage.interrupted
        assert tuple(mine.epoch for mine in cut) == stage.epochs
        assert_same(ended, replayed)


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_layers_without_extra_epochs_end_before_those_below(world, delay):
    """What still comes from below when a layer has ended holds nobody up."""
    course = Course(None, extra=0)
    stage = interrupted(world, course, 0, 10**6, delay=delay * (world.rank == 0))
    waiting = left_in_flight(world)
    with together(world):
        assert not waiting
        assert not stage.interrupted
        assert stage.epochs == FOUR


# --- the notice


@pytest.mark.parametrize("times", [1, 2])
def test_a_notice_of_any_rank_reaches_all(world, times):
    for rank in range(world.size):
        notice = Notice(world)
        before = notice.is_raised()
        world.barrier()
        for _ in range(times * (world.rank == rank)):
            notice.raise_it()
        wait_until(notice.is_raised)
        world.barrier()
        notice.close()
        waiting = left_in_flight(world)
        with together(world):
            assert not before
            assert notice.is_raised()
            assert not waiting


def test_a_notice_of_all_ranks_at_once(world):
    notice = Notice(world)
    notice.raise_it()
    raised = notice.is_raised()
    notice.close()
    waiting = left_in_flight(world)
    with together(world):
        assert raised
        assert not waiting


def test_a_notice_that_nobody_raises(world):
    for _ in range(3):
        notice = Notice(world)
        time.sleep(0.001 * world.rank)
        notice.close()
        waiting = left_in_flight(world)
        with together(world):
            assert not notice.is_raised()
            assert not waiting


def test_a_notice_when_the_others_are_closing(world):
    """The last rank raises it although nobody looks any more."""
    notice = Notice(world)
    if world.rank == world.size - 1:
        time.sleep(0.02)
        notice.raise_it()
    notice.close()
    waiting = left_in_flight(world)
    with together(world):
        assert notice.is_raised()
        assert not waiting
