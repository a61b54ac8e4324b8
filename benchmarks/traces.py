"""What runs have left: weights, metrics, files, and whether all of it is whole."""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.errors import CheckpointError
from mpilayer.store import checkpoint

# What a run says that may differ from another's.
_SECONDS = {"started", "training", "transform", "monitor", "waiting", "sending", "rank"}
_SECONDS |= {"seconds", "computing", "allreduce", "evaluating", "team"}
_SECONDS |= {"host", "began", "ranks"}
# Of the whole stack, at moments that the clock chose.
_BY_THE_CLOCK = "stack"
_ERRORS = ("train_error", "validation_error", "test_error", "cost", "exact_cost")


def weights(run: Path) -> dict[str, Any]:
    """Return every array of every checkpoint that trained for the whole run."""
    found = {}
    for path in sorted((run / "checkpoints").glob("*.h5")):
        if "previous" in path.name:
            continue
        arrays, _ = checkpoint.load(path)
        # Outputs that could not leave in time changed nothing.
        found |= {f"{path.stem}/{k}": v for k, v in arrays.items() if k != "dropped"}
    return found


def different(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of arrays that differ in any bit."""
    names = found.keys() | expected.keys()
    return [
        f"other bits: {name}"
        for name in sorted(names)
        if name not in found
        or name not in expected
        or _digest(found[name]) != _digest(expected[name])
    ]


def distance(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return the largest difference of trained weights, relative to the largest one."""
    apart = 0.0
    for name, wanted in expected.items():
        if name.split("/")[1] in ("best", "parameters") and wanted.size:
            scale = float(np.abs(wanted).max()) or 1.0
            apart = max(apart, float(np.abs(found[name] - wanted).max()) / scale)
    return apart


def metrics(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all whole lines that do not depend on the clock, without seconds."""
    return {
        path.stem: [
            {k: v for k, v in json.loads(line).items() if k not in _SECONDS}
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        for path in sorted((run / "metrics").glob("*.jsonl"))
        if path.stem != _BY_THE_CLOCK
    }


def lost_work(before: dict[str, list[Any]], text: str) -> int:
    """Return how many epochs or evaluations of any layer are done once more.

    Parameters
    ----------
    before : dict
        The metrics when all had ended.
    text : str
        What the launch that went on has said.
    """
    said = re.search(r"going on after (?:epochs? )?([\d, ]*\d)", text)
    if said is None:
        return 0
    reached = [int(number) for number in said[1].split(",")]
    done = [len(lines) for name, lines in before.items() if name != "finetune"]
    if "finetune" in before:
        done = [len(before["finetune"])]
    return max((a - b for a, b in zip(done, reached, strict=False)), default=0)


def errors(run: Path) -> dict[str, Any]:
    """Return what the summary says about the result."""
    summary = json.loads((run / "summary.json").read_text())
    return {name: summary[name] for name in _ERRORS if name in summary}


def files(run: Path) -> set[str]:
    """Return the names of all files, but for those a killed process left unfinished.

    Pictures are drawn when all is complete, again by ``resume``.
    """
    paths = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return {str(p) for p in paths if p.suffix not in (".tmp", ".png")}


def broken_files(run: Path) -> Iterator[str]:
    """Yield what is wrong with files that have their final name."""
    for path in sorted((run / "checkpoints").glob("*.h5")):
        try:
            checkpoint.load(path)
        except CheckpointError as error:
            yield str(error)
    for path in (*run.glob("*.json"), *run.glob("*.toml")):
        try:
            (json if path.suffix == ".json" else tomllib).loads(path.read_text())
        except ValueError as error:
            yield f"{path}: {error}"


def broken_metrics(run: Path) -> Iterator[str]:
    """Yield the files that do not have every epoch or evaluation once, in order."""
    for path in (run / "metrics").glob("*.jsonl"):
        if path.read_text()[-1:] not in ("", "\n"):
            yield f"{path.name} ends with half a line"
        elif path.stem == _BY_THE_CLOCK:
            lines = map(json.loads, path.read_text().splitlines())
            epochs = [line["epochs"] for line in lines]
            if epochs != sorted(epochs) or len(epochs) != len(set(map(tuple, epochs))):
                yield f"{path.name} is not in order, or says something twice"
    for name, lines in metrics(run).items():
        key = "evaluation" if name == "sparse" else "epoch"
        if [line[key] for line in lines] != list(range(1, len(lines) + 1)):
            yield f"{name}.jsonl has not every {key} once, in order"


def is_complete(run: Path, command: str) -> bool:
    path = run / "complete"
    return path.exists() and command in path.read_text().split()


def under_way(run: Path) -> set[str]:
    """Return the checkpoints that are being written, or were when all ended."""
    try:
        with os.scandir(run / "checkpoints") as entries:
            return {entry.name for entry in entries if entry.name.endswith(".tmp")}
    except FileNotFoundError:
        return set()


def _digest(array: Any) -> str:
    kind = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(kind + np.ascontiguousarray(array).tobytes()).hexdigest()
