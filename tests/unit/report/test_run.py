"""Reading runs: whole, under way, damaged; what is said of each and of all."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from mpilayer.data.dataset import PIXEL_SCALE, Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import CheckpointError, ConfigError
from mpilayer.report import build, images, words
from mpilayer.report.run import collect, names, number
from mpilayer.report.sample import spread
from mpilayer.store import checkpoint
from tests.unit.report.conftest import (
    EPOCH,
    TUNING,
    deep_run,
    figures_of,
    sparse_run,
    text_of,
)

EVIL = "<script>alert(1)</script>"
DONE = "epochs 1, 0 of layers 1 to 2"
ONE = {"layer_1": [EPOCH]}


@pytest.mark.parametrize(
    ("metrics", "complete", "at_work", "told"),
    [
        ({}, "", False, "interrupted: epochs 0, 0 of layers 1 to 2; go on with '"),
        (ONE, "", False, f"interrupted: {DONE}; go on with 'mpilayer resume DIR'"),
        (ONE, "", None, f"still running, or broken off: {DONE}; the last line was"),
        (ONE, "", True, f"still running: {DONE}; the last line was"),
        (
            {"classify": [TUNING], "regress": [TUNING]},
            "pretrain\nclassify\n",
            False,
            "interrupted: pre-trained and with a classifier, a regressor for 1 epoch; ",
        ),
    ],
)
def test_the_state_of_a_run(tmp_path, metrics, complete, at_work, told):
    run = deep_run(tmp_path / "run", **metrics)
    if complete:
        (run / "complete").write_text(complete)
    if at_work is None:
        (run / ".lock").write_text("elsewhere 17")
    (found,) = collect([run])
    assert (found.kind, len(found.layers), found.sample) == ("deep", 2, None)
    assert math.isinf(found.silent) == (not metrics)
    if at_work:
        found = replace(found, at_work=True)
    assert words.state(found).startswith(told.replace("DIR", str(run)))


def test_epochs_are_read_and_broken_lines_are_not(tmp_path):
    second = {**EPOCH, "epoch": 2, "started": 1.2}
    run = deep_run(tmp_path / "run", layer_1=[EPOCH, second, {"epoch": 3}, 7])
    path = run / "metrics" / "layer-1.jsonl"
    with path.open("a") as file:
        file.write('{"half a li')  # still being written
    (found,) = collect([run])
    first, last = found.layers[0]
    assert (first.epoch, last.epoch) == (1, 2)
    assert (first.left, first.ended) == pytest.approx((1.1, 1.2))
    assert math.isnan(first.validation_error)
    (remark,) = found.remarks
    assert f"{path} is damaged: 2 of its lines" in remark


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b"["),
        ("summary.json", b"[]"),
        ("schedule.json", b"{}"),
        ("compare.json", b"nonsense"),
        ("complete", b"\xff"),
        ("checkpoints/layer-1.h5", b"no HDF5"),
    ],
)
def test_what_is_damaged_is_said_and_the_rest_is_shown(tmp_path, charts, name, content):
    run = deep_run(tmp_path / "run", **ONE)
    (run / name).write_bytes(content)
    (found,) = collect([run])
    assert "spacetime-run" in figures_of(build.sections_of([found]))
    if not name.startswith("checkpoints"):
        assert found.remarks


@pytest.mark.parametrize("odd", [7, "text", [1], {"a": [None]}, None, EVIL])
def test_summaries_may_hold_anything(tmp_path, drawing, odd):
    keys = (
        "pca pretrained finetuned test_error pretrain_seconds ranks simulated_seconds "
        "confusion class_error layers mpi hosts mean_activations evaluations seconds "
        "cost n_rows"
    )
    summary = dict.fromkeys(keys.split(), odd)
    runs = [deep_run(tmp_path / "a", summary, **ONE), sparse_run(tmp_path / "b")]
    (runs[1] / "summary.json").write_text(json.dumps(summary))
    assert EVIL not in text_of(runs)


def test_names_of_files_are_escaped_everywhere(tmp_path, drawing):
    odd = {"settings": {"schedule": EVIL}, **ONE}
    run = deep_run(tmp_path / "<b>$x$&", {"mpi": EVIL}, **odd)
    made = text_of([run, sparse_run(tmp_path / "<i>$", optimizer=EVIL, kl=EVIL)])
    assert not any(foreign in made for foreign in (EVIL, "<b>$", "<i>$"))
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


def test_names_places_and_widths_tell_runs_apart(tmp_path):
    paths = [tmp_path / name for name in ("a/run", "b/run", "other")]
    assert names(paths[:1]) == ["run"]
    assert names(paths) == ["a/run", "b/run", "other"]
    runs = [deep_run(tmp_path / name) for name in ("x y", "x-y", "X.y")]
    runs.append(deep_run(tmp_path / "…", settings={"layers": [9] * 63 + [2]}))
    found = collect(runs)
    assert [run.place for run in found] == ["x-y", "x-y-2", "x-y-3", "run"]
    told = [words.widths(run) for run in found[2:]]
    assert told == ["4-3-2", "4-9-9-9-…-9-2 (64 layers)"]


def test_numbers():
    assert number(2) == 2.0
    assert all(math.isnan(number(v)) for v in (None, "2", True, [1], math.nan))
    told = [words.seconds(v) for v in (None, 3, 600, 9000)]
    assert told == ["–", "3 s", "10.0 min", "2.5 h"]


def test_common_settings_are_said_once(tmp_path, charts):
    paths = [sparse_run(tmp_path / "a"), sparse_run(tmp_path / "b", ranks=2)]
    runs = collect(paths)
    alone = (
        "4-3-4, lbfgs, sparsity term average, sparsity weight –, sparsity target –, "
        "weight decay –"
    )
    assert words.settings(runs[:1]) == ("", [f"{alone}, 1 rank"])
    assert words.settings(runs) == (alone, ["1 rank", "2 ranks"])
    deep_too = deep_run(tmp_path / "c", {"ranks": 1}, tuning={}, **ONE)
    text = re.sub(r'aria-label="[^"]*"', "", text_of([*paths, deep_too]))
    for said in (f"All sparse runs: {alone}.", "4-3-2, lockstep, lag 0", alone):
        assert text.count(said) == 1


def test_common_settings_of_fine_tuning_are_said_once(tmp_path):
    tunings = [{"optimizer": "adam", "minibatch": size} for size in (50, 70)]
    paths = zip("ab", tunings, strict=True)
    found = collect([deep_run(tmp_path / name, tuning=how) for name, how in paths])
    own = "a: minibatch 50; b: minibatch 70"
    assert words.finetunings(found) == f"All: adam, rate –, ranks unknown; {own}"
    more = {"learning_rate_schedule": "cosine", "warm_up": 2}
    path = deep_run(tmp_path / "c", tuning={**tunings[0], "augment": "shift:1", **more})
    said = "cosine rate, minibatch 50, shift:1, warm up 2"
    assert f"rate –, {said}, ranks unknown" in words.finetunings(collect([path]))


@pytest.mark.parametrize(
    ("out", "folder", "said"),
    [
        ("z.txt", None, r"-o must end in \.html, \.htm; got \S*z\.txt"),
        ("report", None, "-o must end in"),
        ("old.html", None, "-o must name a new file"),
        ("run", None, "-o must name a file"),
        ("no/r.html", None, "-o must lie in a folder that exists"),
        ("r.html", "run", "--figures must name a new or empty folder"),
        ("r.html", "old.html", "--figures must name a folder"),
        ("r.html", "a/b", "--figures must lie in a folder that exists"),
    ],
)
def test_where_a_page_may_be(tmp_path, charts, drawing, monkeypatch, out, folder, said):
    run, old = deep_run(tmp_path / "run"), tmp_path / "old.html"
    old.write_text("mine")
    with pytest.raises(ConfigError, match=said):
        build.write_report([run], tmp_path / out, folder and tmp_path / folder)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "old.html"}
    assert old.read_text() == "mine"
    build.write_report([run], old, tmp_path / "new", replace=True)
    assert old.read_text().startswith("<!DOCTYPE html>")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="-o must lie in a folder that can be writ"):
        build.write_report([run], tmp_path / "new.HTM")


def test_rows_are_spread_over_a_split(tmp_path):
    x = np.repeat(np.arange(100, dtype=np.uint8), 4).reshape(100, 4)
    data = tmp_path / "data.h5"
    splits = {"train": Split(x), "test": Split(x, np.arange(100))}
    write_dataset(data, splits, name="data", origin="", scale=PIXEL_SCALE)
    with Dataset.open(data) as dataset:
        rows, labels = spread(dataset, "test")
        assert {labels[0], labels[-1]} == {0, 99}
        assert len(rows) == len(labels) == len(set(labels))
        assert spread(dataset, "train")[1] is None


def test_the_first_layer_of_a_run_under_way(tmp_path, drawing):
    run = deep_run(tmp_path / "run", n_visible=36)
    facts = {"epoch": 3, "used": 0}
    for n in (1, 3):
        arrays = {"parameters/weights": np.full((36, 9), n, np.float32)}
        name = f"layer-1.e{n:06}.u{0:06}.h5"
        checkpoint.save(run / "checkpoints" / name, arrays, facts)
    (found,) = collect([run])
    assert (found.weights == 3).all()
    (drawn,) = images.first_layer(found)
    assert drawn.pictures[0].content.startswith(b"\x89PNG")
