"""Executes a schedule: each rank trains its layers, outputs travel up the channels.

One loop serves all schedules and any number of ranks. A :class:`Pilot` says what comes
next; the loop does it. With one rank it is the serial executor; the weights depend on
the table alone.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.errors import TrainingError
from mpilayer.far import Scratch
from mpilayer.parallel.channel import (
    Inbox,
    Inlet,
    LocalChannel,
    Outbox,
    Outlet,
    Rows,
    Source,
)
from mpilayer.parallel.comm import Communicator, wait_until
from mpilayer.parallel.notice import Consent, Notice
from mpilayer.train.layer import LayerState
from mpilayer.train.layers import Layers
from mpilayer.train.pilot import Move, Pilot
from mpilayer.train.plans import BEGINNING, Candidate, Plan, View
from mpilayer.train.record import KINDS, EpochRecord


@dataclass(frozen=True)
class Snapshot:
    """Where a layer is among the others: what its checkpoint says of that.

    ``row`` are the outputs that its epochs used; ``extra_left`` as in ``AsyncLayer``,
    ``dropped`` as in ``Outlet``.
    """

    candidate: Candidate = BEGINNING
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

    The notice tells all ranks that one has failed; it is not needed on one rank.
    """

    def __init__(self, notice: Notice | None = None) -> None:
        self._notice = notice

    def due(self, epochs: int) -> bool:  # noqa: ARG002
        """Tell whether a layer with so many epochs since its last one saves now."""
        return False

    def save(self, state: LayerState, snapshot: Snapshot) -> None:
        """Write the checkpoint of a layer."""

    def stopping(self, epoch_seconds: float) -> bool:  # noqa: ARG002
        """Tell whether all layers shall save and end; asked between epochs."""
        return self._notice is not None and self._notice.is_raised()

    def fail(self) -> None:
        """Let the layers of all ranks save and end."""
        if self._notice is not None:
            self._notice.raise_it()


