"""Schedules as tables."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from mpilayer.errors import ScheduleError
from mpilayer.train.schedule import Schedule, finish_times, greedy, lockstep, simulate
from tests.support.paper import by_ticks


@pytest.mark.parametrize(
    ("epochs", "extra", "lag", "refresh", "used"),
    [
        ((3, 3, 3), (0, 0, 0), 0, 1, ((0, 0, 0), (1, 2, 3), (1, 2, 3))),
        ((3, 3, 3), (0, 0, 0), 1, 1, ((0, 0, 0), (2, 3, 3), (2, 3, 3))),
        ((3, 3, 3), (0, 0, 0), 9, 1, ((0, 0, 0), (3, 3, 3), (3, 3, 3))),
        ((3, 3, 3), (0, 0, 0), (0, 1), 1, ((0, 0, 0), (1, 2, 3), (2, 3, 3))),
        ((4, 4), (0, 0), 0, 2, ((0,) * 4, (1, 1, 3, 3))),
        ((5, 5), (0, 0), 1, 3, ((0,) * 5, (2, 2, 2, 5, 5))),
        ((2, 2, 2), (1, 2, 0), 0, 1, ((0, 0, 0), (1, 2, 3, 3), (1, 2))),
        ((2, 2, 2), (0, 1, 3), 0, 1, ((0, 0), (1, 2, 2), (1, 2, 3, 3, 3))),
        ((2, 4), (0, 0), 0, 1, ((0, 0), (1, 2, 2, 2))),
        ((4, 2), (0, 0), 1, 1, ((0, 0, 0, 0), (2, 3))),
        ((3,), (2,), 0, 1, ((0,) * 5,)),
    ],
)
def test_lockstep(epochs, extra, lag, refresh, used):
    schedule = lockstep(epochs, extra, lag, refresh)
    schedule.check()
    assert schedule.used == used
    assert schedule.stipulated == epochs
    assert schedule.epochs == tuple(len(row) for row in used)
    assert schedule.kind == "lockstep"


def test_greedy():
    schedule = greedy((2, 2, 3), (1, 0, 2))
    schedule.check()
    assert schedule.used == ((0, 0, 0), (3, 3), (2, 2, 2, 2, 2))
    assert (schedule.kind, schedule.stipulated) == ("greedy", (2, 2, 3))
    schedule = lockstep((4, 4, 4), (0, 0, 0), (1, 0), 2)
    assert [schedule.needed(i) for i in range(3)] == [{2, 4}, {1, 3}, set()]


# The experiment of Santara et al. 2016 §5.2, as method and table.
SIZES = (784, 1000, 500, 250, 30)
COSTS = [a * b for a, b in pairwise(SIZES)]


def paper(n_cores, end="first-layer", extra=(0, 5, 20, 40), cut_short=True):
    schedule = simulate((20,) * 4, extra, COSTS, n_cores, end, cut_short)
    schedule.check()
    return schedule


def test_the_paper_s_experiment():
    schedule = paper(4)
    assert schedule.epochs == (20, 29, 115, 1889)
    # All have done their 20 before the first layer has: both ends are the same.
    assert paper(4, "stipulated").used == schedule.used
    assert paper(4, "all", (0, 1, 1, 1)).epochs == (20, 27, 42, 60)
    assert schedule.stipulated == (20,) * 4
    assert schedule.virtual_end[0] == pytest.approx(20)
    assert schedule == paper(4)


def test_on_fewer_cores_the_first_layer_ends_later():
    ends = [paper(n).virtual_end[0] for n in (1, 2, 3, 4, 9)]
    assert ends[0] > ends[1] > ends[2] >= ends[3] == ends[4] == pytest.approx(20)
    # Nothing is ever done faster than by all cores at full speed.
    for n_cores, end in zip((1, 2, 3, 4), ends, strict=False):
        epochs = paper(n_cores).epochs
        work = sum(n * cost for n, cost in zip(epochs, COSTS, strict=True)) / COSTS[0]
        assert work <= end * n_cores + 1e-6


@pytest.mark.parametrize("n_cores", [1, 2, 3, 4])
@pytest.mark.parametrize("cut_short", [True, False])
def test_end_all_uses_every_last_output(n_cores, cut_short):
    schedule = paper(n_cores, "all", (0, 3, 4, 5), cut_short)
    for below, row in zip(schedule.epochs, schedule.used[1:], strict=False):
        assert row[-1] == below
    assert min(schedule.epochs) >= 20


@pytest.mark.parametrize(
    ("extra", "costs", "n_cores", "end", "used", "virtual_end"),
    [
        # Layer 2 may begin at 1. It uses output 2 in its N-th epoch, and sleeps.
        (1, (1, 1), 2, "stipulated", (1, 2), (2, 3)),
        (1, (1, 1), 2, "all", (1, 2), (2, 3)),
        # On one core layer 1 needs 1 + 2 for its epochs: two share it from 1 on.
        (1, (1, 1), 1, "all", (1, 2), (3, 4)),
        # A cheap layer 2 is through before output 2, sleeps, and wakes for it.
        (3, (4, 1), 2, "all", (1, 1, 2, 2, 2), (2, 11 / 4)),
        # But all have done their stipulated epochs when output 2 is made.
        (3, (4, 1), 2, "stipulated", (1, 1), (2, 6 / 4)),
        # What was running at the end is not done.
        (1, (1, 3), 2, "first-layer", (), (2, 0)),
    ],
)
def test_simulation_by_hand(extra, costs, n_cores, end, used, virtual_end):
    schedule = simulate((2, 2), (0, extra), costs, n_cores, end)
    schedule.check()
    assert schedule.used == ((0, 0), used)
    assert schedule.stipulated == (2, len(used[:2]))
    assert schedule.virtual_end == virtual_end


@pytest.mark.parametrize("end", ["stipulated", "all", "first-layer"])
@pytest.mark.parametrize("cut_short", [True, False])
def test_simulation_against_the_paper_s_rule(end, cut_short):
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(1, 5))
        epochs, extra = rng.integers(1, 7, n).tolist(), rng.integers(0, 5, n).tolist()
        costs = rng.integers(1, 9, n).tolist()
        expected = by_ticks(epochs, extra, costs, end, cut_short)
        found = simulate(epochs, extra, costs, n, end, cut_short)
        assert found.used == expected, (epochs, extra, costs)


@pytest.mark.parametrize(
    ("used", "stipulated", "words"),
    [
        ((), (), "at least one layer.*found 0 layers"),
        (((0,),), (1, 1), "found 1 layers and 2 numbers"),
        (((0, 1),), (2,), "layer 1 can use outputs 0 to 0 .*epoch 2 asks for 1"),
        (((0, 0), (0, 1)), (2, 2), "layer 2 .*1 to 2 .*epoch 1 asks for 0"),
        (((0, 0), (1, 3)), (2, 2), "layer 2 .*1 to 2 .*epoch 2 asks for 3"),
        (((0, 0), (-1, 1)), (2, 2), "epoch 1 asks for -1"),
        (((0,) * 3, (1, 3, 2)), (3, 3), "layer 2 goes back"),
    ],
)
def test_tables_that_cannot_be_done(used, stipulated, words):
    with pytest.raises(ScheduleError, match=words):
        Schedule("async", used, stipulated).check()


SCHEDULES = [
    lockstep((4, 4, 4), (0, 1, 2), (0, 2), 2),
    greedy((2, 3), (0, 0)),
    simulate((5, 5), (0, 3), (3.0, 1.0), 2, "first-layer"),
    Schedule("async", ((0, 0, 0), (1, 3)), (3, 2), dropped=((2,), ())),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.kind)
def test_json_round_trip(schedule):
    text = schedule.to_json()
    assert Schedule.from_json(text, "a") == schedule
    values = json.loads(text)
    assert values["epochs"] == list(schedule.epochs)
    assert values["format_version"] == 1
    assert len(text.splitlines()) == len(values) + 2  # a line for each


def content(**changes):
    values = json.loads(SCHEDULES[3].to_json()) | changes
    return json.dumps({key: v for key, v in values.items() if v is not None})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a.json must hold a schedule"),
        ("[]", "a.json must hold a schedule"),
        ("null", "a.json must hold a schedule"),
        ("{}", "KeyError: 'format_version'"),
        (content()[:-9], "JSONDecodeError"),
        (content(used=None), "KeyError: 'used'"),
        (content(kind=None), "KeyError: 'kind'"),
        (content(used=3), "TypeError"),
        (content(used=[["x"]]), "a row must be a list of whole numbers; found"),
        (content(used=["123", "123"]), "a row must be a list of whole numbers; found"),
        (content(used=[[0, 0, 0.0], [1]]), "must be a list of whole numbers"),
        (content(used=[[0, 0, False], [1]]), "must be a list of whole numbers"),
        (content(used={"0": 1}), "a table must be a list"),
        (content(used=[[], []]), "layer 1 must do its own, and at least one"),
        (content(stipulated="ab"), "must be a list of whole numbers; found 'ab'"),
        (content(stipulated=["3", "2"]), "must be a list of whole numbers"),
        (content(stipulated=[-3, 99]), "0 or more.*found \\[-3, 99\\]"),
        (content(stipulated=[4, 2]), "of which layer 1 does 3"),
        (content(virtual_end=[1, 1e999]), "times finite.*inf"),
        (content(virtual_end=[math.nan, 1]), "times finite"),
        (content(virtual_end=[-1, 1]), "times finite"),
        (content(virtual_end=[1]), "an entry for each layer"),
        (content(dropped=[[]]), "found 1 entries"),
        ("[" * 99999, "RecursionError"),
        (content().replace("3, 2", "9" * 5000), "ValueError"),
        (content(format_version=2), "format version 1; found 2"),
        (content(used=[[0, 0], [1, 3]]), "layer 2 can use outputs 1 to 2"),
    ],
)
def test_bad_json(text, words):
    with pytest.raises(ScheduleError, match=words):
        Schedule.from_json(text, "a.json")


@pytest.mark.parametrize(
    ("schedule", "costs", "expected"),
    [
        (lockstep((2, 2), (0, 0)), (2, 1), [4, 5]),
        (lockstep((2, 2), (0, 0)), (1, 3), [2, 7]),
        (lockstep((2, 2), (0, 1)), (2, 1), [4, 6]),
        (greedy((2, 2), (0, 0)), (2, 1), [4, 6]),
        (lockstep((2, 2, 2), (0, 0, 0)), (3, 2, 4), [6, 8, 13]),
        (lockstep((4, 4), (0, 0), 0, 2), (1, 1), [4, 5]),
    ],
)
def test_finish_times(schedule, costs, expected):
    assert finish_times(schedule, costs) == expected
