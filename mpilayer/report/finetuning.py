"""What a report shows of unrolled stacks, and of classifiers and regressors."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mpilayer.report import words
from mpilayer.report.figures import Chart, Line, is_wide
from mpilayer.report.html import Figure, Markup, Part, element, table
from mpilayer.report.run import PREDICTORS, Run, listing, number

_KEYS = {"validation": "validation_error", "train": "train_loss"}
_ERRORS = {
    "classify": "wrong classes, percent",
    "regress": "root mean square error of the labels",
}
_LOSSES = {
    "classify": "cross entropy of the training rows, mean over rows",
    "regress": "squared error of the training rows, mean over rows",
}


def stack_curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the unrolled stack's error over time: Figure 6 of Santara et al. 2016."""
    lines = []
    for place, run in enumerate(runs):
        if points := list(_stack_points(run)):
            x, y = zip(*points, strict=True)
            lines.append(Line(run.name, x, y, place))
    if not lines:
        return
    pretrained = [run for run in runs if run.metrics["stack"]]
    what = "pre-training" if pretrained else "fine-tuning"
    if any(run.metrics["finetune"] for run in pretrained):
        what += ", then fine-tuning"
    values = [value for line in lines for value in line.y if value > 0]
    y_log = bool(values) and is_wide(min(values), max(values))
    title = "Error of the unrolled stack"
    says = (
        f"Reconstruction error of validation rows ({words.ERROR}) over the seconds of "
        f"{what}."
    )
    about = ("stack-error", title, says, lines)
    axes = ("seconds of training", "error on validation rows")
    alt = f"{title} over seconds, for {words.names(runs)}"
    yield Chart(*about, *axes, alt, y_log=y_log, levels=_pca(runs)).figure()


def finetuning_curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield errors over the epochs of fine-tuning, which tell of over-fitting."""
    tuned = [run for run in runs if run.metrics["finetune"]]
    lines, missing = [], []
    for place, run in enumerate(tuned):
        for split in _KEYS:
            x, y = _finetune_points(run, split)
            if x:
                label = f"{run.name}, {split}"
                lines.append(Line(label, x, y, place, bare=split == "train"))
            elif split == "train":
                missing.append(run)
    if not lines:
        return
    left_out = (
        f" That of {words.names(missing)} is left out: it was not recorded, or is "
        "cross entropy, another measure."
    )
    says = (
        f"Reconstruction error ({words.ERROR}) over the epochs of fine-tuning; at 0 "
        "the pre-trained stack. Validation: after the epoch. Training, thin: the mean "
        "over the epoch's minibatches, as met on the way."
        f"{left_out if missing else ''} {words.finetunings(tuned)}."
    )
    title, axes = "Fine-tuning", ("epochs of fine-tuning", "reconstruction error")
    alt = f"Training and validation error over the {axes[0]}, for {words.names(tuned)}"
    about = ("finetuning", title, says, lines)
    yield Chart(*about, *axes, alt, whole=True, levels=_pca(tuned)).figure()


def _pca(runs: Sequence[Run]) -> dict[str, float]:
    """Return PCA's errors of validation rows; of many different ones the first two."""
    found: dict[str, tuple[str, float]] = {}
    for run in runs:
        value = number(words.at(run.summary, "pca", "validation"))
        if math.isfinite(value):
            found.setdefault(f"{value:.6g}", (f"PCA, {run.name}", value))
    levels = list(found.values())[:2]
    return {"PCA": levels[0][1]} if len(levels) == 1 else dict(levels)


def _finetune_points(run: Run, split: str) -> tuple[list[float], list[float]]:
    """Return epochs of fine-tuning and the errors of a split, nothing if unknown."""
    config = run.section("finetune")
    errors = run.column("finetune", _KEYS[split])
    is_other = split == "train" and config.get("loss", "squared") != "squared"
    if is_other or not any(map(math.isfinite, errors)):
        return [], []
    # The error of random weights is not measured.
    start = {} if config.get("from_scratch") else words.at(run.summary, "pretrained")
    epochs = run.column("finetune", "epoch")
    return [0.0, *epochs], [number(words.at(start, split)), *errors]


