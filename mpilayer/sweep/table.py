"""What the runs of a sweep have reached, and how sure differences of settings are."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mpilayer.report.words import short
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.experiment import FOLDERS, NAME, Plan
from mpilayer.runs.tasks import COMPARE, SPARSE
from mpilayer.sweep.plan import SweepPlan

DIVERGED = "diverged.txt"
"""What the folder of an experiment has whose training could not go on."""

SPLITS = ("train", "validation", "test")
CONFIDENCE = 0.95
# More pairs than these are not for reading: then each setting beside the best.
_MOST_PAIRS = 10

_MEASURES = {
    "classify": "wrong classes, percent",
    "regress": "squared error of the labels",
    SPARSE: "cost",
    COMPARE: "exact cost of the run with the exact term",
}
_USUAL = "reconstruction error"

_MOST_DIGITS, _MOST_CAUSES = 4, 5

InWords: TypeAlias = tuple[list[str], list[list[str]]]
"""The head of a table, and its rows."""

Errors: TypeAlias = Mapping[str, float | None]
"""Error by split, None where there are no rows."""


@dataclass(frozen=True)
class Row:
    """A run: how far it is, and its errors."""

    name: str
    setting: str
    seed: int | None
    state: str  # complete, diverged, begun or waiting
    errors: Errors
    why: str  # it has diverged


@dataclass(frozen=True)
class Table:
    """All runs, the best first, then settings, then pairs of settings.

    ``by`` is the split that orders them; never that of the test rows.
    """

    measure: str
    by: str
    rows: tuple[Row, ...]
    settings: tuple[dict[str, Any], ...]
    pairs: tuple[dict[str, Any], ...]

    @property
    def splits(self) -> list[str]:
        """The splits of which there are errors."""
        return [
            s for s in SPLITS if any(row.errors.get(s) is not None for row in self.rows)
        ]

    @property
    def few(self) -> bool:
        """Whether no difference has an interval, for lack of seeds."""
        return all(pair[self.by]["interval"] is None for pair in self.pairs)

    @property
    def diverged(self) -> list[str]:
        """The runs whose training could not go on."""
        return [row.name for row in self.rows if row.state == "diverged"]

    @property
    def causes(self) -> list[str]:
        """Why training could not go on, of the first such runs."""
        lost = [row for row in self.rows if row.why]
        return [f"{row.name} diverged: {row.why}" for row in lost[:_MOST_CAUSES]]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        own = {"measure": self.measure, "sorted_by": self.by, "confidence": CONFIDENCE}
        tables = {"settings": self.settings, "differences": self.pairs}
        return {**own, **tables, "runs": [vars(row) for row in self.rows]}

    def to_csv(self) -> str:
        """Return the runs as a table of all digits."""
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(["run", "setting", "seed", "state", *SPLITS])
        for row in self.rows:
            cells = [row.name, row.setting, row.seed, row.state]
            out.writerow([*cells, *(row.errors.get(split) for split in SPLITS)])
        return text.getvalue()


def is_over(plan: Plan) -> bool:
    """Tell whether an experiment is complete, or has diverged. Local."""
    return _state(plan) in ("complete", "diverged")


def _state(plan: Plan) -> str:
    if (plan.path / DIVERGED).is_file():
        return "diverged"
    if RunDirectory(plan.path).is_complete(NAME):
        return "complete"
    return "begun" if plan.path.is_dir() else "waiting"


def progress(sweep: SweepPlan) -> tuple[int, list[Path]]:
    """Return how many runs are over, and the folders of those begun. Local."""
    plans = [member.plan for member in sweep.members]
    over = sum(map(is_over, plans))
    return over, [plan.path for plan in plans if _state(plan) == "begun"]


def errors_of(plan: Plan) -> Errors:
    """Return what the last training step of an experiment has reached. Local."""
    step = _last_step(plan)
    directory, mark = RunDirectory(plan.folder(step)), plan.mark(step)
    if mark == COMPARE:
        runs = directory.read_summary("compare.json").get("runs", {})
        return {"train": runs.get("exact", {}).get("exact_cost")}
    summary = directory.read_summary()
    if mark == SPARSE:
        return {"train": summary.get("cost")}
    if mark in _MEASURES:
        return dict(summary.get(f"{mark}_error", {}))
    return {split: summary.get(f"{split}_error") for split in SPLITS}


def _last_step(plan: Plan) -> str:
    return [step for step in plan.steps if step in FOLDERS][-1]


def in_words(errors: Errors) -> str:
    """Return errors as a line tells them."""
    known = {split: e for split, e in errors.items() if e is not None}
    return ", ".join(f"{split} {digits(error)}" for split, error in known.items())


def table_of(sweep: SweepPlan) -> Table:
    """Return the table of a sweep, finished or not. Local."""
    rows = []
    for member in sweep.members:
        state, why = _state(member.plan), ""
        errors = errors_of(member.plan) if state == "complete" else {}
        if state == "diverged":
            why = (member.plan.path / DIVERGED).read_text("utf-8").strip()
        rows.append(Row(member.name, member.setting, member.seed, state, errors, why))
    measured = [row for row in rows if row.errors]
    has = all(row.errors.get("validation") is not None for row in measured)
    by = "validation" if measured and has else "train"
    rows.sort(key=lambda row: (_order(row.errors.get(by)), not row.why))
    settings = sorted(_settings(rows), key=lambda one: _order(one[by]["mean"]))
    first = sweep.members[0].plan
    measure = _MEASURES.get(first.mark(_last_step(first)), _USUAL)
    reached = [one["setting"] for one in settings if one["complete"]]
    pairs = tuple(_pairs(rows, reached))
    return Table(measure, by, tuple(rows), tuple(settings), pairs)


def _order(error: float | None) -> float:
    return math.inf if error is None else error


def _settings(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield mean and standard error of each setting, over its seeds."""
    for setting in dict.fromkeys(row.setting for row in rows):
        own = [row for row in rows if row.setting == setting]
        found: dict[str, Any] = {"setting": setting, "runs": len(own)}
        for state in ("complete", "diverged"):
            found[state] = sum(row.state == state for row in own)
        for split in SPLITS:
            values = [e for row in own if (e := row.errors.get(split)) is not None]
            found[split] = {"mean": float(np.mean(values)) if values else None}
            found[split]["standard_error"] = _standard_error(values)
        yield found


