"""What ranks did in each training of a run, as spans of time; pure.

Seconds of an epoch are sums, not moments: its parts are shown one after another.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from mpilayer.report.pieces import NAMES, Piece, done, taken_up
from mpilayer.report.run import PREDICTORS, Epoch, Run, listing, number

_TUNED = {"finetune": "fine-tuning", **PREDICTORS}
_TUNING = ("training", "allreduce", "evaluating")
_SPARSE = ("computing", "allreduce")
_WORDS = {"allreduce": "Allreduce", "evaluating": NAMES["monitor"]}
_ERRORS = {
    "train_error": "training error",
    "train_loss": "training loss",
    "validation_error": "validation error",
    "cost": "cost",
}
_LEAST_GAP = 1e-6
_LATEST = 1e11  # seconds since 1970: the year 5138


class Lane(NamedTuple):
    """A rank, and what it works on; no host and rank -1 if nobody knows."""

    host: str
    rank: int
    what: str


@dataclass
class Span:
    """What took a time, in seconds of training, and its parts.

    ``flows`` are numbers of outputs: ``s``, it left in this time, or ``f``, it was
    taken up at its start.
    """

    kind: str
    name: str
    start: float
    stop: float
    inner: Sequence["Span"] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    flows: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Course:
    """What ranks did in the launches of a training, and errors over time.

    A launch is known by the moment of second 0 of training, 0.0 in older runs.
    """

    what: str
    spans: list[tuple[Lane, float, Span]] = field(default_factory=list)
    errors: list[tuple[float, float, str, dict[str, float]]] = field(
        default_factory=list
    )

    def note(self, now: float, what: str, line: Mapping[str, Any]) -> None:
        """Take the errors from a line of metrics."""
        known = {name: number(line.get(key)) for key, name in _ERRORS.items()}
        found = {name: value for name, value in known.items() if math.isfinite(value)}
        if found:
            self.errors.append((_began(line), now, what, found))

    def launches(self) -> list[tuple[float, float, float]]:
        """Return by what each is known, its first second and its last, in order."""
        ends: dict[float, tuple[float, float]] = {}
        for _, began, span in self.spans:
            first, last = ends.get(began, (span.start, span.stop))
            ends[began] = min(first, span.start), max(last, span.stop)
        return sorted(((b, *own) for b, own in ends.items()), key=lambda own: own[1:])

    def fill(self, kind: str) -> None:
        """Say what ranks did between the spans of a launch, whatever their layers."""
        spans = sorted(self.spans, key=lambda one: (one[0].rank, one[1], one[2].start))
        for (lane, began, last), (other, same, span) in pairwise(spans):
            near = lane.rank == other.rank >= 0 and began == same
            if near and span.start - last.stop > _LEAST_GAP:
                between = Span(kind, kind, last.stop, span.start)
                self.spans.append((lane, began, between))


def courses(run: Run) -> Iterator[Course]:
    """Yield what every training of a run was; some have no spans."""
    yield _pretraining(run.layers)
    for name in _TUNED:
        yield _tuning(run, name)
    of_comparison = run.name.endswith(("/average", "/exact"))
    yield _descent(run, run.path.name if of_comparison else "sparse")


def _pretraining(layers: Sequence[Sequence[Epoch]]) -> Course:
    course, late = Course("pre-training"), [0.0]
    flows: dict[tuple[str, int, int], int] = {}
    for index, (below, above) in enumerate(pairwise(layers)):
        behind = 0.0
        for made, user in taken_up(below, above):
            flow = len(flows)
            flows["s", index, made.epoch] = flow
            flows["f", index + 1, user.epoch] = flow
            behind = max(behind, late[-1] + made.left - user.started)
        # Clocks of ranks start apart: nothing is used before it was sent.
        late.append(behind)
    for index, epochs in enumerate(layers):
        what, after = f"layer {index + 1}", late[index]
        for place in range(max((len(epoch.team) for epoch in epochs), default=0) or 1):
            for _, some in groupby(done(epochs, place), lambda piece: id(piece.epoch)):
                pieces = list(some)
                epoch = pieces[0].epoch
                rank = epoch.team[place][0] if epoch.team else epoch.rank
                waiting, *parts = (_of_piece(piece, after) for piece in pieces)
                for phase, kind in (("f", "training"), ("s", "sending")):
                    left = flows.get((phase, index, epoch.epoch))
                    if place == 0 and left is not None:
                        _carrier(parts, kind).flows.append((phase, left))
                told = {"output used": epoch.used}
                whole = _whole("epoch", epoch.epoch, parts, told)
                lane, began = Lane(epoch.host, rank, what), _began(vars(epoch))
                course.spans += [(lane, began, waiting), (lane, began, whole)]
        for epoch in epochs:
            course.note(epoch.ended + after, what, vars(epoch))
    course.fill("saving")
    return course


def _of_piece(piece: Piece, late: float) -> Span:
    return Span(piece.kind, NAMES[piece.kind], piece.start + late, piece.stop + late)


def _carrier(parts: Sequence[Span], kind: str) -> Span:
    """Return the part of a kind, or the last one before it that took time."""
    place = next(i for i, span in enumerate(parts) if span.kind == kind)
    while place and parts[place].stop <= parts[place].start:
        place -= 1
    return parts[place]


def _tuning(run: Run, name: str) -> Course:
    course, ends = Course(_TUNED[name]), dict[int, float]()
    by_units = run.section(name).get("parallel") == "units"
    words = {"allreduce": "waiting for other ranks"} if by_units else {}
    for line in run.metrics[name]:
        own = [line[kind] for kind in _TUNING]
        ranks = listing(line.get("ranks")) or [(line.get("host"), *own)]
        ended, now = number(line.get("seconds")), ends.get(0, 0.0)
        start = max(now, ended - sum(own)) if math.isfinite(ended) else now
        for rank, (host, *seconds) in enumerate(ranks):
            begin = max(start, ends.get(rank, 0.0))
            parts = _in_turn(begin, zip(_TUNING, seconds, strict=True), words)
            ends[rank] = parts[-1].stop
            lane = Lane(str(host or ""), rank, course.what)
            whole = _whole("epoch", line["epoch"], parts)
            course.spans.append((lane, _began(line), whole))
        course.note(ends[0], course.what, line)
    course.fill("saving")
    return course


def _descent(run: Run, what: str) -> Course:
    course, now = Course(what), 0.0
    for line in run.metrics["sparse"]:
        seconds = [line[kind] for kind in _SPARSE]
        start = max(now, line["seconds"] - sum(seconds))
        parts = _in_turn(start, zip(_SPARSE, seconds, strict=True))
        told = {"iterations before": line["iteration"]}
        whole, now = (
            _whole("evaluation", line["evaluation"], parts, told),
            parts[-1].stop,
        )
        lane = Lane(str(line.get("host") or ""), 0, what)
        course.spans.append((lane, _began(line), whole))
        course.note(now, what, line)
    course.fill("optimizer")
    return course


def _in_turn(
    start: float, parts: Iterable[tuple[str, float]], words: Mapping[str, str] = {}
) -> list[Span]:
    """Return spans of so many seconds, one after another."""
    spans = []
    for kind, seconds in parts:
        name = {**_WORDS, **words}.get(kind, kind)
        spans.append(Span(kind, name, start, start + seconds))
        start += seconds
    return spans


def _whole(
    kind: str, count: int, parts: Sequence[Span], args: Mapping[str, Any] = {}
) -> Span:
    start, stop = parts[0].start, parts[-1].stop
    return Span(kind, f"{kind} {count}", start, stop, parts, args)


def _began(line: Mapping[str, Any]) -> float:
    """Return by what the launch of a line is known."""
    began = number(line.get("began"))
    return began if 0 <= began < _LATEST else 0.0
