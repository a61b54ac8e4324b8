"""Sums that do not depend on who adds what, or when."""

import numpy as np
import pytest

from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.partition import shard_bounds
from mpilayer.train.sparse.totals import (
    exponents,
    integers,
    own_total,
    start_total,
    values,
)
from mpilayer.train.sums import Sums

RNG = np.random.default_rng(3)
N_BLOCKS = 13


def magnitudes(low, high, dtype):
    """Return blocks of numbers of both signs, from 10^low to 10^high."""
    powers = RNG.uniform(low, high, (N_BLOCKS, 40))
    return (RNG.choice([-1, 1], powers.shape) * 10.0**powers).astype(dtype)


BLOCKS = {
    "float32": magnitudes(-3, 3, np.float32),
    "float64": magnitudes(-3, 3, np.float64),
    "all that float32 has": magnitudes(-44, 38, np.float32),
    "all that float64 has": magnitudes(-320, 307, np.float64),
    "the largest": np.full((N_BLOCKS, 4), np.finfo(np.float32).max),
    "the largest of all": np.full((3, 2), np.finfo(np.float64).max / 4),
    "the least": np.full((N_BLOCKS, 4), np.float32(1e-45)),
    "the least of all": np.full((N_BLOCKS, 4), 5e-324),
    "mostly zeros": magnitudes(-3, 3, np.float32) * (RNG.random((N_BLOCKS, 40)) > 0.8),
    "minus zeros": np.full((N_BLOCKS, 4), -0.0),
    "none": np.empty((N_BLOCKS, 0)),
}


def total(blocks, of, n_sums, ranks):
    """Return the sums that ranks make, each with the blocks whose numbers it has."""
    n = len(blocks)
    own = [(blocks[which], of[which]) for which in ranks]
    found = np.max([exponents(*parts, n_sums) for parts in own], axis=0)
    sums = sum(integers(*parts, found, n) for parts in own)
    return values(sums, found, n)


def deals(n):
    """Yield ways of dealing n blocks to ranks."""
    for n_ranks in (1, 2, 3, 4, 7, n, n + 3):
        yield [np.arange(a, b) for a, b in shard_bounds(n, n_ranks)]
    for n_ranks in (2, 5):
        owner = RNG.integers(n_ranks, size=n)
        yield [RNG.permutation(np.flatnonzero(owner == r)) for r in range(n_ranks)]


@pytest.mark.parametrize("n_sums", [1, 3])
@pytest.mark.parametrize("name", BLOCKS)
def test_the_same_bytes_however_blocks_are_dealt(name, n_sums):
    blocks = BLOCKS[name]
    of = np.sort(np.arange(len(blocks)) % n_sums)
    expected, *others = (total(blocks, of, n_sums, ranks) for ranks in deals(len(of)))
    assert {other.tobytes() for other in others} == {expected.tobytes()}
    assert expected.dtype == np.float64
    wide = blocks.astype(np.longdouble)
    for k in range(n_sums):
        part = wide[of == k]
        exact = part.sum(axis=0)
        size = np.abs(part).max(axis=0, initial=0)
        # 2^-62, and room for 16 blocks, of the next power of 2; rounding to float64.
        error = len(part) * size * 2.0**-57 + np.abs(exact) * 2.0**-52
        assert (np.abs(expected[k] - exact) <= np.maximum(error, 2.0**-900)).all()


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 64, 65])
@pytest.mark.parametrize("value", [1.0, -1.0, np.nextafter(2.0, 1), -1.5, 2.0**1000])
def test_no_sum_overflows(n_blocks, value):
    """All blocks are as large as the largest."""
    blocks = np.full((n_blocks, 1), value)
    found = exponents(blocks, [0] * n_blocks, 1)
    (sums,) = integers(blocks, [0] * n_blocks, found, n_blocks)
    assert abs(int(sums[0])) <= 2**62
    assert values(sums[None], found, n_blocks)[0, 0] == pytest.approx(n_blocks * value)


def test_numbers_keep_their_digits_beside_larger_ones():
    """Each has units of its own: a unit that is nearly off fires 1e-38 times."""
    blocks = np.array([[1e30, 1e-38], [-1e30, 2e-38]], np.float32)
    (found,) = total(blocks, np.zeros(2, int), 1, [np.arange(2)])
    assert found == pytest.approx([0, 3e-38], rel=1e-6)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([1, np.inf, 2], np.inf),
        ([1, -np.inf, -np.inf], -np.inf),
        ([np.inf, -np.inf, np.inf], np.nan),
        ([np.nan, 1, 2], np.nan),
        ([np.inf, 1, np.nan], np.nan),
        ([1, 3e38, 3e38], float(np.float32(3e38)) * 2 + 1),
    ],
)
def test_infinity_and_nan_come_through_alone(added, expected):
    blocks = np.array([[1, bad, 3] for bad in added], np.float32)
    of = np.zeros(3, int)
    for ranks in deals(3):
        (found,) = total(blocks, of, 1, ranks)
        np.testing.assert_array_equal(found[[0, 2]], [3, 9])
        np.testing.assert_array_equal(found[1], expected)


def test_a_total_of_one_rank_and_its_votes():
    sums, found = Sums(SerialCommunicator()), []
    blocks, of = BLOCKS["float32"], [0] * 5 + [1] * 8
    start_total(sums, blocks, of, (2, N_BLOCKS), lambda *got: found.append(got), 3)
    sums.finish()
    ((result, votes),) = found
    np.testing.assert_array_equal(own_total(blocks, of, (2, N_BLOCKS)), result)
    expected = [blocks[:5].sum(0, np.float64), blocks[5:].sum(0, np.float64)]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert votes == 3
