"""Runs written by hand, and what a report makes of them."""

import json

import pytest
import tomli_w

from mpilayer.report import build, figures
from mpilayer.report.html import Figure, Picture, page
from mpilayer.report.run import collect

EPOCH = dict.fromkeys(("used", "rank", "started", "waiting", "sending"), 0)
EPOCH |= {"layer": 1, "epoch": 1, "training": 1.0, "transform": 0.1, "monitor": 0.1}
EPOCH |= {"train_error": 2.0, "validation_error": None}
TUNING = {"epoch": 1, "train_loss": 2.0, "validation_error": 20.0}
TUNING |= {"training": 1.0, "allreduce": 0.0, "evaluating": 0.1}
EVALUATION = {"iteration": 1, "computing": 0.1, "allreduce": 0.0}


@pytest.fixture
def charts(monkeypatch):
    """Give the charts that are made, which nobody draws."""
    made = []

    def figure(chart):
        made.append(chart)
        picture = Picture("<svg/>", chart.alt)
        return Figure(chart.name, chart.title, chart.says, [picture])

    monkeypatch.setattr(figures.Chart, "figure", figure)
    return made


@pytest.fixture
def drawing():
    """Demand what draws."""
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")


def write_run(path, sections, summary=None, complete="", **metrics):
    """Write a run directory: names of metrics and their lines."""
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


def deep_run(path, summary=None, n_visible=4, settings=(), tuning=None, **metrics):
    """Write a run of two layers, perhaps fine-tuned."""
    pretrain = {"layers": [3, 2], "schedule": "lockstep", "lag": [0], "epochs": [2]}
    sections = {
        "data": {"path": "none.h5", "n_visible": n_visible},
        "pretrain": pretrain | dict(settings),
    }
    if tuning is not None:
        sections["finetune"] = tuning
        metrics.setdefault("finetune", [TUNING])
    return write_run(path, sections, summary, **metrics)


def sparse_run(
    path,
    ranks=1,
    seconds=1.0,
    costs=(9.0, 4.5, 3.0),
    n_visible=4,
    rows=None,
    lines=None,
    **changes,
):
    """Write a run of a sparse autoencoder."""
    settings = {"hidden": 3, "optimizer": "lbfgs", "kl": "average"} | changes
    lines = lines or [
        {**EVALUATION, "evaluation": i, "seconds": 0.1 * i, "cost": cost}
        for i, cost in enumerate(costs, 1)
    ]
    summary = {"ranks": ranks, "seconds": seconds, "evaluations": 10, "cost": 3.0}
    summary |= {"mean_activations": [0.01, 0.002, 0.1], "allreduce_seconds": 0.1}
    summary |= {"n_rows": rows} if rows else {}
    sections = {"data": {"digest": "d", "n_visible": n_visible}, "sparse": settings}
    return write_run(path, sections, summary, "sparse\n", sparse=lines)


def figures_of(sections):
    """Return the names of all figures."""
    parts = [part for section in sections for part in section.content]
    return [part.name for part in parts if isinstance(part, Figure)]


def text_of(runs):
    """Return the page about runs."""
    return page("t", "lead", build.sections_of(collect(runs)))
