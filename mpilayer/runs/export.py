"""What a run has trained, written for other programs."""

from pathlib import Path

from mpilayer import files
from mpilayer.errors import ConfigError, unknown
from mpilayer.models.stack import Predictor, Stack
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.output import check_output
from mpilayer.runs.predictors import chosen_model
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
    steps, n_layers = _steps(stack), len(stack.shapes)
    outputs = {"code": n_layers, _output(stack): len(steps)}
    if part == "encoder":
        steps, outputs = steps[:n_layers], {"code": n_layers}
    data = directory.read_config().get("data", {})
    about = {
        "model": kind,
        "part": part,
        "data": str(data.get("name", "")),
        "data_digest": str(data.get("digest", "")),
    }
    if part == "whole" and (classes := _classes(stack)):
        about["classes"] = ",".join(map(str, classes))
    return store.Model(tuple(steps), outputs, about)


def _classes(stack: Stack) -> list[int]:
    """Return the classes of a classifier, none of any other model."""
    return stack.classes.tolist() if isinstance(stack, Predictor) else []


def _output(stack: Stack) -> str:
    """Return the name of what the last step gives."""
    if not isinstance(stack, Predictor):
        return "reconstruction"
    return "probabilities" if _classes(stack) else "prediction"


def _steps(stack: Stack) -> list[store.Step]:
    p = stack.parameters
    kinds = [activation for _, _, activation in stack.steps]
    if _classes(stack):
        # In training the softmax is a part of the loss; other programs have none.
        kinds[-1] = "softmax"
    return [
        store.Step(p[f"weights_{k}"], p[f"bias_{k}"], kind)
        for k, kind in enumerate(kinds)
    ]
