"""Executes a schedule: each rank trains its layers, outputs travel up the channels.

One loop serves all schedules and any number of ranks. A *plan* says which output a
layer uses next; the loop picks, among the layers of its rank that could go on, the one
furthest behind. With one rank it is the serial executor; the weights depend on the
table alone.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mpilayer.arrays import Array32
from mpilayer.parallel.channel import (
    Inlet,
    LocalChannel,
    Outlet,
    Rows,
    Sink,
    Source,
)
from mpilayer.parallel.comm import Communicator, wait_until
from mpilayer.parallel.mailbox import Inbox, Outbox
from mpilayer.train.layer import LayerState, monitored_errors
from mpilayer.train.schedule import AsyncLayer, Schedule


class Plan(Protocol):
    """Decides what each layer does next."""

    replace: bool
    """Newer outputs may replace older ones that have not left."""

    def next_output(self, layer: int, inlet: Inlet) -> int | None:
        """Return which output the layer uses for its next epoch, None if it waits."""

    def begin(self, layer: int, output: int) -> None:
        """Note that an epoch on that output begins."""

    def finished(self, layer: int, inlet: Inlet) -> bool:
        """Tell whether the layer has no epoch left to do."""

    def leaves(self, layer: int, epoch: int) -> bool:
        """Tell whether the output after an epoch goes to the layer above."""

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether that output may be what training computed on the way."""

    def progress(self, layer: int) -> float:
        """Return how much of its epochs a layer has done."""

    def stops_all(self, layer: int) -> bool:
        """Tell whether everything stops when this layer has finished."""


