"""Which ranks train which layers: teams, each on one host. Pure numbers.

A team trains one layer, or a run of layers; outputs travel from team to team.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mpilayer.errors import CommunicationError, ConfigError
from mpilayer.partition import layers_to_ranks
from mpilayer.words import count, which_ranks

_PART = re.compile(r"(\d+)(?:-(\d+))?:(\d+)")
# What another rank in a team costs all of its ranks: 1.9 times as fast with two, by
# measurement on two cores.
_FRICTION = 0.05


@dataclass(frozen=True)
class Place:
    """The layers of a team, from 0, and its ranks, the head first."""

    layers: range
    ranks: tuple[int, ...]


def place_teams(
    costs: Sequence[float],
    most: Sequence[int],
    hosts: Sequence[str],
    layout: str = "auto",
) -> list[Place]:
    """Return the teams so that the slowest has the least to do, lowest layers first.

    ``costs`` are the times of each layer on one rank; ``most`` says into how many
    slices each is cut, or can be; ``hosts`` are those of each rank. ``layout`` has
    teams as the user wants them, such as ``1:4 2:3 3-4:1``, or is ``auto``.

    Raises
    ------
    CommunicationError
        There are more hosts than layers.
    ConfigError
        The layout does not fit layers, ranks or hosts.
    """
    names = list(dict.fromkeys(hosts))
    there = [[r for r, own in enumerate(hosts) if own == name] for name in names]
    ranks, n_layers = [rank for some in there for rank in some], len(costs)
    if layout != "auto":
        return _as_told(layout, most, there)
    if len(ranks) <= n_layers:
        # Santara et al. 2016 §3: a rank has layers for itself.
        owners = layers_to_ranks(costs, len(ranks))
        return [Place(own, (rank,)) for own, rank in zip(owners, ranks, strict=True)]
    if len(there) > n_layers:
        useful = sum(sorted(map(len, there))[-n_layers:])
        raise CommunicationError(
            "every host needs a layer, as teams are on one host; got "
            f"{count(len(there), 'host')} for {count(n_layers, 'layer')}. Start at "
            f"most {count(useful, 'rank')} on {count(n_layers, 'host')}."
        )
    return _Search(costs, most, there).places()


def check_useful(most: Sequence[int], n_ranks: int) -> None:
    """Check that all ranks can have a slice; else a ``CommunicationError``."""
    if n_ranks > sum(most):
        raise CommunicationError(
            "every rank needs a slice of a layer, of 64 units or more; got "
            f"{count(n_ranks, 'rank')} for {count(sum(most), 'slice')} of "
            f"{count(len(most), 'layer')}. Start at most {count(sum(most), 'rank')}."
        )


def with_friction(seconds: float, size: int) -> float:
    """Return what a team of so many ranks takes for what takes one these seconds."""
    return seconds * (1 + _FRICTION * (size - 1)) / size


class _Search:
    """Looks for the least time in which the slowest team can be done."""

    def __init__(
        self, costs: Sequence[float], most: Sequence[int], there: list[list[int]]
    ) -> None:
        self._costs, self._most, self._there = costs, most, there
        # It is asked the same again for every limit of time.
        self._seconds = cache(self._sum_of_seconds)

    def places(self) -> list[Place]:
        low, high = 0.0, sum(self._costs)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (
                (low, middle) if self._within(middle) is not None else (middle, high)
            )
        teams = self._within(high)
        if teams is None:
            raise RuntimeError("one rank has time for all layers")
        places = []
        for ranks, own in zip(self._there, teams, strict=True):
            sizes = [size for _, size in own]
            while sum(sizes) < len(ranks):  # whoever is left helps the slowest
                sizes[self._helped([layers for layers, _ in own], sizes)] += 1
            left = list(ranks)
            for (layers, _), size in zip(own, sizes, strict=True):
                places.append(Place(layers, tuple(left[:size])))
                del left[:size]
        return places

    def _helped(self, layers: Sequence[range], sizes: Sequence[int]) -> int:
        """Return the slowest team that another rank makes faster; any, if none is."""
        now, then = (
            [self._seconds(own, n + more) for own, n in zip(layers, sizes, strict=True)]
            for more in (0, 1)
        )
        return max(range(len(now)), key=lambda i: (now[i] > then[i], now[i]))

    def _within(self, limit: float) -> list[list[tuple[range, int]]] | None:
        """Return each host's teams (layers, ranks) for a time; None if it is short."""
        teams, start, n_layers = [], 0, len(self._costs)
        for host, ranks in enumerate(self._there):
            # Every host gets a layer.
            last = n_layers - (len(self._there) - host - 1)
            found = self._furthest(start, last, len(ranks), limit)
            if not found:
                return None
            teams.append(found)
            start = found[-1][0].stop
        return teams if start == n_layers else None

    def _furthest(
        self, start: int, last: int, n_ranks: int, limit: float
    ) -> list[tuple[range, int]]:
        """Return the teams of a host that get furthest up from a layer."""
        # By the layer at which they stop: fewest ranks, and the teams.
        best: dict[int, tuple[int, list[tuple[range, int]]]] = {start: (0, [])}
        lowest = start
        for stop in range(start + 1, last + 1):
            # What all ranks cannot do in time they cannot with a layer more.
            for begin in range(lowest, stop):
                size = self._least(range(begin, stop), n_ranks, limit)
                if not size:
                    lowest = begin + 1
                    continue
                used = best[begin][0] + size
                if used <= n_ranks and used < best.get(stop, (n_ranks + 1,))[0]:
                    best[stop] = used, [*best[begin][1], (range(begin, stop), size)]
            if stop not in best:
                break
        return best[max(best)][1]

    def _least(self, layers: range, n_ranks: int, limit: float) -> int:
        """Return how many ranks do these layers in time, 0 if none do."""
        sizes = range(1, n_ranks + 1)
        place = bisect_left(
            sizes, True, key=lambda size: self._seconds(layers, size) <= limit
        )
        return sizes[place] if place < n_ranks else 0

    def _sum_of_seconds(self, layers: range, size: int) -> float:
        return sum(
            with_friction(self._costs[layer], min(size, self._most[layer]))
            for layer in layers
        )


