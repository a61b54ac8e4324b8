"""Traces of real runs of all modes: all seconds of the metrics, in a strict reader."""

import shutil
from collections import Counter

import pytest

from mpilayer.train.record import KINDS
from tests.support import chrome
from tests.support.command import call, refuse, said, told
from tests.support.small import contents, read_summary, records

DEEP = "--layers 128,4 --slices 2,1 --minibatch 50"
SPARSE = "--hidden 5 --evaluations 6"
# Each of a span's ends is rounded to a nanosecond.
CLOSE = {"rel": 1e-6, "abs": 1e-6}


@pytest.fixture(scope="module")
def runs(tiny, toy, tmp_path_factory):
    """Give a folder with runs of all modes, one of them resumed."""
    folder = tmp_path_factory.mktemp("traced")
    for ranks, line in (
        (3, f"pretrain {tiny} --run deep {DEEP} --epochs 2"),
        (2, "finetune deep --epochs 1 --parallel units"),
        (2, "finetune deep --epochs 2 --parallel units --resume auto"),
        (2, "finetune deep --epochs 2 --parallel rows --task classify"),
        (2, f"sparse {toy} --run sparse {SPARSE}"),
        (0, f"compare {toy} --run compare {SPARSE}"),
    ):
        said(folder, line, ranks=ranks)
    return folder


@pytest.fixture(scope="module")
def deep(runs):
    """Give the trace of a deep run."""
    return chrome.read(said(runs, "trace deep -o -"))


def total(lines, key):
    """Return the sum of some seconds."""
    return sum(line[key] for line in lines)


def test_seconds_of_layers_are_those_of_the_metrics(deep, runs):
    for layer in (1, 2):
        lines = records(runs / "deep", f"layer-{layer}")
        (head,) = {line["rank"] for line in lines}
        found = deep.seconds(f"rank {head}, layer {layer}")
        found["training"] += found["barriers"]
        for kind in KINDS:
            assert found[kind] == pytest.approx(total(lines, kind), **CLOSE)
    team = [own for line in records(runs / "deep", "layer-1") for own in line["team"]]
    assert {rank for rank, *_ in team} == {0, 1}
    work = sum(seconds for rank, seconds, _ in team if rank == 1)
    assert deep.seconds("rank 1, layer 1")["training"] == pytest.approx(work, **CLOSE)


@pytest.mark.parametrize(
    ("name", "thread"), [("finetune", "fine-tuning"), ("classify", "classifier")]
)
def test_seconds_of_fine_tuning_are_those_of_each_rank(deep, runs, name, thread):
    lines = records(runs / "deep", name)
    words = {"finetune": "waiting for other ranks", "classify": "Allreduce"}[name]
    for rank in (0, 1):
        own = [line["ranks"][rank] for line in lines]
        found = deep.seconds(f"rank {rank}, {thread}")
        for place, kind in enumerate(("training", "allreduce", "evaluating"), 1):
            assert found[kind] == pytest.approx(total(own, place), **CLOSE)
            if rank == 0:
                assert found[kind] == pytest.approx(total(lines, kind), **CLOSE)
        parts = deep.threads[f"rank {rank}, {thread}"][0].parts
        assert parts[1].name == words


def test_every_output_that_was_used_has_an_arrow(deep, runs):
    arrows = Counter((a.thread[-7:], b.thread[-7:]) for a, b in deep.flows)
    used = {line["used"] for line in records(runs / "deep", "layer-2")}
    assert arrows == {("layer 1", "layer 2"): len(used)}
    assert all(used.kind == "training" for _, used in deep.flows)


def test_launches_lie_one_after_another(deep, runs):
    names = [launch.name for launch in deep.threads["launches"]]
    tuned = ["fine-tuning, launch 1", "fine-tuning, launch 2"]
    assert names == ["pre-training", *tuned, "classifier"]
    began = [line["began"] for line in records(runs / "deep", "finetune")]
    (_, first), (second, _) = [
        (one.start / 1e9, one.stop / 1e9) for one in deep.threads["launches"][1:3]
    ]
    # Starting the second took its time; ``began`` counts from before the first.
    assert second - first >= began[1] - began[0] > 0


@pytest.mark.parametrize(
    ("run", "parts"), [("sparse", ["sparse"]), ("compare", ["average", "exact"])]
)
def test_seconds_of_evaluations(runs, run, parts):
    found = chrome.read(said(runs, f"trace {run} -o -"))
    for part in parts:
        path = runs / run if run == part else runs / run / part
        lines, own = records(path), found.seconds(f"rank 0, {part}")
        for kind in ("computing", "allreduce"):
            assert own[kind] == pytest.approx(total(lines, kind), **CLOSE)
        evaluations = [s for s in found.slices if s.kind == "evaluation"]
        assert len(evaluations) == len(parts) * read_summary(path)["evaluations"]
        assert len(found.counters[f"{part} cost"]) == len(lines)


def test_the_file(runs, tmp_path):
    before = contents(runs)
    words = said(runs, f"trace deep -o {tmp_path}/a.json")
    content = (tmp_path / "a.json").read_text()
    n_spans = len(chrome.read(content).slices)
    assert words.startswith(f"wrote {n_spans} spans to {tmp_path}/a.json (")
    assert said(runs, "trace deep -o -") == content
    again = f"trace deep -o {tmp_path}/a.json"
    assert call(runs, again).code == 2
    said(runs, f"{again} --replace")
    assert contents(runs) == before


def test_damage_is_told(runs, tmp_path):
    """What is whole is shown."""
    run = shutil.copytree(runs / "sparse", tmp_path / "run")
    lines = (run / "metrics" / "sparse.jsonl").read_text().splitlines()
    lines[2] = lines[2][:50]
    (run / "metrics" / "sparse.jsonl").write_text("\n".join(lines))
    assert "1 of its lines are left out" in told(tmp_path, "trace run")
    found = chrome.read((tmp_path / "trace.json").read_text())
    # The last one has no end yet.
    assert len([s for s in found.slices if s.kind == "evaluation"]) == len(lines) - 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trace none", ["none must be the directory of a run"]),
        ("trace empty", ["empty must be the directory of a run"]),
        ("trace new", ["new must have trained for an epoch", "mpilayer watch new"]),
        ("trace deep -o t.txt", ["-o must end in .json; got t.txt"]),
        ("trace deep -o none/t.json", ["there is no", "none"]),
        ("trace deep -o empty", ["-o must name a file", "empty/trace.json"]),
        ("trace", ["required: DIR"]),
    ],
)
def test_refused(runs, tmp_path, line, words):
    for name in ("deep", "new", "empty"):
        (tmp_path / name).mkdir()
        if name != "empty":
            shutil.copy(runs / "deep" / "config.toml", tmp_path / name)
    refuse(tmp_path, line, *words)
