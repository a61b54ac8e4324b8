"""Dropout: what rows leave out, whatever the number of ranks."""

from itertools import combinations

import numpy as np
import pytest

from mpilayer.partition import shard_bounds
from mpilayer.train.strata import Dropout

WIDTHS = (40, 30, 20)
DROPOUT = Dropout((0.2, 0.5, 0.5), WIDTHS, 50, 3)


def test_what_stays_makes_up_for_what_goes():
    wide = Dropout((0.2, 0.5, 0.999), (2000, 2000, 2000), 500, 0)
    for part, mask in zip(wide.parts, wide.masks(0, 0, 0, 500), strict=True):
        assert mask.shape == (500, 2000)
        assert mask.dtype == np.float32
        assert set(np.unique(mask)) == {0, mask.max()}
        assert mask.max() == pytest.approx(1 / (1 - part), rel=0.02)
        assert (mask == 0).mean() == pytest.approx(part, abs=0.003)
        assert mask.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 60])
def test_ranks_take_their_rows(n_ranks):
    whole = DROPOUT.masks(2, 7, 0, 50)
    parts = [
        DROPOUT.masks(2, 7, start, stop - start)
        for start, stop in shard_bounds(50, n_ranks)
    ]
    for k, expected in enumerate(whole):
        together = np.concatenate([part[k] for part in parts])
        np.testing.assert_array_equal(together, expected)


def test_every_epoch_step_layer_and_seed_has_its_own():
    square = {"parts": (0.5, 0.5), "widths": (30, 30), "minibatch": 20}
    drawn = [
        mask
        for seed, epoch, step in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
        for mask in Dropout(**square, seed=seed).masks(epoch, step, 0, 20)
    ]
    assert all((one != other).any() for one, other in combinations(drawn, 2))


def test_nothing_is_drawn_for_nothing():
    assert Dropout((0.0, 0.0), (5, 5), 10, 0).masks(0, 0, 0, 10) == ()
    first, second = Dropout((0.0, 0.5), (5, 5), 10, 0).masks(0, 0, 0, 10)
    assert first is None
    assert second.shape == (10, 5)
