"""What a report shows of a run: read once, without training, without MPI.

A run may be finished, still running or broken off. What is missing or damaged becomes a
remark; only a folder that is no run at all is an error.
"""

import itertools
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError, ConfigError, DataError, MpilayerError
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import is_finetuned, load_stack, load_trained
from mpilayer.runs.resuming import data_of_run
from mpilayer.store import checkpoint
from mpilayer.store.metrics import MetricsReader
from mpilayer.train.schedule import Schedule

N_IMAGES = 25
"""Rows whose reconstructions are shown."""

_MOST_POINTS = 500
_KINDS = ("training", "waiting", "transform", "sending", "monitor")


@dataclass(frozen=True)
class Epoch:
    """An epoch of a layer; see :class:`mpilayer.train.pretrain.EpochRecord`.

    The epoch begins with ``started``, before it the layer waits; then come training,
    transforming, sending (in truth spread over the epoch) and measuring errors.
    """

    epoch: int
    used: int
    rank: int
    started: float
    seconds: Mapping[str, float]
    train_error: float
    validation_error: float

    @property
    def left(self) -> float:
        """When its output went to the layer above, in seconds of training."""
        busy = ("training", "transform", "sending")
        return self.started + sum(self.seconds[kind] for kind in busy)

    @property
    def ended(self) -> float:
        """When the next one could begin."""
        return self.left + self.seconds["monitor"]


@dataclass(frozen=True)
class Sample:
    """Some rows of a run's data, spread over one split, and what the run makes of them.

    Attributes
    ----------
    data, digest, split : str
        Where the rows come from.
    labels : ndarray (n,) or None
        Of all rows.
    originals : ndarray (n_images, n_visible)
        The rows to show.
    reconstructions : mapping of str to ndarray
        From the name of a model, such as ``pre-trained``, to the rows in its place.
    codes : ndarray (n, n_code)
        Of all rows, by the newest model.
    """

    data: str
    digest: str
    split: str
    labels: AnyArray | None
    originals: Array32
    reconstructions: Mapping[str, Array32]
    codes: Array32


@dataclass(frozen=True)
class Run:
    """A run, as its directory tells of it.

    Attributes
    ----------
    path : Path
        The directory.
    name : str
        What the report calls it; no two are equal.
    place : str
        The name in addresses and files: a-z, 0-9 and hyphens; no two are equal.
    kind : str
        ``deep``, ``sparse`` or ``comparison``.
    config, summary, comparison : mapping
        ``config.toml``, ``summary.json`` and ``compare.json``.
    config_text : str
        The first as it stands there.
    complete : tuple of str
        Commands that have come to their end.
    layers : tuple of tuple of Epoch
        Of pre-training.
    schedule : Schedule or None
        If there is one, and it is whole.
    stack, finetune, evaluations : tuple of mappings
        The lines of these metrics.
    weights : ndarray (n_visible, n_hidden) or None
        Of the first layer, as pre-trained so far.
    sample : Sample or None
        If there are data and a trained model.
    remarks : tuple of str
        What could not be shown, and why.
    silent : float
        Seconds since the last line of metrics.
    """

    path: Path
    name: str
    place: str
    kind: str
    config: Mapping[str, Any]
    config_text: str
    summary: Mapping[str, Any]
    comparison: Mapping[str, Any] = field(default_factory=dict)
    complete: tuple[str, ...] = ()
    layers: tuple[tuple[Epoch, ...], ...] = ()
    schedule: Schedule | None = None
    stack: tuple[Mapping[str, Any], ...] = ()
    finetune: tuple[Mapping[str, Any], ...] = ()
    evaluations: tuple[Mapping[str, Any], ...] = ()
    weights: AnyArray | None = None
    sample: Sample | None = None
    remarks: tuple[str, ...] = ()
    silent: float = math.nan

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a section of the configuration, empty if there is none."""
        return mapping(self.config.get(name))


def collect(paths: Sequence[Path]) -> list[Run]:
    """Read runs; a comparison is followed by its two runs.

    Parameters
    ----------
    paths : sequence of Path
        Their directories.

    Raises
    ------
    ConfigError
        A directory is named twice.
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
    runs = []
    for directory, name in zip(directories, names(paths), strict=True):
        runs.append(_read(directory, name))
        if runs[-1].kind == "comparison":
            for part in ("average", "exact"):
                if (directory.path / part / "config.toml").is_file():
                    below = RunDirectory.open(directory.path / part)
                    runs.append(_read(below, f"{name}/{part}"))
    return _with_places(runs)


def names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    return [str(path) for path in paths]


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


def as_images(rows: AnyArray) -> AnyArray | None:
    """Return rows (n, n_visible) as square images, None if they are none."""
    size = math.isqrt(rows.shape[1])
    return rows.reshape(-1, size, size) if size * size == rows.shape[1] > 1 else None


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
        return directory.read_config(), path.read_text()
    except OSError as error:
        raise CheckpointError(
            f"{path} must be readable; {error.strerror}. Mend its permissions."
        ) from error


def _kind(config: Mapping[str, Any]) -> str:
    kinds = {"compare": "comparison", "sparse": "sparse"}
    return next((kind for name, kind in kinds.items() if name in config), "deep")


