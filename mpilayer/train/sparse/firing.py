"""How hidden units fire over the rows of all ranks, and what follows from it.

What averaging the sparsity term over shards adds to the cost, measured and bounded:
KL(ρ‖p) is convex in p, so the average over shards is never below the term of all rows
together. The gap is about ½ λ_ρ Σ_j KL″(p_j) Var_shards(p_j). And which units are dead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.models.sparse import Sparsity
from mpilayer.numerics.losses import kl_divergence
from mpilayer.partition import Bounds, shard_bounds
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.sparse.cost import Evaluation, ShardedCost

RISK = 0.01
"""Probability with which a bound may fail."""

SHARE = 0.001
"""A unit is dead below this part of its equal share of the variance of the rows."""

_ROUNDING = 1e-13
"""Rows whose variance is below this part of their squares are equal."""

_LEVELS = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 128)])
"""Firing probabilities at which the rows of a unit are counted, for its bound."""

_PARTS = 2.0**30
"""Of a row that two levels share: whole ones add up to the same in any order."""

_FINEST = 1000

_TILTS = np.geomspace(1e-3, 600.0, 200)
"""Where the moment generating functions are taken; e to the last is a float64."""


@dataclass(frozen=True)
class Gap:
    """How far the average cost lies above the exact one, for one cut into shards."""

    shards: int
    measured: float  # the average sparsity term less that of all rows
    predicted: float  # to second order, from the variance between the shards
    bound: float  # for shards drawn at random, see ``gap_bound``


class Firing:
    """Firing probabilities of the rows of all ranks at one position. Collective.

    The ``cost`` gives model, rows and ranks, the ``position`` (n,) parameters; ``mean``
    and ``variance`` (n_hidden,) are those over all rows.
    """

    def __init__(self, cost: ShardedCost, position: Array64) -> None:
        cost.model.parameters.vector[:] = position
        self._cost = cost
        shape = len(cost.blocks), cost.model.shape.n_hidden
        cost.model.fire(cost.rows, cost.blocks, np.empty(shape, cost.model.dtype))
        self._firing = fires = cost.model.firing
        moments = _moments(cost, fires)
        self._counts = sum_over_ranks(cost.comm, level_counts(fires))
        self.mean: Array64 = moments[0]
        self.variance: Array64 = np.maximum(moments[1] - self.mean**2, 0)
        self._places = cost.first + np.arange(len(cost.rows))

    def gap(self, n_shards: int = 0, ordered: bool = False) -> Gap:
        """Return the gap if the rows were cut into so many contiguous shards.

        Those over which the cost averages, if none are given. ``ordered``: after
        sorting them by their norm, as happens to sorted data.
        """
        cost, p = self._cost, self.mean
        shards = shard_bounds(cost.n_rows, n_shards) if n_shards else cost.cut.shards
        places = self._places_by_norm() if ordered else self._places
        variance, weights, means = self._between(places, shards)
        n, sparsity = len(shards), cost.sparsity
        terms = np.array([sparsity.cost(mean) for mean in means])
        return Gap(
            n,
            measured=float(weights @ terms) - sparsity.cost(p),
            predicted=float(sparsity.curvature(p) @ variance) / 2,
            bound=gap_bound(sparsity, self._counts, n, cost.n_rows // n),
        )

    def excess(self) -> float:
        """Return the variance between the shards' means over what sampling explains.

        About 1 for shuffled rows. NaN with one shard.
        """
        between, weights, _ = self._between(self._places, self._cost.cut.shards)
        n_full, active = int(np.count_nonzero(weights)), self.variance > 0
        if n_full < 2 or not active.any():
            return float("nan")
        ratio = between[active] * self._cost.n_rows / self.variance[active]
        return float(ratio.mean() / (n_full - 1))

    def _between(
        self, places: AnyArray, shards: Sequence[Bounds]
    ) -> tuple[Array64, Array64, Array64]:
        """Return Var_shards(p_j), each shard's part of the rows, and its p.

        This rank's rows have these places. The p of an empty shard, whose part is 0, is
        the mean of all rows.
        """
        n_rows, n_shards = self._cost.n_rows, len(shards)
        starts = [start for start, _ in shards]
        shard = np.searchsorted(starts, places, "right") - 1
        sums = np.zeros((len(self.mean) + 1, n_shards))
        # Whole numbers below 2^53 add up to the same in any order.
        powers = np.clip(52 - np.frexp(self.mean * n_rows)[1], -_FINEST, _FINEST)
        for unit, firing in enumerate(self._firing.T):
            parts = np.rint(np.ldexp(firing.astype(np.float64), powers[unit]))
            sums[unit] = np.bincount(shard, weights=parts, minlength=n_shards)
        sums[-1] = np.bincount(shard, minlength=n_shards)
        sum_over_ranks(self._cost.comm, sums)
        sums[:-1] = np.ldexp(sums[:-1], -powers[:, np.newaxis])
        counts = sums[-1]
        found = sums[:-1] / np.maximum(counts, 1)
        means = np.where(counts > 0, found, self.mean[:, None]).T
        weights = counts / n_rows
        variance = (weights[:, None] * (means - self.mean) ** 2).sum(axis=0)
        return variance, weights, means

    def _places_by_norm(self) -> AnyArray:
        """Return the places of this rank's rows when all are sorted by their norm."""
        rows = self._cost.rows
        norms = np.einsum("ij,ij->i", rows, rows)
        everywhere = np.concatenate(self._cost.comm.allgather(norms))
        places = np.empty(len(everywhere), np.intp)
        places[np.argsort(everywhere, kind="stable")] = np.arange(len(everywhere))
        own: AnyArray = places[self._places]
        return own


