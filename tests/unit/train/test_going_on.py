"""Pre-training that is interrupted ends as if nothing had happened: real weights.

What comes next at any moment is tested in ``test_pilot.py``.
"""

from dataclasses import replace

import numpy as np
import pytest

from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.plans import BEGINNING, TablePlan
from mpilayer.train.restart import consistent, newest_cut
from tests.support.pipeline import CONFIG, EPOCHS, TABLES, pretrain
from tests.support.pipeline import data as rows
from tests.support.restart import (
    N_LAYERS,
    Course,
    Memory,
    Stage,
    assert_same,
    candidates,
    train,
)

SERIAL = SerialCommunicator()
COURSES = [
    Course(None, streamed, extra, end, cut_short)
    for streamed, extra, end, cut_short in (
        (True, 2, "stipulated", True),
        (False, 2, "all", False),
        (True, 0, "first-layer", True),
        (True, 0, "all", True),
    )
]


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
    """Give a function that trains a course to the end, once, with all its saves."""
    known = {}

    def get(name, course, every=1):
        key = (name, course.streamed, course.config, every)
        if key not in known:
            known[key] = train(SERIAL, course, Memory(every))
            plain = pretrain(
                SERIAL, TablePlan(course.table, course.streamed), rows(), course.config
            )
            assert_same(known[key], plain)
        return known[key]

    return get


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", ["lockstep", "gaps"])
def test_lost_after_any_save(whole, name, streamed, every):
    course = Course(TABLES[name], streamed)
    expected, done = whole(name, course, every), set()
    for kept in moments(expected.kept):
        before = Stage(kept, expected.records)
        cut = before.cut(course.plan())
        if cut not in done:
            assert_same(train(SERIAL, course, None, before, cut), expected)
        done.add(cut)
    assert len(done) > 1


@pytest.mark.parametrize("method", ["rbm", "autoencoder"])
@pytest.mark.parametrize("name", ["lockstep", "gaps"])
def test_any_checkpoints_that_go_together_will_do(whole, name, method):
    config = replace(CONFIG, method=method, weight_decay=0.001)
    course = Course(TABLES[name], True, config=config)
    expected, rng = whole(name, course), np.random.default_rng(5)
    saved, done = candidates(expected.kept), set()
    before = Stage(expected.kept, expected.records)
    for _ in range(40):
        some = [[c for c in own if rng.random() < 0.4] for own in saved]
        cut = newest_cut(course.plan(), some)
        if cut not in done:
            assert_same(train(SERIAL, course, None, before, cut), expected)
        done.add(cut)
    assert len(done) > 1


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", ["lockstep", "gaps"])
def test_stopped_at_any_moment(whole, name, streamed):
    """Everything that was done is saved, and nothing is done twice."""
    course = Course(TABLES[name], streamed)
    expected = whole(name, course)
    n_epochs, done = sum(expected.epochs), set()
    for asked in range(2 * n_epochs):
        stage = train(SERIAL, course, Memory(0, after(asked)))
        cut = stage.cut(course.plan())
        assert tuple(mine.epoch for mine in cut) == stage.epochs, asked
        assert stage.interrupted == (stage.epochs != expected.epochs)
        if cut not in done:
            assert_same(train(SERIAL, course, None, stage), expected)
        done.add(cut)
    assert len(done) > 4


def test_a_request_before_anything_is_done():
    stage = train(SERIAL, Course(TABLES["lockstep"]), Memory(0, lambda: True))
    assert stage.interrupted
    assert stage.epochs == (0,) * N_LAYERS
    assert stage.cut(Course(TABLES["lockstep"]).plan()) == (BEGINNING,) * N_LAYERS


def test_a_request_when_all_is_done_comes_too_late(whole):
    expected = whole("lockstep", Course(TABLES["lockstep"]))
    stage = train(SERIAL, Course(TABLES["lockstep"]), Memory(0, after(10**6)))
    ended = train(SERIAL, Course(TABLES["lockstep"]), Memory(0, lambda: True), stage)
    assert_same(ended, expected)
    assert not ended.interrupted


def assert_replays(stage, course):
    """Demand a table that can be executed, and gives these weights."""
    assert not stage.interrupted
    table = stage.schedule()
    table.check()
    replayed = pretrain(SERIAL, TablePlan(table, course.streamed), rows())
    assert replayed.used == stage.used
    assert_same(stage, replayed)
    for layer, dropped in enumerate(stage.dropped):
        assert not set(dropped) & table.needed(layer)
        assert dropped == tuple(sorted(set(dropped)))
    assert table.epochs[0] == EPOCHS
    if course.end != "first-layer":
        assert min(table.epochs) >= EPOCHS


@pytest.mark.parametrize("course", COURSES)
def test_an_asynchronous_run_lost_after_any_save(course):
    first, done = train(SERIAL, course, Memory(1)), set()
    for kept in moments(first.kept):
        before = Stage(kept, first.records)
        cut = before.cut(course.plan())
        assert consistent(course.plan(), cut)
        if cut not in done:
            found = train(SERIAL, course, None, before, cut)
            assert_replays(found, course)
            for mine, records, old in zip(
                cut, found.records, first.records, strict=True
            ):
                assert records[: mine.epoch] == old[: mine.epoch]
        done.add(cut)
    assert len(done) > 4


@pytest.mark.parametrize("course", COURSES)
def test_an_asynchronous_run_stopped_at_any_moment(course):
    done = set()
    for asked in range(2 * sum(train(SERIAL, course).epochs)):
        stage = train(SERIAL, course, Memory(0, after(asked)))
        cut = stage.cut(course.plan())
        assert tuple(mine.epoch for mine in cut) == stage.epochs, asked
        if cut in done:
            continue
        done.add(cut)
        if stage.interrupted:
            stage = train(SERIAL, course, None, stage)
        assert_replays(stage, course)
    assert len(done) > 4
