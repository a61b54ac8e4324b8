"""The table of a sweep against plain sums, and where there is nothing to add up."""

import csv

import numpy as np
import pytest
from scipy import stats

from mpilayer.report import figures
from mpilayer.runs.directory import RunDirectory
from mpilayer.sweep.page import write_sweep_page
from mpilayer.sweep.plan import read_sweep
from mpilayer.sweep.table import (
    DIVERGED,
    difference,
    differences_in_words,
    settings_in_words,
    table_of,
)

TEXT = """
[data]
path = "x.h5"
[pretrain]
[finetune]
[sweep]
finetune.epochs = [1, 2, 3]
seeds = "0-2"
"""
# By setting: validation errors of three seeds, None where training diverged.
ERRORS = {1: (4.0, 5.0, 9.0), 2: (3.0, 3.5, None), 3: (None, None, None)}


@pytest.fixture
def sweep(tmp_path):
    """Give a sweep of nine runs that have left what a table reads."""
    file = tmp_path / "try.toml"
    file.write_text(TEXT)
    plan = read_sweep(file, run=tmp_path / "there")
    for member in plan.members:
        epochs = member.plan.training["finetune"].epochs
        error = ERRORS[epochs][member.seed]
        run = RunDirectory(member.plan.folder("finetune"))
        run.path.mkdir(parents=True)
        if error is None:
            (member.plan.path / DIVERGED).write_text("weights must stay finite")
            continue
        run.write_summary({"validation_error": error, "test_error": error + 1})
        RunDirectory(member.plan.path).set_complete("experiment")
    plan.write()
    return plan


def test_a_table_has_all_runs_and_their_means(sweep):
    table = table_of(sweep)
    found = [row.errors["validation"] for row in table.rows if row.errors]
    assert found == [3.0, 3.5, 4.0, 5.0, 9.0]
    assert [row.state for row in table.rows[5:]] == ["diverged"] * 4
    assert (table.by, table.splits) == ("validation", ["validation", "test"])
    best, other, none = table.settings
    assert (best["setting"], best["complete"], best["diverged"]) == ("epochs=2", 2, 1)
    assert other["validation"]["mean"] == pytest.approx(6.0)
    expected = np.std([4, 5, 9], ddof=1) / 3**0.5
    assert other["validation"]["standard_error"] == pytest.approx(expected)
    assert none["test"] == {"mean": None, "standard_error": None}
    # Over the seeds that both have.
    (pair,) = table.pairs
    assert (pair["setting"], pair["minus"]) == ("epochs=1", "epochs=2")
    assert pair["validation"]["pairs"] == 2
    assert pair["validation"]["mean"] == pytest.approx(1.25)
    rows = list(csv.DictReader(table.to_csv().splitlines()))
    assert [float(row["test"]) for row in rows if row["test"]] == [e + 1 for e in found]


def test_words_have_the_digits_that_count(sweep):
    table = table_of(sweep)
    _, rows = settings_in_words(table)
    first, second = "2 of 3, 1 diverged", "3 of 3"
    assert rows[:2] == [
        ["epochs=2", first, "3.25 ± 0.25", "4.25 ± 0.25"],
        ["epochs=1", second, "6.0 ± 1.5", "7.0 ± 1.5"],
    ]
    _, ((name, pairs, *cells),) = differences_in_words(table)
    assert (name, pairs) == ("epochs=1 − epochs=2", "2")
    assert cells == ["1.2: −1.9 to 4.4"] * 2


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 10))
    found = difference(list(second - first))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert found["pairs"] == 10
    assert found["mean"] == pytest.approx(np.mean(second - first))
    assert found["interval"] == pytest.approx([expected.low, expected.high])


@pytest.mark.parametrize(("values", "mean"), [([], None), ([2.0], 2.0)])
def test_fewer_than_two_pairs_have_no_interval(values, mean):
    found = {"pairs": len(values), "mean": mean, "interval": None}
    assert difference(values) == found


def test_a_page_has_a_strip_of_each_setting(sweep):
    pytest.importorskip("matplotlib")
    out = sweep.path / "page.html"
    write_sweep_page(sweep, out)
    text = out.read_text()
    words = ("epochs=3", "3.25 ± 0.25", "strips-test", "−1.9 to 4.4", "[sweep]")
    for word in (*words, "weights must stay finite"):
        assert word in text


def test_strips_are_one_below_the_other(monkeypatch):
    pytest.importorskip("matplotlib")
    made = []
    monkeypatch.setattr(figures, "_svg", lambda figure, _: made.append(figure) or "")
    lines = [figures.Line(name, x, x) for name, x in (("a", (1, 2)), ("b$", ()))]
    drawn = figures.Chart("n", "t", "s", lines, "error", "", "alt")
    assert drawn.strips({"a": (1.5, 0.1)}).pictures
    (axes,) = made[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", r"b\$"]
    points = axes.lines[0]
    assert list(points.get_xdata()) == [1, 2]
    assert np.ptp(points.get_ydata()) > 0.1
