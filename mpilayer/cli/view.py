"""What ``mpilayer watch`` shows, from lines of metrics; pure, no files, no clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mpilayer.train.record import end_of

Lines = Sequence[Mapping[str, Any]]

RECENT = 10
"""Epochs over which a rate is measured."""

_EVALUATIONS = 50
_QUIET_SECONDS = 30.0
_QUIET_UNITS = 5.0

_PEAK = 0.05
"""Part of the evaluations in whose costs no detail is worth seeing."""

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .-+#"


@dataclass(frozen=True)
class LayerRow:
    """How far a layer is; None where nobody knows.

    Attributes
    ----------
    layer : int
        From 1.
    done, goal : int
        Epochs.
    at_least : bool
        An asynchronous layer may train for more epochs than its goal.
    error : float
        Of the layer's own input, on validation rows if there are any.
    per_minute : float
        Epochs a minute, of late.
    behind : int
        Epochs that the output in use is behind the layer below.
    left : float
        Seconds until the goal.
    errors : tuple of float
        Of all epochs.
    """

    layer: int
    done: int
    goal: int
    at_least: bool
    error: float | None
    per_minute: float | None
    behind: int | None
    left: float | None
    errors: tuple[float, ...]


@dataclass(frozen=True)
class FinetuneRow:
    """How far fine-tuning is; see ``LayerRow``."""

    done: int
    goal: int
    error: float | None
    per_minute: float | None
    left: float | None
    errors: tuple[float, ...]


@dataclass(frozen=True)
class SparseRow:
    """How far a descent is.

    Attributes
    ----------
    done, goal : int
        Evaluations; it may end before its goal.
    iteration : int
        Iterations of the optimizer.
    cost : float
        The last one.
    per_second : float
        Evaluations a second, of late.
    left : float
        Seconds until the goal.
    costs : tuple of float
        Of all evaluations.
    """

    done: int
    goal: int
    iteration: int
    cost: float | None
    per_second: float | None
    left: float | None
    costs: tuple[float, ...]


def layer_rows(
    metrics: Sequence[Lines], goals: Sequence[int], at_least: bool = False
) -> list[LayerRow]:
    """Return a row a layer.

    Parameters
    ----------
    metrics : sequence of lines
        Of ``metrics/layer-K.jsonl``, the first layer first.
    goals : sequence of int
        Epochs of each layer.
    at_least : bool
        The goals may be passed.
    """
    rows = []
    below: int | None = None
    for index, (lines, goal) in enumerate(zip(metrics, goals, strict=True)):
        last = lines[-1] if lines else None
        done = int(last["epoch"]) if last else 0
        behind = max(0, below - int(last["used"])) if last and below is not None else 0
        seconds = _epoch_seconds(lines)
        rows.append(
            LayerRow(
                layer=index + 1,
                done=done,
                goal=goal,
                at_least=at_least,
                error=_error(last),
                per_minute=_rate(60, seconds),
                behind=behind if last and below is not None else None,
                left=_left(goal - done, seconds),
                errors=_errors(lines),
            )
        )
        below = done
    return rows


def finetune_row(lines: Lines, goal: int) -> FinetuneRow:
    """Return how far fine-tuning is, from ``metrics/finetune.jsonl``."""
    recent = lines[-RECENT:]
    parts = ("training", "allreduce", "evaluating")
    total = sum(line[part] for line in recent for part in parts)
    seconds = total / len(recent) if recent else None
    done = int(lines[-1]["epoch"]) if lines else 0
    return FinetuneRow(
        done=done,
        goal=goal,
        error=_error(lines[-1] if lines else None),
        per_minute=_rate(60, seconds),
        left=_left(goal - done, seconds),
        errors=_errors(lines),
    )


def sparse_row(lines: Lines, goal: int) -> SparseRow:
    """Return how far a descent is, from ``metrics/sparse.jsonl``."""
    last = lines[-1] if lines else {}
    done = int(last.get("evaluation", 0))
    earlier = lines[-_EVALUATIONS - 1 : -1]
    passed = earlier and last["seconds"] - earlier[0]["seconds"]
    seconds = passed / (done - earlier[0]["evaluation"]) if passed else None
    costs = (line.get("cost") for line in lines)
    return SparseRow(
        done=done,
        goal=goal,
        iteration=int(last.get("iteration", 0)),
        cost=last.get("cost"),
        per_second=_rate(1, seconds),
        left=_left(goal - done, seconds),
        costs=tuple(cost for cost in costs if cost is not None),
    )


def longest(times: Sequence[float | None]) -> float | None:
    """Return the longest of the times left; None if one of them is unknown."""
    known = [seconds for seconds in times if seconds is not None]
    return max(known, default=0.0) if len(known) == len(times) else None


def condition(
    complete: bool,
    still: float | None,
    unit: float | None,
    at_work: bool | None = None,
    advice: str = "",
) -> str:
    """Return in words whether a run goes on.

    Parameters
    ----------
    complete : bool
        The run says that it has come to its end.
    still : float or None
        Seconds since the last line of metrics; None before the first one.
    unit : float or None
        Seconds of an epoch or an evaluation.
    at_work : bool or None
        A launch is at work in the run; None if nobody knows.
    advice : str
        How an interrupted run goes on.
    """
    if complete:
        return "finished"
    if at_work is False:
        return f"interrupted; {advice}"
    if still is None:
        return "begun, nothing measured yet"
    if still <= max(_QUIET_SECONDS, _QUIET_UNITS * (unit or 0.0)):
        return "running"
    return f"has not moved for {duration(still)}"


def duration(seconds: float | None) -> str:
    """Return a time as M:SS or H:MM:SS, ``?`` for an unknown one."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(math.ceil(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def without_peak(costs: Sequence[float]) -> tuple[float, ...]:
    """Return costs cut off at the highest one after the first few."""
    top = max(costs[math.ceil(_PEAK * len(costs)) :], default=math.inf)
    return tuple(min(cost, top) for cost in costs)


