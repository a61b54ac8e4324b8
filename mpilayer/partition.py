"""Who owns what: rows to ranks, layers to ranks. Pure integers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Bounds = tuple[int, int]
"""Where a part of all rows starts and stops."""


def shard_bounds(n_rows: int, n_shards: int) -> list[tuple[int, int]]:
    """Return where each shard starts and stops: contiguous, sizes equal within one.

    The first shards take the remainder; with more shards than rows the last are empty.
    """
    size, remainder = divmod(n_rows, n_shards)
    starts = [i * size + min(i, remainder) for i in range(n_shards + 1)]
    return list(pairwise(starts))


@dataclass(frozen=True)
class Cut:
    """Rows cut into contiguous shards, and each of these into blocks.

    Nothing of it depends on ranks: they get whole blocks, so that each block has the
    same rows whoever works on it.
    """

    shards: tuple[Bounds, ...]
    blocks: tuple[Bounds, ...]

    @staticmethod
    def of(n_rows: int, n_shards: int, longest: int) -> "Cut":
        """Return the cut into shards equal within one, of blocks that are likewise.

        Blocks begin anew with every shard: a shard is what it would be of whole blocks,
        though there be fewer of them than shards. None is longer than ``longest``.
        """
        shards = shard_bounds(n_rows, n_shards)
        blocks = [
            (start + a, start + b)
            for start, stop in shards
            for a, b in shard_bounds(stop - start, -(-(stop - start) // longest))
        ]
        return Cut(tuple(shards), tuple(blocks))

    def rows_of(self, rank: int, n_ranks: int) -> Bounds:
        """Return the rows of a rank: contiguous blocks, as many as others within one.

        With more ranks than blocks the last have none.
        """
        first, last = shard_bounds(len(self.blocks), n_ranks)[rank]
        starts = [*(start for start, _ in self.blocks), self.shards[-1][1]]
        return starts[first], starts[last]


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
