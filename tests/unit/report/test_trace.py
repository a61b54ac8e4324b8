"""Traces of runs written by hand, read by a strict reader of the format."""

import json
from itertools import pairwise

import pytest

from mpilayer.errors import CheckpointError
from mpilayer.report.run import collect
from mpilayer.report.trace import trace_of
from mpilayer.train.record import KINDS
from tests.support import chrome
from tests.unit.report.conftest import EPOCH, EVALUATION, TUNING, deep_run, sparse_run

NOW = 1.8e9
MOVED = {"training": 0.5, "transform": 0.25, "sending": 0.125, "monitor": 0.125}


def line(number, started, **changes):
    """Return an epoch of a second, of rank 0 of host a in a launch that began now."""
    usual = {"epoch": number, "started": started, "host": "a", "began": NOW}
    return {**EPOCH, **MOVED, **usual, **changes}


def traced(path):
    """Return the trace of a run."""
    return chrome.read(trace_of(collect([path], models=False)))


def spans_of(trace, thread):
    """Return names, beginnings and ends of what a thread did, in seconds."""
    return [(s.name, s.start / 1e9, s.stop / 1e9) for s in trace.threads[thread]]


def two_layers(path, late=0.0, **above):
    """Write a run in which layer 2, on rank 1 of host b, uses both outputs."""
    first = [line(1, 0.0), line(2, 1.0, waiting=0.0)]
    upper = {"host": "b", "rank": 1, **above}
    second = [line(i, i - late, used=i, waiting=float(i == 1), **upper) for i in (1, 2)]
    return deep_run(path, layer_1=first, layer_2=second)


def test_a_thread_for_each_rank_and_layer_in_a_process_for_each_host(tmp_path):
    found = traced(two_layers(tmp_path / "run"))
    threads = {"host a": ["rank 0, layer 1"], "host b": ["rank 1, layer 2"]}
    assert found.processes == {"run run": ["launches"], **threads}
    assert spans_of(found, "rank 1, layer 2") == [
        ("waiting", 0, 1),
        ("epoch 1", 1, 2),
        ("epoch 2", 2, 3),
    ]
    parts = [part.name for part in found.threads["rank 0, layer 1"][0].parts]
    assert parts == [KINDS[kind] for kind in MOVED]
    assert found.counters["layer 1 training error"] == [2.0, 2.0]
    assert "layer 1 validation error" not in found.counters  # of which there is none


