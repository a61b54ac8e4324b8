"""Rows to ranks, layers to ranks."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from mpilayer.partition import Cut, layers_to_ranks, shard_bounds


@pytest.mark.parametrize("n_shards", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("n_rows", [0, 1, 7, 10, 60_000])
def test_shards(n_rows, n_shards):
    bounds = shard_bounds(n_rows, n_shards)
    assert len(bounds) == n_shards
    assert (bounds[0][0], bounds[-1][1]) == (0, n_rows)
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("longest", [1, 3, 10, 2000])
@pytest.mark.parametrize(
    ("n_rows", "n_shards"), [(1, 1), (7, 3), (10, 10), (1000, 4), (4501, 2)]
)
def test_blocks(n_rows, n_shards, longest):
    """Of each shard its own, about equal; ranks get contiguous ones."""
    cut = Cut.of(n_rows, n_shards, longest)
    assert cut.shards == tuple(shard_bounds(n_rows, n_shards))
    starts = [start for start, _ in cut.blocks]
    assert {start for start, _ in cut.shards} <= set(starts)
    assert [stop for _, stop in cut.blocks] == [*starts[1:], n_rows]
    sizes = [stop - start for start, stop in cut.blocks]
    assert 1 <= min(sizes) <= max(sizes) <= longest
    for n_ranks in (1, 2, 7, 30):
        rows = [cut.rows_of(rank, n_ranks) for rank in range(n_ranks)]
        assert (rows[0][0], rows[-1][1]) == (0, n_rows)
        assert all(a[1] == b[0] for a, b in pairwise(rows))
        assert {start for start, _ in rows} <= {*starts, n_rows}
        many = [sum(a <= s < b for s in starts) for a, b in rows]
        assert max(many) - min(many) <= 1


def load(costs, ranges):
    return max(sum(costs[i] for i in part) for part in ranges)


def all_splits(n_layers, n_ranks):
    for cuts in combinations(range(1, n_layers), n_ranks - 1):
        yield [range(a, b) for a, b in pairwise([0, *cuts, n_layers])]


@pytest.mark.parametrize("n_layers", range(1, 8))
@pytest.mark.parametrize("seed", range(5))
def test_layers_against_all_splits(n_layers, seed):
    costs = np.random.default_rng(seed).integers(1, 30, n_layers).tolist()
    for n_ranks in range(1, n_layers + 1):
        found = layers_to_ranks(costs, n_ranks)
        assert found in list(all_splits(n_layers, n_ranks))
        least = min(load(costs, split) for split in all_splits(n_layers, n_ranks))
        assert load(costs, found) == least


def test_known_splits():
    layers = [784_000, 500_000, 125_000, 7_500]
    for costs, n_ranks, sizes in (
        (layers, 2, [1, 3]),
        (layers, 3, [1, 1, 2]),
        # Equal largest loads: the first rank gets the fewest layers.
        ([1, 1, 1], 2, [1, 2]),
        ([1, 1, 1, 1, 9], 3, [2, 2, 1]),
    ):
        assert [len(part) for part in layers_to_ranks(costs, n_ranks)] == sizes


def test_impossible_numbers_of_ranks():
    for n_ranks in (0, 4):
        with pytest.raises(ValueError, match=f"3 layers cannot go to {n_ranks} ranks"):
            layers_to_ranks([1, 1, 1], n_ranks)
