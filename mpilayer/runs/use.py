"""Using a run: errors, codes, reconstructions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as replace_
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import Array32, row_blocks
from mpilayer.data.csv import csv_text
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split
from mpilayer.errors import CheckpointError, ConfigError
from mpilayer.models.stack import Predictor, Stack
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import load_trained
from mpilayer.runs.output import check_output
from mpilayer.runs.predictors import (
    chosen_model,
    chosen_task,
    evaluate_predictor,
    load_predictor,
)
from mpilayer.runs.rows import check_like, errors_of, pca_of, preparation_of
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import data_to_use, training_data

Apply = Callable[[Array32], Array32]
"""Makes codes or reconstructions from rows."""

Prepared = Callable[[Preparation], Preparation]
"""How codes or reconstructions are prepared, from how the data are."""


@dataclass(frozen=True)
class Written:
    """Rows written of each split, and the kind of the model that has made them."""

    rows: dict[str, int]
    model: str


def evaluate(
    run: Path,
    split: str,
    session: Session,
    data: Path | None = None,
    task: str | None = None,
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
    task : str, optional
        Which of the run's models, see ``TASKS``; by default what was trained last.

    Returns
    -------
    dict
        Of an autoencoder: ``error`` and ``pca_error`` (as many components as the code
        has units, fitted on the training rows of the run; None, and a word, where they
        are not at hand), Σ over columns, mean over rows; and more. Others: see
        ``evaluate_predictor``.

    Raises
    ------
    MpilayerError
        On every rank: no such run, split or data.
    """
    comm = session.comm
    chosen = comm.on_root(lambda: chosen_task(run, task))
    if chosen is not None:
        return evaluate_predictor(run, split, session, data, chosen)

    kind, stack = comm.everywhere(lambda: load_trained(RunDirectory.open(run)))
    path = comm.on_root(lambda: data_to_use(RunDirectory(run), data))

    def check() -> None:
        with Dataset.open(path) as dataset:
            dataset.n_samples(split)
            check_like(dataset, stack, RunDirectory(run))

    comm.everywhere(check)
    n_code = stack.shapes[-1].n_hidden
    with Dataset.open(path) as dataset:
        n_samples = dataset.n_samples(split)
        error = errors_of(stack, path, comm, (split,))[split]
        name = dataset.name
    return {
        "split": split,
        "error": error,
        "pca_error": _pca_error(RunDirectory(run), path, split, n_code, session),
        "n_samples": n_samples,
        "n_code": n_code,
        "model": kind,
        "data": name,
    }


def _pca_error(
    directory: RunDirectory, data: Path, split: str, n_code: int, session: Session
) -> float | None:
    """Return the error of PCA fitted on the training rows of the run. Collective."""
    train = session.comm.on_root(lambda: training_data(directory, data))
    if train is None:
        session.say(
            "PCA is left out: it needs the training rows of the run, and its data set "
            "is not where it was"
        )
        return None
    pca = pca_of(train, n_code, session)
    return errors_of(pca, data, session.comm, (split,))[split]


