"""What a report shows of sparse runs, alone and together."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mpilayer.report import figures
from mpilayer.report.comparison import compared
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import (
    Figure,
    Markup,
    Part,
    Picture,
    Section,
    facts,
    note,
    paragraph,
    table,
)
from mpilayer.report.images import as_images, reconstructions
from mpilayer.report.run import Run, listing, number
from mpilayer.report.speed import per_evaluation, speeds
from mpilayer.report.words import NOTHING, digits, seconds, short
from mpilayer.runs.sparse import filters

_LOG_FROM = 6.0
_PARTS = {
    "cost": "cost",
    "reconstruction": "half the squared error, mean over rows",
    "decay": "decay of the weights",
    "sparsity": "sparsity term",
    "exact_cost": "cost with the exact sparsity term",
    "mean_activation": "mean firing probability",
    "gradient_norm": "norm of the gradient",
}


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the sections on sparse runs and comparisons, none without any."""
    if not runs:
        return []
    return [
        together([run for run in runs if run.kind == "sparse"]),
        *(compared(run) if run.kind == "comparison" else alone(run) for run in runs),
    ]


def together(runs: Sequence[Run]) -> Section:
    """Return the section that sets all sparse runs beside one another."""
    parts: list[Part] = [
        paragraph(
            "Each trains one hidden layer whose units seldom fire, on rows that all "
            "ranks share; the method is that of Lahiri, Pasari and Prochnow (2010)."
        ),
        *([_runs_table(runs)] if runs else []),
        *_costs(runs),
        *_distances(runs),
        *speeds(runs),
        *reconstructions(runs, "sparse-reconstructions"),
    ]
    return Section("sparse", "Sparse autoencoders", tuple(parts))


def alone(run: Run) -> Section:
    """Return the section on one run."""
    name = run.place
    summary = run.summary
    pairs = {
        "cost": short(summary.get("cost"), ".5g"),
        "mean firing probability": short(summary.get("mean_activation"), ".3g"),
        "dead hidden units": short(summary.get("dead_units"), ".0f"),
        "evaluations": short(summary.get("evaluations"), ",.0f"),
        "training": seconds(summary.get("seconds")),
        "ranks": short(summary.get("ranks"), ".0f"),
    }
    parts: list[Part] = [
        facts((k, v) for k, v in pairs.items() if v != NOTHING),
        *([note(f"Warning: {summary['warning']}.")] if summary.get("warning") else []),
        *(note(remark) for remark in run.remarks),
        *_filters(run, name),
        *_firing(run, name),
    ]
    return Section(f"run-{name}", f"Run {run.name}", tuple(parts), within=True)


def _runs_table(runs: Sequence[Run]) -> Markup:
    """Return cost and time of each run."""
    lines: dict[str, Callable[[Run], str]] = {
        "evaluations": lambda run: short(run.summary.get("evaluations"), ",.0f"),
        "seconds": lambda run: digits(run.summary.get("seconds")),
        "ms an evaluation": lambda run: digits(1e3 * per_evaluation(run)),
        "share of Allreduce": lambda run: short(_share_of_allreduce(run), ".0%"),
    }
    costs = [
        [words, *(short(run.summary.get(key), ".5g") for run in runs)]
        for key, words in _PARTS.items()
    ]
    times = [[words, *map(show, runs)] for words, show in lines.items()]
    return table(
        "Cost at the end, and time. A dash: the run has not come to its end.",
        ("", *(run.name for run in runs)),
        [*costs, *times],
    )


def _share_of_allreduce(run: Run) -> float:
    took = number(run.summary.get("seconds"))
    return number(run.summary.get("allreduce_seconds")) / took if took else math.nan


