"""What averaging the sparsity term over shards adds to the cost: measured and bounded.

KL(ρ‖p) is convex in p, so the average over shards is never below the term of all rows
together. The gap is about ½ λ_ρ Σ_j KL″(p_j) Var_shards(p_j).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpilayer.arrays import AnyArray, Array64
from mpilayer.models.sparse import Sparsity
from mpilayer.partition import shard_bounds
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.sparse import ShardedCost

RISK = 0.01
"""Probability with which a bound may fail."""

_HALVINGS = 60


@dataclass(frozen=True)
class Gap:
    """How far the average cost lies above the exact one, for one cut into shards.

    Attributes
    ----------
    shards : int
        How many the rows are cut into.
    measured : float
        The average sparsity term less that of all rows.
    predicted : float
        To second order, from the variance between the shards.
    bound : float
        What it does not exceed with probability 1 − ``RISK`` for shards drawn at
        random, by Chernoff's inequality (Hoeffding 1963, Theorem 1).
    hoeffding : float
        The same by the simpler inequality, often infinite where units seldom fire.
    """

    shards: int
    measured: float
    predicted: float
    bound: float
    hoeffding: float


class Firing:
    """Firing probabilities of the rows of all ranks at one position. Collective.

    Parameters
    ----------
    cost : ShardedCost
        Gives model, rows and ranks; the rows of all ranks must follow one another in
        the order of ranks.
    position : ndarray (n,)
        The parameters.

    Attributes
    ----------
    mean, variance : ndarray (n_hidden,)
        Over all rows.
    """

    def __init__(self, cost: ShardedCost, position: Array64) -> None:
        cost.model.parameters.vector[:] = position
        self._comm, self._n_rows = cost.comm, cost.n_rows
        self._sparsity, self._rows = cost.sparsity, cost.rows
        sums = cost.model.fire(cost.rows)
        self._firing = cost.model.firing
        squares = np.einsum("ij,ij->j", self._firing, self._firing, dtype=np.float64)
        sum_over_ranks(self._comm, sums)
        sum_over_ranks(self._comm, squares)
        self.mean: Array64 = sums / self._n_rows
        self.variance: Array64 = np.maximum(squares / self._n_rows - self.mean**2, 0)
        counts = self._comm.allgather(len(self._rows))
        self._first = sum(counts[: self._comm.rank])

    def gap(self, n_shards: int, ordered: bool = False) -> Gap:
        """Return the gap if the rows were cut into so many contiguous shards.

        Parameters
        ----------
        n_shards : int
            At most as many as rows.
        ordered : bool
            Cut after sorting the rows by their norm: what happens to sorted data.
        """
        ranks = self._ranks_by_norm() if ordered else self._positions()
        starts = [start for start, _ in shard_bounds(self._n_rows, n_shards)]
        shard = np.searchsorted(starts, ranks, side="right") - 1
        return self._gap_of(shard, n_shards)

    def gap_of_ranks(self) -> Gap:
        """Return the gap of the shards that the ranks really hold."""
        mine = np.full(len(self._rows), self._comm.rank)
        return self._gap_of(mine, self._comm.size)

    def excess(self) -> float:
        """Return the variance between the ranks' means over what sampling explains.

        About 1 for shuffled rows. NaN with one rank that has rows.
        """
        mine = np.full(len(self._rows), self._comm.rank)
        means, weights = self._means(mine, self._comm.size)
        n_full = int(np.count_nonzero(weights))
        between = (weights[:, None] * (means - self.mean) ** 2).sum(axis=0)
        active = self.variance > 0
        if n_full < 2 or not active.any():
            return float("nan")
        ratio = between[active] * self._n_rows / self.variance[active]
        return float(ratio.mean() / (n_full - 1))

    def _gap_of(self, shard: npt.NDArray[np.intp], n_shards: int) -> Gap:
        means, weights = self._means(shard, n_shards)
        sparsity, p = self._sparsity, self.mean
        terms = np.array([sparsity.cost(mean) for mean in means])
        measured = float(weights @ terms) - sparsity.cost(p)
        variance = (weights[:, None] * (means - p) ** 2).sum(axis=0)
        predicted = float(sparsity.curvature(p) @ variance) / 2
        smallest = self._n_rows // n_shards
        return Gap(
            n_shards,
            measured,
            predicted,
            chernoff_bound(sparsity, p, n_shards, smallest),
            hoeffding_bound(sparsity, p, n_shards, self._n_rows),
        )

    def _means(
        self, shard: npt.NDArray[np.intp], n_shards: int
    ) -> tuple[Array64, Array64]:
        """Return p of each shard (that of all rows for an empty one), and its share."""
        sums = np.zeros((len(self.mean) + 1, n_shards))
        for unit, firing in enumerate(self._firing.T):
            sums[unit] = np.bincount(shard, weights=firing, minlength=n_shards)
        sums[-1] = np.bincount(shard, minlength=n_shards)
        sum_over_ranks(self._comm, sums)
        counts = sums[-1]
        means = np.where(
            counts > 0, sums[:-1] / np.maximum(counts, 1), self.mean[:, None]
        )
        return means.T, counts / self._n_rows

    def _positions(self) -> AnyArray:
        """Return where this rank's rows lie among those of all ranks."""
        places: AnyArray = self._first + np.arange(len(self._rows))
        return places

    def _ranks_by_norm(self) -> AnyArray:
        """Return the places of this rank's rows when all are sorted by their norm."""
        norms = np.einsum("ij,ij->i", self._rows, self._rows)
        everywhere = np.concatenate(self._comm.allgather(norms))
        places = np.empty(len(everywhere), np.intp)
        places[np.argsort(everywhere, kind="stable")] = np.arange(len(everywhere))
        return places[self._first : self._first + len(norms)]


