"""Whether there is memory for what a sparse autoencoder keeps beside the rows."""

from collections.abc import Sequence
from math import prod

import numpy as np

from mpilayer.config import SparseConfig
from mpilayer.memory import demand
from mpilayer.models.sparse import block_shapes
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import shard_bounds
from mpilayer.train.sparse.cost import cut_of, make_model


def check_memory(
    configs: Sequence[SparseConfig], shape: tuple[int, int], comm: Communicator
) -> None:
    """Check that what blocks of rows add fits into memory. Collective.

    A rank keeps as many numbers as there are weights for each of its blocks, until all
    are known.

    Parameters
    ----------
    configs : sequence of SparseConfig
        Of all costs that are there at the same time.
    shape : tuple of int
        Rows of all ranks, and columns. *Global.*
    comm : Communicator
        All ranks.

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
