"""Layers on teams in virtual time: when each trains, by the rules of real ones.

Discrete events: the end of an epoch, the arrival of an output. What comes next for a
layer its track says (:mod:`mpilayer.train.plans`), the same that the pipeline asks.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from mpilayer.train.plans import Plan

_TINY = 1e-9  # of an epoch: what rounding leaves


@dataclass(frozen=True)
class Seat:
    """A team: its layers, how many ranks it has, and on which host."""

    layers: range
    size: int
    host: int


@dataclass(frozen=True)
class Timeline:
    """When all was done; of each team, the seconds in which it had something to do."""

    seconds: float
    busy: tuple[float, ...]
    epochs: tuple[int, ...]


@dataclass
class Simulation:
    """How a plan goes on teams, lowest layers first."""

    plan: Plan
    seats: Sequence[Seat]
    # Seconds of a layer's epoch, by layer from 0 and epoch from 1, on a quiet host.
    epoch: Callable[[int, int], float]
    # Seconds until the output of a layer is with the team above.
    message: Callable[[int], float]
    # How many times as long work takes where so many ranks of a host are at it.
    slower: Callable[[int], float]

    def __post_init__(self) -> None:
        self.slower = cache(self.slower)
        n_layers = self.seats[-1].layers.stop
        self._tracks = [self.plan.track(layer) for layer in range(n_layers)]
        self._team_of = [n for n, seat in enumerate(self.seats) for _ in seat.layers]
        self._newest = [0] + [-1] * (n_layers - 1)
        # Outputs that have left a layer, and that the layer above has not begun with.
        self._left: list[list[int]] = [[] for _ in range(n_layers)]
        self._done = [0] * n_layers
        # Of each team at work: its layer, and the seconds that are left of all on a
        # quiet host.
        self._running: dict[int, list[float]] = {}
        self._crowd = dict.fromkeys((seat.host for seat in self.seats), 0)
        self._arrivals: list[tuple[float, int, int]] = []

    def run(self) -> Timeline:
        """Return when all is done."""
        now, busy = 0.0, [0.0] * len(self.seats)
        for team in range(len(self.seats)):
            self._begin(team)
        while (self._running or self._arrivals) and not self._is_enough():
            pace = {host: self.slower(n) for host, n in self._crowd.items()}
            paces = {team: pace[self.seats[team].host] for team in self._running}
            ends = [own[1] * paces[team] for team, own in self._running.items()]
            until = min(ends, default=float("inf"))
            if self._arrivals:
                until = min(until, max(0.0, self._arrivals[0][0] - now))
            now += until
            for team, own in self._running.items():
                own[1] -= until / paces[team]
                busy[team] += until
            free = self._end_epochs(now)
            while self._arrivals and self._arrivals[0][0] <= now:
                _, layer, output = heapq.heappop(self._arrivals)
                self._newest[layer] = max(self._newest[layer], output)
                free.append(self._team_of[layer])
            for team in sorted(free):
                self._begin(team)
        return Timeline(now, tuple(busy), tuple(self._done))

    def _is_enough(self) -> bool:
        plan = self.plan
        pairs = zip(self._done, plan.stipulated, strict=True)
        if plan.until_stipulated:
            return all(done >= n for done, n in pairs)
        return plan.stops_all(0) and self._done[0] >= plan.stipulated[0]

    def _end_epochs(self, now: float) -> list[int]:
        """End what is done, let outputs leave; return the teams."""
        over = [t for t, own in self._running.items() if own[1] <= _TINY * own[2]]
        for team in over:
            layer = int(self._running.pop(team)[0])
            self._crowd[self.seats[team].host] -= self.seats[team].size
            self._done[layer] += 1
            if self.plan.leaves(layer, self._done[layer]):
                self._left[layer].append(self._done[layer])
                if self._team_of[layer + 1] == team:
                    self._newest[layer + 1] = self._done[layer]
                    continue
                when = now + self.message(layer)
                heapq.heappush(self._arrivals, (when, layer + 1, self._done[layer]))
        return over

    def _begin(self, team: int) -> None:
        """Let a team begin what it would: of its layers the one furthest behind."""
        if team in self._running:
            return
        ready = []
        for layer in self.seats[team].layers:
            track = self._tracks[layer]
            output = track.next_output(self._newest[layer])
            if output is not None and self._has_room(layer):
                progress = self.plan.progress(layer, len(track.used))
                ready.append((progress, layer, output))
        if not ready:
            return
        _, layer, output = min(ready)
        track = self._tracks[layer]
        track.begin(output)
        seat = self.seats[team]
        seconds = self.epoch(layer, len(track.used))
        self._running[team] = [layer, seconds, seconds]
        self._crowd[seat.host] += seat.size
        if layer and self._left[layer - 1]:
            kept = [n for n in self._left[layer - 1] if n > output]
            self._left[layer - 1] = kept
            self._begin(self._team_of[layer - 1])

    def _has_room(self, layer: int) -> bool:
        """Tell whether the output of the next epoch, if it leaves, has a buffer."""
        epoch = len(self._tracks[layer].used) + 1
        if self.plan.replace or not self.plan.leaves(layer, epoch):
            return True
        # Of two buffers the layer above uses one, if it is in the same team.
        here = self._team_of[layer] == self._team_of[layer + 1]
        return len(self._left[layer]) < 2 - here
