"""What epochs of layers were, where their time went, and what they are together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpilayer.config import PretrainConfig
from mpilayer.train.schedule import Schedule, finish_times

KINDS = {
    "training": "training",
    "transform": "transforming",
    "monitor": "measuring errors",
    "sending": "sending",
    "waiting": "waiting",
}
"""What the seconds of a layer go into, and in words: keys of a line of metrics."""


# Part of a team's training at barriers from which on it is too large.
_IDLE = 0.5
_MOMENTS = 40
"""Moments at which the stack is looked at, at most."""


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


def mostly_at_barriers(teams: Sequence[Sequence[Sequence[float]]]) -> str:
    """Say which layers' teams (see ``at_barriers``) mostly waited; empty if none."""
    found = [
        f"{at_barriers(team):.0%} in layer {index}"
        for index, team in enumerate(teams, start=1)
        if at_barriers(team) > _IDLE
    ]
    if not found:
        return ""
    return (
        "teams mostly waited at barriers, for their slowest rank or for a core: "
        f"{', '.join(found)} of training. Fewer ranks may be as fast; --layout says "
        "which layers have how many."
    )


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of one layer did, and where its time went, in seconds.

    Errors are those of reconstructing the layer's own input: Σ over units of squared
    differences, mean over the monitored rows; NaN without validation rows.
    """

    layer: int  # from 0
    epoch: int  # from 1
    used: int  # the output, 0 for the data
    started: float  # since training began on this rank
    training: float  # in minibatches
    transform: float  # encoding rows for the layer above
    monitor: float  # measuring errors
    waiting: float  # before this epoch, for input or a free buffer
    sending: float  # moving messages
    train_error: float
    validation_error: float
    # Each rank of several: its number, seconds of training at work, and at barriers.
    team: tuple[tuple[int, float, float], ...] = ()

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each kind."""
        return seconds_of(vars(self))

    @property
    def ended(self) -> float:
        """When it ended, in seconds since training began on this rank."""
        return end_of(vars(self))


def is_moment(config: PretrainConfig, index: int, epoch: int) -> bool:
    """Tell whether the stack is looked at after an epoch of a layer."""
    usual = max(1, config.stipulated_epochs[index] // _MOMENTS)
    every = config.monitor_every or usual
    return every > 0 and epoch % every == 0


def moments(
    records: Sequence[Sequence[EpochRecord]], config: PretrainConfig
) -> list[tuple[float, list[int]]]:
    """Return moments, and the last epoch of each layer that ``is_moment`` by then."""
    ends = sorted(
        (record.ended, layer, record.epoch)
        for layer, own in enumerate(records)
        for record in own
        if is_moment(config, layer, record.epoch)
    )
    epochs = [0] * len(records)
    found: list[tuple[float, list[int]]] = []
    for seconds, layer, epoch in ends:
        epochs[layer] = epoch
        found.append((seconds, list(epochs)))
    if not found:
        return []
    chosen = np.linspace(0, len(found) - 1, _MOMENTS).astype(int)
    return [found[i] for i in np.unique(chosen)]


def recorded_table(
    config: PretrainConfig,
    used: Sequence[tuple[int, ...]],
    dropped: Sequence[tuple[int, ...]],
) -> Schedule:
    """Return the table that an asynchronous run has filled."""
    names = ("end", "cut_short", "activations")
    return Schedule(
        "async",
        tuple(used),
        config.stipulated_epochs,
        dropped=tuple(dropped),
        settings={
            "extra_epochs": list(config.extra),
            **{name: getattr(config, name) for name in names},
        },
    )


def short_of_epochs(config: PretrainConfig, schedule: Schedule) -> str:
    """Say which layers the end of the first one has stopped too early; empty for none.

    Only ``--end first-layer`` does that; see ``simulate``.
    """
    if config.schedule not in ("async", "simulate"):
        return ""
    pairs = zip(schedule.epochs, config.stipulated_epochs, strict=True)
    short = [
        f"layer {index} {done} of {asked}"
        for index, (done, asked) in enumerate(pairs, start=1)
        if done < asked
    ]
    if not short:
        return ""
    return (
        f"--end first-layer has left layers short of their epochs: {', '.join(short)}. "
        "Upper layers that hardly trained spoil the code; --end stipulated waits for "
        "them."
    )


def simulated_seconds(schedule: Schedule, times: Sequence[dict[str, Any]]) -> float:
    """Return the seconds this table would take on a machine with more cores.

    Of a simulated table the end of its virtual clock, whose unit is the measured epoch
    of the first layer; of any other table the time with a core for each layer, from the
    measured epoch of each. Messages take no time.
    """
    kinds = ("training", "transform", "monitor")
    costs = [
        float(sum(layer[kind] for kind in kinds) / max(1, layer["epochs"]))
        for layer in times
    ]
    if schedule.virtual_end:
        return costs[0] * max(schedule.virtual_end)
    return max(finish_times(schedule, costs))