def _stack_points(run: Run) -> Iterator[tuple[float, float]]:
    """Yield seconds and error of the stack, in pre-training and then fine-tuning."""
    for line in run.metrics["stack"]:
        yield number(line.get("seconds")), number(line.get("validation_error"))
    now = number(run.summary.get("pretrain_seconds"))
    if not run.metrics["finetune"] or not math.isfinite(now):
        return
    yield now, number(words.at(run.summary, "pretrained", "validation"))
    for line in run.metrics["finetune"]:
        now += sum(number(line.get(k)) for k in ("training", "allreduce", "evaluating"))
        yield now, number(line.get("validation_error"))


def predictions(runs: Sequence[Run]) -> Iterator[Part]:
    """Yield errors of classifiers, what they confuse, errors of regressors; curves."""
    for task, kind in PREDICTORS.items():
        some = [run for run in runs if run.metrics[task]]
        if some:
            yield _errors_table(some, task)
            yield from _curves(some, task, kind)
        if task == "classify":
            yield from (matrix for run in runs for matrix in confusion(run))


def _errors_table(runs: Sequence[Run], task: str) -> Markup:
    rows = []
    for run in runs:
        errors = (
            words.digits(words.label_error(run, task, split)) for split in words.SPLITS
        )
        best = words.short(run.summary.get(f"{task}_best_epoch"), ".0f")
        took = words.seconds(run.summary.get(f"{task}_seconds"))
        rows.append([run.name, *errors, best, took])
    return table(
        f"{PREDICTORS[task].capitalize()}s: {_ERRORS[task]}. A dash: training has not "
        f"come to its end, or there are no such rows. {words.finetunings(runs, task)}.",
        ("", *words.SPLITS, "best epoch", "training"),
        rows,
    )


def _curves(runs: Sequence[Run], task: str, kind: str) -> Iterator[Figure]:
    """Yield the training loss and the error of validation rows over epochs."""
    error = _ERRORS[task]
    loss = f"{_LOSSES[task]}, as met in training"
    measured = f"{error}, of the validation rows"
    for word, what, key, axis, says in (
        ("loss", "training", "train_loss", "training loss", loss),
        ("error", "validation", "validation_error", error, measured),
    ):
        lines = []
        for place, run in enumerate(runs):
            values = run.column(task, key)
            if word == "error":
                values = [words.in_units(task, value) for value in values]
            lines.append(Line(run.name, run.column(task, "epoch"), values, place))
        if not any(math.isfinite(value) for line in lines for value in line.y):
            continue
        says = f"{says[0].upper()}{says[1:]}"
        title, axes = f"{kind.capitalize()}s, {what}", (f"epochs of the {kind}", axis)
        about = (f"{task}-{word}", title, f"{says}, after each epoch.", lines)
        alt = f"{says}, over epochs"
        yield Chart(*about, *axes, alt, whole=True, from_zero=True).figure()


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
    labels = list(map(str, classes if len(classes) == n else range(n)))
    split = run.summary.get("confusion_split")
    of = f"{split} " if split in words.SPLITS else ""
    wrong = 1 - counts.trace() / total
    rows = [
        [label, *(_cell(value, most, i == j) for j, value in enumerate(matrix[i]))]
        for i, label in enumerate(labels)
    ]
    title = (
        f"Confusion matrix of {run.name}: {of}rows of each true class by the class "
        f"they were taken for (columns); {words.percent(100 * wrong)} of {total:,.0f} "
        "are wrong. Right answers are framed."
    )
    yield table(title, ("true class", *labels), rows, class_="confusion")


def _cell(value: float, most: float, right: bool) -> Markup:
    share = round(100 * (value / most) ** 0.5) // 2 if math.isfinite(value) else 0
    shade = f"background:color-mix(in srgb,var(--c0) {share}%,transparent)"
    shown = words.short(value, ",.0f")
    return element("td", shown, style=shade, class_="right" if right else "")
