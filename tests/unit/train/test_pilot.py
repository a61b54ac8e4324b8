"""Pilots of ranks against a world of chance: any order of arrivals, pauses and losses.

Nothing is trained: what a layer knows is a hash of all that it has met. At the end it
must be that of the table, carried out by hand.
"""

import random
from dataclasses import dataclass, field

import pytest

from mpilayer.train.pilot import Pilot
from mpilayer.train.plans import BEGINNING, AsyncPlan, TablePlan, View
from mpilayer.train.restart import newest_cut, outputs_again
from mpilayer.train.schedule import Schedule, greedy, lockstep, simulate
from tests.support.paper import demand_rule

SEEDS = 60


@dataclass
class Channel:
    """The way from a layer to the next: at most one output under way and one ready."""

    replace: bool
    local: bool
    queue: list = field(default_factory=list)
    waiting: tuple | None = None
    ready: tuple = (-1, None)
    current: tuple = (-1, None)
    view: dict = field(default_factory=dict)
    stop: bool = False
    told: int = 0
    dropped: list = field(default_factory=list)

    def room(self):
        return self.replace or len(self.queue) + (self.ready[0] >= 0) < 2 - self.local

    def leave(self, epoch, content, saved):
        self.told = saved
        if self.waiting:
            self.dropped.append(self.waiting[0])
        self.waiting = (epoch, content)
        self.flush()

    def flush(self):
        if self.waiting and not (self.replace and self.queue):
            self.queue.append((*self.waiting, self.told))
            self.waiting = None

    def end(self, saved, stop, pause):
        self.told, self.stop = saved, stop
        if self.waiting and stop:
            self.dropped.append(self.waiting[0])
        elif self.waiting:
            self.queue.append((*self.waiting, saved))
        self.waiting = None
        self.queue.append(("paused" if pause else "ended", None, saved))

    def may_deliver(self):
        if self.queue and isinstance(self.queue[0][0], str):
            return not self.stop or "stopped" in self.view
        return self.queue and (self.replace or self.ready[0] < 0)

    def deliver(self):
        epoch, content, self.view["saved"] = self.queue.pop(0)
        if isinstance(epoch, str):
            self.view[epoch] = True
        else:
            if self.local and self.ready[0] >= 0:
                self.dropped.append(self.ready[0])
            self.ready = (epoch, content)
        self.flush()
        return epoch

    def newest(self):
        return max(self.ready[0], self.current[0])

    def take(self, epoch):
        if self.ready[0] == epoch:
            self.current, self.ready = self.ready, (-1, None)
        assert self.current[0] == epoch
        return self.current[1]


