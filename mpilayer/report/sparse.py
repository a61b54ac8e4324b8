"""What a report shows of sparse runs, alone and together, and of average and exact."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mpilayer.report.figures import Chart, Line, is_wide
from mpilayer.report.html import Figure, Markup, Part, facts, note, paragraph, table
from mpilayer.report.images import first_layer, reconstructions
from mpilayer.report.run import Run, listing, mapping, number
from mpilayer.report.speed import per_evaluation, speeds
from mpilayer.report.words import at, count, digits, seconds, short

_PARTS = {
    "cost": "cost",
    "reconstruction": "half the squared error, mean over rows",
    "decay": "decay of the weights",
    "sparsity": "sparsity term",
    "exact_cost": "cost with the exact sparsity term",
    "mean_activation": "mean firing probability",
    "gradient_norm": "norm of the gradient",
}


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
    yield from first_layer(run)
    yield from _firing(run)


def _runs_table(runs: Sequence[Run]) -> Markup:
    """Return cost and time of each run."""
    rows = [
        [words, *(short(run.summary.get(key), ".5g") for run in runs)]
        for key, words in _PARTS.items()
    ]
    took = [number(run.summary.get("seconds")) for run in runs]
    shared = [number(run.summary.get("allreduce_seconds")) for run in runs]
    shares = [s / t if t else math.nan for s, t in zip(shared, took, strict=True)]
    evaluations = (run.summary.get("evaluations") for run in runs)
    rows += [
        ["evaluations", *(short(value, ",.0f") for value in evaluations)],
        ["seconds", *map(digits, took)],
        ["ms an evaluation", *(digits(1e3 * per_evaluation(run)) for run in runs)],
        ["share of Allreduce", *(short(share, ".0%") for share in shares)],
    ]
    return table(
        "Cost at the end, and time. A dash: the run has not come to its end.",
        ("", *(run.name for run in runs)),
        rows,
    )


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
        yield Chart(
            f"cost-{key}",
            f"Cost over {words}",
            "The cost that is minimized (half the squared error a row, decay of the "
            f"weights, sparsity term) over {words}{scale}.",
            lines,
            words,
            "cost",
            f"Cost over {words}",
            y_log=y_log,
            top=top,
        ).figure()


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
            key, end = _objective(run), float(lowest[-1])
            best[key] = min(end, best.get(key, math.inf))
            known.append((run, key, lowest))
    if len(known) < 2:
        return
    lines = []
    for place, (run, key, lowest) in enumerate(known):
        x, y = run.column("sparse", "evaluation"), (lowest - best[key]).tolist()
        lines.append(Line(run.name, x, y, place))
    yield Chart(
        "cost-distance",
        "Distance from the lowest cost",
        "The lowest cost so far, minus the lowest that any of these runs with the same "
        "data, hidden units and weights of the terms has reached, over evaluations of "
        "the cost, on a logarithmic scale; the run that has reached it ends there.",
        lines,
        "evaluations of the cost",
        "cost above the lowest",
        "Distance from the lowest cost over evaluations of the cost",
        y_log=True,
    ).figure()


def _objective(run: Run) -> str:
    """Return all that must be equal for costs to be comparable."""
    keys = (
        *("weight_decay", "sparsity_weight", "sparsity_target"),
        *("hidden", "activation", "output"),
    )
    config, digest = run.section("sparse"), run.section("data").get("digest")
    return repr(([config.get(key) for key in keys], digest))


def _firing(run: Run) -> Iterator[Part]:
    """Yield how often each unit fires, against the target."""
    values = sorted(map(number, listing(run.summary.get("mean_activations"))))
    if not values:
        yield note("Firing probabilities are known when the run has come to its end.")
        return
    target = number(run.section("sparse").get("sparsity_target"))
    yield Chart(
        f"firing-{run.place}",
        "Firing probabilities",
        "Mean over all rows of the probability that a hidden unit fires, a marker a "
        "unit, on a logarithmic scale, against the target that the sparsity term pulls "
        "it to.",
        [Line("units", range(1, len(values) + 1), values, joined=False)],
        "hidden units, in order of their probability",
        "firing probability",
        f"Firing probability of each hidden unit of {run.name}, and the target",
        y_log=True,
        levels={f"target ρ = {short(target)}": target},
        whole=True,
    ).figure()


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
    yield _compared_table(found)
    yield from _gaps(run)
    yield from map(paragraph, _conclusions(found))


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
        [[words, *map(show, runs.values())] for words, show in lines.items()],
    )


def _bound(value: Any) -> str:
    return "infinite" if value is None else short(value)


def _gaps(run: Run) -> Iterator[Part]:
    """Yield the gap over the number of shards."""
    lying = listing(at(run.comparison, "shards", "as_they_lie"))
    ordered = listing(at(run.comparison, "shards", "sorted_by_norm"))
    pairs = list(zip(lying, ordered, strict=False))
    rows = []
    for one, other in pairs:
        shards, bound = short(at(one, "shards"), ",.0f"), _bound(at(one, "bound"))
        gaps = short(at(one, "measured")), short(at(one, "predicted"))
        rows.append([shards, *gaps, bound, short(at(other, "measured"))])
    yield table(
        "Gap at the exact solution, were the rows cut into so many shards.",
        ("shards", "as they lie", "predicted", "99 % bound", "sorted by norm"),
        rows,
    )
    if not pairs:
        return
    columns = {
        "rows as they lie, measured": (lying, "measured"),
        "predicted to second order": (lying, "predicted"),
        "99 % bound": (lying, "bound"),
        "rows sorted by norm, measured": (ordered, "measured"),
    }
    x = [number(at(one, "shards")) for one, _ in pairs]
    lines = [
        Line(words, x, [number(at(one, key)) for one in cuts[: len(x)]], place)
        for place, (words, (cuts, key)) in enumerate(columns.items())
    ]
    yield Chart(
        f"gap-{run.place}",
        "The gap over shards",
        "What averaging the sparsity term would add to the cost at the exact solution, "
        "over the number of shards, both on logarithmic scales; infinite bounds are "
        "left out.",
        lines,
        "shards",
        "average − exact cost",
        "Gap between average and exact cost over the number of shards",
        x_log=True,
        y_log=True,
    ).figure()


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
