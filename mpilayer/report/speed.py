"""Seconds and speed over ranks, beside those that Lahiri et al. 2010 show."""

import math
from collections.abc import Iterator, Mapping, Sequence

from mpilayer.config import SparseConfig, of_others
from mpilayer.papers import (
    LAHIRI,
    LAHIRI_COLUMNS,
    LAHIRI_EVALUATIONS,
    LAHIRI_SECONDS,
    QJAM,
)
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import Figure, Markup, Part, table
from mpilayer.report.run import Run, number
from mpilayer.report.words import digits, names, short

_LIMITS = frozenset({"evaluations", "iterations", "gradient_norm", "decrease"})
"""Settings that end a run; an evaluation takes as long whatever they are."""

_Groups = Sequence[Sequence[Run]]


def per_evaluation(run: Run) -> float:
    """Return the seconds of an evaluation, NaN before there are any."""
    n = number(run.summary.get("evaluations"))
    return number(run.summary.get("seconds")) / n if n > 0 else math.nan


def speeds(runs: Sequence[Run]) -> Iterator[Part]:
    """Yield seconds and speed over ranks. Figures 3.3.1 and 3.4.1 of the paper."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if per_evaluation(run) > 0 and number(run.summary.get("ranks")) > 0:
            groups.setdefault(_same(run), []).append(run)
    # An evaluation by descent is a pass with many steps: another thing.
    whole = [
        group
        for group in groups.values()
        if group[0].section("sparse").get("optimizer") != "sgd"
    ]
    if whole:
        yield _seconds_table(whole)
    several = [group for group in groups.values() if len(_seconds(group)) > 1]
    if several:
        yield _speed_up(several)


def _seconds_table(groups: _Groups) -> Markup:
    """Return the seconds of as many evaluations as the paper's, by workers."""
    ours = [(names(group), _rows(group), _seconds(group)) for group in groups]
    theirs = [
        (_source(machine), rows, seconds)
        for machine, sizes in _theirs(groups).items()
        for rows, seconds in sizes.items()
    ]
    says = (
        f" In italics those of {LAHIRI} on their desktop; the qjam cluster's are from "
        f"{QJAM}. Fifteen years of hardware lie between them."
    )
    workers = sorted({n for _, _, seconds in [*ours, *theirs] for n in seconds})
    cells = []
    for name, rows, seconds in [*ours, *theirs]:
        took = [seconds.get(n, math.nan) for n in workers]
        shown = [digits(t, 0 if t >= 100 or t % 1 == 0 else 1) for t in took]
        cells.append([name, short(rows, ",.0f"), *shown])
    return table(
        f"Seconds of {LAHIRI_EVALUATIONS} evaluations by ranks (workers); ours are "
        f"{LAHIRI_EVALUATIONS} times those of one evaluation."
        f"{says if theirs else ''}",
        ("", "rows", *map(str, workers)),
        cells[: len(ours)],
        cells[len(ours) :],
    )


def _speed_up(groups: _Groups) -> Figure:
    """Return the speed over ranks of runs that differ in nothing else."""
    shown: dict[str, Mapping[int, float]]
    shown = {names(group): _seconds(group) for group in groups}
    ours = "; ".join(shown)
    for size in dict.fromkeys(_nearest(_rows(group)) for group in groups):
        for machine, sizes in _theirs(groups).items():
            if size in sizes:
                shown[f"{_source(machine)}, {size:,} rows"] = sizes[size]
    lines = []
    for place, (label, seconds) in enumerate(shown.items()):
        workers = sorted(seconds)
        base = seconds[workers[0]] * workers[0]  # the fewest count as that many of one
        lines.append(Line(label, workers, [base / seconds[n] for n in workers], place))
    most = max(max(line.x) for line in lines)
    theirs = (
        f" Beside them {LAHIRI} on a desktop with about as many rows, and the qjam "
        f"cluster, whose seconds are from {QJAM}."
    )
    says = (
        "Evaluations of the cost a second, relative to the run with the fewest ranks, "
        "over ranks, both on logarithmic scales, of runs that differ in nothing else "
        f"that matters: {ours}.{theirs if len(lines) > len(groups) else ''}"
    )
    lines.append(Line("ideal", (1, most), (1, most), len(lines)))
    about = ("speed-up", "Speed-up over ranks", says, lines)
    axes = ("ranks", "speed against fewest ranks", "Speed-up over the number of ranks")
    return Chart(*about, *axes, x_log=True, y_log=True, whole=True).figure()


def _theirs(groups: _Groups) -> Mapping[str, Mapping[int, Mapping[int, float]]]:
    """Return the paper's seconds if there are rows as wide as its patches."""
    as_wide = any(run.n_visible == LAHIRI_COLUMNS for group in groups for run in group)
    return LAHIRI_SECONDS if as_wide else {}


def _seconds(group: Sequence[Run]) -> dict[int, float]:
    """Return the paper's many evaluations' seconds by ranks; the fastest run counts."""
    best: dict[int, float] = {}
    for run in group:
        took, ranks = LAHIRI_EVALUATIONS * per_evaluation(run), run.summary["ranks"]
        best[int(ranks)] = min(took, best.get(int(ranks), math.inf))
    return best


def _same(run: Run) -> str:
    """Return all that must be equal for runs to differ in their ranks alone."""
    values = run.section("sparse")
    # Another optimizer's settings have no effect, and a preset is a word for values.
    others = of_others(SparseConfig, str(values.get("optimizer")))
    # By default there are as many shards as ranks.
    ignored = {*_LIMITS, "preset", "shards", *others}
    config = {k: v for k, v in values.items() if k not in ignored}
    threads = run.summary.get("threads_per_rank")
    return repr((sorted(config.items()), run.section("data").get("digest"), threads))


def _source(machine: str) -> str:
    return "Lahiri et al., desktop" if machine == "desktop" else machine


def _rows(group: Sequence[Run]) -> float:
    return number(group[0].summary.get("n_rows"))


def _nearest(rows: float) -> int:
    """Return the paper's number of rows that is nearest, in ratio."""
    known = LAHIRI_SECONDS["desktop"]
    if not rows > 0:
        return max(known)
    return min(known, key=lambda size: abs(math.log(size / rows)))
