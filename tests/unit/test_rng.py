"""Streams of random numbers."""

from itertools import combinations

import numpy as np

from mpilayer.rng import stream

ADDRESSES = [
    (0, "weights", 0),
    (0, "weights", 1),
    (1, "weights", 0),
    (0, "sample", 0),
    (0, "shuffle", 0, 0),
    (0, "shuffle", 0, 1),
    (0, "shuffle", 1, 0),
    (0, "shuffle", 1, 1),
    (2**40, "weights", 0),
]


def numbers(address):
    return stream(*address).random(100_000)


def test_different_addresses_give_independent_numbers():
    for one, other in combinations(map(numbers, ADDRESSES), 2):
        # Five standard deviations of the correlation of independent numbers.
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(100_000)


def test_numbers_stay_what_they_were():
    """A change here changes every trained weight, and the validation rows."""
    found = stream(0, "weights", 1).random(3)
    expected = [0.8292015564306227, 0.9831320428234114, 0.49604872867944405]
    np.testing.assert_array_equal(found, expected)
