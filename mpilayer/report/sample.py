"""Rows of a run's data, what its models make of them, and its first weights."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.data.dataset import Dataset
from mpilayer.data.images import image_size
from mpilayer.errors import DataError, UnfinishedWarning
from mpilayer.models.stack import DeepAutoencoder, Stack
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.runs import tasks
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.evaluate import local_blocks
from mpilayer.runs.rows import data_of_run, preparation_of
from mpilayer.store import checkpoint
from mpilayer.train.evaluate import PCA

# Rows whose reconstructions are shown, and whose codes are.
_N_IMAGES, _MOST_POINTS = 25, 500
# Of PCA: some ten seconds; nobody waits longer for a panel. Full MNIST: 4e10.
_MOST_PRODUCTS = 1e11
_MOST_LABELS = 50


@dataclass(frozen=True)
class Sample:
    """Some rows of a run's data, spread over one split, and what the run makes of them.

    All n have codes; n_images of them are to be shown.
    """

    data: str
    digest: str
    split: str
    labels: AnyArray | None  # (n,): integers are classes, float32 are numbers
    classes: tuple[str, ...]  # the name of label 0, 1, 2, …; empty if they have none
    originals: Array32  # (n_images, n_visible)
    reconstructions: Mapping[str, Array32]  # the same by models: "pre-trained"
    pca: AnyArray | None  # the same by as many components as code units
    codes: Array32  # (n, n_code), by the newest model
    model: str  # what that is, such as "fine-tuned stack" or "classifier"


def first_weights(directory: RunDirectory, kind: str) -> AnyArray | None:
    """Return the weights of the first layer, of its newest checkpoint, if finite."""
    path = directory.checkpoint("sparse")
    if kind == "deep":
        found = directory.layer_candidates(0)
        if not found:
            return None
        newest = max(found, key=lambda one: (one.final, one.epoch))
        path = directory.layer_file(0, newest)
    elif not checkpoint.exists(path):
        return None
    weights = checkpoint.load_for_use(path).get("parameters/weights")
    return weights if weights is not None and np.isfinite(weights).all() else None


def image_size_of(directory: RunDirectory, data: Path | None) -> int:
    """Return height and width of a run's rows if they are images, else 0."""
    about = directory.read_config()["data"]
    n_visible, origin = int(about.get("n_visible", 0)), ""
    with suppress(DataError), Dataset.open(data or Path(about["path"])) as dataset:
        if dataset.digest == about["digest"]:
            origin = dataset.origin
    return image_size(n_visible, preparation_of(directory, n_visible).columns, origin)


def sample_of(directory: RunDirectory, kind: str, data: Path | None) -> Sample | None:
    """Return rows with reconstructions and codes; ``data`` as of ``write_report``."""
    models = _models(directory, kind)
    if not models:
        return None
    try:
        path = data_of_run(directory, data)
    except DataError as error:
        raise DataError(
            f"{error} Without it there are no reconstructions and codes."
        ) from error
    with Dataset.open(path) as dataset:
        split = [s for s in dataset.splits if dataset.n_samples(s)][-1]
        rows, labels = spread(dataset, split)
        name, digest = dataset.name, dataset.digest
        classes = dataset.preparation.classes
    shown = rows[np.linspace(0, len(rows) - 1, min(_N_IMAGES, len(rows))).astype(int)]
    model, newest = _newest(directory, kind, models)
    codes = newest.encode(rows)
    # More are numbers rather than classes, and nobody could tell them apart.
    if labels is not None and (model == "regressor" or len(set(labels)) > _MOST_LABELS):
        labels = labels.astype(np.float32)
    pca = _pca(path, codes.shape[1])
    return Sample(
        data=name,
        digest=digest,
        split=split,
        labels=labels,
        classes=classes,
        originals=shown,
        reconstructions={name: m.reconstruct(shown) for name, m in models.items()},
        pca=None if pca is None else pca.reconstruct(shown),
        codes=codes,
        model=model,
    )


def spread(dataset: Dataset, split: str) -> tuple[Array32, AnyArray | None]:
    """Return rows from all over a split, which may be sorted, and their labels."""
    n = dataset.n_samples(split)
    n_blocks = min(_N_IMAGES, n)
    size = max(1, min(_MOST_POINTS, n) // n_blocks)
    starts = [number * n // n_blocks for number in range(n_blocks)]
    rows = [dataset.rows(split, i, min(i + size, n)) for i in starts]
    labels = [dataset.labels(split, i, min(i + size, n)) for i in starts]
    known = [found for found in labels if found is not None]
    return np.concatenate(rows), np.concatenate(known) if known else None


def _models(directory: RunDirectory, kind: str) -> dict[str, DeepAutoencoder]:
    """Return the run's trained models, the newest last; none before there is one."""
    if kind != "deep":
        is_trained = checkpoint.exists(directory.checkpoint("sparse"))
        return {"trained": tasks.load_trained(directory)[1]} if is_trained else {}
    if "pretrain_seconds" not in directory.read_summary(strict=True):
        return {}
    models = {"pre-trained": tasks.load_stack(directory, pretrained=True)}
    if tasks.AUTOENCODE.is_trained(directory):
        models["fine-tuned"] = tasks.load_stack(directory)
    return models


def _newest(
    directory: RunDirectory, kind: str, models: Mapping[str, DeepAutoencoder]
) -> tuple[str, Stack]:
    """Return what was trained last, which may be a classifier, and its name."""
    task = tasks.trained_last(directory) if kind == "deep" else None
    if task is None or task.model == "finetuned":
        name, stack = list(models.items())[-1]
        return f"{name} stack", stack
    with warnings.catch_warnings():
        # The page tells how far a run is.
        warnings.simplefilter("ignore", UnfinishedWarning)
        return task.model, tasks.load_predictor(directory, task)


@lru_cache(maxsize=8)
def _pca(path: Path, n_components: int) -> PCA | None:
    """Return components of the training rows; None if there are too many for it."""
    comm = SerialCommunicator()
    with Dataset.open(path) as dataset:
        n_rows, n_visible = shape = dataset.n_samples("train"), dataset.n_visible
        products = n_rows * n_visible * min(shape)
        if n_components >= n_visible or products > _MOST_PRODUCTS:
            return None
        return PCA(local_blocks(dataset, "train", comm), shape, n_components, comm)
