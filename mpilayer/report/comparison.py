"""What a report shows of average against exact."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mpilayer.report import figures
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import (
    Figure,
    Markup,
    Part,
    Picture,
    Section,
    note,
    paragraph,
    table,
)
from mpilayer.report.run import Run, listing, mapping, number
from mpilayer.report.words import at, count, digits, short


def compared(run: Run) -> Section:
    """Return the section on average against exact."""
    name, found = run.place, run.comparison
    parts: list[Part] = [
        paragraph(
            "Two runs from one start: the sparsity term averaged over the ranks, and "
            "exact. The average is never below the exact cost; the gap between them is "
            "what averaging adds."
        ),
        *(note(remark) for remark in run.remarks),
    ]
    if found:
        parts += [_compared_table(found), _shards_table(found), *_gaps(run, name)]
        parts += map(paragraph, _conclusions(found))
    else:
        parts.append(note("The comparison has not come to its end: no gap is known."))
    title = f"Comparison {run.name}"
    return Section(f"run-{name}", title, tuple(parts), within=True)


def _compared_table(found: Mapping[str, Any]) -> Markup:
    runs = mapping(found.get("runs"))
    lines: dict[str, Callable[[Any], str]] = {
        "average cost": lambda r: digits(at(r, "average_cost"), 6),
        "exact cost": lambda r: digits(at(r, "exact_cost"), 6),
        "gap, measured": lambda r: short(at(r, "gap", "measured")),
        "gap, predicted to second order": lambda r: short(at(r, "gap", "predicted")),
        "gap, 99 % bound": lambda r: _bound(at(r, "gap", "bound")),
        "evaluations": lambda r: short(at(r, "evaluations"), ",.0f"),
        "seconds": lambda r: digits(at(r, "seconds")),
        "ms an evaluation": lambda r: digits(
            1e3 * number(at(r, "seconds_per_evaluation"))
        ),
        "share of Allreduce": lambda r: short(at(r, "allreduce_share"), ".0%"),
    }
    return table(
        f"Both runs under both definitions of the cost, "
        f"{count(found.get('ranks'), 'rank')}, {count(found.get('n_rows'), 'row')}.",
        ("", *(f"trained on {name}" for name in runs)),
        [[words, *(show(r) for r in runs.values())] for words, show in lines.items()],
    )


def _bound(value: Any) -> str:
    return "infinite" if value is None else short(value)


def _shards(found: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    lying = listing(at(found, "shards", "as_they_lie"))
    ordered = listing(at(found, "shards", "sorted_by_norm"))
    return list(zip(lying, ordered, strict=False))


def _shards_table(found: Mapping[str, Any]) -> Markup:
    rows = [
        [
            short(at(lying, "shards"), ",.0f"),
            short(at(lying, "measured")),
            short(at(lying, "predicted")),
            _bound(at(lying, "bound")),
            short(at(ordered, "measured")),
        ]
        for lying, ordered in _shards(found)
    ]
    return table(
        "Gap at the exact solution, were the rows cut into so many shards.",
        ("shards", "as they lie", "predicted", "99 % bound", "sorted by norm"),
        rows,
    )


def _gaps(run: Run, name: str) -> Iterator[Figure]:
    """Yield the gap over the number of shards."""
    pairs = _shards(run.comparison)
    if not pairs:
        return
    x = [number(at(lying, "shards")) for lying, _ in pairs]
    columns = {
        "rows as they lie, measured": [at(lying, "measured") for lying, _ in pairs],
        "predicted to second order": [at(lying, "predicted") for lying, _ in pairs],
        "99 % bound": [at(lying, "bound") for lying, _ in pairs],
        "rows sorted by norm, measured": [at(row, "measured") for _, row in pairs],
    }
    lines = tuple(
        Line(words, x, [number(v) for v in values], place)
        for place, (words, values) in enumerate(columns.items())
    )
    drawn = Chart(
        lines,
        "shards",
        "average − exact cost",
        "Gap between average and exact cost over the number of shards",
        x_log=True,
        y_log=True,
    )
    yield Figure(
        f"gap-{name}",
        "The gap over shards",
        "What averaging the sparsity term would add to the cost at the exact solution, "
        "over the number of shards, both on logarithmic scales; infinite bounds are "
        "left out.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def _conclusions(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what the numbers say."""
    low, high = (*listing(at(found, "paper", "exact_slower_by_seconds")), 8, 12)[:2]
    first, last = (*listing(at(found, "paper", "of_seconds")), 350, 650)[:2]
    yield (
        f"The weights of the two results are {short(found.get('weights_distance'))} "
        f"apart, {short(found.get('weights_distance_relative'), '.1%')} of their norm. "
        "An evaluation with the exact term took "
        f"{short(found.get('exact_slower_by'), '+.1%')} against the average; Lahiri et "
        f"al. measured {short(low)} to {short(high)} s more on {short(first)} to "
        f"{short(last)} s."
    )
    if at(found, "shards", "exchangeable") is False:
        yield (
            "Warning: the shards differ "
            f"{short(at(found, 'shards', 'variance_over_sampling'))} times as much as "
            "sampling explains: the rows are sorted, and the average is another cost."
        )
