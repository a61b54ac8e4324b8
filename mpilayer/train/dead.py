"""Hidden units that respond to nothing, and a run in which all of them are such."""

from dataclasses import dataclass
from math import isinf

import numpy as np

from mpilayer.arrays import Array64, row_blocks
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.gap import Firing
from mpilayer.train.sparse import Evaluation, ShardedCost

SHARE = 0.001
"""A unit is dead below this part of its equal share of the variance of the rows."""


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
