"""How hidden units fire over the rows of all ranks, and what follows from it.

What averaging the sparsity term over shards adds to the cost, measured and bounded:
KL(ρ‖p) is convex in p, so the average over shards is never below the term of all rows
together. The gap is about ½ λ_ρ Σ_j KL″(p_j) Var_shards(p_j). And which units are dead.
"""

from dataclasses import dataclass
from math import isinf

import numpy as np
import numpy.typing as npt

from mpilayer.arrays import AnyArray, Array64, row_blocks
from mpilayer.models.sparse import Sparsity
from mpilayer.numerics.losses import kl_divergence
from mpilayer.partition import shard_bounds
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.sparse.cost import Evaluation, ShardedCost

RISK = 0.01
"""Probability with which a bound may fail."""

SHARE = 0.001
"""A unit is dead below this part of its equal share of the variance of the rows."""

_LEVELS = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 128)])
"""Firing probabilities at which the rows of a unit are counted, for its bound."""

_TILTS = np.geomspace(1e-3, 600.0, 200)
"""Where the moment generating functions are taken; e to the last is a float64."""


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
        random; see ``gap_bound``.
    """

    shards: int
    measured: float
    predicted: float
    bound: float


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
        self._counts = level_counts(self._firing)
        sum_over_ranks(self._comm, self._counts)
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
            gap_bound(sparsity, self._counts, n_shards, smallest),
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


def level_counts(firing: AnyArray) -> Array64:
    """Count rows by firing probability, each shared by the two levels around it.

    Parameters
    ----------
    firing : ndarray (n_samples, n_hidden)
        Firing probabilities.

    Returns
    -------
    ndarray (n_hidden, n_levels)
        The sums over rows and their means are kept; no convex function's mean falls.
    """
    counts = np.empty((firing.shape[1], len(_LEVELS)))
    for own, column in zip(counts, firing.T, strict=True):
        below = np.searchsorted(_LEVELS[1:-1], column, side="right")
        share = (column - _LEVELS[below]) / np.diff(_LEVELS)[below]
        own[:] = np.bincount(below, 1 - share, len(_LEVELS))
        own += np.bincount(below + 1, share, len(_LEVELS))
    return counts


def gap_bound(
    sparsity: Sparsity, counts: Array64, n_shards: int, shard_rows: int
) -> float:
    """Bound the gap of random shards of at least ``shard_rows`` rows.

    With probability 1 − ``RISK`` the p_j of every shard lies between the two points
    that Chernoff's inequality gives for the mean of so many rows. A shard's rows are
    drawn without replacement, which is never worse than with it (Hoeffding 1963,
    Theorem 4), from rows that are known: so the moment generating function is the
    measured one, which sees more than the variance in Bernstein's inequality. The gap
    is the average over shards of what KL has above its tangent at the p_j of all rows;
    that is convex, so largest at one of the two points.

    Parameters
    ----------
    sparsity : Sparsity
        The term.
    counts : ndarray (n_hidden, n_levels)
        All rows of each unit, from ``level_counts``.
    n_shards, shard_rows : int
        Shards, and the rows of the smallest.

    Returns
    -------
    float
        Infinite if a shard may have no row at which some unit fires.
    """
    if not sparsity.weight:
        return 0.0
    shares = counts / counts.sum(axis=1, keepdims=True)
    p = shares @ _LEVELS
    room = np.log(2 * n_shards * len(p) / RISK) / max(shard_rows, 1)
    high = np.minimum(_reach(shares, room, 1), 1)
    low = np.maximum(-_reach(shares, room, -1), 0)
    ends = [_above_tangent(sparsity, p, end) for end in (low, high)]
    return float(np.max(ends, axis=0).sum())


def _reach(shares: Array64, room: float, sign: int) -> Array64:
    """Return what ``sign`` times a mean passes with probability e^(−room) a row."""
    moments = shares @ np.exp(sign * np.outer(_LEVELS, _TILTS))
    reach: Array64 = ((np.log(moments) + room) / _TILTS).min(axis=1)
    return reach


def _above_tangent(sparsity: Sparsity, p: Array64, q: Array64) -> Array64:
    """Return how far each unit's term at q lies above its tangent at p."""
    # A unit that fires at no row has no bound: NaN, which is shown as infinite.
    with np.errstate(invalid="ignore"):
        rise = kl_divergence(sparsity.target, q) - kl_divergence(sparsity.target, p)
        return sparsity.weight * rise - sparsity.slope(p) * (q - p)


@dataclass(frozen=True)
class Dead:
    """The hidden units whose part of the output is the same for all rows.

    Attributes
    ----------
    units : int
        How many.
    of : int
        How many hidden units there are.
    cost : float
        Half the variance of the rows, summed over the columns: the cost if all are
        dead, and the output is the mean row.
    """

    units: int
    of: int
    cost: float

    def warning(self, final: Evaluation) -> str:
        """Return what the user must know about the end of a run, mostly nothing."""
        if isinf(final.cost):
            return (
                "the cost is infinite: a hidden unit never fires, or always. Take "
                "other first weights (--seed, --initial), a smaller --learning-rate, "
                "or --dtype float64"
            )
        if self.units < self.of:
            return ""
        return (
            f"all {self.of} hidden units are dead: the output is the same for all "
            f"rows, which costs {self.cost:.5g} in squared error; nothing was learned. "
            "Take more --evaluations, another --learning-rate (sgd), a smaller "
            "--sparsity-weight, or other first weights (--seed, --initial)"
        )


def dead_units(cost: ShardedCost, position: Array64) -> Dead:
    """Count the dead units at a position. Collective on the cost's ranks."""
    variance = Firing(cost, position).variance
    out = cost.model.gain * cost.model.parameters["decode_weights"]
    moves = variance * np.einsum("ij,ij->i", out, out)
    total = _variance(cost)
    n_hidden = len(moves)
    dead = int(np.count_nonzero(moves <= SHARE * total / n_hidden))
    return Dead(dead, n_hidden, total / 2)


def _variance(cost: ShardedCost) -> float:
    """Return the variance of the columns over all rows, summed. Collective."""
    n_columns = cost.rows.shape[1]
    moments = np.zeros((2, n_columns))
    for where in row_blocks(len(cost.rows)):
        block = cost.rows[where]
        moments[0] += block.sum(axis=0, dtype=np.float64)
        moments[1] += np.einsum("ij,ij->j", block, block, dtype=np.float64)
    mean, square = sum_over_ranks(cost.comm, moments) / cost.n_rows
    return float((square - mean**2).sum())
