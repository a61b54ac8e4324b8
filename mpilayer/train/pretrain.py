"""Executes a schedule: each rank trains its layers, outputs travel up the channels.

One loop serves all schedules and any number of ranks. A *plan* says which output a
layer uses next; the loop picks, among the layers of its rank that could go on, the one
furthest behind. With one rank it is the serial executor; the weights depend on the
table alone.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.errors import TrainingError
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
from mpilayer.parallel.notice import Consent, Notice
from mpilayer.train.layer import LayerState, monitored_errors
from mpilayer.train.plans import AsyncPlan, Plan
from mpilayer.train.record import EpochRecord
from mpilayer.train.restart import Candidate


@dataclass(frozen=True)
class Snapshot:
    """What a layer's checkpoint says besides parameters and velocity.

    Attributes
    ----------
    candidate : Candidate
        Epochs done, output used last, and whether that is all.
    row : tuple of int
        Output used by each epoch so far.
    extra_left : int
        Asynchronous: see ``AsyncLayer``.
    dropped : tuple of int
        See ``Outlet``.
    """

    candidate: Candidate
    row: tuple[int, ...] = ()
    extra_left: int = 0
    dropped: tuple[int, ...] = ()

    def arrays(self) -> dict[str, AnyArray]:
        """Return the arrays that a checkpoint needs."""
        return {
            "row": np.array(self.row, np.int64),
            "dropped": np.array(self.dropped, np.int64),
        }

    def numbers(self) -> dict[str, int]:
        """Return the numbers that a checkpoint needs, but for the layer's own."""
        return {
            "used": self.candidate.used,
            "final": self.candidate.final,
            "extra_left": self.extra_left,
        }

    @staticmethod
    def restore(
        candidate: Candidate,
        arrays: Mapping[str, AnyArray],
        numbers: Mapping[str, Any],
    ) -> "Snapshot":
        """Return the one with these ``arrays()`` and ``numbers()``.

        The candidate is what the checkpoint is called: a run that was made longer has
        given another name to one that was final.
        """
        row, dropped = (tuple(arrays[name].tolist()) for name in ("row", "dropped"))
        return Snapshot(candidate, row, int(numbers["extra_left"]), dropped)


class Keeper:
    """Decides when layers save and give way; this one only gives way to a failure.

    Parameters
    ----------
    notice : Notice, optional
        Tells all ranks that one has failed. Not needed on one rank.
    """

    def __init__(self, notice: Notice | None = None) -> None:
        self._notice = notice

    def due(self, epochs: int) -> bool:  # noqa: ARG002
        """Tell whether a layer with so many epochs since its last one saves now."""
        return False

    def save(self, state: LayerState, snapshot: Snapshot) -> None:
        """Write a layer's checkpoint."""

    def stopping(self, epoch_seconds: float) -> bool:  # noqa: ARG002
        """Tell whether all layers shall save and end; asked between epochs."""
        return self._notice is not None and self._notice.is_raised()

    def fail(self) -> None:
        """Let the layers of all ranks save and end."""
        if self._notice is not None:
            self._notice.raise_it()


