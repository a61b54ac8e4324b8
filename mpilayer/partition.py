"""Who owns what: rows to ranks, layers to ranks. Pure integers."""

from collections.abc import Sequence
from itertools import pairwise


def shard_bounds(n_rows: int, n_shards: int) -> list[tuple[int, int]]:
    """Return where each shard starts and stops: contiguous, sizes equal within one.

    The first shards take the remainder; with more shards than rows the last are empty.
    """
    size, remainder = divmod(n_rows, n_shards)
    starts = [i * size + min(i, remainder) for i in range(n_shards + 1)]
    return list(pairwise(starts))


TILE = 64
"""Units at whose multiples layers are cut: kernels of BLAS work in such tiles."""


def most_slices(n_units: int) -> int:
    """Return into how many slices of ``TILE`` units a layer can be cut, at least 1."""
    return max(1, n_units // TILE)


def slice_bounds(n_units: int, n_slices: int) -> list[slice]:
    """Return the units of each slice: whole tiles, as equal as that allows.

    There are fewer slices where these would have less than a tile. The last ones are
    the wide ones, and the very last takes the rest of the last tile.
    """
    n = min(n_slices, most_slices(n_units))
    edges = [TILE * (-(-n_units // TILE) * i // n) for i in range(n)]
    return [slice(a, b) for a, b in pairwise([*edges, n_units])]


def layers_to_ranks(costs: Sequence[float], n_ranks: int) -> list[range]:
    """Return the contiguous layers of each rank so that the largest load is smallest.

    Every rank gets at least one. Exact, by dynamic programming over (layers, ranks).
    Among equal largest loads the split is taken that leaves the last rank the most
    layers, and those before it are split likewise: the first ranks feed the others.
    """
    n_layers = len(costs)
    if not 1 <= n_ranks <= n_layers:
        raise ValueError(f"{n_layers} layers cannot go to {n_ranks} ranks")
    prefix = [0.0]
    for cost in costs:
        prefix.append(prefix[-1] + cost)
    # best[i]: (largest load, bounds) of the first i layers on the ranks so far.
    best: list[tuple[float, list[int]]] = [
        (prefix[i], [0, i]) for i in range(n_layers + 1)
    ]
    for _ in range(n_ranks - 1):
        following = [(float("inf"), [0])] * (n_layers + 1)
        for stop in range(1, n_layers + 1):
            for start in range(1, stop):
                load = max(best[start][0], prefix[stop] - prefix[start])
                if load < following[stop][0]:
                    following[stop] = (load, [*best[start][1], stop])
        best = following
    bounds = best[n_layers][1]
    return [range(a, b) for a, b in pairwise(bounds)]
