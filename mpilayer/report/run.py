"""Runs as a report sees them: read once, without training, without MPI.

A run may be finished, still running or broken off. What is missing or damaged becomes a
remark; only a folder that is not a run at all is an error.
"""

import itertools
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from mpilayer import files
from mpilayer.arrays import AnyArray
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError, ConfigError, DataError, MpilayerError
from mpilayer.report.sample import Sample, first_weights, image_size_of, sample_of
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import at_work
from mpilayer.store.metrics import MetricsReader
from mpilayer.train.record import EpochRecord

T = TypeVar("T")

PREDICTORS = {"classify": "classifier", "regress": "regressor"}
"""Tasks of fine-tuning that learn labels, and what each makes."""

_METRICS = ("stack", "finetune", "sparse", *PREDICTORS)


@dataclass(frozen=True)
class Epoch(EpochRecord):
    """An epoch of a layer, and the rank that held it, -1 if nobody knows.

    Sending, in truth spread over the epoch, comes between transforming and measuring.
    ``host`` and ``began`` as a ``Session`` tells them; empty and NaN in older runs.
    """

    rank: int = -1
    host: str = ""
    began: float = math.nan

    @property
    def left(self) -> float:
        """When its output went to the layer above, in seconds of training."""
        return self.ended - self.monitor


@dataclass(frozen=True)
class Run:
    """A run, as its directory tells of it."""

    path: Path
    name: str  # what the report calls it; no two are equal
    place: str  # the same in addresses and files, of a-z, 0-9 and hyphens
    kind: str  # "deep", "sparse" or "comparison"
    config: Mapping[str, Any]
    config_text: str
    summary: Mapping[str, Any]
    comparison: Mapping[str, Any]  # compare.json
    complete: Sequence[str]  # commands that have come to their end
    layers: Sequence[Sequence[Epoch]]
    metrics: Mapping[str, Sequence[Mapping[str, Any]]]  # lines of the other files
    weights: AnyArray | None  # (n_visible, n_hidden), first layer, pre-trained so far
    sample: Sample | None  # if there are data and a trained model
    image_size: int  # height and width of its rows if they are images, else 0
    silent: float  # seconds since the last line of metrics; infinite before the first
    at_work: bool | None  # a launch is at work in it; None if nobody knows
    remarks: Sequence[str]  # what could not be shown, and why

    @property
    def n_visible(self) -> int:
        """Columns of its data, 0 if nobody knows."""
        found = number(self.section("data").get("n_visible"))
        return int(found) if math.isfinite(found) else 0

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a section of the configuration, empty if there is none."""
        return mapping(self.config.get(name))

    def column(self, name: str, key: str) -> list[float]:
        """Return a number of every line of a file of metrics."""
        return [number(line.get(key)) for line in self.metrics[name]]


def number(value: Any) -> float:
    """Return a number from a file, NaN for whatever else may stand there."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object from a file, an empty one for whatever else may stand there."""
    return value if isinstance(value, Mapping) else {}


def listing(value: Any) -> Sequence[Any]:
    """Return a list from a file, an empty one for whatever else may stand there."""
    return value if isinstance(value, list) else []