class World:
    """Ranks with a pilot each, and what they leave on the disk."""

    def __init__(self, plan, n_layers, ranks, rng, every):
        self.plan, self.n, self.ranks = plan, n_layers, ranks
        self.rng, self.every, self.disk = rng, every, [{} for _ in range(n_layers)]
        self.launch()

    def launch(self):
        """Start, or go on from what is on the disk."""
        cut = newest_cut(self.plan, [list(own) for own in self.disk])
        for own, mine in zip(self.disk, cut, strict=True):
            for other in [c for c in own if c > mine]:
                del own[other]
        fresh = (("fresh",), (), 0, ())
        kept = [
            own[mine] if mine != BEGINNING else fresh
            for own, mine in zip(self.disk, cut, strict=True)
        ]
        again = [i for i, yes in enumerate(outputs_again(self.plan, cut)) if yes]
        self.known = [k[0] for k in kept]
        tracks = [self.plan.track(i, k[1], k[2]) for i, k in enumerate(kept)]
        self.tracks, owner = (
            tracks,
            {i: r for r, own in enumerate(self.ranks) for i in own},
        )
        self.pilots = [
            Pilot(self.plan, {i: tracks[i] for i in own}, again) for own in self.ranks
        ]
        data = Channel(False, True, current=(0, "data"), view={"ended": True})
        self.channels = [data] + [
            Channel(self.plan.replace, owner[i] == owner.get(i + 1, -1))
            for i in range(self.n)
        ]
        for channel, k in zip(self.channels[1:], kept, strict=True):
            channel.dropped, channel.told = list(k[3]), len(k[1])
        self.under_way = [None] * len(self.ranks)
        self.stopping, self.enough = ([False] * len(self.ranks) for _ in range(2))
        self.asked, self.time = False, 0
        self.starts, self.arrivals = ([{} for _ in range(self.n)] for _ in range(2))

    def view(self, i):
        below, above = self.channels[i], self.channels[i + 1]
        room = i + 1 < self.n and above.room()
        return View(below.newest(), room=room, **below.view)

    def move(self, rank):
        pilot = self.pilots[rank]
        views = {i: self.view(i) for i in pilot.busy}
        return pilot.next_move(views, self.stopping[rank], self.enough[rank])

    def events(self):
        """Return all that could happen next."""
        found = []
        for rank, pilot in enumerate(self.pilots):
            if self.under_way[rank]:
                found.append((self.complete, rank))
            elif pilot.busy and self.move(rank):
                found.append((self.do, rank))
            if self.asked and not self.stopping[rank]:
                found.append((self.hear, rank))
            votes = self.plan.until_stipulated and all(
                p.stipulated and not self.under_way[r]
                for r, p in enumerate(self.pilots)
            )
            if votes and not self.enough[rank]:
                found.append((self.agree, rank))
        for i, channel in enumerate(self.channels):
            if channel.may_deliver() and i < self.n:
                found.append((self.deliver, i))
            if channel.stop and i < self.n and "stopped" not in channel.view:
                found.append((self.stop, i))
        return found

    def step(self):
        """Let something happen; tell whether anything can."""
        found = self.events()
        if found:
            self.time += 1
            event, which = self.rng.choice(found)
            event(which)
        return bool(found)

    def hear(self, rank):
        self.stopping[rank] = True

    def agree(self, rank):
        self.enough[rank] = True

    def stop(self, i):
        self.channels[i].view["stopped"] = True

    def deliver(self, i):
        epoch = self.channels[i].deliver()
        self.arrivals[i][epoch] = self.time

    def do(self, rank):
        pilot, move = self.pilots[rank], self.move(rank)
        i = move.layer
        below, above = self.channels[i], self.channels[i + 1]
        if move.kind == "train":
            pilot.did(move, self.view(i))
            self.starts[i][len(self.tracks[i].used)] = self.time
            self.under_way[rank] = (move, below.take(move.output))
            return
        if move.kind == "again":
            content = output(self.known[i], below.take(move.output), False)
            above.leave(len(self.tracks[i].used), content, above.told)
        else:
            above.told = len(self.tracks[i].used)
            if pilot.unsaved(i) or move.kind == "end":
                name = pilot.candidate(i, move.kind == "end")
                track = self.tracks[i]
                place = (tuple(track.used), track.extra_left, tuple(above.dropped))
                self.disk[i][name] = (self.known[i], *place)
        if move.kind in ("pause", "end"):
            above.end(above.told, move.stop, move.kind == "pause")
        pilot.did(move, self.view(i))

    def complete(self, rank):
        (move, content), pilot = self.under_way[rank], self.pilots[rank]
        i, self.under_way[rank] = move.layer, None
        above, epoch = self.channels[i + 1], len(self.tracks[i].used)
        self.known[i] = trained(self.known[i], content)
        due = 0 < self.every <= pilot.unsaved(i)
        if pilot.trained(i, self.view(i), due):
            above.told = epoch
        if move.leaves:
            above.leave(epoch, output(self.known[i], content, move.streams), above.told)

    def run(self, moment=None, lose=False):
        """Go on to the end, or until all is lost; be asked to pause at a moment."""
        while any(pilot.busy for pilot in self.pilots):
            if self.time == moment:
                if lose:
                    for own in self.disk:  # perhaps the last was not written yet
                        if own and self.rng.random() < 0.3:
                            own.pop(list(own)[-1])
                    return
                self.asked = True
            assert self.step(), "nothing can happen any more"

    @property
    def table(self):
        return tuple(tuple(track.used) for track in self.tracks)


def trained(known, content):
    return hash(("trained", known, content))


def output(known, content, streamed):
    """Return what goes up: if streamed, weights at the end alone cannot repeat it."""
    return hash(("output", known, content, "on the way" if streamed else ""))


def by_hand(table, streams):
    """Return what each layer knows at the end."""
    below, ends = ["data"], []
    for i, row in enumerate(table):
        known, outputs = ("fresh",), [None]
        for epoch, used in enumerate(row, start=1):
            known = trained(known, below[used])
            outputs.append(output(known, below[used], streams(i, epoch)))
        ends.append(known)
        below = outputs
    return ends


