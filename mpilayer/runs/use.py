"""Using what a run has trained: its errors, what it makes of rows, the model itself."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.data.csv import csv_text
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.preparation import Preparation, Scaling
from mpilayer.data.split import Split
from mpilayer.errors import CheckpointError, ConfigError, unknown
from mpilayer.models.stack import Predictor, Stack
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import (
    chosen_model,
    chosen_task,
    load_model,
    load_predictor,
    load_trained,
)
from mpilayer.runs.rows import (
    always_of,
    check_labels,
    check_like,
    confusion_of,
    errors_of,
    pca_of,
    preparation_of,
)
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import data_to_use, training_data
from mpilayer.store import export as store
from mpilayer.train.evaluate import PCA, Always

_ONE_SPLIT = (".npy", ".csv")
OUTPUT_ENDINGS = (".h5", ".hdf5", *_ONE_SPLIT)
"""What ``write_rows`` can write."""

PARTS = ("whole", "encoder")
"""What ``export`` can write of a model."""


# --- its errors


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
    rival = _rival(model, train, session)
    error, usual = (
        errors_of(judged, path, comm, (split,))[split] for judged in (model, rival)
    )
    if not isinstance(model, Predictor):
        about["n_code"] = model.shapes[-1].n_hidden
        return {**about, "error": error, "pca_error": usual}
    if not len(model.classes):
        return {**about, "error": _root(error), "always_error": _root(usual)}
    table = confusion_of(model, path, split, comm)
    counts = np.array(table["confusion"])
    errors = int(counts.sum() - counts.trace())
    return {**about, "error": error, "always_error": usual, "errors": errors, **table}


def _rival(model: Stack, train: Path | None, session: Session) -> PCA | Always | None:
    """Return what the model must beat, by the run's training rows. Collective."""
    if train is None:
        if not isinstance(model, Predictor):
            session.say(
                "PCA is left out: it needs the training rows of the run, and its data "
                "set is not where it was"
            )
        return None
    if isinstance(model, Predictor):
        return always_of(train, model.classes, session.comm)
    return pca_of(train, model.shapes[-1].n_hidden, session)


def _root(error: float | None) -> float | None:
    return None if error is None else sqrt(error)


# --- what it makes of rows


@dataclass(frozen=True)
class Written:
    """Rows written of each split, and the kind of the model that has made them."""

    rows: dict[str, int]
    model: str


def write_rows(
    what: str,
    run: Path,
    data: Path,
    out: Path,
    replace: bool = False,
    split: str | None = None,
    task: str | None = None,
) -> Written:
    """Write what a run's model makes of the rows of a data set. One process.

    Parameters
    ----------
    what : str
        ``codes``; ``reconstructions``, before any scaling; or ``predictions``: a row is
        the probability of each class, and its label the most probable one; or the
        number that a regressor predicts.
    out : Path
        The file; its ending says the format. ``.h5`` and ``.hdf5`` hold a data set with
        all splits, ``.npy`` and ``.csv`` the rows of one split; ``.csv`` has the labels
        as its last column.
    split : str, optional
        The split for ``.npy`` and ``.csv``; not needed if the data have only one.
    task : str, optional
        Whose encoder, or who predicts, see ``TASKS``; by default what was trained last.
    """
    directory = RunDirectory.open(run)
    ending = files.check_output(out, OUTPUT_ENDINGS, replace)
    if out.exists() and data.exists() and out.samefile(data):
        raise ConfigError(
            f"-o must not name the data themselves; got {out} for both. Choose another "
            "name."
        )
    maker = _maker(directory, what, task)
    with Dataset.open(data, like=run) as dataset:
        check_like(dataset, maker.model, directory)
        dataset.ensure()
        preparation = _preparation(directory, dataset, maker)
        splits = {
            name: _made(dataset, name, maker, preparation)
            for name in _chosen(dataset, ending, split)
        }
        name, digest = dataset.name, dataset.digest[:12]
    if ending == ".npy":
        (content,) = splits.values()
        files.write_array(out, content.x)
    elif ending == ".csv":
        (content,) = splits.values()
        files.write(out, csv_text(content, preparation))
    else:
        write_dataset(
            out,
            splits,
            name=f"{what} of {name}",
            origin=f"mpilayer run {run.name} on {name} ({digest})",
            scale=1.0,
            preparation=preparation,
        )
    counts = {name: len(content) for name, content in splits.items()}
    return Written(counts, maker.kind)


@dataclass(frozen=True)
class _Maker:
    """A model, what of it is applied to rows, and whether that predicts labels."""

    kind: str
    model: Stack
    apply: Callable[[Array32], Array32]
    keeps_columns: bool = False
    classes: AnyArray | None = None


def _maker(directory: RunDirectory, what: str, task: str | None) -> _Maker:
    if what == "codes":
        kind, stack = chosen_model(directory, task)
        return _Maker(kind, stack, stack.encode)
    if what == "reconstructions":
        kind, autoencoder = load_trained(directory)
        return _Maker(kind, autoencoder, autoencoder.reconstruct, keeps_columns=True)
    chosen = chosen_task(directory.path, task)
    if chosen is None:
        raise CheckpointError(
            f"{directory.path} must have a classifier or regressor that was trained "
            "last, or is chosen by --task; it has none. Train one with 'mpilayer "
            f"finetune {directory.path} --task classify'."
        )
    model = load_predictor(directory, chosen)
    return _Maker(chosen.model, model, model.predict, classes=model.classes)


