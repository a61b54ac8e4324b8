"""The layers of a team and what lies between them; what all its ranks do together."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from time import perf_counter
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from mpilayer.arrays import StoredRows
from mpilayer.config import PretrainConfig
from mpilayer.errors import TrainingError
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.team import Sketch, Team
from mpilayer.placement import Place
from mpilayer.train.layer import LayerState, layer_shapes, monitored_error

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
            self.team.tell((method.__name__, *words))
        return method(self, *args, **kwargs)

    return call


def needed_bytes(
    config: PretrainConfig,
    n_visible: int,
    place: Place,
    data: Rows | None,
    n_rows: tuple[int, int, int],
    replace: bool,
) -> int:
    """Return how much memory the ranks of a place will share; see ``Layers``. Local."""
    team, shapes = Sketch(len(place.ranks)), layer_shapes(config, n_visible)
    if team.size > 1:
        states = [LayerState(config, shapes, index, team) for index in place.layers]
        for state in states:
            state.make_room(n_rows[0])
        Layers(states, data, n_rows, replace)
    return team.n_bytes


class Layers:
    """The contiguous layers of a team. Collective on it to make; its head calls.

    The other ranks ``follow``, and so take part in what the head calls.

    Parameters
    ----------
    states : sequence of LayerState
        Of the team, lowest first.
    data : Rows or None
        On the head of the team that has layer 0.
    n_rows : tuple of int
        Rows of each part of ``Rows``.
    replace : bool
        Newer outputs replace older ones.

    Attributes
    ----------
    inputs, outputs : dict of int to list of Rows
        Buffers for what the lowest layer takes from another team, or the data; for
        what each layer passes on.
    between : callable
        Called on the head after every minibatch.
    """

    def __init__(
        self,
        states: Sequence[LayerState],
        data: Rows | None,
        n_rows: tuple[int, int, int],
        replace: bool,
    ) -> None:
        self.states = {state.index: state for state in states}
        self.team: Team = states[0].team
        self.between: Callable[[], object] = lambda: None
        first, last, team = states[0], states[-1], self.team
        n_visible = first.layer.shape.n_visible
        if first.index == 0:
            self.inputs = [self._shared(data)]
        else:
            # A third, so that the newest can arrive while another one is ready.
            times = 3 if replace else 2
            self.inputs = [Rows.empty(n_rows, n_visible, team) for _ in range(times)]
        self.outputs = {
            state.index: [
                Rows.empty(n_rows, state.layer.shape.n_hidden, team) for _ in range(2)
            ]
            for state in states
            if state is not last or last.index + 1 < len(last.config.layers)
        }
        between = [rows for some in self.outputs.values() for rows in some]
        self.buffers = [*self.inputs, *between]
        self._errors = self.team.array((2,), np.float64)
        self._seconds = self.team.array((self.team.size, 2), np.float64)

    def follow(self, meanwhile: Callable[[], object]) -> None:
        """Take part in what the head calls, until the end; ``meanwhile`` as of hear."""
        while (order := self.team.hear(meanwhile)) != ("end",):
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
        self.team.tell(("end",))

    @_together
    def train(self, index: int, rows: Rows, target: Rows | None) -> None:
        """Pass once over the rows; fill the target with what training computes.

        Raises what ``LayerState.train_epoch`` raises.
        """
        streamed = None if target is None else np.asarray(target.train)
        team, began, waited = self.team, perf_counter(), self.team.waited
        try:
            self.states[index].train_epoch(rows.train, streamed, self.between)
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
        stored = train if isinstance(train, StoredRows) else None
        scale = self.team.broadcast(stored.scale if stored else None)
        values = self.team.share(
            train.values if isinstance(train, StoredRows) else train
        )
        if stored is not None:
            stored.values = values  # and those of the head alone are gone
        everybody_s = values if scale is None else StoredRows(values, scale)
        return Rows(everybody_s, self.team.share(sample), self.team.share(validation))