def _costs(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the cost over evaluations and over time. Figure 2.3.2 of the paper."""
    known = [run for run in runs if run.evaluations]
    if not known:
        return
    low, top, highest = _range_of_costs(known)
    y_log = top > _LOG_FROM * low
    scale = ", on a logarithmic scale" * y_log
    cut = f"; the beginning, up to {highest:.3g}, is left out"
    cut *= top < highest
    for key, words in {
        "evaluation": "evaluations of the cost",
        "seconds": "seconds of training",
    }.items():
        lines = tuple(
            Line(run.name, _column(run, key), _column(run, "cost"), place)
            for place, run in enumerate(known)
        )
        drawn = Chart(lines, words, "cost", f"Cost over {words}", y_log=y_log, top=top)
        yield Figure(
            f"cost-{key}",
            f"Cost over {words}",
            "The cost that is minimized (half the squared error a row, decay of the "
            f"weights, sparsity term) over {words}{scale}{cut}.",
            (Picture(figures.chart(drawn), drawn.alt),),
        )


def _range_of_costs(runs: Sequence[Run]) -> tuple[float, float, float]:
    """Return the lowest cost, the highest one worth seeing, and the highest of all.

    The first evaluations are far above all others, and would flatten what counts: where
    that is so, what lies above all runs' last three quarters may be cut off, and so may
    the few evaluations among these at which a line search went too far.
    """
    costs = [[c for c in _column(run, "cost") if math.isfinite(c)] for run in runs]
    known = [own for own in costs if own]
    if not known:
        return 1.0, math.inf, math.inf
    low, highest = min(map(min, known)), max(map(max, known))
    usual = max(float(np.quantile(own[len(own) // 4 :], 0.95)) for own in known)
    is_peaked = highest - low > 3 * (usual - low)
    return low, usual + 0.05 * (usual - low) if is_peaked else highest, highest


def _distances(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield how far several runs are from the lowest cost, which tells them apart."""
    lowest = {run.name: np.fmin.accumulate(_column(run, "cost")) for run in runs}
    known = [run for run in runs if np.isfinite(lowest[run.name][-1:]).any()]
    if len(known) < 2:
        return
    best: dict[str, float] = {}
    for run in known:
        key, end = _objective(run), float(lowest[run.name][-1])
        best[key] = min(end, best.get(key, math.inf))
    lines = tuple(
        Line(
            run.name,
            _column(run, "evaluation"),
            (lowest[run.name] - best[_objective(run)]).tolist(),
            place,
        )
        for place, run in enumerate(known)
    )
    drawn = Chart(
        lines,
        "evaluations of the cost",
        "cost above the lowest",
        "Distance from the lowest cost over evaluations of the cost",
        y_log=True,
    )
    yield Figure(
        "cost-distance",
        "Distance from the lowest cost",
        "The lowest cost so far, minus the lowest that any of these runs with the same "
        "data, hidden units and weights of the terms has reached, over evaluations of "
        "the cost, on a logarithmic scale; the run that has reached it ends there.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def _objective(run: Run) -> str:
    """Return all that must be equal for costs to be comparable."""
    keys = (
        *("weight_decay", "sparsity_weight", "sparsity_target"),
        *("hidden", "activation", "output"),
    )
    config, digest = run.section("sparse"), run.section("data").get("digest")
    return repr(([config.get(key) for key in keys], digest))


def _column(run: Run, key: str) -> list[float]:
    return [number(line.get(key)) for line in run.evaluations]


def _filters(run: Run, name: str) -> Iterator[Part]:
    """Yield what each hidden unit responds to most. Figure 2.3.1 of the paper."""
    if run.weights is None:
        yield note("There is no checkpoint yet, so there are no filters.")
        return
    images = as_images(filters(run.weights).reshape(run.weights.shape[1], -1), run)
    if images is None:
        return
    columns = math.ceil(math.sqrt(len(images)))
    yield Figure(
        f"filters-{name}",
        "Filters",
        f"The input of norm 1 that each of the {len(images)} hidden units responds to "
        f"most, {images.shape[1]} × {images.shape[2]} pixels; grey is 0, each tile has "
        "its own scale.",
        (
            Picture(
                figures.tiles(images, columns, signed=True),
                f"Filters of {len(images)} hidden units of {run.name}, in grey",
            ),
        ),
    )


def _firing(run: Run, name: str) -> Iterator[Part]:
    """Yield how often each unit fires, against the target."""
    values = sorted(map(number, listing(run.summary.get("mean_activations"))))
    if not values:
        yield note("Firing probabilities are known when the run has come to its end.")
        return
    target = number(run.section("sparse").get("sparsity_target"))
    units = list(range(1, len(values) + 1))
    drawn = Chart(
        (Line("units", units, values, joined=False),),
        "hidden units, in order of their probability",
        "firing probability",
        f"Firing probability of each hidden unit of {run.name}, and the target",
        y_log=True,
        levels=((f"target ρ = {short(target)}", target),),
        whole=True,
    )
    yield Figure(
        f"firing-{name}",
        "Firing probabilities",
        "Mean over all rows of the probability that a hidden unit fires, a marker a "
        "unit, on a logarithmic scale, against the target that the sparsity term pulls "
        "it to.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )
