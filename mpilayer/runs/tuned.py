"""What fine-tuning has reached: the summary, and what its user should hear."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpilayer.models.stack import Predictor
from mpilayer.runs.advice import (
    after_finetuning,
    costly_allreduce,
    no_better_than_always,
    over_fits,
    worse_than_pca,
)
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import run_shapes
from mpilayer.runs.rows import always_of, confusion_of, errors_of
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import TASKS
from mpilayer.train.finetune import FinetuneState


def summarize(
    directory: RunDirectory,
    state: FinetuneState,
    data: Path,
    session: Session,
    epochs: Sequence[Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """Measure the trained model; return its part of the summary. Collective.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    state : FinetuneState
        At its end.
    data : Path
        The data set.
    session : Session
        The ranks.
    epochs : sequence of mapping
        The lines of metrics of all epochs.
    seconds : float
        Of training.
    """
    config, name = state.config, TASKS[state.config.task].name
    parts = ("training", "allreduce", "evaluating")
    times = {part: sum(line[part] for line in epochs) for part in parts}
    costly = costly_allreduce(
        times["allreduce"],
        seconds,
        session.comm.size,
        f"minibatches of {config.minibatch} rows",
    )
    if costly:
        session.say(f"warning: {costly}")
    if isinstance(state.stack, Predictor):
        errors = _prediction_errors(state, state.stack, data, session)
    else:
        errors = _errors(directory, state, data, session)
    return {
        # Keys of pre-training stay; those of this step are told apart by their prefix.
        **{f"{name}_{k}": v for k, v in session.facts().items()},
        f"{name}_seconds": seconds,
        f"{name}_optimizer": config.optimizer,
        f"{name}_epochs": state.epoch,
        f"{name}_best_epoch": state.best_epoch,
        **{f"{name}_{part}": value for part, value in times.items()},
        **errors,
    }


def _errors(
    directory: RunDirectory, state: FinetuneState, data: Path, session: Session
) -> dict[str, Any]:
    """Return the errors of the autoencoder. Collective."""
    comm = session.comm
    errors = errors_of(state.stack, data, comm)

    def advise() -> str:
        pca = directory.read_summary().get("pca") or {}
        remedies = after_finetuning(
            state.config,
            run_shapes(directory)[0],
            state.epoch,
            state.best_epoch,
            over_fits(errors, pca),
        )
        return worse_than_pca("fine-tuned", state.stack.shapes, errors, pca, remedies)

    worse = comm.on_root(advise)
    if worse:
        session.say(f"warning: {worse}")
    return {
        **{f"{split}_error": error for split, error in errors.items()},
        "finetuned": errors,
        "worse_than_pca": worse,
    }


def _prediction_errors(
    state: FinetuneState, model: Predictor, data: Path, session: Session
) -> dict[str, Any]:
    """Return the errors of a predictor. Collective."""
    comm, task = session.comm, TASKS[state.config.task]
    errors = errors_of(model, data, comm)
    usual = always_of(data, model.classes, comm)
    worse = no_better_than_always(
        task.model,
        errors,
        errors_of(usual, data, comm),
        state.config,
        state.epoch,
    )
    if worse:
        session.say(f"warning: {worse}")
    found = {f"{task.name}_error": errors, f"{task.name}_no_better": worse}
    if not len(model.classes):
        return found
    split = "train" if errors["test"] is None else "test"
    table = confusion_of(model, data, split, comm)
    return {**found, **table, "confusion_split": split}
