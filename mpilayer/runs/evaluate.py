"""A run's model beside what it must beat, and what may help if it does not."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.config import FinetuneConfig, PretrainConfig, per_layer
from mpilayer.data.dataset import Dataset
from mpilayer.data.split import SPLITS
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import Predictor, Stack
from mpilayer.optim.course import BY_THE_END
from mpilayer.optim.minibatch import DEFAULT_RATES
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.rows import (
    check_labels,
    check_like,
    data_to_use,
    labelled_splits,
    read_labels,
    training_data,
)
from mpilayer.runs.session import Session, finite
from mpilayer.runs.tasks import chosen_task, load_model
from mpilayer.train import evaluate as over_ranks
from mpilayer.train.evaluate import PCA, Always

Errors: TypeAlias = Mapping[str, float | None]
"""Split to the error on it, None where there is none."""

ALWAYS = {
    "classifier": "always the most frequent class",
    "regressor": "always the mean",
}
"""What predicts the same for all rows, by the predictor that must beat it."""

Model: TypeAlias = Stack | PCA | Always
"""What has an error: a run's model, or what it must beat."""

# Rows of a block: ranks get whole ones, and so about equal shares also of a few rows.
_BLOCK = 500
# A linear code's learning rate: no sigmoid bounds it.
_LINEAR_RATE = 0.005
# Times the learning rate that is worth a try where training was too slow.
_FASTER = 3
# Part of another error below which one is more than a hair's breadth better.
_CLEARLY = 0.99

_DECAYS = "--dropout or --weight-decay"
_AGAINST_OVERFITTING = (
    "more training rows",
    f"{_DECAYS}, with --replace",
    "fewer units",
)


def evaluate(
    run: Path,
    split: str,
    session: Session,
    data: Path | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """Return the errors of a run on one split. Collective.

    The ``data`` are by default those of the run, the ``task``, one of ``TASKS``, what
    was trained last. Returns ``model``, ``n_samples`` and more, and ``error``: of an
    autoencoder Σ over columns, mean over rows; of a classifier in percent, with
    ``confusion_of`` and ``errors``; of a regressor the root mean square one. Beside it
    that of what must be beaten, None where the training rows of the run are not at
    hand: ``pca_error`` of as many components as the code has units, or ``always_error``
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

    That is PCA or what predicts the same for all rows, fitted to the training rows of
    ``train``: without them, or with too many columns, there is none.
    """
    rival = None if train is None else _rival(model, train, session)
    where = data, session.comm, splits
    return errors_of(model, *where), errors_of(rival, *where)


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


# --- what may help; pure words


def over_fits(errors: Errors, usual: Errors) -> bool:
    """Tell whether training rows are clearly better fitted than by what is usual."""
    _, error, other = _compared(errors, usual, ["train"])
    return error < _CLEARLY * other


def after_pretraining(config: PretrainConfig, over: bool) -> tuple[str, ...]:
    """Return what may make a pre-trained stack better, and whether it over-fits."""
    remedies = [f"pre-training anew with more --epochs than {_shown(config.epochs)}"]
    if over:
        remedies = ["more training rows", f"{_DECAYS} in fine-tuning", "fewer units"]
    return ("fine-tuning", *remedies, *_linear_code(config))


def after_finetuning(
    config: FinetuneConfig,
    pretraining: PretrainConfig,
    done: int,
    best: int,
    over: bool,
) -> tuple[str, ...]:
    """Return what may make a stack better that was best after one of its epochs."""
    remedies: list[str] = []
    if over:
        remedies += _AGAINST_OVERFITTING
    elif config.optimizer != "adam":
        remedies.append("--optimizer adam --replace")
    if not over and best == done:  # else further epochs have made it worse
        remedies += _longer(config, done)
    remedies += [f"pre-training with {words}" for words in _linear_code(pretraining)]
    return tuple(remedies or ["pre-training for longer", "smaller minibatches"])


def worse_than_pca(
    what: str,
    shapes: Sequence[LayerShape],
    errors: Errors,
    pca: Errors,
    remedies: Sequence[str],
) -> str:
    """Say that a stack, ``what`` it is, is worse than PCA; empty if it is not.

    The first split counts that both have of test, validation and train. A code as wide
    as a row or wider makes PCA perfect by definition: nothing is said.
    """
    _, error, usual = _compared(errors, pca)
    if shapes[-1].n_hidden >= shapes[0].n_visible or not error > usual:
        return ""
    return _told(f"the {what} stack is worse than PCA", "PCA", errors, pca, remedies)


def no_better_than_always(
    model: str, errors: Errors, usual: Errors, config: FinetuneConfig, done: int
) -> str:
    """Say that a predictor, a key of ``ALWAYS``, is hardly better; empty if it is."""
    _, error, other = _compared(errors, usual)
    if not error > _CLEARLY * other:
        return ""
    remedies = list(_AGAINST_OVERFITTING)
    if not over_fits(errors, usual):
        remedies = _longer(config, done)
        if config.minibatch > 1:
            smaller = f"a --minibatch smaller than {config.minibatch}, with --replace"
            remedies.append(smaller)
    how = "hardly" if error < other else "no"
    found = f"the {model} is {how} better than {ALWAYS[model]}"
    return _told(found, "that", errors, usual, remedies)


def _compared(
    errors: Errors,
    usual: Errors,
    splits: Sequence[str] = ("test", "validation", "train"),
) -> tuple[str, float, float]:
    """Return the first split that both have, and its errors; NaN if there is none."""
    for split in splits:
        error, other = errors.get(split), usual.get(split)
        if error is not None and other is not None:
            return split, error, other
    return "", math.nan, math.nan


def _told(
    found: str, rival: str, errors: Errors, usual: Errors, remedies: Sequence[str]
) -> str:
    split, error, other = _compared(errors, usual)
    why = ""
    if over_fits(errors, usual):
        why = f"It fits the training rows better than {rival}: over-fitting. "
    return (
        f"{found} on the {split} rows ({error:.2f} against {other:.2f}). {why}What may "
        f"help: {'; '.join(remedies)}."
    )


def _longer(config: FinetuneConfig, done: int) -> list[str]:
    """Return what helps where the last epoch was the best."""
    rate = _FASTER * (config.learning_rate or DEFAULT_RATES[config.optimizer])
    anew = config.learning_rate_schedule in BY_THE_END
    return [
        f"more --epochs than {done}, with {'--replace' if anew else '--resume auto'}",
        f"a larger --learning-rate, such as {rate:g}, with --replace",
    ]


def _linear_code(config: PretrainConfig) -> list[str]:
    if config.code == "linear":
        return []
    *rates, last = per_layer("learning_rate", config.learning_rate, len(config.layers))
    shown = _shown((*rates, min(_LINEAR_RATE, last)))
    return [f"--code linear --learning-rate {shown}"]


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))