@pytest.mark.parametrize("late", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("sending", [0.125, 0.0])
def test_an_output_goes_from_where_it_was_sent_to_where_it_was_used(
    tmp_path, late, sending
):
    """Also where the clock of the rank above is behind: its lane is moved."""
    run = two_layers(tmp_path / "run", late=late)
    path = run / "metrics" / "layer-1.jsonl"
    text = path.read_text().replace('"sending": 0.125', f'"sending": {sending}')
    path.write_text(text)
    found = traced(run)
    assert len(found.flows) == 2
    for number, (sent, used) in enumerate(found.flows, 1):
        assert sent.thread == "rank 0, layer 1"
        assert sent.kind == ("sending" if sending else "transform")
        assert (used.thread, used.kind) == ("rank 1, layer 2", "training")
        assert sent.stop <= used.start
        whole = found.threads["rank 1, layer 2"][number]
        assert (whole.name, whole.start) == (f"epoch {number}", used.start)


def test_an_output_that_is_used_again_was_sent_once(tmp_path):
    again = [line(i, float(i), used=1) for i in (1, 2, 3)]
    run = deep_run(tmp_path / "run", layer_1=[line(1, 0.0)], layer_2=again)
    assert len(traced(run).flows) == 1


def test_seconds_of_each_rank_of_a_team(tmp_path):
    team = [[4, 0.3, 0.2], [5, 0.1, 0.4], [6, 0.25, 0.25]]
    lines = [line(i, i * 2.0, rank=4, team=team, waiting=1.0) for i in (1, 2)]
    found = traced(deep_run(tmp_path / "run", layer_1=lines))
    for rank, work, at_barriers in team:
        seconds = found.seconds(f"rank {rank}, layer 1")
        assert seconds["training"] == pytest.approx(2 * work, abs=1e-8)
        assert seconds["barriers"] == pytest.approx(2 * at_barriers, abs=1e-8)
        assert seconds["transform"] == pytest.approx(0.5)
        assert seconds["epoch"] == pytest.approx(2.0)
        # The head sends, two measure; who does not waits for who does.
        others = {4: 0.0, 5: 0.125, 6: 0.25}[rank]
        assert seconds["waiting"] == pytest.approx(2 * (1.0 + others))


def test_between_epochs_of_a_rank_it_saves(tmp_path):
    lines = [line(1, 0.0), line(2, 3.5, waiting=1.0)]
    other = [line(1, 1.25, used=1, waiting=0.0)]
    found = traced(deep_run(tmp_path / "run", layer_1=lines, layer_2=other))
    assert spans_of(found, "rank 0, layer 1")[1] == ("saving", 1, 1.25)
    assert spans_of(found, "rank 0, layer 2")[1] == ("saving", 2.25, 2.5)


LAUNCHES = {
    "with a gap": ((NOW, NOW + 60), [(0, 2), (62, 64)]),
    "of an older version": ((None, None), [(0, 4)]),
    "then of an older one, without the gap": ((None, NOW), [(0, 2), (2, 4)]),
    "by a clock set back": ((NOW, NOW - 3600), [(0, 2), (2, 4)]),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches_stand_on_one_axis(tmp_path, name):
    (first, second), expected = LAUNCHES[name]
    began = [first, first, second, second]
    lines = [line(i + 1, float(i), began=own) for i, own in enumerate(began)]
    tuned = {**TUNING, "seconds": 1.1, "began": NOW + 100, "host": "a"}
    metrics = {"layer_1": lines, "finetune": [tuned if second else TUNING]}
    found = traced(deep_run(tmp_path / "run", tuning={}, **metrics))
    *launches, (name, start, stop) = spans_of(found, "launches")
    assert [own[1:] for own in launches] == expected
    assert name == "fine-tuning"
    assert stop - start == pytest.approx(1.1)
    assert start == pytest.approx(100 if second else 4)
    several = [f"pre-training, launch {n + 1}" for n in range(len(expected))]
    names = several if len(several) > 1 else ["pre-training"]
    assert [own[0] for own in launches] == names
    assert ("began" in found.about) == any((first, second))


@pytest.mark.parametrize(
    ("parallel", "words"),
    [("rows", "Allreduce"), ("units", "waiting for other ranks"), (None, "Allreduce")],
)
def test_fine_tuning_by_each_rank(tmp_path, parallel, words):
    ranks = [["a", 1.0, 0.5, 0.1], ["b", 0.75, 0.8, 0.1]]
    parts = {"training": 1.0, "allreduce": 0.5, "evaluating": 0.1}
    usual = {**TUNING, **parts, "host": "a", "began": NOW, "ranks": ranks}
    lines = [{**usual, "epoch": i, "seconds": 2.0 * i} for i in (1, 2)]
    tuning = {"parallel": parallel} if parallel else {}
    metrics = {"layer_1": [line(1, 0.0)], "finetune": lines}
    found = traced(deep_run(tmp_path / "run", tuning=tuning, **metrics))
    for rank, (host, *seconds) in enumerate(ranks):
        name = f"rank {rank}, fine-tuning"
        assert name in found.processes[f"host {host}"]
        assert [s.name for s in found.threads[name][0].parts][1] == words
        for kind, own in zip(parts, seconds, strict=True):
            assert found.seconds(name)[kind] == pytest.approx(2 * own)
    # 0.4 s before the second epoch, of which it has nothing but the end.
    assert found.seconds("rank 0, fine-tuning")["saving"] == pytest.approx(0.4)


def test_evaluations_and_the_optimizer_between_them(tmp_path):
    found = traced(sparse_run(tmp_path / "run"))
    own = found.threads["rank 0, sparse"]
    assert [one.name for one in own] == [f"evaluation {i}" for i in (1, 2, 3)]
    usual = {**EVALUATION, "cost": 1.0}
    lines = [{**usual, "evaluation": i, "seconds": 0.3 * i} for i in (1, 2)]
    seconds = traced(sparse_run(tmp_path / "slow", lines=lines)).seconds("sparse")
    assert seconds["computing"] == pytest.approx(0.2)
    assert seconds["optimizer"] == pytest.approx(0.2)


def test_a_run_broken_off_in_a_line(tmp_path):
    """Its damaged lines are left out, and told."""
    run = two_layers(tmp_path / "run")
    path = run / "metrics" / "layer-2.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second[:20]}\n{second}\n{first[:40]}")
    (found,) = collect([run], models=False)
    assert [remark for remark in found.remarks if "1 of its lines" in remark]
    assert len(traced(run).threads["rank 1, layer 2"]) == 3
    for began in ("x", -1.0, 1e30):
        strange = json.loads(second) | {"host": 7, "rank": None, "began": began}
        path.write_text(json.dumps(strange) + "\n")
        assert traced(run).processes["host 7"] == ["layer 2"]


@pytest.mark.parametrize("metrics", [{}, {"layer_1": []}])
def test_nothing_trained(tmp_path, metrics):
    run = deep_run(tmp_path / "run", **metrics)
    with pytest.raises(CheckpointError, match="must have trained for an epoch"):
        traced(run)


BREAKS = {
    "across": lambda e: e["X"][2].update(dur=1.5e6),
    "empty": lambda e: e["X"][2].update(dur=0.0),
    "key": lambda e: e["X"][0].pop("tid"),
    "thread": lambda e: e["X"][-1].update(tid=99),
    "back": lambda e: e["f"][0].update(ts=0.0),
    "nowhere": lambda e: e["s"][0].update(ts=1e9),
    "alone": lambda e: e["s"][0].update(id=99),
    "text": lambda e: e["C"][0]["args"].update(x="1"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_reader_refuses_what_is_no_trace(tmp_path, name):
    whole = json.loads(trace_of(collect([two_layers(tmp_path / "run")], models=False)))
    events = whole["traceEvents"]
    BREAKS[name]({phase: [e for e in events if e["ph"] == phase] for phase in "XsfC"})
    with pytest.raises((AssertionError, KeyError)):
        chrome.read(json.dumps(whole))


def test_spans_abut_to_the_nanosecond(tmp_path):
    """Whatever sums of floating-point numbers round to."""
    lines, now = [], 0.1
    for i in range(1, 200):
        parts = {kind: 0.1 / (i + k) for k, kind in enumerate(MOVED, 1)}
        lines.append(line(i, now, **parts, waiting=0.0))
        now += sum(parts.values())
    found = traced(deep_run(tmp_path / "run", layer_1=lines))
    own = found.threads["rank 0, layer 1"]
    assert all(0 <= b.start - a.stop <= 1 for a, b in pairwise(own))
    for kind in MOVED:
        total = sum(each[kind] for each in lines)
        assert found.seconds("layer 1")[kind] == pytest.approx(total, abs=1e-6)
