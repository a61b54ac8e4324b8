"""What a run has trained, written for other programs."""

from pathlib import Path

import numpy as np

from mpilayer import files
from mpilayer.arrays import AnyArray
from mpilayer.data.preparation import Scaling
from mpilayer.errors import ConfigError, unknown
from mpilayer.models.stack import Predictor, Stack
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.output import check_output
from mpilayer.runs.predictors import chosen_model
from mpilayer.runs.rows import preparation_of
from mpilayer.store import export as store

PARTS = ("whole", "encoder")


def export(
    run: Path,
    out: Path,
    part: str = PARTS[0],
    replace: bool = False,
    task: str | None = None,
) -> store.Model:
    """Write a trained model of a run. One process.

    Parameters
    ----------
    run : Path
        Directory of the run.
    out : Path
        The file; its ending, one of ``store.export.ENDINGS``, says the format.
    part : str
        ``whole``, or ``encoder`` for the steps to the code alone.
    replace : bool
        Replace an older file; of ``.h5`` files only exported models are replaced.
    task : str, optional
        Which of the run's models, one of ``TASKS``; by default what was trained last.

    Returns
    -------
    Model
        What was written.

    Raises
    ------
    MpilayerError
        No such run, model or part, an unknown ending, a missing library, or ``out``
        exists or cannot be written.
    """
    if part not in PARTS:
        raise ConfigError(unknown("part", part, PARTS))
    ending = check_output(out, store.ENDINGS, replace)
    if ending == store.HDF5 and out.exists():
        store.check_hdf5(out)
    model = _model(RunDirectory.open(run), part, task)
    if ending == store.HDF5:
        store.write_hdf5(out, model)
    else:
        files.write(out, store.CONTENTS[ending](model))
    return model


def _model(directory: RunDirectory, part: str, task: str | None) -> store.Model:
    """Return what a run has trained; other kinds of models name their outputs here."""
    kind, stack = chosen_model(directory, task)
    preparation = preparation_of(directory, stack.shapes[0].n_visible)
    steps, n_layers = _steps(stack), len(stack.shapes)
    outputs = {"code": n_layers, _output(stack): len(steps)}
    if part == "encoder":
        steps, outputs = steps[:n_layers], {"code": n_layers}
    if scaling := preparation.scaling:
        steps = _raw_values(steps, scaling, "reconstruction" in outputs)
    data = directory.read_config().get("data", {})
    about = {
        "model": kind,
        "part": part,
        "data": str(data.get("name", "")),
        "data_digest": str(data.get("digest", "")),
    }
    if scaling:
        about["scaling"] = scaling.method
    if part == "whole" and len(classes := _classes(stack)):
        about["classes"] = ",".join(map(str, preparation.names(classes)))
    return store.Model(tuple(steps), outputs, about)


def _raw_values(
    steps: list[store.Step], scaling: Scaling, reconstruct: bool
) -> list[store.Step]:
    """Return steps that take values before their scaling, and linear ones that give it.

    (x − offset) · factor · W + b is x · (factor · W) + (b − offset · factor · W).
    """
    offset, factor = scaling.offset.astype(np.float64), scaling.factor
    weights = factor[:, np.newaxis].astype(np.float64) * steps[0].weights
    steps = [_step(steps[0], weights, steps[0].bias - offset @ weights), *steps[1:]]
    last = steps[-1]
    if reconstruct and last.activation == "linear":
        steps[-1] = _step(last, last.weights / factor, last.bias / factor + offset)
    return steps


def _step(old: store.Step, weights: AnyArray, bias: AnyArray) -> store.Step:
    """Return a step with other numbers."""
    return store.Step(
        weights.astype(np.float32), bias.astype(np.float32), old.activation
    )


def _classes(stack: Stack) -> AnyArray:
    """Return the classes of a classifier, none of any other model."""
    return stack.classes if isinstance(stack, Predictor) else np.empty(0, np.int64)


def _output(stack: Stack) -> str:
    """Return the name of what the last step gives."""
    if not isinstance(stack, Predictor):
        return "reconstruction"
    return "probabilities" if len(_classes(stack)) else "prediction"


def _steps(stack: Stack) -> list[store.Step]:
    p = stack.parameters
    kinds = [activation for _, _, activation in stack.steps]
    if len(_classes(stack)):
        # In training the softmax is a part of the loss; other programs have none.
        kinds[-1] = "softmax"
    return [
        store.Step(p[f"weights_{k}"], p[f"bias_{k}"], kind)
        for k, kind in enumerate(kinds)
    ]
