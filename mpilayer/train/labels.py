"""What a predictor learns from labels, and how well it has learned it."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array32, Array64
from mpilayer.errors import DataError
from mpilayer.models.stack import Predictor
from mpilayer.numerics.losses import squared_error
from mpilayer.parallel.comm import Communicator
from mpilayer.train.evaluate import sum_over_ranks

Block = tuple[Array32, Array32]
"""Rows (n_samples, n_visible) and their targets (n_samples, n_out)."""

Named = Callable[[AnyArray], list[Any]]

_LISTED = 5


def targets(
    labels: AnyArray, classes: AnyArray, named: Named = np.ndarray.tolist
) -> Array32:
    """Return what the outputs should be, (n_samples, n_out).

    Parameters
    ----------
    labels : ndarray of int64 or float32, (n_samples,)
        Any integers; real numbers without classes.
    classes : ndarray of int64, (n_classes,)
        Those there are, ascending: a column each, 1 at the row's class and 0
        elsewhere. Empty: one column, the labels as numbers.
    named : callable
        Returns what labels are called, for the message.

    Raises
    ------
    DataError
        A label that is not a class.
    """
    if not len(classes):
        return labels.astype(np.float32)[:, np.newaxis]
    strange = np.setdiff1d(labels, classes)
    if len(strange):
        found = ", ".join(map(str, named(strange[:_LISTED])))
        raise DataError(
            f"every label must be one of the {len(classes)} of the training rows; "
            f"found {found}. Leave out such rows, or train on data that have some."
        )
    result = np.zeros((len(labels), len(classes)), np.float32)
    result[np.arange(len(labels)), np.searchsorted(classes, labels)] = 1
    return result


class Always:
    """What a predictor must beat: the same output for all rows.

    Parameters
    ----------
    labels : ndarray, (n_samples,)
        Of the training rows: the output is the mean of their targets, whose largest
        names the most frequent class.
    classes : ndarray of int64, (n_classes,)
        As for ``targets``.
    """

    def __init__(self, labels: AnyArray, classes: AnyArray) -> None:
        self.classes = classes
        self.mean = targets(labels, classes).mean(axis=0, dtype=np.float64)

    def apply(self, rows: Array32) -> Array32:
        """Return the output (n_samples, n_out)."""
        return np.tile(self.mean.astype(np.float32), (len(rows), 1))


def confusion(
    model: Predictor | Always, blocks: Iterable[Block], comm: Communicator
) -> Array64:
    """Return how many rows of each class (down) were taken for each (across).

    Collective on ``comm``; ``blocks`` are this rank's rows.
    """
    n = len(model.classes)
    counts = np.zeros((n, n))
    for rows, target in blocks:
        found = model.apply(rows).argmax(axis=1)
        np.add.at(counts, (target.argmax(axis=1), found), 1)
    return sum_over_ranks(comm, counts)


def class_error(counts: Array64) -> float:
    """Return the percentage of rows beside the diagonal; NaN without rows."""
    total = counts.sum()
    return float(100 * (total - np.trace(counts)) / total) if total else float("nan")


def squared_deviation(
    model: Predictor | Always, blocks: Iterable[Block], comm: Communicator
) -> float:
    """Return the squared error of a regressor, mean over all rows. Collective.

    NaN without rows.
    """
    totals = np.zeros(2)
    for rows, target in blocks:
        totals += squared_error(target, model.apply(rows)), len(rows)
    total, n_rows = sum_over_ranks(comm, totals)
    return float(total / n_rows) if n_rows else float("nan")


def prediction_error(
    model: Predictor | Always, blocks: Iterable[Block], comm: Communicator
) -> float:
    """Return the class error in percent, or the mean squared error. Collective."""
    if len(model.classes):
        return class_error(confusion(model, blocks, comm))
    return squared_deviation(model, blocks, comm)
