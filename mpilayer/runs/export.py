"""What a run has trained, written for other programs."""

from pathlib import Path

import numpy as np

from mpilayer import files
from mpilayer.arrays import AnyArray
from mpilayer.data.preparation import Scaling
from mpilayer.errors import ConfigError, unknown
from mpilayer.models.stack import Predictor
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.rows import preparation_of
from mpilayer.runs.use import chosen_model
from mpilayer.store import export as store

PARTS = ("whole", "encoder")


def export(
    run: Path,
    out: Path,
    part: str = PARTS[0],
    replace: bool = False,
    task: str | None = None,
) -> store.Model:
    """Write a trained model of a run, and return what was written. One process.

    Parameters
    ----------
    run : Path
        Directory of the run.
    out : Path
        The file; its ending, one of ``store.ENDINGS``, says the format.
    part : str
        ``whole``, or ``encoder`` for the steps to the code alone.
    replace : bool
        Replace an older file; of ``.h5`` files only exported models are replaced.
    task : str, optional
        Which of the run's models, one of ``TASKS``; by default what was trained last.

    Raises
    ------
    MpilayerError
        No such run, model or part, an unknown ending, a missing library, or ``out``
        exists or cannot be written.
    """
    if part not in PARTS:
        raise ConfigError(unknown("part", part, PARTS))
    ending = files.check_output(out, store.ENDINGS, replace)
    if ending == store.HDF5 and out.exists():
        store.check_hdf5(out)
    model = _model(RunDirectory.open(run), part, task)
    if ending == store.HDF5:
        store.write_hdf5(out, model)
    else:
        files.write(out, store.CONTENTS[ending](model))
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
    first = steps[0]
    weights = factor[:, np.newaxis].astype(np.float64) * first.weights
    steps = [
        _step(weights, first.bias - offset @ weights, first.activation),
        *steps[1:],
    ]
    last = steps[-1]
    if reconstruct and last.activation == "linear":
        steps[-1] = _step(last.weights / factor, last.bias / factor + offset, "linear")
    return steps


def _step(weights: AnyArray, bias: AnyArray, activation: str) -> store.Step:
    return store.Step(weights.astype(np.float32), bias.astype(np.float32), activation)
