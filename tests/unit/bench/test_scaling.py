"""The table of runs: medians, speed, and where fewer ranks are faster."""

import pytest

from mpilayer.bench.pairs import Comparison
from mpilayer.bench.scaling import Scaling, label
from mpilayer.papers import LAHIRI_SECONDS

SECONDS = {
    (1000, 1): [1.0, 1.0, 9.0],
    (1000, 2): [1.4, 1.4, 1.4],
    (1000, 4): [2.0, 2.2, 1.8],
    (50000, 1): [8.0, 9.0, 7.0],
    (50000, 2): [4.0, 3.0, 3.5],
    (50000, 4): [4.4, 4.4, 3.8],
}


def scaling(evaluations=None):
    seconds = {label(*key): values for key, values in SECONDS.items()}
    return Scaling((1000, 50000), (1, 2, 4), Comparison(seconds), evaluations or {})


def test_labels():
    assert label(1000, 1) == "1,000 rows, 1 rank"
    assert label(1000, 16) == "1,000 rows, 16 ranks"


def test_ratios_are_taken_round_by_round():
    assert scaling().seconds(1000, 1) == 1.0
    assert scaling().speed_up(1000, 1) == 1.0
    assert scaling().speed_up(50000, 2) == 2.0  # of 2, 3 and 2; not 8 / 3.5
    assert scaling().speed_up(1000, 2) == pytest.approx(1 / 1.4)


def test_it_says_where_fewer_ranks_are_faster():
    assert scaling().faster_with_fewer() == [
        "1,000 rows: 1 rank is 1.40 times faster than 2",
        "1,000 rows: 1 rank is 2.00 times faster than 4",
        "50,000 rows: 2 ranks are 1.10 times faster than 4",
    ]


def test_line_and_table_say_the_same_after_two_rounds():
    seconds = {label(10, 1): [1.0, 2.0], label(10, 2): [2.0, 2.5]}
    two = Scaling((10,), (1, 2), Comparison(seconds), {})
    assert two.speed_up(10, 2) == pytest.approx(0.65)
    assert two.faster_with_fewer() == [
        f"10 rows: 1 rank is {1 / 0.65:.2f} times faster than 2"
    ]


def test_no_difference_is_not_mentioned():
    seconds = {label(10, 1): [1.0], label(10, 2): [1.004]}
    assert Scaling((10,), (1, 2), Comparison(seconds), {}).faster_with_fewer() == []


def test_one_number_of_ranks_has_no_rival():
    alone = Scaling((10,), (2,), Comparison({label(10, 2): [1.0]}), {})
    assert alone.faster_with_fewer() == []
    assert alone.speed_up(10, 2) == 1.0


def test_it_says_which_runs_stopped_early():
    done = {label(1000, 1): 500, label(1000, 2): 123}
    assert scaling(done).stopped_early(500) == [
        "1,000 rows, 2 ranks: 123 evaluations, no step lowered the cost any more"
    ]


def test_the_paper_had_as_many_workers_for_every_size():
    for sizes in LAHIRI_SECONDS.values():
        assert len({tuple(workers) for workers in sizes.values()}) == 1
