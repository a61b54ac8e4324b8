"""Using what a run has trained: what it makes of rows, and the model itself."""

from collections.abc import Callable
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
from mpilayer.models.stack import Predictor
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.rows import check_like, preparation_of
from mpilayer.runs.tasks import AUTOENCODE, chosen_task, load_model, load_trained
from mpilayer.store import export as store

_ONE_SPLIT = (".npy", ".csv")
OUTPUT_ENDINGS = (".h5", ".hdf5", *_ONE_SPLIT)
"""What ``write_rows`` can write."""

PARTS = ("whole", "encoder")
"""What ``export`` can write of a model."""


# --- what it makes of rows


def write_rows(
    what: str,
    run: Path,
    data: Path,
    out: Path,
    replace: bool = False,
    split: str | None = None,
    task: str | None = None,
) -> tuple[dict[str, int], str]:
    """Write what a run's model makes of the rows of a data set. One process.

    Returns how many rows of each split, and the kind of the model that has made them.

    Parameters
    ----------
    what : str
        ``codes``; ``reconstructions``, before any scaling; or ``predictions``: a row is
        the probability of each class, and its label the most probable one; or the
        number that a regressor predicts.
    out : Path
        ``.h5`` and ``.hdf5`` hold all splits, ``.npy`` and ``.csv`` one, the ``split``
        if there are several; ``.csv`` has the labels as its last column.
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
    kind, model, make = _maker(directory, what, task)
    # Of what predicts; else labels are those of the data.
    classes = model.classes if what == "predictions" else None
    with Dataset.open(data, like=run) as dataset:
        check_like(dataset, model, directory)
        dataset.ensure()
        preparation = dataset.preparation
        if what != "reconstructions":
            preparation = _columns(directory, dataset, classes)
        splits = {
            name: _made(dataset, name, make, classes, preparation.scaling)
            for name in _chosen(dataset, ending, split)
        }
        name, digest = dataset.name, dataset.digest[:12]
    first = next(iter(splits.values()))
    if ending == ".npy":
        files.write_array(out, np.asarray(first.x))
    elif ending == ".csv":
        files.write(out, csv_text(first, preparation))
    else:
        write_dataset(
            out,
            splits,
            name=f"{what} of {name}",
            origin=f"mpilayer run {run.name} on {name} ({digest})",
            scale=1.0,
            preparation=preparation,
        )
    return {name: len(content) for name, content in splits.items()}, kind


def _maker(
    directory: RunDirectory, what: str, task: str | None
) -> tuple[str, Any, Callable[[Array32], Array32]]:
    """Return a model's name, the model, and what of it is applied to rows."""
    if what == "reconstructions":
        kind, autoencoder = load_trained(directory)
        return kind, autoencoder, autoencoder.reconstruct
    chosen = chosen_task(directory.path, task)
    if what == "predictions" and chosen == AUTOENCODE:
        raise CheckpointError(
            f"{directory.path} must have a classifier or regressor that was trained "
            "last, or is chosen by --task; it has none. Train one with 'mpilayer "
            f"finetune {directory.path} --task classify'."
        )
    kind, model = load_model(directory, chosen)
    if what == "predictions" and isinstance(model, Predictor):
        return kind, model, model.predict
    return kind, model, model.encode


def _made(
    dataset: Dataset,
    split: str,
    make: Callable[[Array32], Array32],
    classes: AnyArray | None,
    scaling: Scaling | None,
) -> Split:
    """Return what becomes of a split's rows, as it is to be stored."""
    blocks, labels = row_blocks(dataset.n_samples(split)), dataset.labels(split)
    x = np.concatenate([make(dataset.rows(split, b.start, b.stop)) for b in blocks])
    if classes is not None:
        labels = classes[x.argmax(axis=1)] if len(classes) else None
    return Split(x if scaling is None else scaling.undo(x), labels)


def _columns(
    directory: RunDirectory, dataset: Dataset, classes: AnyArray | None
) -> Preparation:
    """Return what columns of codes are called, or, with classes, of predictions."""
    if classes is None:
        before = dataset.preparation
        return Preparation(labels=before.labels, classes=before.classes)
    if not len(classes):
        return Preparation(columns=("prediction",))
    known = preparation_of(directory, dataset.n_visible)
    names = tuple(map(str, known.names(classes)))
    return Preparation(columns=names, classes=known.classes)


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

    The ending of ``out``, one of ``store.ENDINGS``, says the format; ``part`` is one of
    ``PARTS``. Of ``.h5`` files ``replace`` means only an exported model. The ``task``,
    one of ``TASKS``, is by default what was trained last.
    """
    if part not in PARTS:
        raise ConfigError(unknown("part", part, PARTS))
    ending = files.check_output(out, store.ENDINGS, replace)
    store.check_replaceable(out, ending)
    model = _model(RunDirectory.open(run), part, task)
    store.write(out, ending, model)
    return model


def _model(directory: RunDirectory, part: str, task: str | None) -> store.Model:
    kind, stack = load_model(directory, chosen_task(directory.path, task))
    preparation = preparation_of(directory, stack.shapes[0].n_visible)
    data = directory.section("data")
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
