"""What a report shows of sparse runs, alone and together, and of average and exact."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mpilayer.report.figures import Chart, Line, is_wide
from mpilayer.report.html import Figure, Markup, Part, facts, note, paragraph, table
from mpilayer.report.images import first_layer, reconstructions
from mpilayer.report.ranks import would_more_ranks_help
from mpilayer.report.run import Run, listing, mapping, number
from mpilayer.report.speed import per_evaluation, speeds
from mpilayer.report.words import at, count, seconds, short

_OBJECTIVE = (
    *("weight_decay", "sparsity_weight", "sparsity_target"),
    *("hidden", "activation", "output"),
)
_TIMES = {
    "evaluations": (",.0f", "evaluations"),
    "seconds": (",.2f", "seconds"),
    "ms an evaluation": (",.2f", "ms"),
    "share of Allreduce": (".0%", "allreduce_share"),
}
_RUNS = {
    "cost": (".5g", "cost"),
    "half the squared error, mean over rows": (".5g", "reconstruction"),
    "decay of the weights": (".5g", "decay"),
    "sparsity term": (".5g", "sparsity"),
    "cost with the exact sparsity term": (".5g", "exact_cost"),
    "mean firing probability": (".5g", "mean_activation"),
    "norm of the gradient": (".5g", "gradient_norm"),
    **_TIMES,
}
_COMPARED = {
    "average cost": (",.6f", "average_cost"),
    "exact cost": (",.6f", "exact_cost"),
    "gap, measured": (".3g", "gap", "measured"),
    "gap, predicted to second order": (".3g", "gap", "predicted"),
    "gap, 99 % bound": (".3g", "gap", "bound"),
    **_TIMES,
}
"""Rows of tables: form and keys of a number."""

_GAPS = (
    ("as they lie", "rows as they lie, measured", "as_they_lie", "measured"),
    ("predicted", "predicted to second order", "as_they_lie", "predicted"),
    ("99 % bound", "99 % bound", "as_they_lie", "bound"),
    ("sorted by norm", "rows sorted by norm, measured", "sorted_by_norm", "measured"),
)
"""Of what averaging adds: column, line of the chart, keys in ``compare.json``."""


def together(runs: Sequence[Run]) -> Iterator[Part]:
    """Yield what sets all sparse runs beside one another."""
    trained = [run for run in runs if run.kind == "sparse"]
    yield paragraph(
        "Each trains one hidden layer whose units seldom fire, on rows that all "
        "ranks share; the method is that of Lahiri, Pasari and Prochnow (2010)."
    )
    if trained:
        yield _runs_table(trained)
    yield from costs(trained)
    yield from distances(trained)
    yield from speeds(trained)
    yield from reconstructions(trained, "sparse-reconstructions")


def alone(run: Run) -> Iterator[Part]:
    """Yield what is to be said of one run."""
    if run.kind == "comparison":
        yield from _compared(run)
        return
    summary = run.summary
    yield facts(
        {
            "cost": short(summary.get("cost"), ".5g"),
            "mean firing probability": short(summary.get("mean_activation")),
            "dead hidden units": short(summary.get("dead_units"), ".0f"),
            "evaluations": short(summary.get("evaluations"), ",.0f"),
            "training": seconds(summary.get("seconds")),
            "ranks": short(summary.get("ranks"), ".0f"),
        }
    )
    if summary.get("warning"):
        yield note(f"Warning: {summary['warning']}.")
    yield from map(note, run.remarks)
    if run.weights is None:
        yield note("There is no checkpoint yet, so there are no filters.")
    yield from would_more_ranks_help(run)
    yield from first_layer(run)
    yield from _firing(run)


def _runs_table(runs: Sequence[Run]) -> Markup:
    """Return cost and time of each run."""
    columns = {}
    for run in runs:
        took = number(run.summary.get("seconds"))
        shared = number(run.summary.get("allreduce_seconds"))
        share = shared / took if took else math.nan
        found = {"ms": 1e3 * per_evaluation(run), "allreduce_share": share}
        columns[run.name] = {**run.summary, **found}
    title = "Cost at the end, and time. A dash: the run has not come to its end."
    return _beside(title, columns, _RUNS)


def _beside(
    title: str, columns: Mapping[str, Any], rows: Mapping[str, tuple[str, ...]]
) -> Markup:
    """Return a table with a column for each of several results."""
    cells = [
        [words, *(_shown(at(one, *keys), form, keys) for one in columns.values())]
        for words, (form, *keys) in rows.items()
    ]
    return table(title, ("", *columns), cells)


def _shown(value: Any, form: str, keys: Sequence[str]) -> str:
    is_infinite = value is None and keys[-1] == "bound"
    return "infinite" if is_infinite else short(value, form)


def costs(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the cost over evaluations and over time. Figure 2.3.2 of the paper."""
    known = [run for run in runs if run.metrics["sparse"]]
    if not known:
        return
    low, top, highest = range_of_costs(known)
    y_log = is_wide(low, top)
    scale = ", on a logarithmic scale" if y_log else ""
    if top < highest:
        scale += f"; the beginning, up to {highest:.3g}, is left out"
    for key, words in {
        "evaluation": "evaluations of the cost",
        "seconds": "seconds of training",
    }.items():
        lines = [
            Line(run.name, run.column("sparse", key), run.column("sparse", "cost"), n)
            for n, run in enumerate(known)
        ]
        title, axes = f"Cost over {words}", (words, "cost")
        says = (
            "The cost that is minimized (half the squared error a row, decay of the "
            f"weights, sparsity term) over {words}{scale}."
        )
        about = (f"cost-{key}", title, says, lines)
        yield Chart(*about, *axes, title, y_log=y_log, top=top).figure()