def chernoff_bound(
    sparsity: Sparsity, p: Array64, n_shards: int, shard_rows: int
) -> float:
    """Bound the gap of random shards of at least ``shard_rows`` rows.

    Every p_j of every shard lies, with probability 1 − ``RISK``, where
    shard_rows · KL(p_j of the shard ‖ p_j) ≤ ln(2 · shards · units / RISK). There
    Taylor's remainder with the largest KL″ bounds the gap.
    """
    room = np.log(2 * n_shards * len(p) / RISK) / max(shard_rows, 1)
    low, high = _reach(p, np.zeros_like(p), room), _reach(p, np.ones_like(p), room)
    return _remainder(sparsity, low, high, np.maximum(high - p, p - low))


def hoeffding_bound(
    sparsity: Sparsity, p: Array64, n_shards: int, n_rows: int
) -> float:
    """Bound the gap as above with |p_j of a shard − p_j| ≤ 2η, for equal shards.

    η = √(shards · ln(2 · shards · units / RISK) / (2 · rows)).
    """
    log = np.log(2 * n_shards * len(p) / RISK)
    width = 2 * np.sqrt(n_shards * log / (2 * n_rows))
    low, high = np.maximum(p - width, 0), np.minimum(p + width, 1)
    return _remainder(sparsity, low, high, np.full_like(p, width))


def _remainder(
    sparsity: Sparsity, low: Array64, high: Array64, distance: Array64
) -> float:
    # KL″ is convex: its largest value is at an end.
    most = np.maximum(sparsity.curvature(low), sparsity.curvature(high))
    return float((most * distance**2).sum()) / 2


def _reach(p: Array64, end: Array64, room: float) -> Array64:
    """Return the point between p and ``end`` where KL(point ‖ p) = room, by halving."""
    inside, outside = p.copy(), end
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        near = _divergence(middle, p) <= room
        inside = np.where(near, middle, inside)
        outside = np.where(near, outside, middle)
    return outside


def _divergence(q: Array64, p: Array64) -> Array64:
    """Return KL(q‖p) of two arrays of probabilities."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(q > 0, q * np.log(q / p), 0)
        second = np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0)
    return first + second