def encode(
    run: Path,
    data: Path,
    out: Path,
    replace: bool = False,
    split: str | None = None,
    task: str | None = None,
) -> Written:
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
    task : str, optional
        Whose encoder, see ``TASKS``; by default that of what was trained last.

    Returns
    -------
    Written
        What was written, and which of ``chosen_model`` made it.

    Raises
    ------
    MpilayerError
        No such run or split, data of another width, an unknown ending, ``out`` exists
        or cannot be written, or ``split`` is missing or given without need.
    """

    def load(directory: RunDirectory) -> tuple[str, Stack, Apply]:
        kind, stack = chosen_model(directory, task)
        return kind, stack, stack.encode

    def prepared(before: Preparation) -> Preparation:
        return Preparation(labels=before.labels, classes=before.classes)

    return _write(run, data, out, replace, split, _Work("codes", load, prepared))


def reconstruct(
    run: Path, data: Path, out: Path, replace: bool = False, split: str | None = None
) -> Written:
    """Write the reconstructions of a data set, before any scaling; see ``encode``."""

    def load(directory: RunDirectory) -> tuple[str, Stack, Apply]:
        kind, stack = load_trained(directory)
        return kind, stack, stack.reconstruct

    work = _Work("reconstructions", load, lambda before: before)
    return _write(run, data, out, replace, split, work)


def predict(
    run: Path,
    data: Path,
    out: Path,
    replace: bool = False,
    split: str | None = None,
    task: str | None = None,
) -> Written:
    """Write what a classifier or regressor says of rows; see ``encode``.

    A row is the probability of each class, and its label the most probable one; or the
    number that a regressor predicts.

    Raises
    ------
    MpilayerError
        As for ``encode``, or the run has neither.
    """

    def load(directory: RunDirectory) -> tuple[str, Stack, Apply]:
        chosen = chosen_task(directory.path, task)
        if chosen is None:
            raise CheckpointError(
                f"{run} must have a classifier or regressor that was trained last, or "
                "is chosen by --task; it has none. Train one with 'mpilayer finetune "
                f"{run} --task classify'."
            )
        model = load_predictor(directory, chosen)
        return chosen.model, model, model.predict

    work = _Work("predictions", load, lambda _: Preparation(), predicts=True)
    return _write(run, data, out, replace, split, work)


@dataclass(frozen=True)
class _Work:
    """What to write, and what makes it from rows."""

    what: str
    load: Callable[[RunDirectory], tuple[str, Stack, Apply]]
    prepared: Prepared
    predicts: bool = False


def _write(
    run: Path, data: Path, out: Path, replace: bool, split: str | None, work: _Work
) -> Written:
    directory = RunDirectory.open(run)
    ending = check_output(out, OUTPUT_ENDINGS, replace)
    if out.exists() and data.exists() and out.samefile(data):
        raise ConfigError(
            f"-o must not name the data themselves; got {out} for both. Choose another "
            "name."
        )
    kind, stack, apply = work.load(directory)
    with Dataset.open(data, like=run) as dataset:
        check_like(dataset, stack, directory)
        dataset.ensure()
        preparation = work.prepared(dataset.preparation)
        splits = {
            name: Split(_apply(dataset, name, apply, preparation), dataset.labels(name))
            for name in _chosen(dataset, ending, split)
        }
        if work.predicts and isinstance(stack, Predictor):
            known = preparation_of(directory, dataset.n_visible)
            preparation, splits = _predictions(stack, known.classes, splits)
        title = f"{work.what} of {dataset.name}"
        origin = f"mpilayer run {run.name} on {dataset.name} ({dataset.digest[:12]})"
    if ending in _ONE_SPLIT:
        (content,) = splits.values()
        files.write(out, _ONE_SPLIT[ending](content, preparation))
    else:
        write_dataset(
            out,
            splits,
            name=title,
            origin=origin,
            scale=1.0,
            preparation=preparation,
        )
    return Written({name: len(content) for name, content in splits.items()}, kind)


def _predictions(
    model: Predictor, classes: tuple[str, ...], splits: Mapping[str, Split]
) -> tuple[Preparation, dict[str, Split]]:
    """Return what the columns are called, and rows with the labels predicted."""
    if not len(model.classes):
        found = {name: Split(part.x, None) for name, part in splits.items()}
        return Preparation(columns=("prediction",)), found
    preparation = Preparation(classes=classes)
    names = tuple(map(str, preparation.names(model.classes)))
    found = {
        name: Split(part.x, model.classes[part.x.argmax(axis=1)].astype(np.int64))
        for name, part in splits.items()
    }
    return replace_(preparation, columns=names), found


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


def _npy(split: Split, _: Preparation) -> bytes:
    out = BytesIO()
    np.save(out, split.x)
    return out.getvalue()


def _csv(split: Split, preparation: Preparation) -> bytes:
    return csv_text(split, preparation).encode()


_ONE_SPLIT: Mapping[str, Callable[[Split, Preparation], bytes]] = {
    ".npy": _npy,
    ".csv": _csv,
}

OUTPUT_ENDINGS = (".h5", ".hdf5", *_ONE_SPLIT)
"""What codes and reconstructions can be written to."""


def _apply(
    dataset: Dataset, split: str, apply: Apply, preparation: Preparation
) -> Array32:
    """Return what becomes of a split's rows, as it is to be stored."""
    rows = dataset.rows(split)
    blocks = [apply(rows[where]) for where in row_blocks(len(rows))]
    result: Array32 = np.concatenate(blocks)
    scaling = preparation.scaling
    return result if scaling is None else scaling.undo(result)