def range_of_costs(runs: Sequence[Run]) -> tuple[float, float, float]:
    """Return the lowest cost, the highest one worth seeing, and the highest of all.

    The first evaluations are far above all others, and would flatten what counts: where
    that is so, what lies above all runs' last three quarters may be cut off, and so may
    the few evaluations among these at which a line search went too far.
    """
    found = [filter(math.isfinite, run.column("sparse", "cost")) for run in runs]
    known = [own for own in map(list, found) if own]
    if not known:
        return 1.0, math.inf, math.inf
    low, highest = min(map(min, known)), max(map(max, known))
    usual = max(float(np.quantile(own[len(own) // 4 :], 0.95)) for own in known)
    is_peaked = highest - low > 3 * (usual - low)
    return low, usual + 0.05 * (usual - low) if is_peaked else highest, highest


def distances(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield how far several runs are from the lowest cost, which tells them apart."""
    known = []
    best: dict[str, float] = {}
    for run in runs:
        lowest = np.fmin.accumulate(run.column("sparse", "cost"))
        if len(lowest) and np.isfinite(lowest[-1]):
            # All that must be equal for costs to be comparable.
            settings = [run.section("sparse").get(key) for key in _OBJECTIVE]
            key = repr((settings, run.section("data").get("digest")))
            end = float(lowest[-1])
            best[key] = min(end, best.get(key, math.inf))
            known.append((run, key, lowest))
    if len(known) < 2:
        return
    lines = []
    for place, (run, key, lowest) in enumerate(known):
        x, y = run.column("sparse", "evaluation"), (lowest - best[key]).tolist()
        lines.append(Line(run.name, x, y, place))
    title = "Distance from the lowest cost"
    axes = ("evaluations of the cost", "cost above the lowest")
    says = (
        "The lowest cost so far, minus the lowest that any of these runs with the same "
        "data, hidden units and weights of the terms has reached, over evaluations of "
        "the cost, on a logarithmic scale; the run that has reached it ends there."
    )
    about = ("cost-distance", title, says, lines)
    yield Chart(*about, *axes, f"{title} over {axes[0]}", y_log=True).figure()


def _firing(run: Run) -> Iterator[Part]:
    """Yield how often each unit fires, against the target."""
    values = sorted(map(number, listing(run.summary.get("mean_activations"))))
    if not values:
        yield note("Firing probabilities are known when the run has come to its end.")
        return
    target = number(run.section("sparse").get("sparsity_target"))
    lines = [Line("units", range(1, len(values) + 1), values, joined=False)]
    axes = ("hidden units, in order of their probability", "firing probability")
    says = (
        "Mean over all rows of the probability that a hidden unit fires, a marker a "
        "unit, on a logarithmic scale, against the target that the sparsity term pulls "
        "it to."
    )
    about = (f"firing-{run.place}", "Firing probabilities", says, lines)
    alt = f"Firing probability of each hidden unit of {run.name}, and the target"
    levels = {f"target ρ = {short(target)}": target}
    yield Chart(*about, *axes, alt, y_log=True, levels=levels, whole=True).figure()


def _compared(run: Run) -> Iterator[Part]:
    """Yield what the average of the sparsity term changes against the exact one."""
    found = run.comparison
    yield paragraph(
        "Two runs from one start: the sparsity term averaged over shards, and "
        "exact. The average is never below the exact cost; the gap between them is "
        "what averaging adds."
    )
    yield from map(note, run.remarks)
    if not found:
        yield note("The comparison has not come to its end: no gap is known.")
        return
    columns = {
        f"trained on {name}": {
            **mapping(one),
            "ms": 1e3 * number(at(one, "seconds_per_evaluation")),
        }
        for name, one in mapping(found.get("runs")).items()
    }
    size = f"{count(found.get('ranks'), 'rank')}, {count(found.get('n_rows'), 'row')}"
    title = f"Both runs under both definitions of the cost, {size}."
    yield _beside(title, columns, _COMPARED)
    yield from _gaps(run)
    yield from map(paragraph, _conclusions(found))


def _gaps(run: Run) -> Iterator[Part]:
    """Yield the gap over the number of shards."""
    orders = {order for _, _, order, _ in _GAPS}
    cuts = {order: listing(at(run.comparison, "shards", order)) for order in orders}
    n = min(map(len, cuts.values()))
    x = [number(at(one, "shards")) for one in cuts["as_they_lie"][:n]]
    columns, lines = [[short(shards, ",.0f") for shards in x]], []
    for place, (_, label, order, key) in enumerate(_GAPS):
        values = [at(one, key) for one in cuts[order][:n]]
        columns.append([_shown(value, ".3g", [key]) for value in values])
        lines.append(Line(label, x, list(map(number, values)), place))
    yield table(
        "Gap at the exact solution, were the rows cut into so many shards.",
        ("shards", *(gap[0] for gap in _GAPS)),
        zip(*columns, strict=True),
    )
    if not x:
        return
    says = (
        "What averaging the sparsity term would add to the cost at the exact solution, "
        "over the number of shards, both on logarithmic scales; infinite bounds are "
        "left out."
    )
    about = (f"gap-{run.place}", "The gap over shards", says, lines)
    axes = ("shards", "average − exact cost")
    alt = "Gap between average and exact cost over the number of shards"
    yield Chart(*about, *axes, alt, x_log=True, y_log=True).figure()


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