class Stopwatch:
    """Adds up seconds between marks.

    Parameters
    ----------
    before : float
        Seconds of training before a restart.
    """

    def __init__(self, before: float = 0.0) -> None:
        self.origin = time.perf_counter() - before
        self._mark = time.perf_counter()

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
        Rows of each part of ``Rows``.
    comm : Communicator
        Ranks in the order of their layers. Local to make; ``run`` is collective.
    plan : Plan
        What to do next.
    keeper : Keeper
        When layers save, and when they give way.
    again : sequence of bool
        Of each layer of all ranks: after a restart its last output goes up once more.

    Attributes
    ----------
    interrupted : bool
        A layer of this rank was saved and stopped although it had epochs left.
    failure : TrainingError or None
        A layer of this rank cannot go on; all ranks must hear of it after ``run``.

    Notes
    -----
    The lowest layer with epochs left decides when to save. Its outputs tell how far it
    has saved, and a layer above saves before it uses anything newer: so there are
    checkpoints that go together (:mod:`mpilayer.train.restart`), and nobody waits.
    """

    def __init__(
        self,
        states: Sequence[LayerState],
        data: Rows | None,
        n_rows: tuple[int, int, int],
        comm: Communicator,
        plan: Plan,
        keeper: Keeper | None = None,
        again: Sequence[bool] = (),
    ) -> None:
        self.states = {state.settings.index: state for state in states}
        self.plan = plan
        self.interrupted = False
        self.failure: TrainingError | None = None
        self._keeper = keeper or Keeper()
        self._saved = {index: state.epoch for index, state in self.states.items()}
        self._heard: dict[int, set[int]] = {index: set() for index in self.states}
        self._again = {index for index in self.states if any(again[index : index + 1])}
        self._to_save: int | None = None
        self._epoch_seconds = 0.0
        first, last = min(self.states), max(self.states)

        def buffers(columns: int) -> tuple[Rows, Rows]:
            return Rows.empty(n_rows, columns), Rows.empty(n_rows, columns)

        self._inlets: dict[int, Inlet] = {}
        self.outlets: dict[int, Outlet] = {}
        if data is not None:
            self._inlets[first] = Source(data)
        else:
            columns = self.states[first].layer.shape.n_visible
            third = [Rows.empty(n_rows, columns)] if plan.replace else []
            visible = [*buffers(columns), *third]
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
        self._stopping = False
        self._enough = Consent(comm) if plan.until_stipulated else None

    def run(self, before: float = 0.0) -> Iterator[tuple[LayerState, EpochRecord]]:
        """Train; yield a layer and its record after every epoch. Collective.

        Every rank must exhaust its iterator: the last step waits until all messages
        have arrived.

        Parameters
        ----------
        before : float
            Seconds of training before a restart.
        """
        watch = Stopwatch(before)
        while True:
            self._progress()
            self._say_when_stipulated()
            self._close_finished()
            self._stopping = self._keeper.stopping(self._epoch_seconds)
            if self._stopping:
                for own, inlet in self._inlets.items():
                    inlet.only_newest = self.plan.replace or own not in self._busy
                self._pause_layers()
            if not self._busy:
                break
            index = self._choose()
            if index is None:
                self._progress()
                wait_until(self._something_to_do)
                continue
            if index in self._again:
                self._send_again(index)
                continue
            output = self.plan.next_output(index, self._inlets[index])
            if output is not None:
                try:
                    done = self._epoch(index, output, watch)
                except TrainingError as error:
                    self._give_up(error)
                    continue
                yield done
                if not self.plan.finished(index, self._inlets[index]):
                    self._save_if_due()
                watch.lap()  # what the caller did with it is not waiting
        wait_until(self._at_rest)

    def check(self) -> None:
        """Raise the failure of this rank's layers, if there is one. Local."""
        if self.failure is not None:
            raise self.failure

    def _epoch(
        self, index: int, output: int, watch: Stopwatch
    ) -> tuple[LayerState, EpochRecord]:
        state, inlet, outlet = (
            self.states[index],
            self._inlets[index],
            self.outlets[index],
        )
        layer, epoch = state.layer, state.epoch + 1
        used, heard = self._used(index), self._heard[index]
        heard.add(inlet.saved)
        heard -= {saved for saved in heard if saved < used}
        if state.epoch and any(saved < output for saved in heard):
            # The layer below was saved when it had made what this one has seen, but not
            # what comes now. It may have been saved again since.
            self._save(index)
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
        self._say_when_stipulated()  # before the output leaves, which could wake others
        training = watch.lap() - self._sending

        in_epoch = self._sending
        self._transform = 0.0
        self._epoch_seconds = waiting + training
        leads = inlet.ended and output == inlet.newest()
        if leads and self._keeper.due(state.epoch - self._saved[index]):
            self._to_save, outlet.saved = index, state.epoch
        if target is not None:
            self._leave(state, rows, target, streams)
        leaving = watch.lap()
        train_error, validation_error = monitored_errors(layer, rows)
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
            if which or not streamed:
                state.layer.encode(rows.parts[which][where], block)
            self._transform += time.perf_counter() - began

        self.outlets[state.settings.index].leave(state.epoch, target, fill)

    def _send_again(self, index: int) -> None:
        """Let the last output before a restart go up once more."""
        state, outlet = self.states[index], self.outlets[index]
        rows = self._inlets[index].take(self._used(index))
        outlet.saved, self._sending, self._transform = state.epoch, 0.0, 0.0
        self._leave(state, rows, outlet.acquire(), False)
        self._again.remove(index)

    def _save_if_due(self) -> None:
        if self._to_save is not None:
            self._save(self._to_save)

    def _save(self, index: int, final: bool = False) -> None:
        """Save a layer as it is now, unless that was done already."""
        state, outlet = self.states[index], self.outlets[index]
        self._to_save = None
        outlet.saved = state.epoch
        if state.epoch == self._saved[index] and not final:
            return
        self._saved[index] = state.epoch
        plan = self.plan
        extra_left = plan.layers[index].extra_left if isinstance(plan, AsyncPlan) else 0
        candidate = Candidate(state.epoch, self._used(index), final)
        dropped = tuple(outlet.dropped)
        self._keeper.save(
            state, Snapshot(candidate, plan.row(index), extra_left, dropped)
        )

    def _used(self, index: int) -> int:
        """Return the output that a layer's last epoch used, 0 before any."""
        return next(iter(self.plan.row(index)[-1:]), 0)

    def _pause_layers(self) -> None:
        """Save and end every layer that could go on from here after a restart."""
        for index in sorted(self._busy):
            if self._may_pause(index):
                self._save(index)
                self.outlets[index].end(stop=False, pause=True)
                self._busy.remove(index)
                self.interrupted = True

    def _give_up(self, error: TrainingError) -> None:
        """End this rank's layers as they are; what is still sent to it is received."""
        self.failure = error
        self._keeper.fail()
        for index in sorted(self._busy):
            self._inlets[index].only_newest = True
            self.outlets[index].end(stop=False, pause=True)
        self._busy.clear()

    def _may_pause(self, index: int) -> bool:
        return self._told(index) and self.plan.may_pause(index, self._inlets[index])

    def _told(self, index: int) -> bool:
        """Tell whether nothing more comes from below in this launch."""
        return self._inlets[index].ended or self._inlets[index].paused

    def _choose(self) -> int | None:
        """Return the layer that is furthest behind of those that can go on."""
        able = [index for index in sorted(self._busy) if self._able(index)]
        return min(able, key=self.plan.progress, default=None)

    def _able(self, index: int) -> bool:
        if index in self._again:
            arrived = self._inlets[index].newest() >= self._used(index)
            return arrived and self.outlets[index].has_room()
        if self._stopping and self.plan.replace and not self._told(index):
            return False  # it only waits for the layer below to be saved
        if self.plan.next_output(index, self._inlets[index]) is None:
            return False
        epoch = self.states[index].epoch + 1
        if not self.plan.leaves(index, epoch):
            return True
        return self.outlets[index].has_room()

    def _close_finished(self) -> None:
        for index in sorted(self._busy):
            inlet, outlet = self._inlets[index], self.outlets[index]
            if self.plan.finished(index, inlet) and index not in self._again:
                self._save(index, final=True)
                self._busy.remove(index)
                inlet.only_newest = True  # nobody takes what may still come
                stop = inlet.stopped or self.plan.enough or self.plan.stops_all(index)
                outlet.end(stop)

    def _say_when_stipulated(self) -> None:
        """Vote for the end; learn whether all ranks have. Local."""
        if self._enough is not None and not self.plan.enough:
            if all(self.plan.progress(index) >= 1 for index in self.states):
                self._enough.vote(True)
            self.plan.enough = self._enough.is_given()

    def _at_rest(self) -> bool:
        self._keeper.stopping(self._epoch_seconds)  # it is still asked, and asks others
        quiet = self._progress()
        return quiet and (self._enough is None or self._enough.is_closed())

    def _progress(self) -> bool:
        # A list: every end must move on, also behind one that is not done.
        return all([end.progress() for end in self._remote])  # noqa: C419

    def _timed_progress(self) -> None:
        began = time.perf_counter()
        self._progress()
        self._sending += time.perf_counter() - began

    def _something_to_do(self) -> bool:
        self._progress()
        self._say_when_stipulated()
        ended = any(self.plan.finished(i, self._inlets[i]) for i in self._busy)
        if self._keeper.stopping(self._epoch_seconds):
            # Either it is news, or a layer below has been saved by now.
            may_pause = any(self._may_pause(i) for i in self._busy)
            ended = ended or may_pause or not self._stopping
        return ended or self._choose() is not None
