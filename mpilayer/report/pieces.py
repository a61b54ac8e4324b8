"""What ranks did, as pieces of time that can be seen in a picture; pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mpilayer.report.run import Epoch
from mpilayer.train.record import KINDS

NAMES = {"training": KINDS["training"], "barriers": "barriers", **KINDS}
"""What a rank did, in words: what a layer's seconds go into, and a team's barriers."""

_LEAST_WIDTH = 0.8
LEAST_SENDING = 2.0


class Piece(NamedTuple):
    """What a rank did for a time."""

    kind: str
    start: float
    stop: float
    epoch: Epoch
    place: int  # of the rank in its team

    @property
    def tip(self) -> str:
        """What it says when pointed at."""
        epoch, team = self.epoch, self.epoch.team
        who = f"rank {team[self.place][0]}, " if team else ""
        what = f"{who}epoch {epoch.epoch}, output {epoch.used}: {NAMES[self.kind]}"
        return f"{what}, {self.stop - self.start:.3g} s"


@dataclass
class Frame:
    """The seconds that are drawn, from left to right of a picture."""

    first: float
    last: float
    left: float
    right: float
    numbered: bool  # epochs tell their number and the output they use
    # Every piece says what it is when pointed at; else there are too many for that,
    # and those that look alike share one element.
    tips: bool = True

    def x(self, seconds: float) -> float:
        """Return where a moment lies in the picture, at the edge if outside."""
        scale = (self.right - self.left) / max(self.last - self.first, 1e-9)
        inside = min(max(seconds, self.first), self.last)
        return self.left + (inside - self.first) * scale

    def shows(self, start: float, stop: float) -> bool:
        """Tell whether a time is in the picture, at least in part."""
        return stop > self.first and start < self.last

    def width(self, first: Piece, last: Piece) -> float:
        """Return how wide it is from one piece to another."""
        return self.x(last.stop) - self.x(first.start)


def taken_up(
    below: Sequence[Epoch], above: Sequence[Epoch]
) -> Iterator[tuple[Epoch, Epoch]]:
    """Yield the epoch that made each output, and the first that used it."""
    made, used = {epoch.epoch: epoch for epoch in below}, 0
    for epoch in above:
        if epoch.used != used and epoch.used in made:
            used = epoch.used
            yield made[used], epoch


def done(epochs: Sequence[Epoch], place: int) -> Iterator[Piece]:
    """Yield what a rank does for a layer, in the order of time; place 0 is the head's.

    Barriers, in truth spread over the epoch, come after its work.
    """
    now = 0.0
    for epoch in epochs:
        # Launches may have had teams of different sizes.
        if place >= max(1, len(epoch.team)):
            continue
        work = min(epoch.training, epoch.team[place][1] if epoch.team else math.inf)
        waiting = max(now, epoch.started - epoch.waiting)
        yield Piece("waiting", waiting, epoch.started, epoch, place)
        now = epoch.started
        for kind, seconds in (
            ("training", work),
            ("barriers", epoch.training - work),
            ("transform", epoch.transform),
            ("waiting" if place else "sending", epoch.sending),
            # Two measure: errors of training rows, and of validation rows.
            ("waiting" if place > 1 else "monitor", epoch.monitor),
        ):
            start, now = now, now + seconds
            yield Piece(kind, start, now, epoch, place)


def pieces(epochs: Sequence[Epoch], place: int, frame: Frame) -> Iterator[Piece]:
    """Yield what can be seen of a rank, by its place in the team of a layer.

    Many tiny pieces become their largest kind.
    """
    groups: list[list[Piece]] = []
    for piece in done(epochs, place):
        least = LEAST_SENDING / 8 if piece.kind == "sending" else 0.0
        width = frame.width(piece, piece)
        if not frame.shows(piece.start, piece.stop) or width <= least:
            continue
        if groups and width < _LEAST_WIDTH:
            first, last = groups[-1][0], groups[-1][-1]
            gap = frame.x(piece.start) - frame.x(last.stop)
            # Between pieces that are apart the rank did something else.
            if max(gap, frame.width(first, last)) < _LEAST_WIDTH:
                groups[-1].append(piece)
                continue
        groups.append([piece])
    for group in groups:
        sums = dict.fromkeys(NAMES, 0.0)
        for piece in group:
            sums[piece.kind] += piece.stop - piece.start
        most = max(sums, key=lambda kind: sums[kind])
        yield group[0]._replace(kind=most, stop=group[-1].stop)
