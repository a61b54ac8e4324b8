"""A run, as a report sees it; plain values, read by :mod:`mpilayer.report.collect`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpilayer.arrays import AnyArray, Array32
from mpilayer.train.record import end_of
from mpilayer.train.schedule import Schedule

PREDICTORS = {"classify": "classifier", "regress": "regressor"}
"""Tasks of fine-tuning that learn labels, and what each makes."""


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
        return self.ended - self.seconds["monitor"]

    @property
    def ended(self) -> float:
        """When the next one could begin."""
        return end_of({"started": self.started, **self.seconds})


@dataclass(frozen=True)
class Sample:
    """Some rows of a run's data, spread over one split, and what the run makes of them.

    Attributes
    ----------
    data, digest, split : str
        Where the rows come from.
    labels : ndarray (n,) or None
        Of all rows: integers are classes, float32 are numbers.
    classes : tuple of str
        Name of label 0, 1, 2, …; empty if they have none.
    originals : ndarray (n_images, n_visible)
        The rows to show.
    reconstructions : mapping of str to ndarray
        From the name of a model, such as ``pre-trained``, to the rows in its place.
    pca : ndarray (n_images, n_visible) or None
        What as many principal components as code units make of them.
    codes : ndarray (n, n_code)
        Of all rows, by the newest model.
    model : str
        What that is, such as ``fine-tuned stack`` or ``classifier``.
    """

    data: str
    digest: str
    split: str
    labels: AnyArray | None
    classes: tuple[str, ...]
    originals: Array32
    reconstructions: Mapping[str, Array32]
    pca: AnyArray | None
    codes: Array32
    model: str


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
    predictors : mapping of str to tuple of mappings
        Those of ``classify`` and ``regress``, where there are some.
    weights : ndarray (n_visible, n_hidden) or None
        Of the first layer, as pre-trained so far.
    sample : Sample or None
        If there are data and a trained model.
    image_size : int
        Height and width of its rows if they are images, else 0.
    remarks : tuple of str
        What could not be shown, and why.
    silent : float
        Seconds since the last line of metrics.
    at_work : bool or None
        A launch is at work in it; None if nobody knows.
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
    predictors: Mapping[str, tuple[Mapping[str, Any], ...]] = field(
        default_factory=dict
    )
    weights: AnyArray | None = None
    sample: Sample | None = None
    image_size: int = 0
    remarks: tuple[str, ...] = ()
    silent: float = math.nan
    at_work: bool | None = None

    @property
    def n_visible(self) -> int:
        """Columns of its data, 0 if nobody knows."""
        found = number(self.section("data").get("n_visible"))
        return int(found) if math.isfinite(found) else 0

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a section of the configuration, empty if there is none."""
        return mapping(self.config.get(name))


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