def _preparation(
    directory: RunDirectory, dataset: Dataset, maker: _Maker
) -> Preparation:
    """Return what the columns that are written are called, and how they are scaled."""
    before = dataset.preparation
    if maker.keeps_columns:
        return before
    if maker.classes is None:
        return Preparation(labels=before.labels, classes=before.classes)
    if not len(maker.classes):
        return Preparation(columns=("prediction",))
    known = preparation_of(directory, dataset.n_visible)
    names = tuple(map(str, known.names(maker.classes)))
    return Preparation(columns=names, classes=known.classes)


def _made(
    dataset: Dataset, split: str, maker: _Maker, preparation: Preparation
) -> Split:
    """Return what becomes of a split's rows, as it is to be stored."""
    rows, labels = dataset.rows(split), dataset.labels(split)
    x = np.concatenate([maker.apply(rows[where]) for where in row_blocks(len(rows))])
    if maker.classes is not None:
        labels = None
        if len(maker.classes):
            labels = maker.classes[x.argmax(axis=1)].astype(np.int64)
    if preparation.scaling is not None:
        x = preparation.scaling.undo(x)
    return Split(x, labels)


def _chosen(dataset: Dataset, ending: str, split: str | None) -> tuple[str, ...]:
    """Return the splits to write."""
    if ending not in _ONE_SPLIT:
        if split is not None:
            raise ConfigError(
                f"--split goes with {' and '.join(_ONE_SPLIT)}; got {split!r} with "
                f"{ending}, which holds all splits. Leave it out."
            )
        return dataset.splits
    if split is not None:
        dataset.n_samples(split)
        return (split,)
    if len(dataset.splits) > 1:
        raise ConfigError(
            f"a {ending} file must be of one split; {dataset.path} has "
            f"{', '.join(dataset.splits)}. Choose one with --split."
        )
    return dataset.splits


# --- the model itself, for other programs


def export(
    run: Path,
    out: Path,
    part: str = PARTS[0],
    replace: bool = False,
    task: str | None = None,
) -> store.Model:
    """Write a trained model of a run, and return what was written. One process.

    The ending of ``out``, one of ``store.ENDINGS``, says the format. The ``part`` is
    ``whole``, or ``encoder`` for the steps to the code alone. With ``replace`` an older
    file gives way, of ``.h5`` files only an exported model. The ``task``, one of
    ``TASKS``, is by default what was trained last.
    """
    if part not in PARTS:
        raise ConfigError(unknown("part", part, PARTS))
    ending = files.check_output(out, store.ENDINGS, replace)
    store.check_replaceable(out, ending)
    model = _model(RunDirectory.open(run), part, task)
    store.write(out, ending, model)
    return model


def _model(directory: RunDirectory, part: str, task: str | None) -> store.Model:
    kind, stack = chosen_model(directory, task)
    preparation = preparation_of(directory, stack.shapes[0].n_visible)
    data = directory.read_config().get("data", {})
    about = {
        "model": kind,
        "part": part,
        "data": str(data.get("name", "")),
        "data_digest": str(data.get("digest", "")),
    }
    activations = [activation for _, _, activation in stack.steps]
    output = "reconstruction"
    if isinstance(stack, Predictor):
        output = "prediction"
        if len(stack.classes):
            # In training the softmax is a part of the loss; other programs have none.
            output, activations[-1] = "probabilities", "softmax"
            if part == "whole":
                names = preparation.names(stack.classes)
                about["classes"] = ",".join(map(str, names))
    steps = [
        _step(stack.parameters[f"weights_{k}"], stack.parameters[f"bias_{k}"], name)
        for k, name in enumerate(activations)
    ]
    n_layers = len(stack.shapes)
    outputs = {"code": n_layers, output: len(steps)}
    if part == "encoder":
        steps, outputs = steps[:n_layers], {"code": n_layers}
    if scaling := preparation.scaling:
        about["scaling"] = scaling.method
        steps = _of_raw_values(steps, scaling, "reconstruction" in outputs)
    return store.Model(tuple(steps), outputs, about)


def _of_raw_values(
    steps: list[store.Step], scaling: Scaling, reconstruct: bool
) -> list[store.Step]:
    """Return steps that take values before their scaling, and linear ones that give it.

    (x − offset) · factor · W + b is x · (factor · W) + (b − offset · factor · W).
    """
    offset, factor = scaling.offset.astype(np.float64), scaling.factor
    first, last = steps[0], steps[-1]
    weights = factor[:, np.newaxis].astype(np.float64) * first.weights
    bias = first.bias - offset @ weights
    steps = [_step(weights, bias, first.activation), *steps[1:]]
    if reconstruct and last.activation == "linear":
        steps[-1] = _step(last.weights / factor, last.bias / factor + offset, "linear")
    return steps


def _step(weights: AnyArray, bias: AnyArray, activation: str) -> store.Step:
    weights, bias = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
    return store.Step(weights, bias, activation)