def rank_cuts(n):
    """Return layers on ranks: all on one, one on each, and between."""
    return [[range(n)], [range(i, i + 1) for i in range(n)], [range(1), range(1, n)]]


def tables(rng):
    """Yield schedules of three layers, small and strange."""
    three = tuple(rng.randint(1, 4) for _ in range(3))
    extra = tuple(rng.randint(0, 2) for _ in range(3))
    yield lockstep(three, extra, rng.randint(0, 3), rng.randint(1, 2))
    yield greedy(three, extra)
    yield simulate(three, extra, (3, 2, 1), rng.randint(1, 3), rng.choice(ENDS))
    below, used = three[0], [(0,) * three[0]]
    for n in (rng.randint(1, 5), rng.randint(1, 5)):
        used.append(tuple(sorted(rng.randint(1, below) for _ in range(n))))
        below = n
    yield Schedule("async", tuple(used), tuple(rng.randint(1, len(r)) for r in used))


ENDS = ["stipulated", "all", "first-layer"]


def go_through(world):
    """Carry a run out with pauses and losses."""
    rng = world.rng
    for _ in range(rng.randint(0, 3)):
        world.run(rng.randint(0, 40), lose=rng.random() < 0.5)
        if world.asked and not any(pilot.busy for pilot in world.pilots):
            # Nothing that was done is lost.
            cut = newest_cut(world.plan, [list(own) for own in world.disk])
            assert tuple(c.epoch for c in cut) == tuple(map(len, world.table))
        world.launch()
    world.run()


def each_seed():
    """Yield sources of chance; the last one printed is that of a failure."""
    for seed in range(SEEDS):
        print("seed", seed)
        yield random.Random(seed)


@pytest.mark.parametrize("streamed", [True, False])
def test_tables_come_out_whatever_happens(streamed):
    for rng in each_seed():
        for table in tables(rng):
            table.check()
            for ranks in rank_cuts(3):
                plan = TablePlan(table, streamed)
                world = World(plan, 3, ranks, rng, every=rng.randint(0, 2))
                go_through(world)
                assert world.table == table.used
                assert world.known == by_hand(table.used, plan.streams)
                assert not any(channel.dropped for channel in world.channels)


def random_async(rng, end, cut_short):
    stipulated = [rng.randint(1, 4) for _ in range(3)]
    extra = [0, rng.randint(0, 3), rng.randint(0, 3)]
    return AsyncPlan(stipulated, extra, rng.random() < 0.5, end, cut_short)


def assert_replays(world):
    """Demand a table that can be executed, and gives what the layers know."""
    plan, table = world.plan, world.table
    dropped = tuple(tuple(c.dropped) for c in world.channels[1:])
    schedule = Schedule("async", table, plan.stipulated, dropped)
    assert world.known == by_hand(table, plan.streams)
    for i in range(3):
        assert not set(dropped[i]) & schedule.needed(i)
    if plan.end != "first-layer":
        schedule.check()
        assert all(map(int.__ge__, map(len, table), plan.stipulated))
    for i in (1, 2):
        if plan.end == "all" and all(plan.extra[1:]):
            assert table[i][-1] == len(table[i - 1])


def worlds(end, cut_short):
    for rng in each_seed():
        for ranks in rank_cuts(3):
            plan = random_async(rng, end, cut_short)
            yield World(plan, 3, ranks, rng, every=rng.randint(0, 2))


@pytest.mark.parametrize("cut_short", [True, False])
@pytest.mark.parametrize("end", ENDS)
def test_asynchronous_layers_follow_the_rule_of_the_paper(end, cut_short):
    for world in worlds(end, cut_short):
        world.run()
        assert_replays(world)
        for i in (1, 2):
            made, latest = [], float("inf")
            for epoch in range(len(world.table[i - 1]), 0, -1):
                # One that was dropped is as good as there with the next.
                latest = world.arrivals[i].get(epoch, latest)
                made.insert(0, latest)
            row, starts = world.table[i], list(world.starts[i].values())
            stipulated, extra = world.plan.stipulated[i], world.plan.extra[i]
            demand_rule(row, starts, made, stipulated, extra, cut_short)


@pytest.mark.parametrize("cut_short", [True, False])
@pytest.mark.parametrize("end", ENDS)
def test_asynchronous_layers_are_interrupted_anywhere(end, cut_short):
    for world in worlds(end, cut_short):
        go_through(world)
        assert_replays(world)
