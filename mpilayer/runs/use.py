"""Using a run: errors, codes, reconstructions."""

from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import Array32, row_blocks
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError, DataError
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import load_trained
from mpilayer.runs.resuming import data_of_run
from mpilayer.runs.session import Session, finite, local_blocks
from mpilayer.train.evaluate import PCA, reconstruction_error


def evaluate(
    run: Path, split: str, session: Session, data: Path | None = None
) -> dict[str, Any]:
    """Return the errors of a run on one split.

    Parameters
    ----------
    run : Path
        Directory of the run.
    split : str
        ``train``, ``validation`` or ``test``.
    session : Session
        The ranks, each reading its share of the rows. Collective on all of them.
    data : Path, optional
        A data set to evaluate on; by default the one the run was trained on.

    Returns
    -------
    dict
        ``error`` and ``pca_error`` (as many components as the code has units, fitted on
        the training rows of the same data), Σ over columns, mean over rows; and more.

    Raises
    ------
    MpilayerError
        On every rank: no such run, split or data.
    """
    comm = session.comm

    def check() -> tuple[Path, str, DeepAutoencoder]:
        directory = RunDirectory.open(run)
        kind, stack = load_trained(directory)
        path = data or data_of_run(directory, None)
        with Dataset.open(path) as dataset:
            dataset.n_samples(split)
            _check_width(dataset, stack)
        return path, kind, stack

    path, kind, stack = comm.everywhere(check)
    n_code = stack.shapes[-1].n_hidden
    with Dataset.open(path) as dataset:
        n_samples = dataset.n_samples(split)
        error = reconstruction_error(stack, local_blocks(dataset, split, comm), comm)
        pca = PCA(local_blocks(dataset, "train", comm), dataset.n_visible, comm)
        pca_error = pca.error(local_blocks(dataset, split, comm), n_code, comm)
        name = dataset.name
    return {
        "split": split,
        "error": finite(error),
        "pca_error": finite(pca_error),
        "n_samples": n_samples,
        "n_code": n_code,
        "model": kind,
        "data": name,
    }


def encode(run: Path, data: Path, out: Path, replace: bool = False) -> dict[str, int]:
    """Write the codes of every split of a data set, as a data set. One process.

    Returns
    -------
    dict
        Rows written of each split.

    Raises
    ------
    MpilayerError
        No such run, data of another width, or ``out`` exists.
    """
    return _write(run, data, out, replace, "codes", lambda stack, x: stack.encode(x))


def reconstruct(
    run: Path, data: Path, out: Path, replace: bool = False
) -> dict[str, int]:
    """Write the reconstructions of every split of a data set; see ``encode``."""
    return _write(
        run,
        data,
        out,
        replace,
        "reconstructions",
        lambda stack, x: stack.reconstruct(x),
    )


def _write(
    run: Path, data: Path, out: Path, replace: bool, what: str, apply: Any
) -> dict[str, int]:
    directory = RunDirectory.open(run)
    if out.exists() and not replace:
        raise ConfigError(
            f"-o must name a new file; {out} exists. Choose another name, or give "
            "--replace."
        )
    if out.exists() and out.samefile(data):
        raise ConfigError(
            f"-o must not name the data themselves; got {out} for both. Choose another "
            "name."
        )
    _, stack = load_trained(directory)
    with Dataset.open(data) as dataset:
        _check_width(dataset, stack)
        splits = {
            split: Split(_apply(dataset, split, stack, apply), dataset.labels(split))
            for split in dataset.splits
        }
        name = f"{what} of {dataset.name}"
        origin = f"mpilayer run {run.name} on {dataset.name} ({dataset.digest[:12]})"
    write_dataset(out, splits, name=name, origin=origin, scale=1.0)
    return {split: len(content) for split, content in splits.items()}


def _apply(dataset: Dataset, split: str, stack: DeepAutoencoder, apply: Any) -> Array32:
    rows = dataset.rows(split)
    blocks = [apply(stack, rows[where]) for where in row_blocks(len(rows))]
    result: Array32 = np.concatenate(blocks)
    return result


def _check_width(dataset: Dataset, stack: DeepAutoencoder) -> None:
    n_visible = stack.shapes[0].n_visible
    if dataset.n_visible != n_visible:
        raise DataError(
            f"the data must have as many columns as the run, {n_visible}; "
            f"{dataset.path} has {dataset.n_visible}. Give data of the same kind."
        )