def collect(
    paths: Sequence[Path], data: Path | None = None, models: bool = True
) -> list[Run]:
    """Read runs; a comparison is followed by its two runs.

    ``data`` is where the data set of one is now. Without ``models`` neither data nor
    weights are read. Raises what ``write_report`` does.
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
    moved = {}
    if data is not None:
        with Dataset.open(data) as dataset:
            moved[dataset.digest] = data
    runs: list[Run] = []
    for whole, name in zip(directories, names(paths), strict=True):
        parts = {name: whole.path}
        parts |= {f"{name}/{part}": whole.path / part for part in ("average", "exact")}
        for own, path in parts.items():
            if (path / "config.toml").is_file():
                place = _place(own, [run.place for run in runs])
                runs.append(_read(RunDirectory(path), own, place, moved, models))
    if moved.keys() - {str(run.section("data").get("digest")) for run in runs}:
        raise DataError(
            f"--data must be the data set of a run; {data} is that of none of these. "
            "Give another one, or leave it out."
        )
    return runs


def names(paths: Sequence[Path]) -> list[str]:
    """Return for each path its shortest end that no other one has."""
    ends = []
    for path in paths:
        # Fonts have no letters for bytes of other encodings.
        parts = [os.fsencode(p).decode(errors="replace") for p in path.resolve().parts]
        ends.append(["/".join(parts[-n:]) for n in range(1, len(parts) + 1)])
    count = Counter(end for own in ends for end in own)
    return [next(end for end in own if count[end] == 1) for own in ends]


def _place(name: str, taken: Sequence[str]) -> str:
    """Return a place of its own for a name; names may differ in strange signs alone."""
    usual = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"
    choices = (f"{usual}-{n}" if n > 1 else usual for n in itertools.count(1))
    return next(choice for choice in choices if choice not in taken)


def _read(
    directory: RunDirectory,
    name: str,
    place: str,
    moved: Mapping[str, Path],
    models: bool,
) -> Run:
    # Before the rest: a run is complete before its launch lets go of it.
    working = at_work(directory.path)
    path = directory.path / "config.toml"
    try:
        config, text = directory.read_config(), files.read_text(path, names=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} must be readable; {error.strerror}. Mend its permissions."
        ) from error
    kinds = {"compare": "comparison", "sparse": "sparse"}
    kind = next((kind for section, kind in kinds.items() if section in config), "deep")
    n_layers = len(listing(mapping(config.get("pretrain")).get("layers")))
    reader = _Reader(directory)
    attempt, lines = reader.attempt, reader.lines
    if directory.schedule.exists():
        attempt(directory.read_table)
    data = moved.get(str(mapping(config.get("data")).get("digest")))
    return Run(
        path=directory.path,
        name=name,
        place=place,
        kind=kind,
        config=config,
        config_text=text,
        summary=attempt(lambda: directory.read_summary(strict=True)) or {},
        comparison=attempt(lambda: directory.read_summary("compare.json", strict=True))
        or {},
        complete=attempt(lambda: directory.completed(strict=True)) or (),
        layers=[list(map(_epoch, lines(f"layer-{n + 1}"))) for n in range(n_layers)],
        metrics={name: lines(name) for name in _METRICS},
        weights=attempt(lambda: first_weights(directory, kind)) if models else None,
        sample=attempt(lambda: sample_of(directory, kind, data)) if models else None,
        image_size=(models and attempt(lambda: image_size_of(directory, data))) or 0,
        silent=max(0.0, time.time() - reader.newest),
        at_work=working,
        remarks=list(dict.fromkeys(reader.remarks)),
    )


class _Reader:
    """Reads what may be missing or damaged; what is, it remarks on."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.remarks: list[str] = []
        self.newest = -math.inf

    def attempt(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except MpilayerError as error:
            self.remarks.append(str(error))
        except OSError as error:
            self.remarks.append(f"{error.filename} can't be read: {error.strerror}.")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            found, path = f"{type(error).__name__}: {error}", self._directory.path
            self.remarks.append(f"{path} is not as training wrote it ({found}).")
        return None

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a file of metrics."""
        path = self._directory.metrics_file(name)
        if not path.is_file():
            return []
        self.newest = max(self.newest, path.stat().st_mtime)
        reader = MetricsReader(path)
        lines = list(reader.new_lines())
        if reader.damaged:
            self.remarks.append(
                f"{path} is damaged: {reader.damaged} of its lines are left out."
            )
        return lines


def _epoch(line: Mapping[str, Any]) -> Epoch:
    """Return an epoch from a line of metrics, which is whole: else it is left out."""
    found: dict[str, Any]
    found = {item.name: number(line.get(item.name)) for item in fields(Epoch)}
    found |= {key: int(line[key]) for key in ("epoch", "used")}
    found["team"] = tuple(
        (int(who), float(work), float(waiting))
        for who, work, waiting in listing(line.get("team"))
    )
    found["rank"] = -1 if math.isnan(found["rank"]) else int(found["rank"])
    return Epoch(**found | {"layer": 0, "host": str(line.get("host") or "")})