class TablePlan:
    """Follows a table to the letter."""

    replace = False

    def __init__(self, schedule: Schedule, streamed: bool) -> None:
        self._schedule = schedule
        self._streamed = streamed
        self._begun = [0] * schedule.n_layers
        self._needed = [schedule.needed(i) for i in range(schedule.n_layers)]

    def next_output(self, layer: int, inlet: Inlet) -> int | None:
        """Return the table's entry, once that output is there."""
        row, begun = self._schedule.used[layer], self._begun[layer]
        # Only outputs that the table uses are sent, in its order: so the entry is the
        # output in use, or the newest one, or it has not arrived yet.
        if begun == len(row) or inlet.newest() < row[begun]:
            return None
        return row[begun]

    def begin(self, layer: int, output: int) -> None:  # noqa: ARG002
        """Count the epoch."""
        self._begun[layer] += 1

    def finished(self, layer: int, inlet: Inlet) -> bool:  # noqa: ARG002
        """Tell whether the row of the table is done."""
        return self._begun[layer] == len(self._schedule.used[layer])

    def leaves(self, layer: int, epoch: int) -> bool:
        """Tell whether the row above names the epoch."""
        return epoch in self._needed[layer]

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether the epoch comes before the last stipulated one."""
        return self._streamed and epoch < self._schedule.stipulated[layer]

    def progress(self, layer: int) -> float:
        """Return the part of the row that is done."""
        return self._begun[layer] / max(1, len(self._schedule.used[layer]))

    def stops_all(self, layer: int) -> bool:  # noqa: ARG002
        """Return False: the table says when each layer ends."""
        return False


@dataclass
class AsyncPlan:
    """Lets layers go on as outputs arrive; records the table (Santara et al. §3).

    Attributes
    ----------
    layers : list of AsyncLayer
        The rule and the record of each layer.
    streamed : bool
        Outputs before the last stipulated epoch are streamed.
    end : str
        ``all`` or ``first-layer``.
    """

    layers: list[AsyncLayer]
    streamed: bool
    end: str = "all"
    replace: bool = field(default=True, init=False)

    def next_output(self, layer: int, inlet: Inlet) -> int | None:
        """Return what the rule says about the newest output."""
        return self.layers[layer].next_output(inlet.newest())

    def begin(self, layer: int, output: int) -> None:
        """Record the entry."""
        self.layers[layer].begin(output)

    def finished(self, layer: int, inlet: Inlet) -> bool:
        """Tell whether nothing can wake the layer any more."""
        if inlet.stopped:
            return True
        mine = self.layers[layer]
        return (
            inlet.ended
            and len(mine.used) >= mine.stipulated
            and mine.next_output(inlet.newest()) is None
        )

    def leaves(self, layer: int, epoch: int) -> bool:
        """Every output is offered, but none that nobody could use any more."""
        if layer + 1 == len(self.layers):
            return False
        is_last = layer == 0 and epoch == self.layers[0].stipulated
        return not (is_last and self.end == "first-layer")

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether the epoch comes before the last stipulated one."""
        return self.streamed and epoch < self.layers[layer].stipulated

    def progress(self, layer: int) -> float:
        """Return epochs done over epochs stipulated; above 1 in extra epochs."""
        return len(self.layers[layer].used) / self.layers[layer].stipulated

    def stops_all(self, layer: int) -> bool:
        """Tell whether the first layer's end is the end."""
        return layer == 0 and self.end == "first-layer"


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of one layer did, and where its time went.

    Attributes
    ----------
    layer, epoch, used : int
        Layer from 0; epoch from 1; the output it used, 0 for the data.
    started : float
        Seconds since training began on this rank, at the start of the epoch.
    training, transform, monitor, waiting, sending : float
        Seconds: in minibatches; encoding rows for the layer above; measuring errors;
        without input or without a free buffer before this epoch; moving messages.
    train_error, validation_error : float
        Reconstruction error of the layer's own input: Σ over units of squared
        differences, mean over the monitored rows; NaN without validation rows.
    """

    layer: int
    epoch: int
    used: int
    started: float
    training: float
    transform: float
    monitor: float
    waiting: float
    sending: float
    train_error: float
    validation_error: float


class Stopwatch:
    """Adds up seconds between marks."""

    def __init__(self) -> None:
        self.origin = time.perf_counter()
        self._mark = self.origin

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        return seconds

    def elapsed(self) -> float:
        """Return the seconds since the watch was made."""
        return time.perf_counter() - self.origin


class Pipeline:
    """The layers of one rank and their channels.

    Parameters
    ----------
    states : mapping of int to LayerState
        This rank's layers by index, contiguous, lowest first.
    data : Rows or None
        The data, on the rank that holds layer 0.
    n_rows : tuple of int
        Training and validation rows.
    comm : Communicator
        Ranks in the order of their layers. Local to make; ``run`` is collective.
    plan : Plan
        What to do next.
    monitor_rows : int
        Rows on which errors are measured.
    """

    def __init__(
        self,
        states: Sequence[LayerState],
        data: Rows | None,
        n_rows: tuple[int, int],
        comm: Communicator,
        plan: Plan,
        monitor_rows: int,
    ) -> None:
        self.states = {state.settings.index: state for state in states}
        self.plan = plan
        self._monitor_rows = monitor_rows
        first, last = min(self.states), max(self.states)

        def buffers(columns: int) -> tuple[Rows, Rows]:
            return Rows.empty(*n_rows, columns), Rows.empty(*n_rows, columns)

        self._inlets: dict[int, Inlet] = {}
        self.outlets: dict[int, Outlet] = {}
        if data is not None:
            self._inlets[first] = Source(data)
        else:
            visible = buffers(self.states[first].layer.shape.n_visible)
            self._inlets[first] = Inbox(comm, comm.rank - 1, visible, plan.replace)
        for index in range(first, last):
            hidden = buffers(self.states[index].layer.shape.n_hidden)
            channel = LocalChannel(hidden, plan.replace)
            self.outlets[index] = self._inlets[index + 1] = channel
        if comm.rank + 1 < comm.size:
            hidden = buffers(self.states[last].layer.shape.n_hidden)
            self.outlets[last] = Outbox(comm, comm.rank + 1, hidden, plan.replace)
        else:
            self.outlets[last] = Sink()
        self._remote = (self._inlets[first], self.outlets[last])
        self._busy = set(self.states)

    def run(self) -> Iterator[tuple[LayerState, EpochRecord]]:
        """Train; yield a layer and its record after every epoch. Collective.

        Every rank must exhaust its iterator: the last step waits until all messages
        have arrived.
        """
        watch = Stopwatch()
        while True:
            self._progress()
            self._close_finished()
            if not self._busy:
                break
            index = self._choose()
            if index is None:
                self._progress()
                wait_until(self._something_to_do)
                continue
            output = self.plan.next_output(index, self._inlets[index])
            if output is not None:
                yield self._epoch(index, output, watch)
                watch.lap()  # what the caller did with it is no waiting
        wait_until(self._all_quiet)

    def _epoch(
        self, index: int, output: int, watch: Stopwatch
    ) -> tuple[LayerState, EpochRecord]:
        state, inlet, outlet = (
            self.states[index],
            self._inlets[index],
            self.outlets[index],
        )
        layer, epoch = state.layer, state.epoch + 1
        rows = inlet.take(output)
        leaves = self.plan.leaves(index, epoch)
        streams = leaves and self.plan.streams(index, epoch)
        target = outlet.acquire() if leaves else None
        self.plan.begin(index, output)

        waiting = watch.lap()
        started = watch.elapsed()
        self._sending = 0.0
        streamed = target.train if target is not None and streams else None
        state.train_epoch(rows.train, streamed, self._timed_progress)
        training = watch.lap() - self._sending

        in_epoch = self._sending
        self._transform = 0.0
        if target is not None:
            self._leave(state, rows, target, streams)
        leaving = watch.lap()
        train_error, validation_error = monitored_errors(
            layer, rows, self._monitor_rows
        )
        return state, EpochRecord(
            layer=index,
            epoch=epoch,
            used=output,
            started=started,
            training=training,
            transform=self._transform,
            monitor=watch.lap(),
            waiting=waiting,
            sending=in_epoch + leaving - self._transform,
            train_error=train_error,
            validation_error=validation_error,
        )

    def _leave(
        self, state: LayerState, rows: Rows, target: Rows, streamed: bool
    ) -> None:
        def fill(block: Array32, which: int, where: slice) -> None:
            began = time.perf_counter()
            if which == 1 or not streamed:
                state.layer.encode((rows.train, rows.validation)[which][where], block)
            self._transform += time.perf_counter() - began

        self.outlets[state.settings.index].leave(state.epoch, target, fill)

    def _choose(self) -> int | None:
        """Return the layer that is furthest behind of those that can go on."""
        able = [index for index in sorted(self._busy) if self._able(index)]
        return min(able, key=self.plan.progress, default=None)

    def _able(self, index: int) -> bool:
        if self.plan.next_output(index, self._inlets[index]) is None:
            return False
        epoch = self.states[index].epoch + 1
        if not self.plan.leaves(index, epoch):
            return True
        return self.outlets[index].has_room()

    def _close_finished(self) -> None:
        for index in sorted(self._busy):
            inlet, outlet = self._inlets[index], self.outlets[index]
            if self.plan.finished(index, inlet):
                self._busy.remove(index)
                outlet.end(stop=inlet.stopped or self.plan.stops_all(index))

    def _progress(self) -> bool:
        # A list: every end must move on, also behind one that is not done.
        return all([end.progress() for end in self._remote])  # noqa: C419

    def _timed_progress(self) -> None:
        began = time.perf_counter()
        self._progress()
        self._sending += time.perf_counter() - began

    def _something_to_do(self) -> bool:
        self._progress()
        ended = any(self.plan.finished(i, self._inlets[i]) for i in self._busy)
        return ended or self._choose() is not None

    def _all_quiet(self) -> bool:
        return self._progress()
