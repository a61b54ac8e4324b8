"""What an epoch of a layer was, and where its time went."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = {
    "training": "training",
    "transform": "transforming",
    "monitor": "measuring errors",
    "sending": "sending",
    "waiting": "waiting",
}
"""What the seconds of a layer go into, and in words: keys of a line of metrics."""


def seconds_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each kind of an epoch, as a line of metrics has them."""
    return {kind: record[kind] for kind in KINDS}


def end_of(record: Mapping[str, Any]) -> float:
    """Return when an epoch ended, in seconds of training: it waits before it starts."""
    return float(record["started"] + sum(record[k] for k in KINDS if k != "waiting"))


def team_of(records: Iterable["EpochRecord"]) -> list[tuple[int, float, float]]:
    """Return ``team`` of all epochs together: empty if none had a team."""
    sums: dict[int, tuple[float, float]] = {}
    for rank, work, waiting in (own for record in records for own in record.team):
        before = sums.get(rank, (0.0, 0.0))
        sums[rank] = before[0] + work, before[1] + waiting
    return [(rank, *sums[rank]) for rank in sorted(sums)]


def at_barriers(team: Sequence[Sequence[float]]) -> float:
    """Return the share of training, from 0 to 1, that ranks of a ``team`` waited."""
    work, waiting = (sum(own[place] for own in team) for place in (1, 2))
    return waiting / (work + waiting) if work + waiting else 0.0


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of one layer did, and where its time went.

    Attributes
    ----------
    layer, epoch, used : int
        Layer from 0; epoch from 1; the output it used, 0 for the data.
    started : float
        Seconds since training began on this rank, at the start of the epoch.
    training, transform, monitor, waiting, sending : float
        Seconds: in minibatches; encoding rows for the layer above; measuring errors;
        without input or without a free buffer before this epoch; moving messages.
    team : tuple of (int, float, float)
        Of each rank of a team of several: its number, seconds of training at work, and
        at barriers.
    train_error, validation_error : float
        Reconstruction error of the layer's own input: Σ over units of squared
        differences, mean over the monitored rows; NaN without validation rows.
    """

    layer: int
    epoch: int
    used: int
    started: float
    training: float
    transform: float
    monitor: float
    waiting: float
    sending: float
    train_error: float
    validation_error: float
    team: tuple[tuple[int, float, float], ...] = ()

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each kind."""
        return seconds_of(vars(self))

    @property
    def ended(self) -> float:
        """When it ended, in seconds since training began on this rank."""
        return end_of(vars(self))
