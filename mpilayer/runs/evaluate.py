"""A run's model on the rows of a data set, beside what it must beat. Collective."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.data.dataset import SPLITS, Dataset
from mpilayer.models.stack import Predictor, Stack
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import shard_bounds
from mpilayer.runs.advice import Errors
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import chosen_task, load_model
from mpilayer.runs.rows import check_labels, check_like, labelled_splits, read_labels
from mpilayer.runs.session import Session, finite
from mpilayer.runs.tasks import data_to_use, training_data
from mpilayer.train import evaluate as over_ranks
from mpilayer.train.evaluate import PCA, Always

Model: TypeAlias = Stack | PCA | Always
"""What has an error: a run's model, or what it must beat."""

# Rows of a block: ranks get whole ones, and so about equal shares also of a few rows.
_BLOCK = 500


def evaluate(
    run: Path,
    split: str,
    session: Session,
    data: Path | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """Return the errors of a run on one split. Collective.

    The ``data`` are by default those of the run, the ``task``, one of ``TASKS``, what
    was trained last.

    Returns
    -------
    dict
        ``model``, ``n_samples`` and more, and ``error``: of an autoencoder Σ over
        columns, mean over rows; of a classifier in percent, with ``confusion_of`` and
        ``errors``; of a regressor the root mean square one. Beside it that of what must
        be beaten, None where the training rows of the run are not at hand:
        ``pca_error`` of as many components as the code has units, or ``always_error``
        of what predicts the same for all rows.
    """
    comm, directory = session.comm, RunDirectory(run)
    chosen = comm.on_root(lambda: chosen_task(run, task))
    kind, model = comm.everywhere(lambda: load_model(directory, chosen))
    path = comm.on_root(lambda: data_to_use(directory, data))

    def check() -> dict[str, Any]:
        with Dataset.open(path) as dataset:
            n_samples = dataset.n_samples(split)
            check_like(dataset, model, directory)
            if isinstance(model, Predictor):
                check_labels(dataset, split, model.classes)
            return {"split": split, "n_samples": n_samples, "data": dataset.name}

    about = {**comm.everywhere(check), "model": kind}
    train = comm.on_root(lambda: training_data(directory, path))
    if train is None and not isinstance(model, Predictor):
        session.say(
            "PCA is left out: it needs the training rows of the run, and its data set "
            "is not where it was"
        )
    both = beside_rival(model, path, train, session, (split,))
    error, usual = (found[split] for found in both)
    if not isinstance(model, Predictor):
        about["n_code"] = model.shapes[-1].n_hidden
        return {**about, "error": error, "pca_error": usual}
    if not len(model.classes):
        return {**about, "error": _root(error), "always_error": _root(usual)}
    table = confusion_of(model, path, split, comm)
    counts = np.array(table["confusion"])
    errors = int(counts.sum() - counts.trace())
    return {**about, "error": error, "always_error": usual, "errors": errors, **table}


def _root(error: float | None) -> float | None:
    return None if error is None else math.sqrt(error)


def beside_rival(
    model: Stack,
    data: Path,
    train: Path | None,
    session: Session,
    splits: Sequence[str] = SPLITS,
) -> tuple[Errors, Errors]:
    """Return the errors of a model, and of what it must beat, on data. Collective.

    That is PCA or what predicts the same for all rows, by the training rows of
    ``train``: without them, or with too many columns, there is none.
    """
    rival = None if train is None else _rival(model, train, session)
    mine, others = (
        errors_of(judged, data, session.comm, splits) for judged in (model, rival)
    )
    return mine, others


def errors_of(
    model: Model | None, data: Path, comm: Communicator, splits: Sequence[str] = SPLITS
) -> Errors:
    """Return the error of each split; None without such rows, labels, or a model.

    Of autoencoders and PCA Σ over columns of (x − x̂)², mean over rows; of classifiers
    in percent; of regressors the squared one, mean over rows. Collective; every rank
    reads its own rows.
    """
    if model is None:
        return dict.fromkeys(splits)
    with Dataset.open(data) as dataset:
        predicts = isinstance(model, Predictor | Always)
        known = labelled_splits(dataset) if predicts else dataset.splits
        errors = {s: _error(model, dataset, s, comm) for s in splits if s in known}
    return {split: finite(errors.get(split, math.nan)) for split in splits}


def confusion_of(
    model: Predictor, data: Path, split: str, comm: Communicator
) -> dict[str, Any]:
    """Return ``classes``, labels or their names, and ``confusion``; collective.

    That is the rows of each class, down, by the predicted class, across.
    """
    with Dataset.open(data) as dataset:
        blocks = _labelled_blocks(dataset, split, model.classes, comm)
        counts = over_ranks.confusion(model, blocks, comm)
        classes = dataset.preparation.names(model.classes)
    return {"classes": classes, "confusion": counts.astype(int).tolist()}


def local_blocks(dataset: Dataset, split: str, comm: Communicator) -> Iterator[Array32]:
    """Yield this rank's contiguous rows of a split, whole blocks of all of them."""
    return (dataset.rows(split, *where) for where in _ranges(dataset, split, comm))


def _labelled_blocks(
    dataset: Dataset, split: str, classes: AnyArray, comm: Communicator
) -> Iterator[over_ranks.Block]:
    """Yield the same rows with their targets."""
    for where in _ranges(dataset, split, comm):
        labels = read_labels(dataset, split, *where)
        yield dataset.rows(split, *where), over_ranks.targets(labels, classes)


def _ranges(
    dataset: Dataset, split: str, comm: Communicator
) -> Iterator[tuple[int, int]]:
    # Whole blocks, the same for any number of ranks: so errors are, too.
    blocks = row_blocks(dataset.n_samples(split), _BLOCK)
    first, last = shard_bounds(len(blocks), comm.size)[comm.rank]
    for block in blocks[first:last]:
        yield block.start, block.stop


def _error(model: Model, dataset: Dataset, split: str, comm: Communicator) -> float:
    if isinstance(model, Predictor | Always):
        blocks = _labelled_blocks(dataset, split, model.classes, comm)
        return over_ranks.prediction_error(model, blocks, comm)
    rows = local_blocks(dataset, split, comm)
    if isinstance(model, PCA):
        return model.error(rows, comm)
    return over_ranks.reconstruction_error(model, rows, comm)


def _rival(model: Stack, train: Path, session: Session) -> PCA | Always | None:
    """Return what a model must beat; None, and a word, where that takes too long."""
    comm = session.comm
    with comm.everywhere(lambda: Dataset.open(train)) as dataset:
        if isinstance(model, Predictor):
            classes = model.classes
            return comm.everywhere(
                lambda: Always(read_labels(dataset, "train"), classes)
            )
        shape = dataset.n_samples("train"), dataset.n_visible
        if PCA.fits(*shape):
            n_components = model.shapes[-1].n_hidden
            return PCA(local_blocks(dataset, "train", comm), shape, n_components, comm)
    session.say(
        f"PCA of {shape[0]} rows with {shape[1]} columns would take too long: "
        "its error is left out"
    )
    return None