def _read(directory: RunDirectory, name: str) -> Run:
    config, config_text = _read_config(directory)
    kind = _kind(config)
    remarks: list[str] = []
    attempt = _Attempt(directory.path, remarks)
    n_layers = len(listing(mapping(config.get("pretrain")).get("layers")))
    read = _Metrics(directory, remarks)
    layers = tuple(
        tuple(_epochs(read.lines(f"layer-{index + 1}"))) for index in range(n_layers)
    )
    stack, finetune, evaluations = map(read.lines, ("stack", "finetune", "sparse"))
    return Run(
        path=directory.path,
        name=name,
        place="",
        kind=kind,
        config=config,
        config_text=config_text,
        summary=attempt(directory.read_summary) or {},
        comparison=attempt(lambda: _comparison(directory)) or {},
        complete=attempt(lambda: _complete(directory)) or (),
        layers=layers,
        schedule=attempt(lambda: _schedule(directory)),
        stack=stack,
        finetune=finetune,
        evaluations=evaluations,
        weights=attempt(lambda: _weights(directory, kind)),
        sample=attempt(lambda: _sample(directory, kind)),
        remarks=tuple(dict.fromkeys(remarks)),
        silent=read.silent(),
    )


def _complete(directory: RunDirectory) -> tuple[str, ...]:
    commands = ("pretrain", "finetune", "sparse", "compare")
    return tuple(name for name in commands if directory.is_complete(name))


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
        lines = []
        try:
            for line in MetricsReader(path).new_lines():
                lines.append(line)
        except ValueError:
            self._remarks.append(
                f"{path} is damaged: what stands after line {len(lines)} is left out."
            )
        return tuple(line for line in lines if isinstance(line, Mapping))

    def silent(self) -> float:
        return max(0.0, time.time() - self._newest)


def _epochs(lines: Sequence[Mapping[str, Any]]) -> Iterator[Epoch]:
    """Yield the epochs of a layer that have all that a picture needs."""
    for line in lines:
        seconds = {kind: max(0.0, number(line.get(kind))) for kind in _KINDS}
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
    path = directory.path / "compare.json"
    if not path.is_file():
        return {}
    try:
        return mapping(json.loads(path.read_text()))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error


def _schedule(directory: RunDirectory) -> Schedule | None:
    path = directory.schedule
    if not path.is_file():
        return None
    return Schedule.from_json(path.read_text(errors="replace"), str(path))


def _weights(directory: RunDirectory, kind: str) -> AnyArray | None:
    """Return the weights of the first layer, of its newest checkpoint."""
    if kind == "comparison":
        return None
    path = directory.checkpoint("sparse")
    if kind == "deep":
        found = directory.layer_candidates(0)
        newest = max(found, key=lambda one: (one.final, one.epoch), default=None)
        if newest is None:
            return None
        path = directory.layer_file(0, newest)
    elif not checkpoint.exists(path):
        return None
    arrays, _, _ = checkpoint.load_newest(path)
    return arrays.get("parameters/weights")


def _sample(directory: RunDirectory, kind: str) -> Sample | None:
    """Return rows of the data with their reconstructions and codes."""
    if kind == "comparison":
        return None
    models = _models(directory, kind)
    if not models:
        return None
    try:
        path = data_of_run(directory, None)
    except DataError as error:
        # Its advice, --data, is none of this command's options.
        told = str(error).partition(". ")[0]
        raise DataError(
            f"{told}. So there are no reconstructions and codes; put it back to where "
            "the run's config.toml has it."
        ) from error
    with Dataset.open(path) as dataset:
        split = [s for s in dataset.splits if dataset.n_samples(s)][-1]
        rows, labels = _spread(dataset, split)
        data, digest = dataset.name, dataset.digest
    shown = rows[np.linspace(0, len(rows) - 1, min(N_IMAGES, len(rows))).astype(int)]
    newest = list(models.values())[-1]
    return Sample(
        data=data,
        digest=digest,
        split=split,
        labels=labels,
        originals=shown,
        reconstructions={name: m.reconstruct(shown) for name, m in models.items()},
        codes=newest.encode(rows),
    )


def _models(directory: RunDirectory, kind: str) -> dict[str, DeepAutoencoder]:
    """Return the run's trained models, the newest last; none before there is one."""
    if kind == "sparse":
        if not checkpoint.exists(directory.checkpoint("sparse")):
            return {}
        return {"trained": load_trained(directory)[1]}
    if "pretrain_seconds" not in directory.read_summary():
        return {}
    models = {"pre-trained": load_stack(directory, pretrained=True)}
    if is_finetuned(directory):
        models["fine-tuned"] = load_stack(directory)
    return models


def _spread(dataset: Dataset, split: str) -> tuple[Array32, AnyArray | None]:
    """Return rows from all over a split, which may be sorted, and their labels."""
    n = dataset.n_samples(split)
    n_blocks = min(N_IMAGES, n)
    size = max(1, min(_MOST_POINTS, n) // n_blocks)
    starts = [number * n // n_blocks for number in range(n_blocks)]
    rows = [dataset.rows(split, i, min(i + size, n)) for i in starts]
    labels = [dataset.labels(split, i, min(i + size, n)) for i in starts]
    known = [found for found in labels if found is not None]
    return np.concatenate(rows), np.concatenate(known) if known else None