def _standard_error(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _pairs(rows: Sequence[Row], settings: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield differences of settings, each over the seeds that both have."""
    pairs = list(combinations(settings, 2))
    if len(pairs) > _MOST_PAIRS:
        pairs = [(settings[0], other) for other in settings[1:]]
    by_seed = {(row.setting, row.seed): row.errors for row in rows}
    for first, second in pairs:
        found: dict[str, Any] = {"setting": second, "minus": first}
        for split in SPLITS:
            both = (
                (errors.get(split), by_seed.get((second, seed), {}).get(split))
                for (setting, seed), errors in by_seed.items()
                if setting == first
            )
            found[split] = difference(
                [b - a for a, b in both if a is not None and b is not None]
            )
        yield found


def difference(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of paired differences, with its interval by Student's t.

    The interval is None for fewer than two.
    """
    n, error = len(values), _standard_error(values)
    mean = float(np.mean(values)) if n else None
    interval = None
    if mean is not None and error is not None:
        # Loaded here only: trainings need nothing of it.
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * error
        interval = [mean - half, mean + half]
    return {"pairs": n, "mean": mean, "interval": interval}


# --- in words


def digits(value: float | None, n: int = _MOST_DIGITS) -> str:
    """Return a number with so many digits, also if the last are zeros."""
    return short(value, f"#.{n}g").rstrip(".")


def decimals(value: float, error: float) -> str:
    """Return a number with as many decimals as show two digits of its error."""
    known = math.isfinite(error) and error > 0
    places = max(1 - math.floor(math.log10(error)), 0) if known else 0
    return f"{value:.{min(places, 12)}f}".replace("-", "\N{MINUS SIGN}")


def runs_in_words(table: Table) -> InWords:
    """Return all runs, the best first."""
    rows = [
        [row.name, row.state, *(digits(row.errors.get(s)) for s in table.splits)]
        for row in table.rows
    ]
    return ["run", "state", *table.splits], rows


def settings_in_words(table: Table) -> InWords:
    """Return settings with their means ± standard errors."""
    rows = []
    for one in table.settings:
        done = f"{one['complete']} of {one['runs']}"
        done += f", {one['diverged']} diverged" if one["diverged"] else ""
        means = []
        for found in (one[split] for split in table.splits):
            error = found["standard_error"]
            mean = digits(found["mean"])
            if error:
                mean, error = (decimals(v, error) for v in (found["mean"], error))
            means.append(mean if error is None else f"{mean} ± {error or 0}")
        rows.append([one["setting"] or "all", done, *means])
    return ["setting", "done", *table.splits], rows


def differences_in_words(table: Table) -> InWords:
    """Return differences of settings, each with its interval; not of training rows."""
    splits = [split for split in table.splits if split in ("test", table.by)]
    rows = []
    for pair in table.pairs:
        cells = [f"{pair['setting']} − {pair['minus']}", str(pair[table.by]["pairs"])]
        for found in (pair[split] for split in splits):
            low, high = found["interval"] or (math.nan, math.nan)
            known = [decimals(v, high - low) for v in (found["mean"], low, high)]
            mean = digits(found["mean"], 3) if math.isnan(low) else known[0]
            ends = "unknown" if math.isnan(low) else " to ".join(known[1:])
            cells.append(f"{mean}: {ends}")
        rows.append(cells)
    return ["difference", "pairs", *splits], rows
