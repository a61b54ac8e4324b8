"""Minibatches and what their rows leave out, whatever the number of ranks."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from mpilayer.rng import stream
from mpilayer.train.strata import Dropout, Shifts, Strata


def minibatches(n_rows, minibatch, n_ranks, epoch=0, seed=0):
    """Return for each step the ranks' shares, as rows of the whole data set."""
    ranks = [Strata.of_rank(n_rows, minibatch, r, n_ranks) for r in range(n_ranks)]
    shares = [
        [strata.rows[0] + part for part in strata.minibatches(seed, epoch, minibatch)]
        for strata in ranks
    ]
    return list(zip(*shares, strict=True))


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(
    ("n_rows", "minibatch"), [(100, 10), (103, 10), (57, 7), (5, 8), (40, 6), (9, 1)]
)
def test_minibatches(n_rows, minibatch, n_ranks):
    steps = minibatches(n_rows, minibatch, n_ranks)
    together = [np.concatenate(shares) for shares in steps]
    assert sorted(np.concatenate(together)) == list(range(n_rows))
    sizes = [len(rows) for rows in together]
    assert sizes[:-1] == [minibatch] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= minibatch
    for shares in steps[:-1]:
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 1
    alone = [shares[0] for shares in minibatches(n_rows, minibatch, 1)]
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)
    held = [Strata.of_rank(n_rows, minibatch, r, n_ranks).rows for r in range(n_ranks)]
    spans = [span for span in held if span[0] < span[1]]
    assert (spans[0][0], spans[-1][1]) == (0, n_rows)
    assert all(one[1] == other[0] for one, other in pairwise(spans))


def test_every_epoch_has_its_order():
    orders = [
        np.concatenate([shares[0] for shares in minibatches(60, 10, 1, *address)])
        for address in [(0, 0), (1, 0), (0, 1)]
    ]
    for one, other in pairwise([*orders, orders[0]]):
        assert (one != other).any()


def test_what_stays_makes_up_for_what_goes():
    wide = Dropout((0.2, 0.5, 0.999), (2000, 2000, 2000), 500, 0)
    for k, part in enumerate(wide.parts):
        mask = wide.mask(k, 0, 0)
        assert mask.shape == (500, 2000)
        assert mask.dtype == np.float32
        assert set(np.unique(mask)) == {0, mask.max()}
        assert mask.max() == pytest.approx(1 / (1 - part), rel=0.02)
        assert (mask == 0).mean() == pytest.approx(part, abs=0.003)
        assert mask.mean() == pytest.approx(1, abs=0.05)


def test_every_epoch_step_layer_and_seed_has_its_own():
    square = {"parts": (0.5, 0.5), "widths": (30, 30), "minibatch": 20}
    drawn = [
        mask
        for seed, epoch, step in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
        for k in range(2)
        for mask in [Dropout(**square, seed=seed).mask(k, epoch, step)]
    ]
    assert all((one != other).any() for one, other in combinations(drawn, 2))


def test_nothing_is_drawn_for_nothing():
    some = Dropout((0.0, 0.5), (5, 5), 10, 0)
    assert some.mask(0, 0, 0) is None
    assert some.mask(1, 0, 0).shape == (10, 5)


@pytest.mark.parametrize(("most", "height", "width"), [(1, 6, 6), (3, 4, 7), (2, 5, 3)])
def test_images_move(most, height, width):
    """Pixel by pixel; a rank moves its rows as one with all of them does."""
    rows = 1 + np.arange(40 * height * width, dtype=np.float32).reshape(40, -1)
    shifts = Shifts(most, height, width, 40, 9)
    found = shifts.moved(rows, 0, 5, 2)
    assert found.dtype == np.float32
    drawn = stream(9, "shifts", 5, 2).integers(-most, most + 1, size=(40, 2))
    assert {*map(int, drawn.ravel())} == set(range(-most, most + 1))
    for before, after, (down, right) in zip(rows, found, drawn, strict=True):
        expected = np.zeros((height, width))
        for y in range(max(0, down), min(height, height + down)):
            for x in range(max(0, right), min(width, width + right)):
                expected[y, x] = before.reshape(height, width)[y - down, x - right]
        np.testing.assert_array_equal(after.reshape(height, width), expected)
    for first, stop in ((0, 13), (13, 40), (7, 7)):
        part = shifts.moved(rows[first:stop], first, 5, 2)
        np.testing.assert_array_equal(part, found[first:stop])
    for seed, epoch, step in ((8, 5, 2), (9, 4, 2), (9, 5, 1)):
        other = Shifts(most, height, width, 40, seed).moved(rows, 0, epoch, step)
        assert (other != found).any()
