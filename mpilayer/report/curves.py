"""Errors of deep runs over time and epochs."""

import math
from collections.abc import Iterator, Sequence

from mpilayer.report import figures
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import Figure, Picture
from mpilayer.report.run import Run, number
from mpilayer.report.words import ERROR, at, each, finetunings

_LOG_FROM = 6.0


def stack_curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the unrolled stack's error over time: Figure 6 of Santara et al. 2016."""
    lines, levels, drawn_runs = [], [], []
    for place, run in enumerate(runs):
        points = list(_stack_points(run))
        if points:
            drawn_runs.append(run)
            x, y = zip(*points, strict=True)
            lines.append(Line(run.name, x, y, place))
            if math.isfinite(pca := number(at(run.summary, "pca", "validation"))):
                levels.append((f"PCA, {run.name}", pca))
    if not lines:
        return
    different = {f"{v:.6g}": (label, v) for label, v in levels}
    levels = list(different.values())[:2]
    if len(different) == 1:
        levels = [("PCA", levels[0][1])]
    what = "pre-training" if any(run.stack for run in runs) else "fine-tuning"
    then = (
        ", then fine-tuning" if any(run.finetune and run.stack for run in runs) else ""
    )
    values = [value for line in lines for value in line.y if value > 0]
    drawn = Chart(
        tuple(lines),
        "seconds of training",
        "error on validation rows",
        f"Error of the unrolled stack over seconds, for {_names(runs)}",
        y_log=bool(values) and max(values) > _LOG_FROM * min(values),
        levels=tuple(levels),
    )
    yield Figure(
        "stack-error",
        "Error of the unrolled stack",
        f"Reconstruction error of validation rows ({ERROR}) over the seconds of "
        f"{what}{then}; {each(drawn_runs)}.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def finetuning_curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the autoencoder's error over the epochs of fine-tuning."""
    epochs = [
        Line(run.name, *_finetune_epochs(run), place)
        for place, run in enumerate(runs)
        if run.finetune
    ]
    if not epochs:
        return
    drawn = Chart(
        tuple(epochs),
        "epochs of fine-tuning",
        "error on validation rows",
        f"Validation error over the epochs of fine-tuning, for {_names(runs)}",
        whole=True,
    )
    yield Figure(
        "finetuning",
        "Fine-tuning",
        f"Reconstruction error of validation rows ({ERROR}) after each epoch of "
        "fine-tuning; at 0 the pre-trained stack; "
        f"{finetunings([run for run in runs if run.finetune])}.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def _stack_points(run: Run) -> Iterator[tuple[float, float]]:
    """Yield seconds and error of the stack, in pre-training and then fine-tuning."""
    for line in run.stack:
        yield number(line.get("seconds")), number(line.get("validation_error"))
    now = number(run.summary.get("pretrain_seconds"))
    if not run.finetune or not math.isfinite(now):
        return
    yield now, number(at(run.summary, "pretrained", "validation"))
    for line in run.finetune:
        parts = (number(line.get(k)) for k in ("training", "allreduce", "evaluating"))
        now += sum(parts)
        yield now, number(line.get("validation_error"))


def _finetune_epochs(run: Run) -> tuple[list[float], list[float]]:
    x = [0.0, *(number(line.get("epoch")) for line in run.finetune)]
    y = [
        number(at(run.summary, "pretrained", "validation")),
        *(number(line.get("validation_error")) for line in run.finetune),
    ]
    return x, y


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs)
