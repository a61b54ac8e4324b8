"""The layers of a team and what lies between them; what all its ranks do together."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from time import perf_counter
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from mpilayer.arrays import StoredRows, row_blocks
from mpilayer.config import PretrainConfig
from mpilayer.errors import TrainingError
from mpilayer.far import FarRows, RowFile, Scratch
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.team import Sketch, Team
from mpilayer.placement import Place
from mpilayer.train.layer import LayerState, layer_shapes, monitored_error
from mpilayer.train.pools import Pool, held_bytes

P = ParamSpec("P")
T = TypeVar("T")


class _Number(NamedTuple):
    """Of a buffer: what the head says of it to the others."""

    number: int


def _together(
    method: Callable[Concatenate["Layers", P], T],
) -> Callable[Concatenate["Layers", P], T]:
    """Let the head's call of a method, without keywords, be that of all ranks."""

    @wraps(method)
    def call(self: "Layers", /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.team.is_head:
            words = (
                _Number(self.buffers.index(word)) if isinstance(word, Rows) else word
                for word in args
            )
            self.team.broadcast((method.__name__, *words))
        return method(self, *args, **kwargs)

    return call


def needed_bytes(
    config: PretrainConfig,
    n_visible: int,
    places: Sequence[Place],
    rank: int,
    data: Rows | None,
    n_rows: tuple[int, int, int],
    replace: bool,
    scratch: Scratch | None = None,
) -> int:
    """Return how much memory a rank's team will share, for its head; else 0. Local.

    See ``Layers``.
    """
    place = next(place for place in places if rank in place.ranks)
    if rank != place.ranks[0]:
        return 0
    team, shapes = Sketch(len(place.ranks)), layer_shapes(config, n_visible)
    if team.size > 1:
        states = [LayerState(config, shapes, index, team) for index in place.layers]
        for state in states:
            state.make_room(n_rows[0])
        Layers(states, data, n_rows, replace, scratch)
    return team.n_bytes


def bytes_of_rows(
    config: PretrainConfig, layers: range, n_rows: int, row_bytes: int
) -> tuple[int, int]:
    """Return the bytes of a rank's training rows, of which the second are outputs.

    That are data, ``row_bytes`` a row, and what its layers take and pass on.
    """
    arriving = 3 if config.schedule == "async" else 2  # as ``Layers`` has buffers
    buffers = [arriving * (layers.start > 0)] + [2] * len(layers)
    last = len(config.layers) - 1
    widths = [
        n * (0 < i <= last) * config.layers[i - 1]
        for i, n in enumerate(buffers, start=layers.start)
    ]
    outputs = 4 * n_rows * sum(widths)
    return outputs + n_rows * row_bytes * (layers.start == 0), outputs


def held_of_rows(config: PretrainConfig, n_rows: int, row_bytes: int) -> int:
    """Return what may be held of rows at a time; 0 if they all stay in memory."""
    # By what one rank would need: no number may depend on how many there are.
    everything = bytes_of_rows(config, range(len(config.layers)), n_rows, row_bytes)[0]
    return held_bytes(config, everything)


class Layers:
    """The contiguous layers of a team. Collective on it to make; its head calls.

    The other ranks ``follow``, and so take part in what the head calls. After every
    minibatch it calls ``between``.

    Parameters
    ----------
    states : sequence of LayerState
        Of the team, lowest first.
    data, n_rows : Rows or None, tuple of int
        The data, on the head of the team that has layer 0; the rows of each part.
    replace : bool
        Newer outputs replace older ones.
    scratch : Scratch, optional
        For data that do not fit into memory, and what layers make of them.

    Attributes
    ----------
    inputs, outputs : list of Rows, dict of int to list of Rows
        Buffers for what the lowest layer takes from another team, or the data; for
        what each layer passes on.
    """

    def __init__(
        self,
        states: Sequence[LayerState],
        data: Rows | None,
        n_rows: tuple[int, int, int],
        replace: bool,
        scratch: Scratch | None = None,
    ) -> None:
        self.states = {state.index: state for state in states}
        self.team: Team = states[0].team
        self.between: Callable[[], object] = lambda: None
        first, last, team = states[0], states[-1], self.team
        n_visible = first.layer.shape.n_visible

        def empty(index: int, which: str, width: int) -> Rows:
            """Return a buffer for what layer ``index`` makes."""
            shape = n_rows[0], width
            file = scratch.rows(index, which, shape) if scratch else None
            return Rows.empty(n_rows, width, team, file)

        if first.index == 0:
            self.inputs = [self._shared(data)]
        else:
            # A third, so that the newest can arrive while another one is ready.
            times, below = range(3 if replace else 2), first.index - 1
            self.inputs = [empty(below, f"in-{k}", n_visible) for k in times]
        self.outputs = {
            i: [empty(i, f"out-{k}", state.layer.shape.n_hidden) for k in range(2)]
            for i, state in self.states.items()
            if state is not last or i + 1 < len(last.config.layers)
        }
        self._pool = Pool(team, scratch.held) if scratch else None
        between = [rows for some in self.outputs.values() for rows in some]
        self.buffers = [*self.inputs, *between]
        self._errors = self.team.array((2,), np.float64)
        self._seconds = self.team.array((self.team.size, 2), np.float64)

    def follow(self, meanwhile: Callable[[], object]) -> None:
        """Take part in what the head calls, until the end; meanwhile as ``Team``."""
        nothing: tuple[Any, ...] = ()
        while (order := self.team.broadcast(nothing, meanwhile)) != ("end",):
            name, *words = order
            args: list[Any] = [
                self.buffers[word.number] if isinstance(word, _Number) else word
                for word in words
            ]
            # The head has met it, too, and knows what follows.
            with suppress(TrainingError):
                getattr(self, name)(*args)

    def end(self) -> None:
        """Let the others end; on the head."""
        self.team.broadcast(("end",))

    @_together
    def train(self, index: int, rows: Rows, target: Rows | None) -> None:
        """Pass once over the rows; fill the target with what training computes.

        Raises what ``LayerState.train_epoch`` raises.
        """
        streamed = None if target is None else target.train
        if not isinstance(streamed, RowFile | None):
            streamed = np.asarray(streamed)
        team, began, waited = self.team, perf_counter(), self.team.waited
        try:
            self.states[index].train_epoch(
                rows.train, streamed, self.between, self._pool
            )
        finally:
            waited = team.waited - waited
            self._seconds[team.rank] = perf_counter() - began - waited, waited

    def shares(self) -> tuple[tuple[int, float, float], ...]:
        """Return each rank's seconds of the last epoch: at work, and at barriers.

        On the head of several ranks, after another call in which all take part.
        """
        if self.team.size == 1:
            return ()
        pairs = zip(self.team.ranks, self._seconds.tolist(), strict=True)
        return tuple((rank, *seconds) for rank, seconds in pairs)

    @_together
    def transform(self, index: int, rows: Rows, target: Rows, streamed: bool) -> None:
        """Fill the target with the layer's output: but for what is ``streamed``.

        Santara et al. 2016, equation 6: D_{l+1} = f(W_l D_l + b_l). Streamed training
        rows are there already; what errors are measured on never is.
        """
        layer = self.states[index].layer
        for which, (block, part, where) in enumerate(target.blocks()):
            if self.team.owns(which) and (part or not streamed):
                layer.encode(rows.parts[part][where], block)
        if isinstance(target.train, RowFile) and not streamed:
            for which, where in enumerate(row_blocks(len(rows.train))):
                if self.team.owns(which):
                    target.train.write(where.start, layer.encode(rows.train[where]))
        self.team.barrier()

    @_together
    def errors(self, index: int, rows: Rows) -> tuple[float, float]:
        """Return the reconstruction errors on training and validation rows."""
        layer, found = self.states[index].layer, self._errors
        for which, some in enumerate((rows.sample, rows.validation)):
            if self.team.owns(which):
                found[which] = monitored_error(layer, some)
        self.team.barrier()
        return float(found[0]), float(found[1])

    def _shared(self, data: Rows | None) -> Rows:
        """Return the head's data, in the memory of all."""
        if data is not None and self.team.size == 1:
            return data
        train, sample, validation = data.parts if data else (None, None, None)
        far = train if isinstance(train, FarRows) else None
        if (far := self.team.broadcast(far)) is not None:
            return Rows(far, self.team.share(sample), self.team.share(validation))
        stored = train if isinstance(train, StoredRows) else None
        scale = self.team.broadcast(stored.scale if stored else None)
        held = train if isinstance(train, np.ndarray) else None
        values = self.team.share(held if stored is None else stored.values)
        if stored is not None:
            stored.values = values  # and those of the head alone are gone
        everybody_s = values if scale is None else StoredRows(values, scale)
        return Rows(everybody_s, self.team.share(sample), self.team.share(validation))
