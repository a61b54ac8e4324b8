"""What a report shows of classifiers and regressors."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mpilayer.report import figures
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import (
    Figure,
    Markup,
    Part,
    Picture,
    captioned,
    element,
    table,
)
from mpilayer.report.run import PREDICTORS, Run, listing, number
from mpilayer.report.words import (
    digits,
    finetunings,
    in_units,
    label_error,
    percent,
    seconds,
    short,
)

_SPLITS = ("train", "validation", "test")
_ERRORS = {
    "classify": "wrong classes, percent",
    "regress": "root mean square error of the labels",
}
_LOSSES = {
    "classify": "cross entropy of the training rows, mean over rows",
    "regress": "squared error of the training rows, mean over rows",
}
_TITLES = {"classify": "Classifiers", "regress": "Regressors"}


def predictions(runs: Sequence[Run]) -> Iterator[Part]:
    """Yield the errors of classifiers, then of regressors, and how they came about.

    After those of classifiers, which classes are taken for which.
    """
    for task, kind in PREDICTORS.items():
        some = [run for run in runs if task in run.predictors]
        if some:
            yield _errors_table(some, task)
            yield from _curves(some, task, kind)
        if task == "classify":
            yield from (matrix for run in runs for matrix in confusion(run))


def _errors_table(runs: Sequence[Run], task: str) -> Markup:
    rows = []
    for run in runs:
        errors = [label_error(run, task, split) for split in _SPLITS]
        cells = [
            *map(digits, errors),
            short(run.summary.get(f"{task}_best_epoch"), ".0f"),
            seconds(run.summary.get(f"{task}_seconds")),
        ]
        rows.append([run.name, *cells])
    return table(
        f"{_TITLES[task]}: {_ERRORS[task]}. A dash: training has not come to its end, "
        f"or there are no such rows. {finetunings(runs, task)}.",
        ("", *_SPLITS, "best epoch", "training"),
        rows,
    )


def _curves(runs: Sequence[Run], task: str, kind: str) -> Iterator[Figure]:
    """Yield the error of validation rows and the training loss over epochs."""
    what = {
        "train_loss": ("loss", f"{_LOSSES[task]}, as met in training"),
        "validation_error": ("error", f"{_ERRORS[task]}, of the validation rows"),
    }
    for key, (word, says) in what.items():
        lines = tuple(
            Line(run.name, _column(run, task, "epoch"), _column(run, task, key), place)
            for place, run in enumerate(runs)
        )
        if not any(math.isfinite(value) for line in lines for value in line.y):
            continue
        is_loss = key == "train_loss"
        drawn = Chart(
            lines,
            f"epochs of the {kind}",
            "training loss" if is_loss else _ERRORS[task],
            f"{says[0].upper()}{says[1:]}, over epochs",
            whole=True,
            from_zero=True,
        )
        yield Figure(
            f"{task}-{word}",
            f"{_TITLES[task]}, {'training' if is_loss else 'validation'}",
            f"{says[0].upper()}{says[1:]}, after each epoch.",
            (Picture(figures.chart(drawn), drawn.alt),),
        )


def _column(run: Run, task: str, key: str) -> list[float]:
    values = [number(line.get(key)) for line in run.predictors[task]]
    is_error = key == "validation_error"
    return [in_units(task, value) for value in values] if is_error else values


def confusion(run: Run) -> Iterator[Markup]:
    """Yield a classifier's confusion matrix, if the run has one."""
    matrix = [
        [number(value) for value in listing(row)]
        for row in listing(run.summary.get("confusion"))
    ]
    n = len(matrix)
    if not n or any(len(row) != n for row in matrix):
        return
    counts = np.nan_to_num(np.array(matrix))
    total, most = counts.sum() or 1.0, counts.max() or 1.0
    classes = listing(run.summary.get("classes"))
    names = list(map(str, classes if len(classes) == n else range(n)))
    head = [element("th", name, scope="col") for name in ("true class", *names)]
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(_cell(value, most, i == j) for j, value in enumerate(matrix[i])),
        )
        for i, name in enumerate(names)
    ]
    wrong = 1 - counts.trace() / total
    title = (
        f"Confusion matrix of {run.name}: {_split(run)}rows of each true class by the "
        f"class they were taken for (columns); {percent(100 * wrong)} of {total:,.0f} "
        "are wrong. Right answers are framed."
    )
    top = element("thead", element("tr", *head))
    inner = element("table", top, element("tbody", *body), aria_label=title)
    yield captioned(title, inner, "confusion")


def _split(run: Run) -> str:
    found = run.summary.get("confusion_split")
    return f"{found} " if found in _SPLITS else ""


def _cell(value: float, most: float, right: bool) -> Markup:
    share = round(100 * (value / most) ** 0.5) // 2 if math.isfinite(value) else 0
    shade = f"background:color-mix(in srgb,var(--c0) {share}%,transparent)"
    return element(
        "td", short(value, ",.0f"), style=shade, class_="right" if right else ""
    )