def _as_told(layout: str, most: Sequence[int], there: list[list[int]]) -> list[Place]:
    """Return the teams of a layout, filling one host after the other."""
    n_layers = len(most)
    parts = [_PART.fullmatch(part) for part in layout.replace(",", " ").split()]
    if not parts or None in parts:
        raise _misfit(layout, "teams as 'layer:ranks' or 'first-last:ranks'", "")
    wanted = []
    for first, last, size in (part.groups() for part in parts if part):
        wanted.append((range(int(first) - 1, int(last or first)), int(size)))
    ends = [-1, *(layers.stop for layers, _ in wanted)]
    starts = [layers.start for layers, _ in wanted]
    if [0, *ends[1:-1]] != starts or ends[-1] != n_layers:
        raise _misfit(layout, f"every layer from 1 to {n_layers} once, in order", "")
    if any(not layers or not size for layers, size in wanted):
        raise _misfit(layout, "a layer and a rank at least in every team", "")
    n_ranks = sum(map(len, there))
    if sum(size for _, size in wanted) != n_ranks:
        words = f"; it names {sum(size for _, size in wanted)}"
        raise _misfit(layout, f"as many ranks as were started, {n_ranks}", words)
    for layers, size in wanted:
        if size > (useful := max(most[layers.start : layers.stop])):
            must = "a team with a slice for every rank in one of its layers"
            words = f"; from layer {layers[0] + 1} on there are {useful}"
            raise _misfit(layout, must, words)
    places, host, left = [], 0, list(there[0])
    for layers, size in wanted:
        if not left:
            host += 1
            left = list(there[host])
        if size > len(left):
            sizes = ", ".join(str(len(ranks)) for ranks in there)
            words = f"; {count(len(there), 'host')} with {sizes} ranks were started"
            raise _misfit(layout, "teams that fill one host after the other", words)
        places.append(Place(layers, tuple(left[:size])))
        del left[:size]
    return places


def _misfit(layout: str, must: str, found: str) -> ConfigError:
    return ConfigError(
        f"a layout must name {must}; got '{layout}'{found}. Change --layout, such as "
        "'1:4 2:3 3-4:1', or leave it out."
    )


def without_slice(places: Sequence[Place], slices: Sequence[int]) -> str:
    """Return a warning of ranks that have no slice of any of their layers, or ""."""
    idle = [
        rank
        for place in places
        for rank in place.ranks[max(slices[layer] for layer in place.layers) :]
    ]
    words = "without a slice to train. Start fewer, or name the teams with --layout."
    return f"{which_ranks(idle)} {words}" if idle else ""


def describe(
    places: Sequence[Place], sizes: Sequence[int], slices: Sequence[int] = ()
) -> str:
    """Return which ranks have which layers; ``sizes`` are those from the data on."""
    parts = []
    for place in places:
        layers, ranks = place.layers, place.ranks
        which = f"layer {layers.start + 1}"
        if len(layers) > 1:
            which = f"layers {layers.start + 1}-{layers.stop}"
        units = "-".join(map(str, sizes[layers.start : layers.stop + 1]))
        cuts = slices[layers.start : layers.stop]
        if any(n > 1 for n in cuts):
            units += f", slices {','.join(map(str, cuts))}"
        parts.append(f"{which_ranks(ranks)}: {which} ({units})")
    return "; ".join(parts)
