"""Pre-training: what is measured of layers, and what a schedule makes of it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from mpilayer.arrays import StoredRows
from mpilayer.config import PretrainConfig
from mpilayer.data.dataset import Dataset
from mpilayer.models.base import LayerShape, parameter_shapes
from mpilayer.parallel.channel import Rows as Buffers
from mpilayer.parallel.team import Team
from mpilayer.placement import Place
from mpilayer.plan.ghost import Ghost, Work
from mpilayer.plan.links import Links
from mpilayer.plan.measured import Curve, Measured
from mpilayer.plan.model import Cost, Model
from mpilayer.plan.pieces import (
    BUDGET,
    ROUNDS,
    STILL,
    Pieces,
    Rows,
    Timed,
    first_of,
    once,
    random_rows,
    some_of,
)
from mpilayer.plan.simulate import Seat, Simulation
from mpilayer.train.layer import (
    LayerState,
    make_layer,
    monitored_error,
    most_slices,
    row_counts,
)
from mpilayer.train.layers import needed_bytes
from mpilayer.train.plans import effective, plan_of
from mpilayer.train.schedule import Schedule
from mpilayer.train.teams import places_for, with_slices
from mpilayer.words import plural, spans

# Times as long as copying it takes to read what another core has just written: steps of
# three layers on two cores, beside the same steps of one rank whose other is not there.
_FROM_OTHERS = 5


def layer_key(shape: LayerShape) -> str:
    """Return what pieces of a layer are called."""
    return f"{shape.n_visible}-{shape.n_hidden} {shape.visible} {shape.hidden}"


def layer_work(
    config: PretrainConfig, shape: LayerShape, n_slices: int, size: int, rows: Rows
) -> tuple[LayerState, Timed]:
    """Return a layer as the first rank of a team has it, and its epochs of k steps."""
    alone = PretrainConfig(
        layers=(shape.n_hidden,),
        slices=(n_slices or min(size, most_slices(shape.n_hidden)),),
        method=config.method,
        minibatch=config.minibatch,
        learning_rate=(STILL,),
        weight_decay=config.weight_decay,
        cd_steps=config.cd_steps,
        tied=config.tied,
        loss=config.loss,
    )
    state = LayerState(alone, [shape], 0, Team(Ghost(size)))

    def timed(steps: int) -> float:
        some = first_of(rows, steps * config.minibatch)
        return once(lambda: state.train_epoch(some))

    return state, timed


def _layer_company(config: PretrainConfig, shape: LayerShape, n_rows: int) -> Work:
    rows = random_rows(n_rows, shape.n_visible)
    _, timed = layer_work(config, shape, 0, 1, rows)
    steps = max(1, len(rows) // config.minibatch)
    return lambda: timed(min(3, steps))


def measure_layers(
    pieces: Pieces,
    config: PretrainConfig,
    dataset: Dataset,
    shapes: Sequence[LayerShape],
    grid: Sequence[int],
) -> None:
    """Time steps, and what each epoch has besides, of every layer and team."""
    first, cuts = some_of(dataset, config.minibatch), config.slices_of_layers
    new = {layer_key(shape): (i, shape) for i, shape in reversed([*enumerate(shapes)])}
    useful = {k: cuts[i] or most_slices(s.n_hidden) for k, (i, s) in new.items()}
    n_pieces = sum(sum(n <= useful[key] for n in grid) for key in new)
    for key, (index, shape) in new.items():
        rows = first if not index else random_rows(len(first), shape.n_visible)
        most, lines = max(1, len(rows) // config.minibatch), {}
        for size in sorted({n for n in grid if n <= useful[key]} | {1}):
            state, timed = layer_work(config, shape, cuts[index], size, rows)
            lines[size] = pieces.line(timed, most, BUDGET / n_pieces)
        fixed, steps = zip(*lines.values(), strict=True)
        pieces.curves[f"epoch {key}"] = Curve(tuple(lines), fixed)
        pieces.curves[f"step {key}"] = Curve(tuple(lines), steps)
        state, _ = layer_work(config, shape, cuts[index], 1, rows)
        some = np.asarray(first_of(rows, 500)[:])
        out = np.empty((len(some), shape.n_hidden), np.float32)
        for name, work in (
            ("encode", lambda s=state, r=some, o=out: s.layer.encode(r, o)),
            ("monitor", lambda s=state, r=some: monitored_error(s.layer, r)),
        ):
            taken = median(once(work) for _ in range(ROUNDS))
            pieces.numbers[f"{name} {key}"] = taken / len(some)
    largest = max(shapes, key=lambda shape: shape.cost)
    pieces.beside(_layer_company, config, largest, len(first))


class Pretraining(Model):
    """Layers on teams, by a schedule; ``table`` None: as outputs arrive."""

    def __init__(
        self,
        measured: Measured,
        links: Links,
        config: PretrainConfig,
        shapes: Sequence[LayerShape],
        table: Schedule | None,
        stored: Any = np.uint8,
    ) -> None:
        super().__init__(measured, links)
        self.config, self.shapes = effective(config, table), shapes
        self.table, self._stored = table, stored
        if config.layout == "auto" and len(shapes) > 1:
            self.options = (f"--layout 1-{len(shapes)}:{{}}",)
        counts = self.n_train, self.n_validation, config.monitor_rows
        self.counts = row_counts(*counts)

    def useful(self) -> int:
        """See ``Model``."""
        cuts = zip(self.config.slices_of_layers, self.shapes, strict=True)
        return sum(given or most_slices(shape.n_hidden) for given, shape in cuts)

    def cost(self, hosts: Sequence[str], option: str = "") -> Cost:
        """See ``Model``."""
        config = self.config
        if option:
            config = replace(config, layout=option.removeprefix("--layout "))
        places = places_for(config, hosts, self.shapes[0].n_visible, self.table)
        config = with_slices(config, places)
        names = list(dict.fromkeys(hosts))
        seats = [
            Seat(p.layers, len(p.ranks), names.index(hosts[p.ranks[0]])) for p in places
        ]
        sizes = [seat.size for seat in seats for _ in seat.layers]
        homes = [seat.host for seat in seats for _ in seat.layers]
        plan, n_hosts = plan_of(config, self.table), len(names)

        def epoch(layer: int, number: int) -> float:
            leaves, streams = plan.leaves(layer, number), plan.streams(layer, number)
            seconds = self._epoch(layer, sizes[layer], leaves, leaves and streams)
            if number == plan.stipulated[layer]:  # parameters and momentum are saved
                seconds += 8 * self.shapes[layer].cost / self.measured.disk
            return seconds

        def message(layer: int) -> float:
            n_bytes = 4 * sum(self.counts) * self.shapes[layer].n_hidden
            return self.links.message(n_bytes, homes[layer] == homes[layer + 1])

        slower = partial(self.slower, hosts=n_hosts)
        found = Simulation(plan, seats, epoch, message, slower).run()
        seconds = found.seconds
        working = sum(b * s.size for b, s in zip(found.busy, seats, strict=True))
        waiting = max(0.0, seconds - working / len(hosts))
        own = [self._bytes(config, place, plan.replace) for place in places]
        by_host = [0] * n_hosts
        for seat, (_, whole) in zip(seats, own, strict=True):
            by_host[seat.host] += whole
        busy = max(found.busy)
        layers = places[found.busy.index(busy)].layers
        bound = f"{plural('layer', len(layers))} {_numbers(layers)}"
        return Cost(
            _layout(places),
            seconds,
            waiting,
            max(rank for rank, _ in own),
            max(by_host),
            bound if busy > 0.7 * seconds else "waiting for layers below",
            sum(map(message, range(len(self.shapes) - 1))),
        )

    def _epoch(self, layer: int, size: int, leaves: bool, streams: bool) -> float:
        """Return the seconds of an epoch of a layer on a team, on a quiet host."""
        shape, measured = self.shapes[layer], self.measured
        key, numbers = layer_key(shape), measured.numbers
        most = self.config.slices_of_layers[layer] or most_slices(shape.n_hidden)
        passes = make_layer(
            self.config, replace(shape, n_visible=1, n_hidden=1)
        ).n_passes
        barriers = 2 * passes * self.barrier(size)  # of those without a slice, too
        size = min(size, most)
        step = measured.curves[f"step {key}"](size) + barriers
        # Of the weights of its own visible units, and of the units of every pass, what
        # others have written since.
        read = 4 * shape.cost / size
        read += 2 * passes * self.config.minibatch * (shape.n_visible + shape.n_hidden)
        step += _FROM_OTHERS * read * (size - 1) / size / measured.memory
        seconds = measured.curves[f"epoch {key}"](size)
        seconds += step * self.n_train / self.config.minibatch
        train, *monitored = self.counts
        if leaves:
            rows = sum(monitored) + (0 if streams else train)
            seconds += numbers[f"encode {key}"] * rows / size
        rows = max(monitored) if size > 1 else sum(monitored)
        seconds += numbers[f"monitor {key}"] * rows
        epochs = self.config.stipulated_epochs[layer]
        kept = self.config.monitor_every or math.ceil(epochs / 40)
        return seconds + (4 * shape.cost / measured.disk / kept if kept > 0 else 0.0)

    def _bytes(
        self, config: PretrainConfig, place: Place, newer: bool
    ) -> tuple[int, int]:
        """Return the bytes of a rank of a team, with what it shares, and of all."""
        size, n_visible = len(place.ranks), self.shapes[0].n_visible
        data = None
        if place.layers.start == 0:
            kinds = zip((self._stored, "f4", "f4"), self.counts, strict=True)
            train, *some = (
                np.broadcast_to(np.zeros((), kind), (n, n_visible)) for kind, n in kinds
            )
            data = Buffers(StoredRows(train, 1.0), *some)
        # What a team of one has for itself is what others would share.
        two = Place(place.layers, tuple(range(max(2, size))))
        shared = needed_bytes(config, n_visible, [two], 0, data, self.counts, newer)
        tied = self.config.method == "rbm" or self.config.tied
        own = 8 * sum(
            math.prod(shape)
            for layer in place.layers
            for shape in parameter_shapes(self.shapes[layer], tied).values()
        )
        own //= size
        base = self.measured.base_bytes
        return shared + own + base, shared + size * (own + base)


def _layout(places: Sequence[Place]) -> str:
    """Return teams as ``--layout`` names them, those that are many in short."""
    parts = [f"{_numbers(place.layers)}:{len(place.ranks)}" for place in places]
    return " ".join(parts) if len(parts) <= 6 else f"{len(parts)} teams"


def _numbers(layers: range) -> str:
    return spans(layer + 1 for layer in layers)
