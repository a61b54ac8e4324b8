"""Errors over all rows, wherever they are: sums over ranks, in float64."""

from collections.abc import Iterable

import numpy as np

from mpilayer.arrays import Array32, Array64
from mpilayer.models.stack import Stack
from mpilayer.numerics.losses import squared_error
from mpilayer.parallel.comm import Communicator, wait_until


def sum_over_ranks(comm: Communicator, values: Array64) -> Array64:
    """Add an array over all ranks of ``comm``, in place, and return it. Collective."""
    request = comm.start_sum(values)
    wait_until(request.test, eager=0.002)
    return values


def reconstruction_error(
    stack: Stack, blocks: Iterable[Array32], comm: Communicator
) -> float:
    """Return Σ over columns of (x − x̂)², mean over all rows of all ranks. Collective.

    Parameters
    ----------
    stack : Stack
        Equal on all ranks; its output is the reconstruction.
    blocks : iterable of ndarray (n_samples, n_visible)
        This rank's rows, block by block. *Local.*
    comm : Communicator
        All ranks that hold rows.

    Returns
    -------
    float
        *Global.* NaN without rows.

    Notes
    -----
    The error of Santara et al. 2016 and of Hinton and Salakhutdinov 2006.
    """
    totals = np.zeros(2)
    for rows in blocks:
        totals += squared_error(rows, stack.apply(rows)), len(rows)
    total, n_rows = sum_over_ranks(comm, totals)
    return float(total / n_rows) if n_rows else float("nan")


class PCA:
    """Principal components of all rows of all ranks; what a linear code would reach.

    Parameters
    ----------
    blocks : iterable of ndarray (n_samples, n_visible)
        This rank's rows, block by block. *Local.*
    n_visible : int
        Columns.
    comm : Communicator
        All ranks that hold rows. Collective.

    Notes
    -----
    Self-check: 30 components fitted on the 60,000 MNIST training images leave 13.87 on
    the test images, as Hinton and Salakhutdinov 2006 print.
    """

    def __init__(
        self, blocks: Iterable[Array32], n_visible: int, comm: Communicator
    ) -> None:
        # Row n_visible holds the sums, its last entry the number of rows.
        moments = np.zeros((n_visible + 1, n_visible + 1))
        for rows in blocks:
            moments[:-1, :-1] += rows.T @ rows
            moments[-1, :-1] += rows.sum(axis=0, dtype=np.float64)
            moments[-1, -1] += len(rows)
        sum_over_ranks(comm, moments)
        n_rows = moments[-1, -1]
        self.mean: Array64 = moments[-1, :-1] / n_rows
        covariance = moments[:-1, :-1] / n_rows - np.outer(self.mean, self.mean)
        # Eigenvalues come in ascending order.
        self.components: Array64 = np.linalg.eigh(covariance)[1][:, ::-1]

    def error(
        self, blocks: Iterable[Array32], n_components: int, comm: Communicator
    ) -> float:
        """Return the reconstruction error with so many components. Collective."""
        basis = self.components[:, :n_components]
        totals = np.zeros(2)
        for rows in blocks:
            centred = rows - self.mean
            kept = centred @ basis
            totals += np.sum(centred**2) - np.sum(kept**2), len(rows)
        total, n_rows = sum_over_ranks(comm, totals)
        return float(total / n_rows) if n_rows else float("nan")
