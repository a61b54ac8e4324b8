"""The table of runs: medians, speed, and where fewer ranks are faster."""

from argparse import Namespace

import pytest

from mpilayer.bench.modes import ONE_RANK
from mpilayer.bench.pairs import Comparison
from mpilayer.bench.scaling import Scaling, label
from mpilayer.cli.bench import print_comparison, print_scaling

SECONDS = {
    (1000, 1): [1.0, 1.0, 9.0],
    (1000, 2): [1.4, 1.4, 1.4],
    (1000, 4): [2.0, 2.2, 1.8],
    (50000, 1): [8.0, 9.0, 7.0],
    (50000, 2): [4.0, 3.0, 3.5],
    (50000, 4): [4.4, 4.4, 3.8],
}


def scaling(table, evaluations=None):
    sizes, ranks = (tuple(dict.fromkeys(keys)) for keys in zip(*table, strict=True))
    seconds = {label(*key): values for key, values in table.items()}
    return Scaling(sizes, ranks, Comparison(seconds), evaluations or {})


def test_ratios_are_taken_round_by_round():
    found = scaling(SECONDS)
    assert found.seconds(1000, 1) == found.speed_up(1000, 1) == 1.0
    assert found.speed_up(50000, 2) == 2.0  # of 2, 3 and 2; not 8 / 3.5
    assert found.speed_up(1000, 2) == pytest.approx(1 / 1.4)


def test_it_says_where_fewer_ranks_are_faster_and_runs_stopped_early():
    done = {label(1000, 1): 500, label(1000, 2): 123}
    found = scaling(SECONDS, done)
    assert found.faster_with_fewer() == [
        "1,000 rows: 1 rank is 1.40 times faster than 2",
        "1,000 rows: 1 rank is 2.00 times faster than 4",
        "50,000 rows: 2 ranks are 1.10 times faster than 4",
    ]
    assert found.stopped_early(500) == [
        "1,000 rows, 2 ranks: 123 evaluations, no step lowered the cost any more"
    ]
    # After two rounds line and table say the same: a speed of 0.65.
    two = scaling({(10, 1): [1.0, 2.0], (10, 2): [2.0, 2.5]})
    line = f"10 rows: 1 rank is {1 / 0.65:.2f} times faster than 2"
    assert two.faster_with_fewer() == [line]
    for table in ({(10, 1): [1.0], (10, 2): [1.004]}, {(10, 2): [1.0]}):
        assert scaling(table).faster_with_fewer() == []


def test_ranks_beside_one(capsys):
    seconds = {"average": [1.0, 2.0], ONE_RANK: [1.5, 4.0]}
    args = Namespace(kind="cost", rounds=2, ranks=(2,), json=False)
    print_comparison(Comparison(seconds), "average", args)
    said = capsys.readouterr().out
    assert "1.50-2.00" in said
    assert "2 ranks are 1.75 times as fast as 1 (average)" in said


def test_the_table_beside_the_paper_s(capsys):
    done = {label(1000, 2): 123}
    args = Namespace(kind="sparse", evaluations=200, kl="average", json=False)
    few = {key: seconds for key, seconds in SECONDS.items() if key[1] < 4}
    print_scaling(scaling(few, done), args)
    said = capsys.readouterr().out
    for words in ("1,000", "speed 2:1", "paper 8", "1 rank is 1.40 times", "123 eval"):
        assert words in said
    assert "The paper's seconds are for 500 evaluations." in said
    assert max(map(len, said.splitlines()[:8])) <= 80
