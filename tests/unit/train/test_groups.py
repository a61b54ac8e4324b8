"""What ranks share in fine-tuning: decided by settings, refused where it cannot be."""

import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.groups import (
    RowGroups,
    check_ranks,
    how_ranks_share,
    idle_ranks,
    most_slices_of,
    resolved,
)

WIDE = [LayerShape(784, 1000), LayerShape(1000, 500), LayerShape(500, 250)]
# Only its second layer has units for two slices, and no such step is cut.
SMALL = [LayerShape(20, 100), LayerShape(100, 300), LayerShape(300, 40)]


@pytest.mark.parametrize(
    ("shapes", "task", "most"),
    [
        (WIDE, "autoencode", 15),
        (WIDE[:1], "classify", 15),
        (WIDE[1:], "regress", 7),  # 500 units, 250, and the number
        (WIDE[2:], "autoencode", 3),
        (SMALL, "autoencode", 1),
        (SMALL, "classify", 1),
        (SMALL[:1], "autoencode", 1),
    ],
)
def test_so_many_slices(shapes, task, most):
    assert most_slices_of(shapes, task) == most


@pytest.mark.parametrize(
    ("shapes", "asked", "way", "slices"),
    [
        (WIDE, {}, "units", 4),
        (WIDE, {"minibatch": 999}, "units", 4),
        (WIDE, {"minibatch": 1000}, "rows", 1),
        (WIDE, {"minibatch": 1000, "parallel": "units"}, "units", 4),
        (WIDE, {"minibatch": 1000, "slices": 2}, "units", 2),
        (WIDE, {"parallel": "rows"}, "rows", 1),
        (WIDE, {"slices": 15}, "units", 15),
        (WIDE[2:], {}, "units", 3),
        (SMALL[:1], {}, "units", 1),
    ],
)
def test_settings_decide(shapes, asked, way, slices):
    config = resolved(FinetuneConfig(**asked), shapes)
    assert (config.parallel, config.slices) == (way, slices)
    assert resolved(config, shapes) == config
    words = how_ranks_share(config)
    assert ("to rounding" in words) == (way == "rows")
    assert f"{config.minibatch} rows" in words


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"slices": 16}, "at least 64 units; got --slices 16.*Give at most 15"),
        ({"slices": 2, "parallel": "rows"}, "Leave one of them out"),
    ],
)
def test_settings_that_cannot_be(asked, words):
    with pytest.raises(ConfigError, match=words):
        resolved(FinetuneConfig(**asked), WIDE)


def test_more_ranks_than_slices():
    hosts, config = ["a"] * 3 + ["b"] * 3, resolved(FinetuneConfig(slices=2), WIDE)
    with pytest.raises(ConfigError, match=r"3 ranks on a and 2 slices.*at most 2 a"):
        check_ranks(config, WIDE, hosts)
    with pytest.raises(ConfigError, match="found 3 on a, 1 on b"):
        check_ranks(config, WIDE, hosts[:4])
    check_ranks(resolved(FinetuneConfig(slices=3), WIDE), WIDE, hosts)
    check_ranks(resolved(FinetuneConfig(parallel="rows"), WIDE), WIDE, hosts)
    small = resolved(FinetuneConfig(), SMALL[:1])
    check_ranks(small, SMALL[:1], hosts)
    assert "only one on each host has work" in idle_ranks(small, hosts)
    assert not idle_ranks(small, ["a", "b"])
    assert not idle_ranks(config, hosts)


@pytest.mark.parametrize(("n_ranks", "slices"), [(1, 4), (4, 4), (6, 6), (40, 15)])
def test_few_ranks_decide_nothing_many_get_slices(n_ranks, slices):
    assert resolved(FinetuneConfig(), WIDE, ["here"] * n_ranks).slices == slices


def test_one_rank():
    groups = RowGroups(SerialCommunicator(), ["here"])
    assert groups.team.size == groups.peers.size == 1
    assert groups.of_team(20) == slice(0, 20)
    assert groups.strata(90, 20).rows == (0, 90)
