"""Errors of deep runs over time and epochs."""

import math
from collections.abc import Iterator, Sequence

from mpilayer.report import figures
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import Figure, Picture
from mpilayer.report.run import Run, number
from mpilayer.report.words import ERROR, at, finetunings

_LOG_FROM = 6.0
_SPLITS = {"validation": "validation_error", "train": "train_loss"}


def stack_curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the unrolled stack's error over time: Figure 6 of Santara et al. 2016."""
    lines = []
    for place, run in enumerate(runs):
        points = list(_stack_points(run))
        if points:
            x, y = zip(*points, strict=True)
            lines.append(Line(run.name, x, y, place))
    if not lines:
        return
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
        levels=_pca(runs),
    )
    yield Figure(
        "stack-error",
        "Error of the unrolled stack",
        f"Reconstruction error of validation rows ({ERROR}) over the seconds of "
        f"{what}{then}.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def finetuning_curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the autoencoder's errors over the epochs of fine-tuning, beside PCA's.

    Where that of the training rows goes on falling and that of the validation rows
    rises, the stack over-fits.
    """
    tuned = [run for run in runs if run.finetune]
    lines = [
        Line(f"{run.name}, {split}", *points, place, bare=split == "train")
        for place, run in enumerate(tuned)
        for split in _SPLITS
        if (points := _finetune_points(run, split))[0]
    ]
    if not lines:
        return
    drawn = Chart(
        tuple(lines),
        "epochs of fine-tuning",
        "reconstruction error",
        "Training and validation error over the epochs of fine-tuning, for "
        f"{_names(tuned)}",
        whole=True,
        levels=_pca(tuned),
    )
    yield Figure(
        "finetuning",
        "Fine-tuning",
        f"Reconstruction error ({ERROR}) over the epochs of fine-tuning; at 0 the "
        "pre-trained stack. Validation: after the epoch. Training, thin: the mean over "
        f"the epoch's minibatches, as met on the way.{_left_out(tuned)} "
        f"{finetunings(tuned)}.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def _pca(runs: Sequence[Run]) -> tuple[tuple[str, float], ...]:
    """Return PCA's errors of validation rows; of many different ones the first two."""
    found = {
        f"{value:.6g}": (f"PCA, {run.name}", value)
        for run in reversed(runs)
        if math.isfinite(value := number(at(run.summary, "pca", "validation")))
    }
    levels = list(reversed(found.values()))[:2]
    return tuple(levels) if len(levels) > 1 else tuple(("PCA", v) for _, v in levels)


def _left_out(runs: Sequence[Run]) -> str:
    """Say whose training error is not known."""
    missing = [run.name for run in runs if not _finetune_points(run, "train")[0]]
    if not missing:
        return ""
    return (
        f" That of {', '.join(missing)} is left out: it was not recorded, or is cross "
        "entropy, another measure."
    )


def _finetune_points(run: Run, split: str) -> tuple[list[float], list[float]]:
    """Return epochs of fine-tuning and the errors of a split, nothing if unknown."""
    config = run.section("finetune")
    errors = [number(line.get(_SPLITS[split])) for line in run.finetune]
    is_other = split == "train" and config.get("loss", "squared") != "squared"
    if is_other or not any(map(math.isfinite, errors)):
        return [], []
    # The error of random weights is not measured.
    start = {} if config.get("from_scratch") else at(run.summary, "pretrained")
    return (
        [0.0, *(number(line.get("epoch")) for line in run.finetune)],
        [number(at(start, split)), *errors],
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


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs)
