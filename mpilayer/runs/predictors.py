"""Using a run's classifier or regressor: errors, and its encoder."""

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError
from mpilayer.models.stack import Predictor, Stack
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import load_trained, run_shapes, warn_if_unfinished
from mpilayer.runs.rows import (
    always_of,
    check_labels,
    check_like,
    confusion_of,
    errors_of,
)
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import (
    TASKS,
    Task,
    begun_last,
    data_to_use,
    trained_last,
    training_data,
)
from mpilayer.store import checkpoint


def chosen_task(run: Path, name: str | None) -> Task | None:
    """Return the task whose predictor is to be used, None for the autoencoder. Local.

    Parameters
    ----------
    run : Path
        Directory of the run.
    name : str, optional
        One of ``TASKS``; by default what was trained last.

    Raises
    ------
    CheckpointError
        There is no run, or it has no such predictor.

    Warns
    -----
    UnfinishedWarning
        One was begun last, but nothing of it is saved yet.
    """
    directory = RunDirectory.open(run)
    task = trained_last(directory) if name is None else TASKS[name]
    begun = begun_last(directory) if name is None else None
    if begun and begun.model != "finetuned" and not begun.is_trained(directory):
        warn_if_unfinished(directory, begun)
    if task is None or task == TASKS["autoencode"]:
        return None
    if not task.is_trained(directory):
        raise CheckpointError(
            f"{run} must have a {task.model}; it has none. Train one with 'mpilayer "
            f"finetune {run} --task {task.name}'."
        )
    return task


def chosen_model(directory: RunDirectory, name: str | None) -> tuple[str, Stack]:
    """Return the model that is to be used, and what it is called. Local.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    name : str, optional
        As for ``chosen_task``.

    Returns
    -------
    str, Stack
        ``classifier``, ``regressor``, or a name that ``load_trained`` gives.

    Raises
    ------
    CheckpointError
        There is none, or it is damaged.
    """
    if task := chosen_task(directory.path, name):
        return task.model, load_predictor(directory, task)
    return load_trained(directory)


def load_predictor(directory: RunDirectory, task: Task) -> Predictor:
    """Return a run's classifier or regressor, with its best weights. Local.

    Raises
    ------
    CheckpointError
        It is missing or damaged.
    """
    path = directory.checkpoint(task.model)
    arrays = checkpoint.load_for_use(path)
    warn_if_unfinished(directory, task)
    if "classes" not in arrays:
        raise CheckpointError(
            f"{path} must say which classes there are; it does not. Restore it, or "
            "train again."
        )
    model = Predictor(run_shapes(directory)[1], arrays["classes"])
    for name, view in model.parameters.items():
        checkpoint.fill(view, arrays, f"best/{name}", path)
    return model


def evaluate_predictor(
    run: Path, split: str, session: Session, data: Path | None, task: Task
) -> dict[str, Any]:
    """Return how well a run's predictor does on one split.

    Parameters
    ----------
    run, split, session, data
        As for ``evaluate``. Collective on all ranks.
    task : Task
        Which predictor.

    Returns
    -------
    dict
        Of a classifier: ``error`` in percent, ``errors``, ``classes`` (labels, or their
        names) and ``confusion``
        (rows of each class, down, by the predicted class, across). Of a regressor:
        ``error``, the root mean square one. Of both: ``always_error``, that of what
        predicts the same for all rows by the training labels of the run (None where
        they are not at hand), ``model``, ``n_samples`` and more.

    Raises
    ------
    MpilayerError
        On every rank: no such split, no labels, or labels that training had not.
    """
    comm = session.comm

    model = comm.everywhere(lambda: load_predictor(RunDirectory.open(run), task))
    path = comm.on_root(lambda: data_to_use(RunDirectory(run), data))

    def check() -> None:
        with Dataset.open(path) as dataset:
            check_like(dataset, model, RunDirectory(run))
            check_labels(dataset, split, model.classes)

    comm.everywhere(check)
    with Dataset.open(path) as dataset:
        about = {
            "split": split,
            "n_samples": dataset.n_samples(split),
            "model": task.model,
            "data": dataset.name,
        }
    train = comm.on_root(lambda: training_data(RunDirectory(run), path))
    usual = None if train is None else always_of(train, model.classes, comm)
    error, always = (
        errors_of(judged, path, comm, (split,))[split] for judged in (model, usual)
    )
    if not len(model.classes):
        root = {
            k: v and sqrt(v) for k, v in (("error", error), ("always_error", always))
        }
        return {**about, **root}
    table = confusion_of(model, path, split, comm)
    counts = np.array(table["confusion"])
    return {
        **about,
        "always_error": always,
        "error": error,
        "errors": int(counts.sum() - counts.trace()),
        **table,
    }