def _moments(cost: ShardedCost, rows: AnyArray) -> Array64:
    """Return means over all rows, of columns and of their squares. Collective."""
    n = rows.shape[1]
    parts = np.empty((len(cost.blocks), 2 * n))
    for own, where in zip(parts, cost.blocks, strict=True):
        block = rows[where]
        own[:n] = block.sum(axis=0, dtype=np.float64)
        own[n:] = np.einsum("ij,ij->j", block, block, dtype=np.float64)
    means: Array64 = cost.total(parts).reshape(2, n) / cost.n_rows
    return means


def level_counts(firing: AnyArray) -> Array64:
    """Count the rows (n_samples, n_hidden) of each unit by firing probability.

    Each row is shared by the two levels around it: the sums over rows and their means
    are kept, and no convex function's mean falls. The result is (n_hidden, n_levels).
    """
    counts = np.empty((firing.shape[1], len(_LEVELS)))
    for own, column in zip(counts, firing.T, strict=True):
        below = np.searchsorted(_LEVELS[1:-1], column, side="right")
        share = (column - _LEVELS[below]) / np.diff(_LEVELS)[below]
        share = np.rint(share * _PARTS) / _PARTS
        own[:] = np.bincount(below, 1 - share, len(_LEVELS))
        own += np.bincount(below + 1, share, len(_LEVELS))
    return counts


def gap_bound(
    sparsity: Sparsity, counts: Array64, n_shards: int, shard_rows: int
) -> float:
    """Bound the gap of random shards of at least ``shard_rows`` rows.

    ``counts`` are all rows of each unit, from ``level_counts``. The bound is infinite
    if a shard may have no row at which some unit fires.

    Notes
    -----
    The bound of Lahiri et al. 2010 does not hold: their Fact 3.2 fails for x = 0.002,
    y = 0.001. This one does. With probability 1 − ``RISK`` the p_j of every shard lies
    between the two points that Chernoff's inequality gives for the mean of so many
    rows. A shard's rows are drawn without replacement, which is never worse than with
    it (Hoeffding 1963, Theorem 4), from rows that are known: so the moment generating
    function is the measured one, which sees more than the variance in Bernstein's
    inequality. The gap is the average over shards of what KL has above its tangent at
    the p_j of all rows; that is convex, so largest at one of the two points.
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
    """The ``units``, ``of`` all, whose part of the output is the same for all rows.

    ``cost`` is half the variance of the rows, summed over the columns: that if all are
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
        if not self.cost:
            return "all training rows are equal: there is nothing to learn from them"
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
    mean, square = _moments(cost, cost.rows)
    total = float((square - mean**2).sum())
    if total <= _ROUNDING * square.sum():
        return Dead(len(moves), len(moves), 0.0)  # equal rows: nothing moves
    dead = int(np.count_nonzero(moves <= SHARE * total / len(moves)))
    return Dead(dead, len(moves), total / 2)


def filters(weights: Array64) -> AnyArray:
    """Return the input of norm 1 that each hidden unit responds to most.

    ``weights`` (n_visible, n_hidden) are W₁; the result is (n_hidden, n_visible), or
    (n_hidden, size, size) of square patches.
    """
    norms = np.maximum(np.linalg.norm(weights, axis=0), np.finfo(np.float64).tiny)
    rows: AnyArray = (weights / norms).T.astype(np.float32)
    size = round(rows.shape[1] ** 0.5)
    return rows.reshape(-1, size, size) if size * size == rows.shape[1] else rows
