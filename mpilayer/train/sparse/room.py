"""What ranks share of a sparse training, and whether there is memory for it."""

from collections.abc import Sequence
from math import prod

import numpy as np

from mpilayer.config import SparseConfig
from mpilayer.memory import demand
from mpilayer.models.sparse import block_shapes
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import shard_bounds
from mpilayer.train.sparse.cost import cut_of, make_model
from mpilayer.words import count

# With fewer the Allreduce takes more than another rank saves (docs/choosing.md).
_ROWS_OF_A_RANK = 10_000


def how_ranks_share(config: SparseConfig, n_rows: int, n_ranks: int) -> list[str]:
    """Return what ranks share of all rows, for the start of a log."""
    words = []
    if config.kl == "average":
        shards = count(len(cut_of(config, n_rows, n_ranks).shards), "shard")
        words.append(f"sparsity term averaged over {shards} of {n_rows} rows")
    if config.optimizer == "sgd" and n_ranks > 1:
        words.append(
            "sgd: every rank makes every step; the ranks share the evaluations of "
            "the whole cost"
        )
    return words


def useful_ranks(config: SparseConfig, n_rows: int, n_ranks: int) -> int:
    """Return how many ranks have work that is worth what they exchange."""
    enough = n_rows // _ROWS_OF_A_RANK if config.optimizer != "sgd" else 0
    return min(enough, len(cut_of(config, n_rows, n_ranks).blocks))


def idle_ranks(config: SparseConfig, n_rows: int, n_ranks: int) -> str:
    """Return a warning that there are not rows for all ranks, or an empty text."""
    n_blocks = len(cut_of(config, n_rows, n_ranks).blocks)
    if n_ranks <= n_blocks:
        return ""
    return (
        f"{n_ranks} ranks share {n_rows} training rows in {count(n_blocks, 'block')}; "
        f"{n_ranks - n_blocks} have none. Start fewer ranks."
    )


def check_memory(
    configs: Sequence[SparseConfig], shape: tuple[int, int], comm: Communicator
) -> None:
    """Check that what blocks of rows add fits into memory. Collective.

    A rank keeps as many numbers as there are weights for each of its blocks, until all
    are known. The ``configs`` are those of all costs that are there at the same time,
    ``shape`` are the rows of all ranks and the columns.

    Raises
    ------
    DataError
        There is no room on some rank; on all ranks.
    """
    ranks = comm.neighbours()
    need = sum(_kept_bytes(config, shape, comm) for config in configs)
    what, most = "a gradient of every block of rows", max(c.shards for c in configs)
    advice = "Use fewer hidden units, more hosts, or a larger machine."
    if most > 1:
        advice = f"Use fewer shards than {most}, more hosts, or a larger machine."
    comm.everywhere(lambda: demand(need, what, advice, ranks))


def _kept_bytes(
    config: SparseConfig, shape: tuple[int, int], comm: Communicator
) -> int:
    n_rows, n_visible = shape
    blocks = cut_of(config, n_rows, comm.size).blocks
    first, last = shard_bounds(len(blocks), comm.size)[comm.rank]
    parameters = make_model(config, n_visible).parameters.shapes
    shapes = block_shapes(parameters, fused=config.kl == "exact-fused")
    numbers = sum(map(prod, shapes.values()))
    return (last - first) * numbers * np.dtype(config.dtype).itemsize
