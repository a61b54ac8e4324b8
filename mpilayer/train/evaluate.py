"""How good a model is, over all rows of all ranks: sums in float64. Collective."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from mpilayer.arrays import AnyArray, Array32, Array64
from mpilayer.errors import DataError
from mpilayer.models.stack import Predictor, Stack
from mpilayer.numerics.losses import squared_error
from mpilayer.parallel.comm import Communicator, wait_until
from mpilayer.rng import stream

Block = tuple[Array32, Array32]
"""Rows (n_samples, n_visible) and their targets (n_samples, n_out)."""

Named = Callable[[AnyArray], list[Any]]
"""Returns what labels are called."""

_LISTED = 5

_NEGLIGIBLE = 1e-12
"""Squares below this part of the largest one are what rounding has left."""

_FINE = 2.0**30
"""Parts of a unit, of which sums over 2^22 rows are whole numbers of 53 bits."""

_LARGE, _FEW = 1500, 0.05
"""Rows of a matrix, and the part of them as components, from and up to which products
are faster than a whole decomposition."""

_EIGEN_TOLERANCE = 1e-8
"""Of the eigenvalues; errors are shown with four digits."""


def sum_over_ranks(comm: Communicator, values: Array64) -> Array64:
    """Add an array over all ranks of ``comm``, in place, and return it. Collective."""
    request = comm.start_sum(values)
    wait_until(request.test, eager=0.002)
    return values


def _mean(sums: Iterable[tuple[float, int]], comm: Communicator) -> float:
    """Return the mean over all rows, given sums over some; NaN for none. Collective.

    Sums are added in the order of ranks, whoever has which.
    """
    totals = np.zeros(2)
    for parts in comm.allgather(list(sums)):
        for part in parts:
            totals += part
    total, n_rows = totals
    return float(total / n_rows) if n_rows else float("nan")


def reconstruction_error(
    stack: Stack, blocks: Iterable[Array32], comm: Communicator
) -> float:
    """Return Σ over columns of (x − x̂)², mean over all rows; NaN without. Collective.

    ``blocks`` are this rank's rows (n_samples, n_visible), ``stack`` is equal on all
    ranks. The error of Santara et al. 2016 and of Hinton and Salakhutdinov 2006.
    """
    return _mean(((squared_error(x, stack.apply(x)), len(x)) for x in blocks), comm)


class PCA:
    """Principal components of all rows of all ranks; what a linear code would reach.

    Collective to make.

    Parameters
    ----------
    blocks : iterable of ndarray (n_samples, n_visible)
        This rank's rows, which follow one another in the order of ranks. The result is
        the same to the bit for any number of ranks that have the same blocks. *Local.*
    shape : tuple of int
        Rows of all ranks, and columns. *Global.*

    Attributes
    ----------
    mean, basis : ndarray (n_visible,), (n_visible, n_components)
        Of all rows; orthonormal columns, fewer where there are fewer rows than that.

    Notes
    -----
    Fewer rows than columns have the same components by their Gram matrix, which is the
    smaller one: Turk and Pentland 1991.

    Self-check: 30 components fitted on the 60,000 MNIST training images leave 13.87 on
    the test images, as Hinton and Salakhutdinov 2006 print.
    """

    MOST_NUMBERS = 1 << 28
    """What a matrix may have, in float64: 2 GiB."""

    @staticmethod
    def fits(n_rows: int, n_visible: int) -> bool:
        """Tell whether the largest matrix that is needed is not too large."""
        return min(n_rows, n_visible) * n_visible <= PCA.MOST_NUMBERS

    def __init__(
        self,
        blocks: Iterable[Array32],
        shape: tuple[int, int],
        n_components: int,
        comm: Communicator,
    ) -> None:
        by = _by_rows if shape[0] < shape[1] else _by_columns
        self.mean, self.basis = by(blocks, shape, n_components, comm)

    def reconstruct(self, rows: Array32) -> Array64:
        """Return rows (n_samples, n_visible) as the components have them. Local."""
        kept = (rows - self.mean) @ self.basis
        return np.asarray(self.mean + kept @ self.basis.T)

    def error(self, blocks: Iterable[Array32], comm: Communicator) -> float:
        """Return the reconstruction error of rows. Collective."""

        def squares(rows: Array32) -> float:
            centred = rows - self.mean
            return float(np.sum(centred**2) - np.sum((centred @ self.basis) ** 2))

        return _mean(((squares(rows), len(rows)) for rows in blocks), comm)


def _by_columns(
    blocks: Iterable[Array32], shape: tuple[int, int], n: int, comm: Communicator
) -> tuple[Array64, Array64]:
    """Return mean and components by the covariance of the columns. Collective."""
    n_rows, n_visible = shape
    held = iter(blocks)
    start = next(held, np.zeros((0, n_visible), np.float32))
    units = comm.broadcast(_units(start))
    # Row n_visible holds the sums. All are whole multiples of their units, which adds
    # up to the same in any order; what is cut off is less than float32 products lose.
    moments = np.zeros((n_visible + 1, n_visible))
    for rows in chain([start], held):
        moments[:-1] += np.rint((rows.T @ rows) / units[:, np.newaxis] / units * _FINE)
        moments[-1] += np.rint(rows.sum(axis=0, dtype=np.float64) / units * _FINE)
    sum_over_ranks(comm, moments)
    moments *= units / (n_rows * _FINE)
    mean = moments[-1].copy()
    # E[xᵀx] − μᵀμ
    covariance = moments[:-1]
    covariance *= units[:, np.newaxis]
    covariance -= np.outer(mean, mean)
    return mean, _leading(covariance, n)[1]


def _units(rows: Array32) -> Array64:
    """Return powers of two about as large as the numbers of each column."""
    largest = np.abs(rows).max(axis=0, initial=0).astype(np.float64)
    largest[largest == 0] = largest.max(initial=0) or 1
    powers: Array64 = np.ldexp(1.0, np.frexp(largest)[1])
    return powers


def _by_rows(
    blocks: Iterable[Array32], shape: tuple[int, int], n: int, comm: Communicator
) -> tuple[Array64, Array64]:
    """Return mean and components by the inner products of the rows. Collective."""
    centred, held = np.zeros(shape), list(blocks)
    start = sum(comm.allgather(sum(map(len, held)))[: comm.rank])
    for rows in held:
        centred[start : start + len(rows)] = rows
        start += len(rows)
    sum_over_ranks(comm, centred)  # each rank's rows among zeros
    mean = centred.mean(axis=0)
    centred -= mean
    # XXᵀu = λu: then XᵀXv = λv with v = Xᵀu / √λ, of length 1.
    squares, vectors = _leading(centred @ centred.T, n)
    there = squares > _NEGLIGIBLE * squares.max(initial=0)
    return mean, centred.T @ (vectors[:, there] / np.sqrt(squares[there]))


def _leading(matrix: Array64, n: int) -> tuple[Array64, Array64]:
    """Return the largest eigenvalues, in descending order, and vectors as columns."""
    if len(matrix) < _LARGE or n > _FEW * len(matrix) or not n:
        values, vectors = np.linalg.eigh(matrix)
    else:
        # Few of a large matrix are found by its products with vectors (ARPACK); with
        # 4,000 columns and 30 components in a fifteenth of the time.
        # Only here: it brings a BLAS of its own.
        from scipy.sparse.linalg import eigsh

        first = stream(0, "pca").standard_normal(len(matrix))
        values, vectors = eigsh(matrix, n, v0=first, tol=_EIGEN_TOLERANCE)
    return values[::-1][:n], vectors[:, ::-1][:, :n]


# --- models that learn labels


def targets(
    labels: AnyArray, classes: AnyArray, named: Named = np.ndarray.tolist
) -> Array32:
    """Return what the outputs should be, (n_samples, n_out).

    With ``classes`` (n_classes,), ascending, a column each, 1 at the row's class and 0
    elsewhere; without, one column, the labels as numbers.

    Raises
    ------
    DataError
        A label that is not a class; the message calls it as ``named`` does.
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


class FarTargets:
    """What the outputs should be, as ``targets``, made when it is asked for."""

    def __init__(self, labels: AnyArray, classes: AnyArray) -> None:
        self._labels, self._classes = labels, classes

    def __getitem__(self, where: slice | AnyArray) -> Array32:
        """Return that of some rows (n_samples, n_out)."""
        return targets(self._labels[where], self._classes)


Targets: TypeAlias = Array32 | FarTargets


class Always:
    """What a predictor must beat: the mean target of the training rows for all rows.

    Its largest number names the most frequent class; ``classes`` as for ``targets``.
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


def prediction_error(
    model: Predictor | Always, blocks: Iterable[Block], comm: Communicator
) -> float:
    """Return the percentage of wrong classes, or the mean squared error. Collective.

    NaN without rows.
    """
    if len(model.classes):
        counts = confusion(model, blocks, comm)
        total = counts.sum()
        wrong = total - np.trace(counts)
        return float(100 * wrong / total) if total else float("nan")
    errors = ((squared_error(t, model.apply(x)), len(x)) for x, t in blocks)
    return _mean(errors, comm)
