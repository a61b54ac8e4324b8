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
from mpilayer.report import figures
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import Figure, Markup, Part, Picture, table
from mpilayer.report.run import Run, number
from mpilayer.report.words import NOTHING, digits, short

_LIMITS = frozenset({"evaluations", "iterations", "gradient_norm", "decrease"})
"""Settings that end a run; an evaluation takes as long whatever they are."""


def per_evaluation(run: Run) -> float:
    """Return the seconds of an evaluation, NaN before there are any."""
    n = number(run.summary.get("evaluations"))
    return number(run.summary.get("seconds")) / n if n > 0 else math.nan


def speeds(runs: Sequence[Run]) -> Iterator[Part]:
    """Yield seconds and speed over ranks. Figures 3.3.1 and 3.4.1 of the paper."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if per_evaluation(run) > 0 and _ranks(run) > 0:
            groups.setdefault(_same(run), []).append(run)
    # An evaluation by descent is a pass with many steps: another thing.
    whole = [
        group
        for group in groups.values()
        if group[0].section("sparse").get("optimizer") != "sgd"
    ]
    if whole:
        yield _seconds_table(whole)
    several = [g for g in groups.values() if len({_ranks(run) for run in g}) > 1]
    if several:
        yield _speed_up(several)


def _seconds_table(groups: Sequence[Sequence[Run]]) -> Markup:
    """Return the seconds of as many evaluations as the paper's, by workers."""
    lines: list[tuple[str, float, Mapping[int, float]]] = [
        (_label(group), _rows(group), _seconds(group)) for group in groups
    ]
    lines += [
        (_source(machine), rows, seconds)
        for machine, sizes in _theirs(groups).items()
        for rows, seconds in sizes.items()
    ]
    says = (
        f" In italics those of {LAHIRI} on their desktop; the qjam cluster's are from "
        f"{QJAM}. Fifteen years of hardware lie between them."
    )
    workers = sorted({n for _, _, seconds in lines for n in seconds})
    cells = [
        [name, short(rows, ",.0f"), *(_took(seconds.get(n)) for n in workers)]
        for name, rows, seconds in lines
    ]
    return table(
        f"Seconds of {LAHIRI_EVALUATIONS} evaluations by ranks (workers); ours are "
        f"{LAHIRI_EVALUATIONS} times those of one evaluation."
        f"{says * (len(lines) > len(groups))}",
        ("", "rows", *(str(n) for n in workers)),
        cells,
        range(len(groups), len(cells)),
    )


def _speed_up(groups: Sequence[Sequence[Run]]) -> Figure:
    """Return the speed over ranks of runs that differ in nothing else."""
    ours = [_line(_label(g), _seconds(g), place) for place, g in enumerate(groups)]
    sizes = dict.fromkeys(_nearest(_rows(group)) for group in groups)
    theirs = [
        _line(f"{_source(machine)}, {rows:,} rows", seconds[rows], len(ours) + place)
        for place, (machine, rows, seconds) in enumerate(
            (machine, rows, seconds)
            for rows in sizes
            for machine, seconds in _theirs(groups).items()
            if rows in seconds
        )
    ]
    lines = (*ours, *theirs)
    most = max(max(line.x) for line in lines)
    ideal = Line("ideal", (1, most), (1, most), len(lines))
    drawn = Chart(
        (*lines, ideal),
        "ranks",
        "speed against fewest ranks",
        "Speed-up over the number of ranks",
        x_log=True,
        y_log=True,
        whole=True,
    )
    described = "; ".join(line.label for line in ours)
    says = (
        f" Beside them {LAHIRI} on a desktop with about as many rows, and the qjam "
        f"cluster, whose seconds are from {QJAM}."
    )
    return Figure(
        "speed-up",
        "Speed-up over ranks",
        "Evaluations of the cost a second, relative to the run with the fewest ranks, "
        "over ranks, both on logarithmic scales, of runs that differ in nothing else "
        f"that matters: {described}.{says * bool(theirs)}",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def _theirs(
    groups: Sequence[Sequence[Run]],
) -> Mapping[str, Mapping[int, Mapping[int, float]]]:
    """Return the paper's seconds if there are rows as wide as its patches."""
    as_wide = any(run.n_visible == LAHIRI_COLUMNS for group in groups for run in group)
    return LAHIRI_SECONDS if as_wide else {}


def _line(label: str, seconds: Mapping[int, float], style: int) -> Line:
    """Return the speed against the fewest workers, which count as that many of one."""
    workers = sorted(seconds)
    base = seconds[workers[0]] * workers[0]
    return Line(label, workers, [base / seconds[n] for n in workers], style)


def _seconds(group: Sequence[Run]) -> dict[int, float]:
    """Return the paper's many evaluations' seconds by ranks; the fastest run counts."""
    best: dict[int, float] = {}
    for run in group:
        took = LAHIRI_EVALUATIONS * per_evaluation(run)
        best[int(_ranks(run))] = min(took, best.get(int(_ranks(run)), math.inf))
    return best


def _same(run: Run) -> str:
    """Return all that must be equal for runs to differ in their ranks alone."""
    values = run.section("sparse")
    ignored = _LIMITS | _without_effect(str(values.get("optimizer")))
    config = {k: v for k, v in values.items() if k not in ignored}
    threads = run.summary.get("threads_per_rank")
    return repr((sorted(config.items()), run.section("data").get("digest"), threads))


def _without_effect(optimizer: str) -> set[str]:
    """Return another optimizer's settings, and the preset: a word for values."""
    return {"preset", *of_others(SparseConfig, optimizer)}


def _label(group: Sequence[Run]) -> str:
    return ", ".join(run.name for run in group)


def _source(machine: str) -> str:
    return "Lahiri et al., desktop" if machine == "desktop" else machine


def _took(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return digits(seconds, 0 if seconds >= 100 or seconds == int(seconds) else 1)


def _ranks(run: Run) -> float:
    return number(run.summary.get("ranks"))


def _rows(group: Sequence[Run]) -> float:
    return number(group[0].summary.get("n_rows"))


def _nearest(rows: float) -> int:
    """Return the paper's number of rows that is nearest, in ratio."""
    known = LAHIRI_SECONDS["desktop"]
    if not rows > 0:
        return max(known)
    return min(known, key=lambda size: abs(math.log(size / rows)))
