"""Reading runs: whole, under way, damaged; and what the report makes of them."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import tomli_w

from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import CheckpointError, ConfigError
from mpilayer.report import (
    build,
    curves,
    deep,
    images,
    labels,
    layers,
    sparse,
    speed,
    words,
)
from mpilayer.report.collect import collect, names
from mpilayer.report.html import Figure, page
from mpilayer.report.run import number
from mpilayer.store import checkpoint

EVIL = "<script>alert(1)</script>"
EPOCH = {
    "layer": 1,
    "epoch": 1,
    "used": 0,
    "started": 0.0,
    "training": 1.0,
    "transform": 0.1,
    "monitor": 0.1,
    "waiting": 0.0,
    "sending": 0.0,
    "train_error": 2.0,
    "validation_error": None,
    "rank": 0,
}
EVALUATION = {"iteration": 1, "computing": 0.1, "allreduce": 0.0}


def write_run(path, sections, summary=None, complete="", **metrics):
    """Write a run directory by hand: names of metrics and their lines."""
    (path / "metrics").mkdir(parents=True)
    (path / "checkpoints").mkdir()
    (path / "config.toml").write_text(tomli_w.dumps(sections))
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary))
    if complete:
        (path / "complete").write_text(complete)
    for name, lines in metrics.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "metrics" / f"{name.replace('_', '-')}.jsonl").write_text(text)
    return path


def deep_run(path, summary=None, n_visible=4, **metrics):
    """Write a run of two layers."""
    settings = {"layers": [3, 2], "schedule": "lockstep", "lag": [0], "epochs": [2]}
    sections = {
        "data": {"path": "none.h5", "n_visible": n_visible},
        "pretrain": settings,
    }
    return write_run(path, sections, summary, **metrics)


def sparse_run(
    path, ranks=1, seconds=1.0, costs=(9.0, 4.5, 3.0), n_visible=4, **changes
):
    """Write a run of a sparse autoencoder."""
    settings = {"hidden": 3, "optimizer": "lbfgs", "kl": "average"} | changes
    lines = [
        {**EVALUATION, "evaluation": i, "seconds": 0.1 * i, "cost": cost}
        for i, cost in enumerate(costs, 1)
    ]
    summary = {"ranks": ranks, "seconds": seconds, "evaluations": 10, "cost": 3.0}
    summary |= {"mean_activations": [0.01, 0.002, 0.1], "allreduce_seconds": 0.1}
    sections = {"data": {"digest": "d", "n_visible": n_visible}, "sparse": settings}
    return write_run(path, sections, summary, "sparse\n", sparse=lines)


def figures_of(sections):
    """Return the names of all figures."""
    parts = [part for section in sections for part in section.content]
    return [part.name for part in parts if isinstance(part, Figure)]


def text_of(runs):
    """Return the page about runs."""
    return page("t", [], build.sections_of(collect(runs)))


@pytest.fixture(autouse=True)
def _matplotlib():
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")


def test_a_run_that_has_just_begun(tmp_path):
    run = deep_run(tmp_path / "run")
    (found,) = collect([run])
    assert (found.kind, found.layers, found.sample) == ("deep", ((), ()), None)
    assert math.isinf(found.silent) or math.isnan(found.silent)
    assert "interrupted: epochs 0, 0 of layers 1 to 2" in text_of([run])


def test_at_work_interrupted_or_nobody_knows(tmp_path):
    run = deep_run(tmp_path / "run", layer_1=[EPOCH])
    done = "epochs 1, 0 of layers 1 to 2"
    advice = f"; go on with 'mpilayer resume {run}'"
    (found,) = collect([run])
    assert words.state(found) == f"interrupted: {done}{advice}"
    (run / ".lock").write_text("elsewhere 17")
    (found,) = collect([run])
    assert words.state(found).startswith(f"still running, or broken off: {done}; the ")
    known = replace(found, at_work=True)
    assert words.state(known).startswith(f"still running: {done}; the last line was")


def test_epochs_are_read_and_broken_lines_are_not(tmp_path):
    second = {**EPOCH, "epoch": 2, "started": 1.2}
    run = deep_run(tmp_path / "run", layer_1=[EPOCH, second, {"epoch": 3}, 7])
    path = run / "metrics" / "layer-1.jsonl"
    with path.open("a") as file:
        file.write('{"half a li')  # still being written
    (found,) = collect([run])
    assert [e.epoch for e in found.layers[0]] == [1, 2]
    assert found.layers[0][0].left == pytest.approx(1.1)
    assert found.layers[0][0].ended == pytest.approx(1.2)
    assert math.isnan(found.layers[0][0].validation_error)
    (remark,) = found.remarks
    assert f"{path} is damaged: 2 of its lines" in remark
    with path.open("a") as file:
        file.write("ne\n")
    (found,) = collect([run])
    assert len(found.layers[0]) == 2
    assert "damaged" in found.remarks[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("schedule.json", "{}"),
        ("compare.json", "nonsense"),
        ("complete", b"\xff"),
        ("checkpoints/layer-1.h5", "no HDF5"),
    ],
)
def test_what_is_damaged_is_said_and_the_rest_is_shown(tmp_path, name, content):
    run = deep_run(tmp_path / "run", layer_1=[EPOCH])
    raw = content if isinstance(content, bytes) else content.encode()
    (run / name).write_bytes(raw)
    (found,) = collect([run])
    assert "spacetime-run" in figures_of(build.sections_of([found]))
    if not name.startswith("checkpoints"):
        assert found.remarks


@pytest.mark.parametrize("odd", [7, "text", [1], {"a": [None]}, None, EVIL])
def test_summaries_may_hold_anything(tmp_path, odd):
    keys = (
        *("pca", "pretrained", "finetuned", "test_error", "pretrain_seconds", "ranks"),
        *("simulated_seconds", "confusion", "class_error", "layers", "mpi", "hosts"),
        *("mean_activations", "evaluations", "seconds", "cost", "n_rows"),
    )
    summary = dict.fromkeys(keys, odd)
    runs = [deep_run(tmp_path / "a", summary, layer_1=[EPOCH])]
    runs.append(sparse_run(tmp_path / "b"))
    (runs[1] / "summary.json").write_text(json.dumps(summary))
    assert EVIL not in text_of(runs)


def test_names_of_files_are_escaped_everywhere(tmp_path):
    run = deep_run(tmp_path / "<b>$x$&", {"mpi": EVIL}, layer_1=[EPOCH])
    text = (run / "config.toml").read_text().replace("none.h5", EVIL)
    (run / "config.toml").write_text(text.replace('"lockstep"', f'"{EVIL}"'))
    sparse = sparse_run(tmp_path / "<i>$", optimizer=EVIL, kl=EVIL)
    made = text_of([run, sparse])
    for foreign in (EVIL, "<b>$", "<i>$"):
        assert foreign not in made
    assert "&lt;b&gt;$x$&amp;" in made


def test_runs_that_are_none(tmp_path):
    run = deep_run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="must be the directory of a run"):
        collect([run, tmp_path])
    with pytest.raises(ConfigError, match="each DIR must be another run"):
        collect([run, tmp_path / "run" / "metrics" / ".."])
    (run / "config.toml").write_text("[")
    with pytest.raises(CheckpointError):
        collect([run])


def test_names_and_places_tell_runs_apart(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert names(paths) == ["a/run", "b/run"]
    assert names(paths[:1]) == ["run"]
    paths.append(tmp_path / "other")
    assert names(paths) == ["a/run", "b/run", "other"]
    runs = [deep_run(tmp_path / name) for name in ("x y", "x-y", "X.y", "…")]
    assert [r.place for r in collect(runs)] == ["x-y", "x-y-2", "x-y-3", "run"]


def test_numbers():
    assert number(2) == 2.0
    assert all(math.isnan(number(v)) for v in (None, "2", True, [1], math.nan))


def test_many_layers_are_told_in_short(tmp_path):
    run = deep_run(tmp_path / "run")
    config = (run / "config.toml").read_text()
    assert words.widths(collect([run])[0]) == "4-3-2"
    many = re.sub(r"layers = \[[^]]*\]", f"layers = {[9] * 63 + [2]}", config)
    (run / "config.toml").write_text(many)
    assert words.widths(collect([run])[0]) == "4-9-9-9-…-9-2 (64 layers)"


def test_common_settings_are_said_once(tmp_path):
    paths = [sparse_run(tmp_path / "a"), sparse_run(tmp_path / "b", ranks=2)]
    runs = collect(paths)
    alone = (
        "4-3-4, lbfgs, sparsity term average, sparsity weight –, sparsity target –, "
    )
    alone += "weight decay –"
    assert words.settings(runs[:1]) == ("", [f"{alone}, 1 rank"])
    assert words.settings(runs) == (alone, ["1 rank", "2 ranks"])
    deep_too = deep_run(tmp_path / "c", {"ranks": 1}, layer_1=[EPOCH], finetune=[LINE])
    text = re.sub(r'aria-label="[^"]*"', "", text_of([*paths, deep_too]))
    for said in (f"All sparse runs: {alone}.", "4-3-2, lockstep, lag 0"):
        assert text.count(said) == 1
    assert text.count(alone) == 1
    assert "λ_" not in text


def test_common_settings_of_fine_tuning_are_said_once(tmp_path):
    runs = [
        tuned(tmp_path / name, f'optimizer = "adam"\nminibatch = {size}\n')
        for name, size in {"a": 50, "b": 50, "c": 70}.items()
    ]
    found = collect(runs)
    unknown = "rate –", "ranks unknown"
    assert words.finetunings(found[:1]) == (
        f"a: adam, {unknown[0]}, minibatch 50, {unknown[1]}"
    )
    assert words.finetunings(found[:2]) == (
        f"All: adam, {unknown[0]}, minibatch 50, {unknown[1]}"
    )
    assert words.finetunings(found) == (
        f"All: adam, {', '.join(unknown)}; "
        "a: minibatch 50; b: minibatch 50; c: minibatch 70"
    )


def test_speed_up_needs_runs_that_differ_in_ranks_alone(tmp_path):
    one = sparse_run(tmp_path / "one", ranks=1, seconds=8.0)
    two = sparse_run(tmp_path / "two", ranks=2, seconds=4.0)
    other = sparse_run(tmp_path / "other", ranks=4, hidden=5)
    assert figures_of_speed(one, other) == []
    (drawn,) = figures_of_speed(one, two, other)
    assert drawn.name == "speed-up"
    assert "other" not in drawn.says
    line = speed._line("", speed._seconds(collect([one, two])), 0)
    assert (line.x, line.y) == ([1, 2], [1.0, 2.0])


def figures_of_speed(*runs):
    """Return the figures among what is said of speed."""
    return [part for part in speed.speeds(collect(runs)) if isinstance(part, Figure)]


@pytest.mark.parametrize(
    ("optimizer", "changes", "together"),
    [
        ("lbfgs", {"learning_rate": 0.5, "minibatch": 7, "memory": 0.9}, True),
        ("lbfgs", {"corrections": 3}, False),
        ("cg", {"corrections": 3, "learning_rate": 0.5, "preset": "other"}, True),
        ("sgd", {"corrections": 3, "evaluations": 9}, True),
        ("sgd", {"learning_rate": 0.5}, False),
        ("lbfgs", {"optimizer": "cg"}, False),
        ("lbfgs", {"seed": 5}, False),
    ],
)
def test_settings_that_an_optimizer_ignores_part_no_runs(
    tmp_path, optimizer, changes, together
):
    one = sparse_run(tmp_path / "one", optimizer=optimizer)
    two = sparse_run(tmp_path / "two", ranks=2, **{"optimizer": optimizer, **changes})
    assert bool(figures_of_speed(one, two)) == together


def test_seconds_stand_beside_the_papers_and_the_clusters(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(speed.figures, "chart", lambda c: made.append(c) or "<svg/>")
    runs = [
        sparse_run(tmp_path / f"r{n}", ranks=n, seconds=8 / n, n_visible=64)
        for n in (1, 2)
    ]
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps({**summary, "n_rows": 120_000}))
    told, drawn = speed.speeds(collect(runs))
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", told)
    rows = [cells[i : i + 7] for i in range(7, len(cells), 7)]
    # 500 evaluations; a run did 10.
    assert rows[0] == ["r1, r2", "120,000", "400", "200", *["–"] * 3]
    paper = "Lahiri et al., desktop"
    assert [paper, "100,000", "650", "440", "370", "350", "–"] in rows
    assert ["qjam cluster", "1,000", "76", "92", "137", "275", "544"] in rows
    assert len(rows) == 8
    for text in (told, drawn.says):
        assert "own report (Batiz-Benet, Slack, Sparks, Yahya)" in text
    lines = {line.label: line for line in made[0].lines}
    assert list(lines)[1:] == [
        f"{paper}, 100,000 rows",
        "qjam cluster, 100,000 rows",
        "ideal",
    ]
    assert lines["qjam cluster, 100,000 rows"].y[-1] == pytest.approx(5030 / 703)


def test_rows_of_another_width_than_the_papers_stand_alone(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(speed.figures, "chart", lambda c: made.append(c) or "<svg/>")
    runs = [sparse_run(tmp_path / f"r{n}", ranks=n, seconds=8 / n) for n in (1, 2)]
    told, drawn = speed.speeds(collect(runs))
    assert [line.label for line in made[0].lines] == ["r1, r2", "ideal"]
    assert not any(word in told + drawn.says for word in ("Lahiri", "qjam"))
    found = collect([deep_run(tmp_path / "deep", {"pretrain_seconds": 8.0})])
    for show in (deep.architecture_table, deep.errors_table, deep.pretraining_table):
        assert "deep" in show(found)
        assert not re.search("Santara|paper|MNIST", show(found))


def test_what_flattens_the_costs_is_cut_off(tmp_path):
    falling = [2.6 + 12 * 0.9**i for i in range(200)]
    falling[100] = 9.0  # a line search went too far
    (run,) = collect([sparse_run(tmp_path / "a", costs=falling)])
    low, top, highest = sparse._range_of_costs([run])
    assert (low, highest) == (min(falling), falling[0])
    assert falling[60] < top < falling[40]
    (even,) = collect([sparse_run(tmp_path / "b", costs=range(9, 1, -1))])
    assert sparse._range_of_costs([even]) == (2, 9, 9)


def test_costs_that_lie_together_are_told_apart(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(sparse.figures, "chart", lambda c: made.append(c) or "<svg/>")
    costs = {"a": (9, 3, 4, 2), "b": (9, 3, 2.5), "other": (9, 5, 7), "none": ()}
    runs = [
        sparse_run(tmp_path / name, costs=own, hidden=4 if name == "other" else 3)
        for name, own in costs.items()
    ]
    assert list(sparse._distances(collect(runs[:1]))) == []
    (drawn,) = sparse._distances(collect(runs))
    assert drawn.name == "cost-distance"
    lines = {line.label: list(line.y) for line in made[0].lines}
    # The lowest so far; another objective has a lowest cost of its own.
    assert lines == {"a": [7, 1, 1, 0], "b": [7, 1, 0.5], "other": [4, 0, 0]}


def test_a_comparison_under_way_and_at_its_end(tmp_path):
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
    made = text_of([run])
    assert 'id="gap-run"' in made
    assert "infinite" in made
    assert "Warning: the shards differ" in made


def test_a_confusion_matrix_is_shown_if_it_is_one(tmp_path):
    summary = {"confusion": [[8, 2], [1, 9]], "class_error": 0.15}
    (run,) = collect([deep_run(tmp_path / "a", summary)])
    (made,) = labels.confusion(run)
    assert "15\N{NO-BREAK SPACE}% of 20 are wrong" in made
    assert made.count('class="right"') == 2
    odd = {"confusion": [[1, 2]]}
    assert not list(labels.confusion(collect([deep_run(tmp_path / "b", odd)])[0]))


LINE = {"epoch": 1, "train_loss": 2.0, "validation_error": 20.0, "training": 1.0}
LINE |= {"allreduce": 0.0, "evaluating": 0.1}


def test_classifiers_and_regressors_have_curves_and_a_table(tmp_path):
    lines = [LINE, {**LINE, "epoch": 2, "train_loss": 1.0, "validation_error": 12.0}]
    summary = {
        "classify_error": {"train": 1.0, "validation": 12.0, "test": 12.5},
        "classify_best_epoch": 2,
        "classify_ranks": 2,
        "confusion": [[8, 2], [1, 9]],
        "confusion_split": "test",
    }
    run = deep_run(tmp_path / "a", summary, classify=lines, regress=lines[:1])
    (run / "complete").write_text("pretrain\nclassify\n")
    (found,) = collect([run])
    assert set(found.predictors) == {"classify", "regress"}
    drawn = figures_of(build.sections_of([found]))
    expected = {"classify-loss", "classify-error", "regress-loss", "regress-error"}
    assert expected <= set(drawn)
    text = text_of([run])
    assert "12.50" in text
    assert "Confusion matrix of a: test rows" in text
    assert "12.5\N{NO-BREAK SPACE}% wrong classes" in text
    assert words.state(found).startswith(
        "interrupted: pre-trained and with a classifier, a regressor for 1 epoch; go on"
    )
    # Without validation rows there is no such curve.
    missing = [{**line, "validation_error": None} for line in lines]
    run = deep_run(tmp_path / "b", {}, classify=missing)
    drawn = figures_of(build.sections_of(collect([run])))
    assert ("classify-loss" in drawn, "classify-error" in drawn) == (True, False)


@pytest.mark.parametrize("peak", [4.0, 1e4, None])
def test_the_first_costs_do_not_flatten_the_rest(tmp_path, peak):
    run = sparse_run(tmp_path / "run")
    costs = [peak] + [3.0 - 0.01 * i for i in range(99)]
    lines = [
        {**EVALUATION, "evaluation": i + 1, "cost": c, "seconds": i}
        for i, c in enumerate(costs)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics" / "sparse.jsonl").write_text(text)
    runs = collect([run])
    low, top, highest = sparse._range_of_costs(runs)
    assert low == pytest.approx(2.02)
    assert top == pytest.approx(2.8, abs=0.05) if peak == 1e4 else top == highest
    drawn = list(sparse._costs(runs))
    assert ("up to 1e+04, is left out" in drawn[0].says) == (peak == 1e4)


def test_equal_pca_errors_are_said_once(tmp_path):
    summary = {"pca": {"train": 1.0, "validation": 2.0, "test": 3.0}}
    runs = collect([deep_run(tmp_path / name, summary) for name in "ab"])
    assert deep.errors_table(runs).count("PCA") == 1
    assert "a: PCA" in deep.errors_table(runs[:1])
    other = {"pca": {"train": 1.0, "validation": 2.0, "test": 3.5}}
    runs += collect([deep_run(tmp_path / "c", other)])
    assert deep.errors_table(runs).count("PCA") == 3


def test_the_architecture_stands_beside_the_papers(tmp_path):
    run = deep_run(tmp_path / "a")
    (run / "config.toml").write_text(
        "[data]\nn_visible = 10\n[pretrain]\nlayers = [20, 5]\nepochs = [3, 7]\n"
        "extra_epochs = [-1]\nschedule = 'async'\nmethod = 'rbm'\n"
        "visible = 'sigmoid'\nhidden = 'sigmoid'\ncode = 'linear'\n"
    )
    made = deep.architecture_table(
        collect([run, deep_run(tmp_path / "b", n_visible=784)])
    )
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", made)
    rows = [cells[i : i + 6] for i in range(6, len(cells), 6)]
    kinds = "rbm, sigmoid, code linear"
    assert rows[0] == ["a", "10-20-5", "67 / 33", kinds, "3 / 7", "0 / 1"]
    assert rows[1][:3] == ["b", "784-3-2", "1e+02 / 0.25"]
    paper = ["784-1000-500-250-30", "55 / 35 / 8.8 / 0.53", "rbm, sigmoid", "20"]
    assert rows[2] == ["Santara et al. 2016", *paper, "0 / 5 / 20 / 40"]


def test_the_speed_against_a_greedy_run(tmp_path):
    runs = [
        deep_run(tmp_path / name, {"pretrain_seconds": t}, 784) for name, t in TIMES
    ]
    config = (runs[0] / "config.toml").read_text()
    (runs[0] / "config.toml").write_text(config.replace("lockstep", "greedy"))
    made = deep.pretraining_table(collect(runs))
    assert ">2 ×" in made
    assert "1.783 ×" in made
    assert "synchronized (async)" in made


TIMES = (("greedy", 8.0), ("lockstep", 4.0))


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ({"ranks": 4, "crowded": False}, True),
        ({"ranks": 4, "crowded": True}, False),
        ({"ranks": 4}, False),  # of a former version: nobody knows
        ({"ranks": 1}, True),
    ],
)
def test_simulated_seconds_need_a_core_for_each_thread(tmp_path, recorded, shown):
    times = {"pretrain_seconds": 30.0, "simulated_seconds": 23.4}
    run = deep_run(tmp_path / "a", {**times, **recorded})
    made = deep.pretraining_table(collect([run]))
    assert ("23.4" in made) == shown
    assert ("more BLAS threads than cores" in made) != shown
    assert "30.0" in made


@pytest.mark.parametrize(
    ("name", "virtual", "shown"),
    [("lockstep", 0.02, ""), ("lockstep", 2.5, "2.5"), ("simulate", 0.02, "0.020")],
)
def test_simulated_seconds_that_say_nothing_are_left_out(
    tmp_path, name, virtual, shown
):
    times = {"pretrain_seconds": 0.031, "simulated_seconds": virtual, "crowded": False}
    run = deep_run(tmp_path / "a", times)
    text = (run / "config.toml").read_text().replace("lockstep", name)
    (run / "config.toml").write_text(text)
    made = deep.pretraining_table(collect([run]))
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", made)
    assert cells[2:] == ["0.031", *[shown] * bool(shown)]
    assert ("Simulated" in made) == bool(shown)
    assert "greedy" not in made


@pytest.mark.parametrize(
    ("factor", "unit", "shown"),
    [(1e-3, "Milliseconds", ["1.00", "0.20"]), (1, "Seconds", ["1.00", "0.20"])],
)
def test_times_of_short_runs_are_milliseconds(tmp_path, factor, unit, shown):
    epoch = EPOCH | {"training": factor, "waiting": 0.2 * factor}
    epoch |= {"transform": 0.0, "monitor": 0.0}
    (found,) = collect([deep_run(tmp_path / "a", layer_1=[epoch])])
    (made,) = layers.times_table(found)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", made)
    assert f"{unit} of each layer" in made
    assert cells[2:8] == [shown[0], "0.00", "0.00", "0.00", shown[1], "17%"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("z.txt", r"-o must end in \.html, \.htm; got \S*z\.txt"),
        ("report", "-o must end in"),
        ("old.html", "-o must name a new file"),
        ("run", "-o must name a file"),
    ],
)
def test_a_page_has_the_ending_of_one(tmp_path, name, words):
    run = deep_run(tmp_path / "run")
    (tmp_path / "old.html").write_text("mine")
    with pytest.raises(ConfigError, match=words):
        build.write_report([run], tmp_path / name)
    assert not (tmp_path / "z.txt").exists()
    assert (tmp_path / "old.html").read_text() == "mine"
    build.write_report([run], tmp_path / "new.HTM")
    assert (tmp_path / "new.HTM").read_text().startswith("<!DOCTYPE html>")


def tuned(path, section="", losses=(9.0, 5.0), **summary):
    """Write a fine-tuned run."""
    lines = [{**LINE, "epoch": i, "train_loss": x} for i, x in enumerate(losses, 1)]
    found = {"pretrained": {"train": 21.0, "validation": 22.0}} | summary
    run = deep_run(path, found, finetune=lines)
    with (run / "config.toml").open("a") as file:
        file.write(f"[finetune]\n{section}")
    return run


def finetuning(monkeypatch, *paths):
    """Return the lines, levels and caption of the figure on fine-tuning."""
    made = []
    monkeypatch.setattr(curves.figures, "chart", lambda c: made.append(c) or "<svg/>")
    (drawn,) = curves.finetuning_curves(collect(paths))
    return {line.label: line for line in made[0].lines}, made[0].levels, drawn.says


def test_fine_tuning_shows_both_errors_beside_pca(tmp_path, monkeypatch):
    run = tuned(tmp_path / "a", pca={"validation": 14.2})
    lines, levels, says = finetuning(monkeypatch, run)
    assert lines["a, validation"].y == [22.0, 20.0, 20.0]
    assert lines["a, train"].y == [21.0, 9.0, 5.0]
    assert lines["a, train"].x == [0, 1, 2]
    assert [line.bare for line in lines.values()] == [False, True]
    assert lines["a, train"].style == lines["a, validation"].style
    assert levels == (("PCA", 14.2),)
    assert "left out" not in says


def test_training_errors_that_are_none_are_left_out(tmp_path, monkeypatch):
    runs = [
        tuned(tmp_path / "other", 'loss = "cross-entropy"\n'),
        tuned(tmp_path / "old", losses=(None, None)),
        tuned(tmp_path / "scratch", "from_scratch = true\n"),
    ]
    lines, levels, says = finetuning(monkeypatch, *runs)
    of = [f"{name}, validation" for name in ("other", "old", "scratch")]
    assert list(lines) == [*of, "scratch, train"]
    assert "That of other, old is left out" in says
    # The pre-trained stack is not where random weights begin.
    assert np.isnan([lines["scratch, train"].y[0], lines[of[2]].y[0]]).all()
    assert levels == ()


def test_rows_are_spread_over_a_split(tmp_path):
    x = np.repeat(np.arange(100, dtype=np.uint8), 4).reshape(100, 4)
    data = tmp_path / "data.h5"
    splits = {"train": Split(x), "test": Split(x, np.arange(100))}
    write_dataset(data, splits, name="data", origin="", scale=PIXEL_SCALE)
    from mpilayer.data.dataset import Dataset
    from mpilayer.report.sample import _spread

    with Dataset.open(data) as dataset:
        rows, labels = _spread(dataset, "test")
        assert labels is not None
        assert {labels[0], labels[-1]} == {0, 99}
        assert len(rows) == len(labels) == len(set(labels))
        assert _spread(dataset, "train")[1] is None


def test_the_first_layer_of_a_run_under_way(tmp_path):
    run = deep_run(tmp_path / "run", n_visible=36)
    facts = {"epoch": 3, "used": 0}
    for n in (1, 3):
        arrays = {"parameters/weights": np.full((36, 9), n, np.float32)}
        name = f"layer-1.e{n:06}.u{0:06}.h5"
        checkpoint.save(run / "checkpoints" / name, arrays, facts)
    (found,) = collect([run])
    assert (found.weights == 3).all()
    (drawn,) = images.first_layer(found, "run")
    assert drawn.pictures[0].content.startswith(b"\x89PNG")