def curve(values: Sequence[float], width: int, height: int, ascii: bool) -> list[str]:
    """Return a curve as lines of text: columns of blocks, higher for larger values.

    Parameters
    ----------
    values : sequence of float
        On a logarithmic scale if all are positive.
    width, height : int
        Characters at most; a column is the mean of its share of the values.
    ascii : bool
        Use no other characters.
    """
    if not values:
        return []
    marks = _ASCII if ascii else _BLOCKS
    steps = len(marks) - 1
    levels = _levels(_columns(_scaled(values), width), height * steps)
    return [
        "".join(marks[min(steps, max(0, level - row * steps))] for level in levels)
        for row in reversed(range(height))
    ]


def _scaled(values: Sequence[float]) -> list[float]:
    positive = all(value > 0 for value in values)
    return [math.log(value) if positive else value for value in values]


def _columns(values: Sequence[float], width: int) -> list[float]:
    n = min(width, len(values))
    cuts = [i * len(values) // n for i in range(n + 1)]
    shares = (values[a:b] for a, b in pairwise(cuts))
    return [sum(share) / len(share) for share in shares]


def _levels(values: Sequence[float], most: int) -> list[int]:
    """Return whole numbers from 1 for the least value to ``most``."""
    low, high = min(values), max(values)
    if high == low:
        return [1] * len(values)
    return [1 + round((v - low) / (high - low) * (most - 1)) for v in values]


def _epoch_seconds(lines: Lines) -> float | None:
    """Return the seconds of an epoch of late, waiting included."""
    recent = lines[-RECENT - 1 :]
    if not recent:
        return None
    if len(recent) == 1:
        return end_of(recent[0]) - float(recent[0]["started"])
    return (end_of(recent[-1]) - end_of(recent[0])) / (len(recent) - 1)


def _error(line: Mapping[str, Any] | None) -> float | None:
    keys = ("validation_error", "train_error", "train_loss")
    found = (line.get(key) for key in keys) if line else iter(())
    return next((float(value) for value in found if value is not None), None)


def _errors(lines: Lines) -> tuple[float, ...]:
    found = (_error(line) for line in lines)
    return tuple(error for error in found if error is not None)


def _rate(units: float, seconds: float | None) -> float | None:
    return units / seconds if seconds and seconds > 0 else None


def _left(units: int, seconds: float | None) -> float | None:
    if units <= 0:
        return 0.0
    return None if seconds is None else units * max(0.0, seconds)
