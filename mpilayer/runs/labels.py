"""The labels of a data set, as targets of a predictor; errors over its splits."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mpilayer.arrays import AnyArray, row_blocks
from mpilayer.data.dataset import Dataset
from mpilayer.data.layout import SPLITS
from mpilayer.errors import DataError
from mpilayer.models.stack import Predictor
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import shard_bounds
from mpilayer.runs.session import finite
from mpilayer.train.labels import Always, Block, prediction_error, targets


def read_labels(
    dataset: Dataset, split: str, start: int = 0, stop: int | None = None
) -> AnyArray:
    """Return the labels of rows.

    Raises
    ------
    DataError
        The split has none.
    """
    labels = dataset.labels(split, start, stop)
    if labels is None:
        raise DataError(
            f"the {split} rows must have labels; those of {dataset.path} have none. "
            "Prepare the data set from files that have labels (--labels COLUMN), or "
            "give another --data."
        )
    return labels


def classes_of(labels: AnyArray, task: str) -> AnyArray:
    """Return the classes that labels name, ascending; none if they are numbers.

    Raises
    ------
    DataError
        There is only one, or they are real numbers.
    """
    if task != "classify":
        return np.empty(0, np.int64)
    if labels.dtype.kind == "f":
        raise DataError(
            "to classify, labels must be whole numbers or texts; found real numbers "
            f"such as {labels[0]:g}. Learn them with --task regress."
        )
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(
            "to classify there must be at least two different labels in the training "
            f"rows; all are {classes[0]}. Prepare the data set with other labels."
        )
    return classes


def labelled_blocks(
    dataset: Dataset, split: str, classes: AnyArray, comm: Communicator
) -> Iterator[Block]:
    """Yield this rank's contiguous rows of a split with their targets."""
    bounds = shard_bounds(dataset.n_samples(split), comm.size)[comm.rank]
    for block in row_blocks(bounds[1] - bounds[0]):
        where = (bounds[0] + block.start, bounds[0] + block.stop)
        labels = read_labels(dataset, split, *where)
        yield dataset.rows(split, *where), targets(labels, classes)


def check_all_labels(dataset: Dataset, task: str) -> None:
    """Check that all splits with labels have those that a task can learn. Local.

    Raises
    ------
    DataError
        They have not, or the training rows have none.
    """
    classes = classes_of(read_labels(dataset, "train"), task)
    if task == "regress" and (names := dataset.preparation.classes):
        raise DataError(
            f"to regress, labels must be numbers; those of {dataset.path} are texts "
            f"such as {names[0]!r}. Learn them with --task classify."
        )
    for split in labelled_splits(dataset):
        check_labels(dataset, split, classes)


def check_labels(dataset: Dataset, split: str, classes: AnyArray) -> None:
    """Check that a split has labels, and none but of these classes. Local.

    Raises
    ------
    DataError
        It has not.
    """
    targets(read_labels(dataset, split), classes, dataset.preparation.names)


def labelled_splits(dataset: Dataset) -> list[str]:
    """Return the splits that have labels."""
    return [s for s in dataset.splits if dataset.labels(s, 0, 0) is not None]


def always(data: Path, classes: AnyArray) -> Always:
    """Return what predicts the same for all rows, by the training labels. Local."""
    with Dataset.open(data) as dataset:
        return Always(read_labels(dataset, "train"), classes)


def prediction_errors(
    model: Predictor | Always, data: Path, comm: Communicator
) -> dict[str, float | None]:
    """Return the error of each split, None where there are no labels. Collective."""
    with Dataset.open(data) as dataset:
        errors = {
            split: prediction_error(
                model, labelled_blocks(dataset, split, model.classes, comm), comm
            )
            for split in labelled_splits(dataset)
        }
    return {split: finite(errors.get(split, math.nan)) for split in SPLITS}
