"""What a run has trained, written for other programs."""

from pathlib import Path

from mpilayer.errors import ConfigError, unknown
from mpilayer.models.stack import Stack
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import load_trained
from mpilayer.runs.output import check_output, write_output
from mpilayer.store import export as store

PARTS = ("autoencoder", "encoder")


def export(
    run: Path, out: Path, part: str = "autoencoder", force: bool = False
) -> store.Model:
    """Write the trained model of a run. One process.

    Parameters
    ----------
    run : Path
        Directory of the run.
    out : Path
        The file; its ending, one of ``store.export.ENDINGS``, says the format.
    part : str
        ``autoencoder``, or ``encoder`` for the steps to the code alone.
    force : bool
        Replace an older file; of ``.h5`` files only exported models are replaced.

    Returns
    -------
    Model
        What was written.

    Raises
    ------
    MpilayerError
        No such run or part, an unknown ending, a missing library, or ``out`` exists or
        cannot be written.
    """
    if part not in PARTS:
        raise ConfigError(unknown("part", part, PARTS))
    ending = check_output(out, store.ENDINGS, force, "--force")
    if ending == store.HDF5 and out.exists():
        store.check_hdf5(out)
    model = _model(RunDirectory.open(run), part)
    if ending == store.HDF5:
        store.write_hdf5(out, model)
    else:
        write_output(out, store.CONTENTS[ending](model))
    return model


def _model(directory: RunDirectory, part: str) -> store.Model:
    """Return what a run has trained; other kinds of models name their outputs here."""
    kind, stack = load_trained(directory)
    steps, n_layers = _steps(stack), len(stack.shapes)
    outputs = {"code": n_layers, "reconstruction": len(steps)}
    if part == "encoder":
        steps, outputs = steps[:n_layers], {"code": n_layers}
    data = directory.read_config().get("data", {})
    about = {
        "model": kind,
        "part": part,
        "data": str(data.get("name", "")),
        "data_digest": str(data.get("digest", "")),
    }
    return store.Model(tuple(steps), outputs, about)


def _steps(stack: Stack) -> list[store.Step]:
    p = stack.parameters
    return [
        store.Step(p[f"weights_{k}"], p[f"bias_{k}"], activation)
        for k, (_, _, activation) in enumerate(stack.steps)
    ]
