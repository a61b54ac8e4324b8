"""What a report shows of a run: read once, without training, without MPI.

A run may be finished, still running or broken off. What is missing or damaged becomes a
remark; only a folder that is not a run at all is an error.
"""

import itertools
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError, ConfigError, DataError, MpilayerError
from mpilayer.report.run import PREDICTORS, Epoch, Run, listing, mapping, number
from mpilayer.report.sample import first_weights, image_size_of, sample_of
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.lock import at_work
from mpilayer.store.metrics import MetricsReader
from mpilayer.train.record import KINDS
from mpilayer.train.schedule import Schedule


def collect(paths: Sequence[Path], data: Path | None = None) -> list[Run]:
    """Read runs; a comparison is followed by its two runs.

    Parameters
    ----------
    paths : sequence of Path
        Their directories.
    data : Path, optional
        Where the data set of one of them, or of several, is now.

    Raises
    ------
    ConfigError
        A directory is named twice.
    DataError
        ``data`` is not a data set, or that of no run.
    CheckpointError
        There is no run, or its ``config.toml`` is damaged.
    """
    directories = [RunDirectory.open(path) for path in paths]
    seen: dict[Path, Path] = {}
    for path in paths:
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            raise ConfigError(
                f"each DIR must be another run; {other} and {path} are the same one. "
                "Name it once."
            )
    moved = {_digest(data): data} if data is not None else {}
    runs = []
    for directory, name in zip(directories, names(paths), strict=True):
        runs.append(_read(directory, name, moved))
        if runs[-1].kind == "comparison":
            for part in ("average", "exact"):
                if (directory.path / part / "config.toml").is_file():
                    below = RunDirectory.open(directory.path / part)
                    runs.append(_read(below, f"{name}/{part}", moved))
    if moved.keys() - {str(run.section("data").get("digest")) for run in runs}:
        raise DataError(
            f"--data must be the data set of a run; {data} is that of none of these. "
            "Give another one, or leave it out."
        )
    return _with_places(runs)


def _digest(data: Path) -> str:
    with Dataset.open(data) as dataset:
        return dataset.digest


def names(paths: Sequence[Path]) -> list[str]:
    """Return for each path its shortest end that no other one has."""
    ends = [_ends(path.resolve()) for path in paths]
    count = Counter(end for own in ends for end in own)
    return [next(end for end in own if count[end] == 1) for own in ends]


def _ends(path: Path) -> list[str]:
    # Fonts have no letters for bytes of other encodings.
    parts = [os.fsencode(part).decode(errors="replace") for part in path.parts]
    return ["/".join(parts[-n:]) for n in range(1, len(parts) + 1)]


def _with_places(runs: Sequence[Run]) -> list[Run]:
    """Return runs with places of their own; names may differ in strange signs alone."""
    taken: set[str] = set()
    placed = []
    for run in runs:
        usual = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-") or "run"
        choices = (f"{usual}-{n}" if n > 1 else usual for n in itertools.count(1))
        place = next(choice for choice in choices if choice not in taken)
        taken.add(place)
        placed.append(replace(run, place=place))
    return placed


def _read_config(directory: RunDirectory) -> tuple[dict[str, Any], str]:
    """Return ``config.toml`` and its text."""
    path = directory.path / "config.toml"
    try:
        return directory.read_config(), files.read_text(path, names=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} must be readable; {error.strerror}. Mend its permissions."
        ) from error


def _kind(config: Mapping[str, Any]) -> str:
    kinds = {"compare": "comparison", "sparse": "sparse"}
    return next((kind for name, kind in kinds.items() if name in config), "deep")


def _read(directory: RunDirectory, name: str, moved: Mapping[str, Path]) -> Run:
    # Before the rest: a run is complete before its launch lets go of it.
    working = at_work(directory.path)
    config, config_text = _read_config(directory)
    kind = _kind(config)
    remarks: list[str] = []
    attempt = _Attempt(directory.path, remarks)
    n_layers = len(listing(mapping(config.get("pretrain")).get("layers")))
    read = _Metrics(directory, remarks)
    layers = tuple(
        tuple(_epochs(read.lines(f"layer-{index + 1}"))) for index in range(n_layers)
    )
    data = moved.get(str(mapping(config.get("data")).get("digest")))
    stack, finetune, evaluations = map(read.lines, ("stack", "finetune", "sparse"))
    predictors = {name: read.lines(name) for name in PREDICTORS}
    return Run(
        path=directory.path,
        name=name,
        place="",
        kind=kind,
        config=config,
        config_text=config_text,
        summary=attempt(lambda: directory.read_object("summary.json")) or {},
        comparison=attempt(lambda: _comparison(directory)) or {},
        complete=tuple(attempt(directory.read_completed) or ()),
        layers=layers,
        schedule=attempt(lambda: _schedule(directory)),
        stack=stack,
        finetune=finetune,
        evaluations=evaluations,
        predictors={name: lines for name, lines in predictors.items() if lines},
        weights=attempt(lambda: first_weights(directory, kind)),
        sample=attempt(lambda: sample_of(directory, kind, data)),
        image_size=attempt(lambda: image_size_of(directory, data)) or 0,
        remarks=tuple(dict.fromkeys(remarks)),
        silent=read.silent(),
        at_work=working,
    )


class _Attempt:
    """Reads what may be missing or damaged; then it says so and there is none."""

    def __init__(self, path: Path, remarks: list[str]) -> None:
        self._path, self._remarks = path, remarks

    def __call__(self, read: Any) -> Any:
        try:
            return read()
        except MpilayerError as error:
            self._remarks.append(str(error))
        except OSError as error:
            self._remarks.append(f"{error.filename} can't be read: {error.strerror}.")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            found = f"{type(error).__name__}: {error}"
            self._remarks.append(f"{self._path} is not as training wrote it ({found}).")
        return None


class _Metrics:
    """Reads the lines of metrics, and says which files have others than those."""

    def __init__(self, directory: RunDirectory, remarks: list[str]) -> None:
        self._directory, self._remarks = directory, remarks
        self._newest = -math.inf

    def lines(self, name: str) -> tuple[Mapping[str, Any], ...]:
        path = self._directory.metrics_file(name)
        if not path.is_file():
            return ()
        self._newest = max(self._newest, path.stat().st_mtime)
        reader = MetricsReader(path)
        lines = tuple(reader.new_lines())
        if reader.damaged:
            self._remarks.append(
                f"{path} is damaged: {reader.damaged} of its lines are left out."
            )
        return lines

    def silent(self) -> float:
        return max(0.0, time.time() - self._newest)


def _epochs(lines: Sequence[Mapping[str, Any]]) -> Iterator[Epoch]:
    """Yield the epochs of a layer that have all that a picture needs."""
    for line in lines:
        seconds = {kind: max(0.0, number(line.get(kind))) for kind in KINDS}
        counts = [number(line.get(key)) for key in ("epoch", "used", "started")]
        if not np.isfinite([*counts, *seconds.values()]).all():
            continue
        rank = number(line.get("rank"))
        yield Epoch(
            epoch=int(counts[0]),
            used=int(counts[1]),
            rank=-1 if math.isnan(rank) else int(rank),
            started=counts[2],
            seconds=seconds,
            train_error=number(line.get("train_error")),
            validation_error=number(line.get("validation_error")),
        )


def _comparison(directory: RunDirectory) -> Mapping[str, Any]:
    return directory.read_object("compare.json")


def _schedule(directory: RunDirectory) -> Schedule | None:
    return directory.read_table() if directory.schedule.exists() else None
