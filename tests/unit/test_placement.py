"""Teams: every rank in one, every layer in one, and the slowest as fast as can be."""

from itertools import pairwise, product

import pytest

from mpilayer.errors import CommunicationError, ConfigError
from mpilayer.placement import check_useful, describe, place_teams, without_slice

SIZES = [784, 1000, 500, 250, 30]
COSTS = [a * b for a, b in pairwise(SIZES)]
MOST = [15, 7, 3, 1]


def load(place, costs=COSTS, most=MOST):
    """Return a team's time without what ranks lose by working together."""
    return sum(costs[i] / min(len(place.ranks), most[i]) for i in place.layers)


@pytest.mark.parametrize("hosts", ["a" * n for n in range(1, 27)] + ["aabb", "abab"])
def test_everybody_and_everything_once(hosts):
    places = place_teams(COSTS, MOST, hosts)
    layers = [layer for place in places for layer in place.layers]
    assert layers == list(range(4))
    assert sorted(r for p in places for r in p.ranks) == list(range(len(hosts)))
    assert all(len({hosts[rank] for rank in place.ranks}) == 1 for place in places)
    assert places[0].ranks[0] == 0  # which has the data
    if len(hosts) <= 4:
        assert all(len(place.ranks) == 1 for place in places)


@pytest.mark.parametrize("n_ranks", [5, 6, 7, 9])
def test_no_split_of_the_layers_is_much_better(n_ranks):
    found = max(map(load, place_teams(COSTS, MOST, "a" * n_ranks)))
    best = float("inf")
    for cuts in product([False, True], repeat=3):
        stops = [i + 1 for i, cut in enumerate(cuts) if cut] + [4]
        runs = [range(a, b) for a, b in zip([0, *stops], stops, strict=False)]
        for sizes in product(range(1, n_ranks + 1), repeat=len(runs)):
            if sum(sizes) == n_ranks:
                worst = max(
                    sum(COSTS[i] / min(size, MOST[i]) for i in run)
                    for run, size in zip(runs, sizes, strict=True)
                )
                best = min(best, worst)
    assert found <= 1.15 * best


def test_ranks_that_are_left_go_where_they_help():
    places = place_teams([200, 33, 8], [3, 2, 1], "a" * 5)
    assert [len(place.ranks) for place in places] == [3, 2]


@pytest.mark.parametrize(
    ("layout", "hosts", "expected"),
    [
        ("1-4:2", "aa", [(range(4), (0, 1))]),
        ("1:2 2-4:1", "aaa", [(range(1), (0, 1)), (range(1, 4), (2,))]),
        ("1:2,2-4:1", "aba", [(range(1), (0, 2)), (range(1, 4), (1,))]),
    ],
)
def test_a_layout_by_hand(layout, hosts, expected):
    places = place_teams(COSTS, MOST, hosts, layout)
    assert [(place.layers, place.ranks) for place in places] == expected


@pytest.mark.parametrize(
    ("layout", "hosts", "message"),
    [
        ("", "a", "teams as 'layer:ranks'"),
        ("1:x", "a", "teams as"),
        ("1:2 2:1", "aaa", "every layer from 1 to 4 once"),
        ("1:1 1-4:1", "aa", "every layer from 1 to 4 once"),
        ("2-4:1 1:1", "aa", "every layer from 1 to 4 once"),
        ("1-5:1", "a", "every layer from 1 to 4 once"),
        ("1-4:0", "a", "a rank at least"),
        (
            "1:1 2-3:1 4:2",
            "aaaa",
            "a slice for every rank.* from layer 4 on there are 1",
        ),
        ("1-4:3", "aa", "as many ranks as were started, 2; .* it names 3"),
        ("1-2:2 3-4:1", "abb", "fill one host after the other.* 2 hosts with 1, 2"),
    ],
)
def test_bad_layouts(layout, hosts, message):
    with pytest.raises(ConfigError, match=message):
        place_teams(COSTS, MOST, hosts, layout)


def test_too_many():
    with pytest.raises(CommunicationError, match="Start at most 4 ranks on 4 hosts"):
        place_teams(COSTS, MOST, "abcde")
    check_useful(MOST, 26)
    with pytest.raises(CommunicationError, match=r"27 ranks .*Start at most 26 ranks"):
        check_useful(MOST, 27)


def test_words():
    places = place_teams(COSTS, MOST, "ab" * 4)
    assert describe(places, SIZES) == (
        "ranks 0,2,4,6: layer 1 (784-1000); ranks 1,3,5,7: layers 2-4 (1000-500-250-30)"
    )


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        ([4, 1, 4, 1], ""),  # of one of its layers is enough
        ([3, 4, 4, 4], "rank 6 without a slice to train. Start"),
        ([1, 1, 2, 1], "ranks 2,4-7 without a slice to train. Start"),
    ],
)
def test_ranks_without_a_slice(slices, words):
    places = place_teams(COSTS, MOST, "ab" * 4)
    assert without_slice(places, slices)[: len(words) or None] == words
