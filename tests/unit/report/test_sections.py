"""What a report says of deep runs, of fine-tuning, and of sparse runs."""

import json
import re

import numpy as np
import pytest

from mpilayer.report import build, deep, finetuning, sparse, speed
from mpilayer.report.html import Figure
from mpilayer.report.run import collect
from tests.unit.report.conftest import (
    EPOCH,
    TUNING,
    deep_run,
    figures_of,
    sparse_run,
    text_of,
    write_run,
)


def rows_of(made, width):
    """Return the rows of a table, but for its head."""
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", made)
    return [cells[i : i + width] for i in range(width, len(cells), width)]


def deep_runs(folder, summaries, **options):
    """Write and read deep runs."""
    paths = [deep_run(folder / name, s, **options) for name, s in summaries.items()]
    return collect(paths)


# --- deep runs


def test_rows_of_another_width_than_the_papers_stand_alone(tmp_path):
    found = deep_runs(tmp_path, {"deep": {"pretrain_seconds": 8.0}})
    for show in (deep.architecture_table, deep.errors_table, deep.pretraining_table):
        assert "deep" in show(found)
        assert not re.search("Santara|paper|MNIST", show(found))


def test_equal_pca_errors_are_said_once(tmp_path):
    pca = {"train": 1.0, "validation": 2.0, "test": 3.0}
    all_pca = {"a": pca, "b": pca, "c": {**pca, "test": 3.5}}
    runs = deep_runs(tmp_path, {name: {"pca": own} for name, own in all_pca.items()})
    counts = [deep.errors_table(runs[:n]).count("PCA") for n in (1, 2, 3)]
    assert counts == [1, 1, 3]
    assert "a: PCA" in deep.errors_table(runs[:1])


def test_the_architecture_stands_beside_the_papers(tmp_path):
    settings = {"layers": [20, 5], "epochs": [3, 7], "extra_epochs": [-1]}
    settings |= {"schedule": "async", "method": "rbm", "visible": "sigmoid"}
    settings |= {"hidden": "sigmoid", "code": "linear"}
    # Nothing is said of another version's settings, and little of many layers.
    odd = {"layers": [9] * 9, "epochs": [*range(9)], "extra_epochs": ["x"]}
    paths = [
        deep_run(tmp_path / "a", n_visible=10, settings=settings),
        deep_run(tmp_path / "b", n_visible=784),
        deep_run(tmp_path / "c", settings=odd),
    ]
    first, second, third, theirs = rows_of(deep.architecture_table(collect(paths)), 6)
    kinds = "rbm, sigmoid, code linear"
    assert first == ["a", "10-20-5", "67 / 33", kinds, "3 / 7", "0 / 1"]
    assert second[:3] == ["b", "784-3-2", "1e+02 / 0.25"]
    assert (third[2], *third[4:]) == ("–", "0 / … / 8", "–")
    paper = ["784-1000-500-250-30", "55 / 35 / 8.8 / 0.53", "rbm, sigmoid", "20"]
    assert theirs == ["Santara et al. 2016", *paper, "0 / 5 / 20 / 40"]


def test_the_speed_against_a_greedy_run(tmp_path):
    runs = [
        deep_run(tmp_path / name, {"pretrain_seconds": took}, 784, {"schedule": name})
        for name, took in (("greedy", 8.0), ("lockstep", 4.0))
    ]
    made = deep.pretraining_table(collect(runs))
    for said in (">2 ×", "1.783 ×", "synchronized (async)"):
        assert said in made


@pytest.mark.parametrize(
    ("facts", "schedule", "virtual", "shown"),
    [
        ({"ranks": 4, "crowded": False}, "lockstep", 2.5, ["2.5"]),
        ({"ranks": 4, "crowded": True}, "lockstep", 2.5, []),
        ({"ranks": 4}, "lockstep", 2.5, []),  # of a former version: nobody knows
        ({"ranks": 1}, "lockstep", 2.5, ["2.5"]),
        ({"ranks": 1}, "lockstep", 0.02, []),  # says nothing
        ({"ranks": 1}, "simulate", 0.02, ["0.020"]),
    ],
)
def test_simulated_seconds_need_a_core_for_each_thread_and_to_say_something(
    tmp_path, facts, schedule, virtual, shown
):
    times = {"pretrain_seconds": 0.031, "simulated_seconds": virtual}
    runs = deep_runs(tmp_path, {"a": times | facts}, settings={"schedule": schedule})
    made = deep.pretraining_table(runs)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", made)[2:] == ["0.031", *shown]
    assert ("Simulated" in made) == bool(shown)
    crowded = facts.get("crowded", facts["ranks"] > 1)
    assert ("more BLAS threads than cores" in made) == crowded
    assert "greedy" not in made


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "Milliseconds"), (1, "Seconds")])
def test_times_of_short_runs_are_milliseconds(tmp_path, factor, unit):
    times = {"training": 1, "waiting": 0.2, "transform": 0, "monitor": 0}
    epoch = EPOCH | {kind: factor * seconds for kind, seconds in times.items()}
    made = deep.times_table(*deep_runs(tmp_path, {"a": None}, layer_1=[epoch]))
    assert f"{unit} of each layer" in made
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", made)
    assert cells[2:8] == ["1.00", "0.00", "0.00", "0.00", "0.20", "17%"]