class Stopwatch:
    """Adds up seconds by kind: of ``KINDS``, one at a time, first ``waiting``.

    ``before`` are seconds of training before a restart.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._mark = time.perf_counter()
        self._origin = self._mark - before
        self._kind, self._seconds = "waiting", dict.fromkeys(KINDS, 0.0)

    def switch(self, kind: str) -> float:
        """Let seconds be of another kind from now on; return now, since the origin."""
        now = time.perf_counter()
        self._seconds[self._kind] += now - self._mark
        self._kind, self._mark = kind, now
        return now - self._origin

    def skip(self) -> None:
        """Let the seconds since the last switch be of no kind."""
        self._mark = time.perf_counter()

    def take(self) -> dict[str, float]:
        """Return the seconds of each kind since they were taken last."""
        taken, self._seconds = self._seconds, dict.fromkeys(KINDS, 0.0)
        return taken


class Pipeline:
    """The layers of one team and their channels. Collective on the team to make.

    The head decides and talks to the other teams; its followers do what it says.

    Parameters
    ----------
    states, data, n_rows, scratch
        As ``Layers`` takes them.
    comm : Communicator
        The heads of all teams, in the order of their layers.
    plan, keeper : Plan, Keeper
        What the schedule says; when layers save, and when they give way.
    snapshots, again : sequence of Snapshot, of bool
        After a restart, of each layer of all ranks: where it is, and whether its last
        output goes up once more.

    Attributes
    ----------
    failure : TrainingError or None
        A layer of this rank cannot go on; all ranks must hear of it after ``run``.
    """

    def __init__(
        self,
        states: Sequence[LayerState],
        data: Rows | None,
        n_rows: tuple[int, int, int],
        comm: Communicator,
        plan: Plan,
        keeper: Keeper | None = None,
        snapshots: Sequence[Snapshot] = (),
        again: Sequence[bool] = (),
        scratch: Scratch | None = None,
    ) -> None:
        self._layers = Layers(states, data, n_rows, plan.replace, scratch)
        self._layers.between = self._move_messages
        # Followers do what they are told, and have no layers of their own.
        self.states = self._layers.states if self._layers.team.is_head else {}
        known = {i: snapshots[i] if snapshots else Snapshot() for i in self.states}
        tracks = {i: plan.track(i, s.row, s.extra_left) for i, s in known.items()}
        self.pilot = Pilot(plan, tracks, [i for i, yes in enumerate(again) if yes])
        self.failure: TrainingError | None = None
        self._keeper = keeper or Keeper()
        self._inlets, self._outlets = _connect(self._layers, comm, plan.replace)
        for index, outlet in self._outlets.items():
            outlet.dropped.extend(known[index].dropped)
            outlet.saved = self.states[index].epoch
        self._remote: list[Inlet | Outlet] = []
        if self.states:
            ends = self._inlets[min(self.states)], self._outlets[max(self.states)]
            self._remote = list(ends)
        self._consent = Consent(comm) if plan.until_stipulated else None
        self._watch = Stopwatch()
        self._epoch_seconds = 0.0

    @property
    def interrupted(self) -> bool:
        """A layer of this rank was saved and stopped although it had epochs left."""
        return self.pilot.interrupted

    def row(self, index: int) -> tuple[int, ...]:
        """Return which outputs the epochs of a layer have used."""
        return tuple(self.pilot.tracks[index].used)

    def dropped(self, index: int) -> tuple[int, ...]:
        """Return after which epochs a layer's output was replaced before it left."""
        return tuple(self._outlets[index].dropped)

    def run(self, before: float = 0.0) -> Iterator[tuple[LayerState, EpochRecord]]:
        """Train; yield a layer and its record after every epoch. Collective.

        Every rank must exhaust its iterator: the last step waits until all messages
        have arrived. ``before`` are seconds of training before a restart.
        """
        if not self._layers.team.is_head:
            self._layers.follow(lambda: self._keeper.stopping(0.0))
            return
        self._watch = Stopwatch(before)
        while self.pilot.busy:
            move = self._next_move()
            if move is None:
                wait_until(lambda: self._next_move() is not None)
            elif move.kind == "train":
                try:
                    record = self._train(move)
                except TrainingError as error:
                    self._give_up(error)
                    continue
                yield self.states[move.layer], record
                # What the caller did with it is not waiting.
                self._watch.skip()
            elif move.kind == "again":
                self._send_again(move)
            else:
                self._watch.switch("waiting")
                self._save(move)
                # Nor is what the keeper did.
                self._watch.skip()
        wait_until(self._at_rest)
        self._layers.end()

    def check(self) -> None:
        """Raise the failure of this rank's layers, if there is one. Local."""
        if self.failure is not None:
            raise self.failure

    def _next_move(self) -> Move | None:
        """Look at messages and requests; return what can be done now."""
        self._progress()
        enough = self._is_enough()
        stopping = self._keeper.stopping(self._epoch_seconds)
        if stopping and self.pilot.plan.replace:
            for inlet in self._inlets.values():
                inlet.only_newest = True
        views = {index: self._view(index) for index in self.pilot.busy}
        return self.pilot.next_move(views, stopping, enough)

    def _view(self, index: int) -> View:
        inlet, room = self._inlets[index], self._outlets[index].has_room()
        newest, saved = inlet.newest(), inlet.saved
        return View(newest, inlet.ended, inlet.paused, inlet.stopped, saved, room)

    def _train(self, move: Move) -> EpochRecord:
        """Do an epoch, let its output leave, and measure errors."""
        index, watch = move.layer, self._watch
        state, outlet = self.states[index], self._outlets[index]
        rows = self._inlets[index].take(move.output)
        target = outlet.acquire() if move.leaves else None
        self.pilot.did(move, self._view(index))

        started = watch.switch("training")
        # With what went up again before.
        waiting = sum(watch.take().values())
        self._layers.train(index, rows, target if move.streams else None)
        self._is_enough()  # before the output leaves, which could wake others
        watch.switch("sending")
        due = self._keeper.due(self.pilot.unsaved(index))
        if self.pilot.trained(index, self._view(index), due):
            outlet.saved = state.epoch
        if target is not None:
            self._leave(state, rows, target, move.streams)
        watch.switch("monitor")
        train_error, validation_error = self._layers.errors(index, rows)
        watch.switch("waiting")
        seconds = {**watch.take(), "waiting": waiting}
        self._epoch_seconds = waiting + seconds["training"]
        return EpochRecord(
            layer=index,
            epoch=state.epoch,
            used=move.output,
            started=started,
            train_error=train_error,
            validation_error=validation_error,
            team=self._layers.shares(),
            **seconds,
        )

    def _leave(
        self, state: LayerState, rows: Rows, target: Rows, streamed: bool
    ) -> None:
        self._watch.switch("transform")
        self._layers.transform(state.index, rows, target, streamed)
        self._watch.switch("sending")
        self._outlets[state.index].leave(state.epoch, target)

    def _send_again(self, move: Move) -> None:
        """Let the last output before a restart go up once more."""
        rows = self._inlets[move.layer].take(move.output)
        target = self._outlets[move.layer].acquire()
        # Equation 6: from the weights alone.
        self._leave(self.states[move.layer], rows, target, streamed=False)
        self._watch.switch("waiting")
        self.pilot.did(move, self._view(move.layer))

    def _save(self, move: Move) -> None:
        """Save a layer as it is now, unless that was done already, and let it end."""
        index = move.layer
        state, outlet = self.states[index], self._outlets[index]
        outlet.saved = state.epoch
        if self.pilot.unsaved(index) or move.kind == "end":
            candidate = self.pilot.candidate(index, final=move.kind == "end")
            left = self.pilot.tracks[index].extra_left
            snapshot = Snapshot(candidate, self.row(index), left, self.dropped(index))
            self._keeper.save(state, snapshot)
        self.pilot.did(move, self._view(index))
        if move.kind != "save":
            # Nobody takes what may still come.
            self._inlets[index].only_newest = True
            outlet.end(move.stop, pause=move.kind == "pause")

    def _give_up(self, error: TrainingError) -> None:
        """End this rank's layers as they are; what is still sent to it is received."""
        self.failure = error
        self._keeper.fail()
        for index in sorted(self.pilot.busy):
            self._inlets[index].only_newest = True
            self._outlets[index].end(stop=False, pause=True)
        self.pilot.busy.clear()

    def _is_enough(self) -> bool:
        """Vote for the end once it is time; tell whether all ranks have. Local."""
        if self._consent is None:
            return False
        if self.pilot.stipulated:
            self._consent.vote(True)
        return self._consent.is_given()

    def _at_rest(self) -> bool:
        self._keeper.stopping(self._epoch_seconds)  # it is still asked, and asks others
        quiet = self._progress()
        return quiet and (self._consent is None or self._consent.is_closed())

    def _progress(self) -> bool:
        # A list: every end must move on, also behind one that is not done.
        return all([end.progress() for end in self._remote])  # noqa: C419

    def _move_messages(self) -> None:
        self._watch.switch("sending")
        self._progress()
        self._watch.switch("training")


def _connect(
    layers: Layers, comm: Communicator, replace: bool
) -> tuple[dict[int, Inlet], dict[int, Outlet]]:
    """Return the ends of the channels of each layer of a team, on its head. Local."""
    inlets: dict[int, Inlet] = {}
    outlets: dict[int, Outlet] = {}
    if not layers.team.is_head:
        return inlets, outlets
    first, last = min(layers.states), max(layers.states)
    outlets[last] = Outlet()
    if first == 0:
        inlets[first] = Source(layers.inputs[0])
    else:
        inlets[first] = Inbox(comm, comm.rank - 1, layers.inputs, replace)
    for index, buffers in layers.outputs.items():
        if index < last:
            channel = LocalChannel(buffers, replace)
            outlets[index] = inlets[index + 1] = channel
        else:
            outlets[index] = Outbox(comm, comm.rank + 1, buffers, replace)
    return inlets, outlets
