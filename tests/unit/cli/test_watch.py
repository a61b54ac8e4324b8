"""The view of a run: rates, staleness, time left, curves, from lines of metrics."""

import pytest

from mpilayer.cli import view
from mpilayer.train.record import KINDS


def layer_lines(n, seconds=2.0, waiting=1.0, behind=0, error=8.0, first=0):
    """Return epochs of which each takes ``seconds`` after ``waiting``."""
    return [
        {
            **dict.fromkeys(KINDS, 0.0),
            "epoch": epoch + first,
            "used": max(0, epoch - behind),
            "started": (epoch - 1) * (seconds + waiting) + waiting + 1000 * first,
            "training": seconds - 0.5,
            "sending": 0.5,
            "train_error": 1.0,
            "validation_error": error and error / epoch,
        }
        for epoch in range(1, n + 1)
    ]


def sparse_lines(n, seconds=0.1):
    """Return evaluations."""
    return [
        {"evaluation": i, "cost": 1 + 10.0 / i, "seconds": i * seconds}
        for i in range(1, n + 1)
    ]


TUNING = {"epoch": 4, "train_loss": 5.0, "validation_error": 3.5}
TUNING |= {"training": 1.0, "allreduce": 0.5, "evaluating": 0.5}
FAST = layer_lines(view.RECENT + 1, seconds=1.0, first=20)


@pytest.mark.parametrize(
    ("lines", "goal", "done", "value", "unit", "left"),
    [
        (layer_lines(5), 20, 5, 8.0 / 5, 3, 45),
        (layer_lines(20, seconds=9.0) + FAST, 100, 31, 8 / 11, 2, 138),  # of late
        (layer_lines(1), 20, 1, 8.0, 2, 38),
        (layer_lines(20), 20, 20, 0.4, 3, 0),
        (layer_lines(25), 20, 25, 0.32, 3, 0),
        (layer_lines(2, error=None), 20, 2, 1.0, 3, 54),  # that of training
        ([TUNING], 10, 4, 3.5, 2, 12),
        (sparse_lines(120), 500, 120, 1 + 10 / 120, 0.1, 38),
        (sparse_lines(1), 500, 1, 11.0, None, None),
        ([], 500, 0, None, None, None),
    ],
)
def test_how_far_something_is(lines, goal, done, value, unit, left):
    row = view.progress(lines, goal)
    assert (row.done, row.goal, len(row.values)) == (done, goal, len(lines))
    assert row.value == (value and pytest.approx(value))
    assert row.unit == (unit and pytest.approx(unit))
    assert row.left == (left and pytest.approx(left))
    assert row.rate(60) == (unit and pytest.approx(60 / unit))


def test_staleness_is_measured_against_the_layer_below():
    nine, seven = layer_lines(9), layer_lines(7)
    assert view.behind([nine, seven, seven]) == [None, 2, 0]
    assert view.behind([nine, layer_lines(7, behind=3)]) == [None, 5]
    assert view.behind([layer_lines(3), [], layer_lines(1)]) == [None, None, 0]


@pytest.mark.parametrize(
    ("complete", "still", "unit", "at_work", "words"),
    [
        (True, 9999.0, 1.0, None, "finished"),
        (True, 5.0, 1.0, False, "finished"),
        (False, None, None, None, "begun, nothing measured yet"),
        (False, 5.0, 1.0, None, "running"),
        (False, 5.0, 1.0, True, "running"),
        (False, 31.0, 1.0, None, "has not moved for 0:31"),
        (False, 31.0, 1.0, True, "has not moved for 0:31"),
        (False, 300.0, 100.0, None, "running"),
        (False, 4000.0, 100.0, None, "has not moved for 1:06:40"),
        (False, None, 1.0, False, "interrupted; resume it"),
        (False, 5.0, 1.0, False, "interrupted; resume it"),
    ],
)
def test_the_condition_of_a_run(complete, still, unit, at_work, words):
    assert view.condition(complete, still, unit, at_work, "resume it") == words


def test_times_in_words():
    times = {0: "0:00", 0.2: "0:01", 59.5: "1:00", 61: "1:01", 3661: "1:01:01"}
    times[None] = "?"
    assert {seconds: view.duration(seconds) for seconds in times} == times
    longest = [view.longest(found) for found in ([3.0, 7.0, 0.0], [3.0, None], [])]
    assert longest == [7, None, 0]


def test_a_curve_falls_from_left_to_right():
    for values, height, shown in (
        ([8.0, 4.0, 2.0, 1.0], 1, ["█▆▃▁"]),
        ([4.0, 1.0], 2, ["█ ", "█▁"]),
        ([], 3, []),
        ([2.0, 2.0], 1, ["▁▁"]),
    ):
        assert view.curve(values, 10, height, ascii=False) == shown


def test_a_curve_has_the_width_and_height_it_is_given():
    lines = view.curve([1 / i for i in range(1, 1000)], 30, 5, ascii=False)
    assert [len(line) for line in lines] == [30] * 5
    assert lines[0].startswith("█")
    assert set(lines[0][1:]) == {" "}
    text = "".join(view.curve([5.0, 3.0, 2.0, 0.0, -1.0], 10, 3, ascii=True))
    assert text.isascii()
    assert text.strip()


def test_the_peak_at_the_beginning_is_cut_off():
    costs = [100.0, 90.0, *[3.0, 2.0] * 20]
    assert max(view.without_peak(costs)) <= 90
    assert max(view.without_peak([100.0, *[3.0] * 99])) == 3
    assert [view.without_peak(costs) for costs in ([5.0], [])] == [[5.0], []]