def test_ranks_of_a_team_and_their_barriers(tmp_path):
    team = [[3, 0.5, 0.5], [4, 0.25, 0.75]]
    run = deep_runs(tmp_path, {"a": None}, layer_1=[EPOCH | {"rank": 3, "team": team}])
    made = deep.times_table(*run)
    (_, ranks, *_, share), (*_, nothing) = rows_of(made, 10)
    assert (ranks, share, nothing) == ("3-4", "62%", "–")


# --- fine-tuning


def finetuning_of(charts, *paths):
    """Return the lines, levels and caption of the figure on fine-tuning."""
    (drawn,) = finetuning.finetuning_curves(collect(paths))
    return {line.label: line for line in charts[0].lines}, charts[0].levels, drawn.says


def tuned(path, losses=(9.0, 5.0), pca=None, **settings):
    """Write a fine-tuned run."""
    lines = [{**TUNING, "epoch": i, "train_loss": x} for i, x in enumerate(losses, 1)]
    found = {"pretrained": {"train": 21.0, "validation": 22.0}, "pca": pca}
    return deep_run(path, found, settings=(), tuning=settings, finetune=lines)


def test_fine_tuning_shows_both_errors_beside_pca(tmp_path, charts):
    run = tuned(tmp_path / "a", pca={"validation": 14.2})
    lines, levels, says = finetuning_of(charts, run)
    assert lines["a, validation"].y == [22.0, 20.0, 20.0]
    assert lines["a, train"].y == [21.0, 9.0, 5.0]
    assert lines["a, train"].x == [0, 1, 2]
    assert [line.bare for line in lines.values()] == [False, True]
    assert lines["a, train"].style == lines["a, validation"].style
    assert levels == {"PCA": 14.2}
    assert "left out" not in says


def test_training_errors_that_are_none_are_left_out(tmp_path, charts):
    runs = [
        tuned(tmp_path / "other", loss="cross-entropy"),
        tuned(tmp_path / "old", losses=(None, None)),
        tuned(tmp_path / "scratch", from_scratch=True),
    ]
    lines, levels, says = finetuning_of(charts, *runs)
    of = [f"{name}, validation" for name in ("other", "old", "scratch")]
    assert list(lines) == [*of, "scratch, train"]
    assert "That of other, old is left out" in says
    # The pre-trained stack is not where random weights begin.
    assert np.isnan([lines["scratch, train"].y[0], lines[of[2]].y[0]]).all()
    assert not levels


def test_a_confusion_matrix_is_shown_if_it_is_one(tmp_path):
    summary = {"confusion": [[8, 2], [1, 9]], "class_error": 0.15}
    run, odd = deep_runs(tmp_path, {"a": summary, "b": {"confusion": [[1, 2]]}})
    (made,) = finetuning.confusion(run)
    assert "15\N{NO-BREAK SPACE}% of 20 are wrong" in made
    assert made.count('class="right"') == 2
    assert not [*finetuning.confusion(odd)]


def test_classifiers_and_regressors_have_curves_and_a_table(tmp_path, charts):
    lines = [TUNING, {**TUNING, "epoch": 2, "train_loss": 1.0}]
    errors = {"train": 1.0, "validation": 12.0, "test": 12.5}
    summary = {"confusion": [[8, 2], [1, 9]], "confusion_split": "test"}
    summary["classify_error"] = errors
    run = deep_run(tmp_path / "a", summary, classify=lines, regress=lines[:1])
    text = text_of([run])
    for name in ("classify-loss", "classify-error", "regress-loss", "regress-error"):
        assert f'id="{name}"' in text
    assert "Confusion matrix of a: test rows" in text
    assert "12.5\N{NO-BREAK SPACE}% wrong classes" in text
    # Without validation rows there is no such curve.
    missing = [{**line, "validation_error": None} for line in lines]
    run = deep_run(tmp_path / "b", {}, classify=missing)
    drawn = figures_of(build.sections_of(collect([run])))
    assert ("classify-loss" in drawn, "classify-error" in drawn) == (True, False)


# --- sparse runs


def figures_of_speed(*runs):
    """Return the figures among what is said of speed."""
    return [part for part in speed.speeds(collect(runs)) if isinstance(part, Figure)]


def test_speed_up_needs_runs_that_differ_in_ranks_alone(tmp_path, charts):
    one = sparse_run(tmp_path / "one", ranks=1, seconds=8.0)
    two = sparse_run(tmp_path / "two", ranks=2, seconds=4.0)
    other = sparse_run(tmp_path / "other", ranks=4, hidden=5)
    assert figures_of_speed(one, other) == []
    (drawn,) = figures_of_speed(one, two, other)
    assert (drawn.name, "other" in drawn.says) == ("speed-up", False)
    # Rows of another width than the papers' stand alone.
    line, ideal = charts[0].lines
    assert (line.label, line.x, line.y) == ("one, two", [1, 2], [1.0, 2.0])
    assert ideal.label == "ideal"
    told = "".join(map(str, speed.speeds(collect([one, two]))))
    assert not any(word in told for word in ("Lahiri", "qjam"))


