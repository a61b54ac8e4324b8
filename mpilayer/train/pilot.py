"""The next move of the layers of a rank, from plain facts: no MPI, no arrays, no clock.

:class:`~mpilayer.train.pretrain.Pipeline` asks for a move, does it, and says so.

The lowest layer with epochs left decides when to save. Its outputs tell how far it has
saved, and a layer above saves before it uses anything newer: so there are checkpoints
that go together (:mod:`mpilayer.train.restart`), and nobody waits.
"""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from mpilayer.train.plans import Candidate, Plan, Track, View


class Move(NamedTuple):
    """What a rank does next: with which layer, and which output of the layer below.

    ``train`` an epoch; let the last output before a restart go up ``again``; ``save``;
    save and ``pause``; save and ``end``, with which everything may ``stop``. The output
    of the epoch ``leaves`` for the layer above, computed on the way if it ``streams``.
    """

    kind: Literal["train", "again", "save", "pause", "end"]
    layer: int
    output: int = 0
    leaves: bool = False
    streams: bool = False
    stop: bool = False


class Pilot:
    """Where the layers of a rank are, and what follows.

    ``tracks`` say how far each of the layers has come, all that saved; the last output
    before a restart must go up once more from those ``again``. Layers that have neither
    ended nor paused are ``busy``; ``interrupted``: one has paused with epochs left.
    """

    def __init__(
        self, plan: Plan, tracks: Mapping[int, Track], again: Collection[int] = ()
    ) -> None:
        self.plan = plan
        self.tracks = tracks
        self.busy = set(tracks)
        self.interrupted = False
        self._again = set(again) & self.busy
        self._saved = {layer: len(track.used) for layer, track in tracks.items()}
        # What the layer below may go on from without having made what is used here.
        self._heard: dict[int, set[int]] = {layer: set() for layer in tracks}
        self._due: int | None = None

    @property
    def stipulated(self) -> bool:
        """All layers have begun their last stipulated epoch."""
        return all(self._progress(layer) >= 1 for layer in self.tracks)

    def candidate(self, layer: int, final: bool = False) -> Candidate:
        """Return what a checkpoint of a layer would be called now."""
        used = self.tracks[layer].used
        return Candidate(len(used), used[-1] if used else 0, final)

    def unsaved(self, layer: int) -> int:
        """Return how many epochs a layer has done since it was saved."""
        return len(self.tracks[layer].used) - self._saved[layer]

    def next_move(
        self, views: Mapping[int, View], stopping: bool = False, enough: bool = False
    ) -> Move | None:
        """Return what can be done now, None to wait. Asking changes nothing.

        With ``stopping`` all layers of all ranks shall save and pause; with ``enough``
        all have done their stipulated epochs.
        """
        busy = sorted(self.busy)
        for layer in busy:
            if self._finished(layer, views[layer], enough):
                stop = views[layer].stopped or enough or self.plan.stops_all(layer)
                return Move("end", layer, stop=stop)
        if self._due is not None:
            return Move("save", self._due)
        for layer in busy if stopping else ():
            if self.plan.may_pause(layer, self.candidate(layer), views[layer]):
                return Move("pause", layer)
        onwards = [self._onwards(layer, views[layer], stopping) for layer in busy]
        moves = [move for move in onwards if move is not None]
        # The one furthest behind goes first; of equals the lower, which feeds others.
        return min(moves, key=lambda move: self._progress(move.layer), default=None)

    def did(self, move: Move, view: View) -> None:
        """Note that a move is done, or, of an epoch, that it begins."""
        layer = move.layer
        if move.kind == "train":
            self._heard[layer] = self._older(layer, view)
            self.tracks[layer].begin(move.output)
        elif move.kind == "again":
            self._again.remove(layer)
        else:
            self._saved[layer] = len(self.tracks[layer].used)
            if self._due == layer:
                self._due = None
        if move.kind in ("pause", "end"):
            self.busy.remove(layer)
            self.interrupted |= move.kind == "pause"

    def trained(self, layer: int, view: View, due: bool) -> bool:
        """Tell whether a layer, whose epoch is done, is going to be saved if ``due``.

        Only the lowest layer with epochs left is: its input gets no newer.
        """
        if due and view.ended and self.tracks[layer].used[-1] == view.newest:
            self._due = layer
        return self._due == layer

    def _finished(self, layer: int, view: View, enough: bool) -> bool:
        if layer in self._again:
            return False
        track = self.tracks[layer]
        return view.stopped or enough or self.plan.finished(layer, track, view)

    def _onwards(self, layer: int, view: View, stopping: bool) -> Move | None:
        """Return how a layer goes on, None if it waits."""
        track, plan = self.tracks[layer], self.plan
        if layer in self._again:
            last = track.used[-1]
            arrived = view.newest >= last
            return Move("again", layer, last) if arrived and view.room else None
        if stopping and plan.replace and not view.told:
            return None  # it only waits for the layer below to be saved
        output, epoch = track.next_output(view.newest), len(track.used) + 1
        leaves = plan.leaves(layer, epoch)
        if output is None or (leaves and not view.room):
            return None
        if self.unsaved(layer) and any(s < output for s in self._older(layer, view)):
            # The layer below was saved when it had made what this one has seen, but not
            # what comes now. It may have been saved again since.
            return Move("save", layer)
        streams = leaves and plan.streams(layer, epoch)
        return Move("train", layer, output, leaves, streams)

    def _older(self, layer: int, view: View) -> set[int]:
        """Return the checkpoints below that fit what the layer has seen so far."""
        used = self.candidate(layer).used
        return {s for s in self._heard[layer] | {view.saved} if s >= used}

    def _progress(self, layer: int) -> float:
        return self.plan.progress(layer, len(self.tracks[layer].used))
