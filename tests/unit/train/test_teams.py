"""Slices and ranks of layers, and what cannot be."""

from dataclasses import replace

import pytest

from mpilayer.config import PretrainConfig
from mpilayer.errors import CommunicationError, ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.train.layer import check_layer, most_slices, slice_bounds
from mpilayer.train.teams import of_one_slice, places_for, with_slices, with_slices_of

CONFIG = PretrainConfig(layers=(1000, 130, 30))


@pytest.mark.parametrize("n_units", [1, 63, 64, 129, 200, 255, 500, 1000, 1089])
def test_slices_are_whole_and_large_enough(n_units):
    """Cut at multiples of 64; none has 64 units more than another has, but the last."""
    for n in range(1, most_slices(n_units) + 1):
        bounds = slice_bounds(n_units, n)
        units = [i for part in bounds for i in range(n_units)[part]]
        sizes = [part.stop - part.start for part in bounds]
        assert len(bounds) == n
        assert units == list(range(n_units))
        assert all(part.start % 64 == 0 for part in bounds)
        assert min(sizes) >= min(64, n_units)
        assert max(sizes) - min(sizes) < 128
    assert max(slice_bounds(200, 3), key=lambda s: s.stop - s.start) == slice(128, 200)


@pytest.mark.parametrize(
    ("slices", "ranks", "expected"),
    [
        ((0,), 1, (1, 1, 1)),
        ((0,), 3, (1, 1, 1)),
        ((0, 2, 0), 2, (1, 2, 1)),
        ((0,), 4, (3, 1, 1)),
        ((2,), 4, (2, 2, 2)),
    ],
)
def test_slices_that_are_left_to_the_ranks(slices, ranks, expected):
    """As many as a layer has ranks, if it has units for them."""
    config = replace(CONFIG, slices=slices)
    places = places_for(config, "a" * ranks, 784)
    assert with_slices(config, places).slices == expected
    run = replace(CONFIG, slices=expected)
    assert with_slices_of(config, run).slices == expected
    assert of_one_slice(run) == run
    assert of_one_slice(CONFIG).slices == (1, 1, 1)


@pytest.mark.parametrize(
    ("units", "n", "most"), [(130, 3, 2), (63, 2, 1), (640, 11, 10)]
)
def test_slices_of_too_few_units(units, n, most):
    config = PretrainConfig(layers=(8, units), slices=(1, n))
    words = f"at least 64 units; got {n} slices for the {units} of layer 2.*most {most}"
    with pytest.raises(ConfigError, match=words):
        check_layer(config, LayerShape(8, units), 1)
    check_layer(replace(config, slices=(1, most)), LayerShape(8, units), 1)


@pytest.mark.parametrize(
    ("options", "hosts", "words"),
    [
        ({}, "a" * 19, "got 19 ranks for 18 slices of 3 layers. Start at most 18"),
        ({"slices": (2, 2, 1)}, "a" * 6, "6 ranks for 5 slices"),
        ({"slices": (1,)}, "aabb", "4 ranks for 3 slices"),
        ({"layout": "1:1 2-3:3"}, "aaaa", "for every rank.*layer 2 on there are 2"),
    ],
)
def test_ranks_that_have_nothing_to_do(options, hosts, words):
    """What else cannot be is in ``test_placement.py``."""
    with pytest.raises((CommunicationError, ConfigError), match=words):
        places_for(replace(CONFIG, **options), hosts, 784)


def test_a_number_of_slices_for_every_layer():
    with pytest.raises(ConfigError, match="each of the 3 layers; got 2"):
        replace(CONFIG, slices=(1, 2))