@pytest.mark.parametrize(
    ("optimizer", "changes", "together"),
    [
        ("lbfgs", {"learning_rate": 0.5, "minibatch": 7, "memory": 0.9}, True),
        ("cg", {"corrections": 3, "evaluations": 9, "preset": "other"}, True),
        ("sgd", {"learning_rate": 0.5}, False),
        ("lbfgs", {"seed": 5}, False),
    ],
)
def test_settings_that_an_optimizer_ignores_part_no_runs(
    tmp_path, charts, optimizer, changes, together
):
    one = sparse_run(tmp_path / "one", optimizer=optimizer)
    two = sparse_run(tmp_path / "two", ranks=2, **{"optimizer": optimizer, **changes})
    assert bool(figures_of_speed(one, two)) == together


def test_seconds_stand_beside_the_papers_and_the_clusters(tmp_path, charts):
    runs = [
        sparse_run(tmp_path / f"r{n}", n, 8 / n, n_visible=64, rows=120_000)
        for n in (1, 2)
    ]
    told, drawn = speed.speeds(collect(runs))
    rows = rows_of(told, 7)
    # 500 evaluations; a run did 10.
    assert rows[0] == ["r1, r2", "120,000", "400", "200", *["–"] * 3]
    paper = "Lahiri et al., desktop"
    assert [paper, "100,000", "650", "440", "370", "350", "–"] in rows
    assert ["qjam cluster", "1,000", "76", "92", "137", "275", "544"] in rows
    assert len(rows) == 8
    for text in (told, drawn.says):
        assert "own report (Batiz-Benet, Slack, Sparks, Yahya)" in text
    lines = {line.label: line for line in charts[0].lines}
    theirs = [f"{paper}, 100,000 rows", "qjam cluster, 100,000 rows"]
    assert list(lines)[1:] == [*theirs, "ideal"]
    assert lines[theirs[1]].y[-1] == pytest.approx(5030 / 703)


FALLING = [2.6 + 12 * 0.9**i for i in range(200)]
FALLING[100] = 9.0  # a line search went too far
SLOW = [3.0 - 0.01 * i for i in range(99)]


@pytest.mark.parametrize(
    ("costs", "low", "top"),
    [
        (FALLING, min(FALLING), (FALLING[60], FALLING[40])),
        ([1e4, *SLOW], 2.02, (2.75, 2.85)),
        ([4.0, *SLOW], 2.02, (4.0, 4.0)),
        ([None, *SLOW], 2.02, (3.0, 3.0)),
        (range(9, 1, -1), 2, (9, 9)),
        ([None], 1, (np.inf, np.inf)),
    ],
)
def test_the_first_costs_do_not_flatten_the_rest(tmp_path, charts, costs, low, top):
    runs = collect([sparse_run(tmp_path / "a", costs=costs)])
    found_low, found_top, highest = sparse.range_of_costs(runs)
    assert found_low == pytest.approx(low)
    assert top[0] <= found_top <= top[1]
    first, _ = sparse.costs(runs)
    assert ("is left out" in first.says) == (found_top < highest)
    assert charts[0].top == found_top


def test_costs_that_lie_together_are_told_apart(tmp_path, charts):
    costs = {"a": (9, 3, 4, 2), "b": (9, 3, 2.5), "other": (9, 5, 7), "none": ()}
    runs = [
        sparse_run(tmp_path / name, costs=own, hidden=4 if name == "other" else 3)
        for name, own in costs.items()
    ]
    assert list(sparse.distances(collect(runs[:1]))) == []
    (drawn,) = sparse.distances(collect(runs))
    assert drawn.name == "cost-distance"
    lines = {line.label: list(line.y) for line in charts[0].lines}
    # The lowest so far; another objective has a lowest cost of its own.
    assert lines == {"a": [7, 1, 1, 0], "b": [7, 1, 0.5], "other": [4, 0, 0]}


def test_a_comparison_under_way_and_at_its_end(tmp_path, charts):
    sections = {"data": {}, "sparse": {"hidden": 3}, "compare": {"runs": []}}
    run = write_run(tmp_path / "run", sections)
    sparse_run(run / "average")
    assert [r.name for r in collect([run])] == ["run", "run/average"]
    assert "has not come to its end" in text_of([run])
    gap = {"shards": 2, "measured": 1e-4, "predicted": 1e-4, "bound": None}
    gap["hoeffding"] = 0.18  # of a former version
    cuts = {"as_they_lie": [gap], "sorted_by_norm": [gap], "exchangeable": False}
    found = {"ranks": 2, "n_rows": 9, "runs": {"average": {"gap": gap}}, "shards": cuts}
    (run / "compare.json").write_text(json.dumps(found))
    said = ('id="gap-run"', "infinite", "Warning: the shards differ")
    assert all(text in text_of([run]) for text in said)
