"""Using a run: errors, codes, reconstructions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import Array32, row_blocks
from mpilayer.data.csv import csv_text
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError, DataError
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import load_trained
from mpilayer.runs.output import check_output, write_output
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


def encode(
    run: Path, data: Path, out: Path, replace: bool = False, split: str | None = None
) -> dict[str, int]:
    """Write the codes of a data set. One process.

    Parameters
    ----------
    run : Path
        Directory of the run.
    data : Path
        The data set.
    out : Path
        The file; its ending says the format. ``.h5`` and ``.hdf5`` hold a data set with
        all splits, ``.npy`` and ``.csv`` the rows of one split; ``.csv`` has the labels
        as its last column.
    replace : bool
        Replace an older file.
    split : str, optional
        The split for ``.npy`` and ``.csv``; not needed if the data have only one.

    Returns
    -------
    dict
        Rows written of each split.

    Raises
    ------
    MpilayerError
        No such run or split, data of another width, an unknown ending, ``out`` exists
        or cannot be written, or ``split`` is missing or given without need.
    """
    work = _Work("codes", lambda stack, x: stack.encode(x))
    return _write(run, data, out, replace, split, work)


def reconstruct(
    run: Path, data: Path, out: Path, replace: bool = False, split: str | None = None
) -> dict[str, int]:
    """Write the reconstructions of a data set; see ``encode``."""
    work = _Work("reconstructions", lambda stack, x: stack.reconstruct(x))
    return _write(run, data, out, replace, split, work)


@dataclass(frozen=True)
class _Work:
    """What to write, and how it comes from rows."""

    what: str
    apply: Callable[[DeepAutoencoder, Array32], Array32]


def _write(
    run: Path, data: Path, out: Path, replace: bool, split: str | None, work: _Work
) -> dict[str, int]:
    directory = RunDirectory.open(run)
    ending = check_output(out, OUTPUT_ENDINGS, replace, "--replace")
    if out.exists() and out.samefile(data):
        raise ConfigError(
            f"-o must not name the data themselves; got {out} for both. Choose another "
            "name."
        )
    _, stack = load_trained(directory)
    with Dataset.open(data) as dataset:
        _check_width(dataset, stack)
        splits = {
            name: Split(_apply(dataset, name, stack, work), dataset.labels(name))
            for name in _chosen(dataset, ending, split)
        }
        name = f"{work.what} of {dataset.name}"
        origin = f"mpilayer run {run.name} on {dataset.name} ({dataset.digest[:12]})"
    if ending in _ONE_SPLIT:
        (content,) = splits.values()
        write_output(out, _ONE_SPLIT[ending](content))
    else:
        write_dataset(out, splits, name=name, origin=origin, scale=1.0)
    return {split: len(content) for split, content in splits.items()}


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


def _npy(split: Split) -> bytes:
    out = BytesIO()
    np.save(out, split.x)
    return out.getvalue()


def _csv(split: Split) -> bytes:
    return csv_text(split).encode()


_ONE_SPLIT: Mapping[str, Callable[[Split], bytes]] = {".npy": _npy, ".csv": _csv}

OUTPUT_ENDINGS = (".h5", ".hdf5", *_ONE_SPLIT)
"""What codes and reconstructions can be written to."""


def _apply(
    dataset: Dataset, split: str, stack: DeepAutoencoder, work: _Work
) -> Array32:
    rows = dataset.rows(split)
    blocks = [work.apply(stack, rows[where]) for where in row_blocks(len(rows))]
    result: Array32 = np.concatenate(blocks)
    return result


def _check_width(dataset: Dataset, stack: DeepAutoencoder) -> None:
    n_visible = stack.shapes[0].n_visible
    if dataset.n_visible != n_visible:
        raise DataError(
            f"the data must have as many columns as the run, {n_visible}; "
            f"{dataset.path} has {dataset.n_visible}. Give data of the same kind."
        )
