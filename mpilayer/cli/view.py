"""How far training is, from lines of metrics; pure, no files, no clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mpilayer.train.record import end_of

Line = Mapping[str, Any]

RECENT = 10  # epochs over which a rate is measured
_EVALUATIONS = 50
_QUIET_SECONDS = 30.0
_QUIET_UNITS = 5.0
# Part of the evaluations in whose costs no detail is worth seeing.
_PEAK = 0.05
_MEASURES = ("validation_error", "train_error", "train_loss", "cost")
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .-+#"


def done(line: Line | None) -> int:
    """Return how many lines a file of metrics has, by its last one."""
    return int(line.get("epoch") or line["evaluation"]) if line else 0


def measure(line: Line | None) -> tuple[str, float] | None:
    """Return the name and value of what shows best how far training is."""
    for key in _MEASURES:
        if line and line.get(key) is not None:
            return key.replace("_", " "), line[key]
    return None


@dataclass(frozen=True)
class Progress:
    """How far what writes a file of metrics is; None where nobody knows."""

    done: int  # epochs or evaluations
    goal: int
    unit: float | None  # seconds of one, of late
    values: Sequence[float]  # errors, on validation rows if there are any, or costs
    value: float | None  # the last of them

    @property
    def left(self) -> float | None:
        """Seconds until the goal."""
        missing = self.goal - self.done
        if missing <= 0:
            return 0.0
        return None if self.unit is None else missing * max(0.0, self.unit)

    def rate(self, seconds: float) -> float | None:
        """Return how many are done in so many seconds."""
        return seconds / self.unit if self.unit and self.unit > 0 else None


def progress(lines: Sequence[Line], goal: int) -> Progress:
    """Return how far a layer, fine-tuning or a descent is."""
    last = lines[-1] if lines else None
    found = [found[1] for line in lines if (found := measure(line))]
    latest = measure(last)
    value = latest[1] if latest else None
    return Progress(done(last), goal, _unit(lines), found, value)


def _unit(lines: Sequence[Line]) -> float | None:
    """Return the seconds of an epoch or evaluation of late, waiting included."""
    if not lines:
        return None
    if "evaluation" in lines[0]:
        first, last = lines[-_EVALUATIONS - 1 :][0], lines[-1]
        passed = float(last["seconds"] - first["seconds"])
        return passed / (done(last) - done(first)) if passed else None
    if "evaluating" in lines[0]:
        recent, parts = lines[-RECENT:], ("training", "allreduce", "evaluating")
        total = float(sum(line[part] for line in recent for part in parts))
        return total / len(recent)
    recent = lines[-RECENT - 1 :]
    if len(recent) == 1:
        return end_of(recent[0]) - float(recent[0]["started"])
    return (end_of(recent[-1]) - end_of(recent[0])) / (len(recent) - 1)


def behind(layers: Sequence[Sequence[Line]]) -> list[int | None]:
    """Return how many epochs each layer's input is behind the layer below."""
    found: list[int | None] = [None]
    for below, lines in pairwise(layers):
        newest = done(below[-1] if below else None)
        found.append(max(0, newest - int(lines[-1]["used"])) if lines else None)
    return found


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
    """Return in words whether a run goes on, with advice on how it would.

    ``still`` are the seconds since its last line of metrics, None before the first
    one, ``unit`` those of an epoch or an evaluation. Nobody may know whether a launch
    is at work in it: None.
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


def without_peak(costs: Sequence[float]) -> list[float]:
    """Return costs cut off at the highest one after the first few."""
    top = max(costs[math.ceil(_PEAK * len(costs)) :], default=math.inf)
    return [min(cost, top) for cost in costs]


def curve(values: Sequence[float], width: int, height: int, ascii: bool) -> list[str]:
    """Return a curve as lines of text: columns of blocks, higher for larger values.

    It has at most so many characters; a column is the mean of its share of the values,
    on a logarithmic scale if all are positive.
    """
    if not values:
        return []
    marks = _ASCII if ascii else _BLOCKS
    steps = len(marks) - 1
    if all(value > 0 for value in values):
        values = list(map(math.log, values))
    n = min(width, len(values))
    cuts = [i * len(values) // n for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, spread = min(means), max(means) - min(means)
    # From 1 for the least: what is there can be seen.
    most = height * steps - 1 if spread else 0
    levels = [1 + round((mean - low) / (spread or 1) * most) for mean in means]
    return [
        "".join(marks[min(steps, max(0, level - row * steps))] for level in levels)
        for row in reversed(range(height))
    ]
