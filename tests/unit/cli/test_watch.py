"""The view of a run: rates, staleness, time left, curves, from lines of metrics."""

import pytest

from mpilayer.cli import view


def layer_lines(n, seconds=2.0, waiting=1.0, behind=0, error=8.0):
    """Return epochs of which each takes ``seconds`` after ``waiting``."""
    return [
        {
            "epoch": epoch,
            "used": max(0, epoch - behind),
            "started": (epoch - 1) * (seconds + waiting) + waiting,
            "training": seconds,
            "transform": 0.0,
            "monitor": 0.0,
            "sending": 0.0,
            "waiting": waiting,
            "train_error": 1.0,
            "validation_error": error / epoch,
        }
        for epoch in range(1, n + 1)
    ]


def sparse_lines(n, seconds=0.1):
    return [
        {
            "evaluation": i,
            "iteration": i // 2,
            "cost": 1 + 10.0 / i,
            "seconds": i * seconds,
        }
        for i in range(1, n + 1)
    ]


def test_a_layer_under_way():
    (row,) = view.layer_rows([layer_lines(5)], [20])
    assert (row.done, row.goal, row.at_least) == (5, 20, False)
    assert row.error == pytest.approx(8.0 / 5)
    assert row.per_minute == pytest.approx(60 / 3)
    assert row.left == pytest.approx(15 * 3)
    assert row.behind is None
    assert len(row.errors) == 5


def test_the_rate_is_that_of_late():
    slow, fast = layer_lines(20, seconds=9.0), layer_lines(view.RECENT + 1, seconds=1.0)
    for line in fast:
        line["epoch"] += 20
        line["started"] += 1000
    (row,) = view.layer_rows([slow + fast], [100])
    assert row.per_minute == pytest.approx(30)


def test_staleness_is_measured_against_the_layer_below():
    rows = view.layer_rows([layer_lines(9), layer_lines(7), layer_lines(7)], [20] * 3)
    assert [row.behind for row in rows] == [None, 2, 0]
    rows = view.layer_rows([layer_lines(9), layer_lines(7, behind=3)], [20] * 2)
    assert rows[1].behind == 5


def test_a_layer_before_its_first_epoch():
    row = view.layer_rows([layer_lines(3), []], [20, 20])[1]
    assert (row.done, row.error, row.per_minute, row.behind) == (0, None, None, None)
    assert row.left is None
    assert row.errors == ()


def test_one_epoch_is_enough_for_a_rate():
    (row,) = view.layer_rows([layer_lines(1)], [20])
    assert row.per_minute == pytest.approx(30)


def test_a_layer_at_its_end_has_no_time_left():
    (row,) = view.layer_rows([layer_lines(20)], [20])
    assert row.left == 0
    (row,) = view.layer_rows([layer_lines(25)], [20], at_least=True)
    assert (row.done, row.left, row.at_least) == (25, 0, True)


def test_errors_without_validation_rows_are_those_of_training():
    lines = layer_lines(2)
    for line in lines:
        line["validation_error"] = None
    assert view.layer_rows([lines], [20])[0].error == 1.0


def test_fine_tuning():
    line = {"epoch": 4, "train_loss": 5.0, "validation_error": 3.5}
    line |= {"training": 1.0, "allreduce": 0.5, "evaluating": 0.5}
    row = view.finetune_row([line], 10)
    assert (row.done, row.goal, row.error) == (4, 10, 3.5)
    assert row.per_minute == pytest.approx(30)
    assert row.left == pytest.approx(12)
    assert view.finetune_row([], 10).left is None


def test_a_descent():
    row = view.sparse_row(sparse_lines(120), 500)
    assert (row.done, row.goal, row.iteration) == (120, 500, 60)
    assert row.per_second == pytest.approx(10)
    assert row.left == pytest.approx(38)
    assert row.cost == row.costs[-1]
    assert len(row.costs) == 120


def test_a_descent_at_its_beginning():
    assert view.sparse_row([], 500).per_second is None
    row = view.sparse_row(sparse_lines(1), 500)
    assert (row.done, row.per_second, row.left) == (1, None, None)


def test_the_longest_time_counts():
    assert view.longest([3.0, 7.0, 0.0]) == 7
    assert view.longest([3.0, None]) is None
    assert view.longest([]) == 0


@pytest.mark.parametrize(
    ("complete", "still", "unit", "words"),
    [
        (True, 9999.0, 1.0, "finished"),
        (False, None, None, "begun, nothing measured yet"),
        (False, 5.0, 1.0, "running"),
        (False, 31.0, 1.0, "has not moved for 0:31"),
        (False, 300.0, 100.0, "running"),
        (False, 4000.0, 100.0, "has not moved for 1:06:40"),
    ],
)
def test_the_condition_of_a_run(complete, still, unit, words):
    assert view.condition(complete, still, unit) == words


def test_the_condition_of_a_run_whose_lock_is_seen():
    words = ("resume it",)
    assert view.condition(False, None, 1.0, False, *words) == "interrupted; resume it"
    assert view.condition(False, 5.0, 1.0, False, *words) == "interrupted; resume it"
    assert view.condition(False, 5.0, 1.0, True, *words) == "running"
    assert view.condition(False, 31.0, 1.0, True, *words) == "has not moved for 0:31"
    assert view.condition(True, 5.0, 1.0, False, *words) == "finished"


def test_times_in_words():
    times = [0, 0.2, 59.5, 61, 3661, None]
    shown = ["0:00", "0:01", "1:00", "1:01", "1:01:01", "?"]
    assert [view.duration(seconds) for seconds in times] == shown


def test_a_curve_falls_from_left_to_right():
    assert view.curve([8.0, 4.0, 2.0, 1.0], 10, 1, ascii=False) == ["█▆▃▁"]
    assert view.curve([4.0, 1.0], 10, 2, ascii=False) == ["█ ", "█▁"]


def test_a_curve_has_the_width_and_height_it_is_given():
    lines = view.curve([1 / i for i in range(1, 1000)], 30, 5, ascii=False)
    assert [len(line) for line in lines] == [30] * 5
    assert lines[0].startswith("█")
    assert set(lines[0][1:]) == {" "}


def test_a_curve_in_ascii():
    text = "".join(view.curve([5.0, 3.0, 2.0, 0.0, -1.0], 10, 3, ascii=True))
    assert text.isascii()
    assert text.strip()


def test_curves_of_nothing_and_of_one_value():
    assert view.curve([], 10, 3, ascii=False) == []
    assert view.curve([2.0, 2.0], 10, 1, ascii=False) == ["▁▁"]


def test_the_peak_at_the_beginning_is_cut_off():
    costs = [100.0, 90.0, *[3.0, 2.0] * 20]
    assert max(view.without_peak(costs)) <= 90
    assert max(view.without_peak([100.0, *[3.0] * 99])) == 3
    assert view.without_peak([5.0]) == (5.0,)
    assert view.without_peak([]) == ()
