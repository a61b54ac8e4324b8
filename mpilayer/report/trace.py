"""The course of a run in Chrome's trace format, which Perfetto opens.

A process is a host, a thread what a rank did for a layer, in fine-tuning or in a sparse
training; one process more has the launches of the run, and its errors. Seconds of an
epoch are sums, not moments: its parts are shown one after another.
"""

import json
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from mpilayer import __version__, files
from mpilayer.errors import CheckpointError
from mpilayer.report.pieces import NAMES, Piece, done, taken_up
from mpilayer.report.run import PREDICTORS, Epoch, Run, collect, listing, number

STDOUT = Path("-")

_Event: TypeAlias = dict[str, Any]

_FOREVER = 1 << 62  # nanoseconds
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


def write_trace(run: Path, out: Path, replace: bool = False) -> tuple[str, list[str]]:
    """Write the trace of a run, unless ``out`` is ``STDOUT``; return it, and remarks.

    ConfigError, FileError: the file can't be written so. CheckpointError: there is no
    run, or nothing was trained in it.
    """
    if out != STDOUT:
        files.check_new(out, "trace.json", (".json",), replace)
    runs = collect([run], models=False)
    text = trace_of(runs)
    if out != STDOUT:
        files.write(out, text)
    return text, [remark for one in runs for remark in one.remarks]


def trace_of(runs: Sequence[Run]) -> str:
    """Return the trace of a run, or of a comparison and its runs, as JSON."""
    trained = [course for run in runs for course in courses(run) if course.spans]
    if not trained:
        path = runs[0].path
        raise CheckpointError(
            f"{path} must have trained for an epoch at least; there are no metrics of "
            f"one. 'mpilayer watch {path}' shows how far it is."
        )
    origins, zero = _origins(trained)
    about = {"mpilayer": __version__, "run": runs[0].name}
    if zero > 0:
        about["began"] = datetime.fromtimestamp(zero, UTC).isoformat(" ", "seconds")
    lines = ",\n".join(map(json.dumps, _events(runs[0].name, trained, origins)))
    return (
        f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)},\n'
        f'"traceEvents": [\n{lines}\n]}}\n'
    )


def _origins(trained: Sequence[Course]) -> tuple[list[dict[float, float]], float]:
    """Return when second 0 of training was in each launch, and where that counts from.

    Launches that do not say when they began follow one another, before all others.
    """
    every = [launch for course in trained for launch in course.launches()]
    known = [began + first for began, first, _ in every if began]
    cursor = min(known, default=0.0)
    cursor -= sum(last - first for began, first, last in every if not began)
    result, starts = [], list[float]()
    for course in trained:
        origins, end = dict[float, float](), -math.inf
        for began, first, last in course.launches():
            # Somebody may have set the clock back.
            start = max(began + first, end) if began else cursor
            end = start + last - first
            cursor = cursor if began else end
            origins[began] = start - first
            starts.append(start)
        result.append(origins)
    zero = min(starts)
    return [{b: own - zero for b, own in one.items()} for one in result], zero


def _events(
    name: str, trained: Sequence[Course], origins: Sequence[Mapping[float, float]]
) -> Iterator[_Event]:
    """Yield all events, whatever their order in time but for parts of a span."""
    top = Lane(f"run {name}", -1, "launches")
    lanes: dict[Lane, list[tuple[float, Span]]] = {top: []}
    for course, own in zip(trained, origins, strict=True):
        for place, (began, first, last) in enumerate(course.launches(), 1):
            told = f"{course.what}, launch {place}" if len(own) > 1 else course.what
            lanes[top].append((own[began], Span("launch", told, first, last)))
        for lane, began, span in sorted(course.spans, key=lambda one: one[0].rank):
            lanes.setdefault(lane, []).append((own[began], span))
    hosts = list(dict.fromkeys(lane.host for lane in lanes))
    for process, host in enumerate(hosts, 1):
        named = host if host == top.host else f"host {host or 'unknown'}"
        yield from _named("process", {"pid": process, "tid": process}, named)
    flows: dict[int, dict[str, _Event]] = {}
    # Programs take a thread with the number of its process for its main one.
    for thread, (lane, spans) in enumerate(lanes.items(), len(hosts) + 1):
        where = {"pid": 1 + hosts.index(lane.host), "tid": thread}
        told = f"rank {lane.rank}, {lane.what}" if lane.rank >= 0 else lane.what
        yield from _named("thread", where, told)
        free = 0
        for origin, span in sorted(spans, key=lambda one: one[0] + one[1].start):
            free = yield from _slices(span, origin, (free, _FOREVER), where, flows)
    for ends in flows.values():
        if ends.keys() == {"s", "f"} and ends["s"]["ts"] <= ends["f"]["ts"]:
            yield from (ends["s"], ends["f"] | {"bp": "e"})
    for course, own in zip(trained, origins, strict=True):
        for began, now, what, values in course.errors:
            when = {"pid": 1, "tid": 0, "ts": _nanoseconds(now + own[began]) / 1e3}
            yield {"ph": "C", **when, "name": what, "args": values}


def _named(kind: str, where: _Event, name: str) -> Iterator[_Event]:
    about = {"name": name}, {"sort_index": where["tid"]}
    for args in about:
        yield {"ph": "M", **where, "name": f"{kind}_{next(iter(args))}", "args": args}


def _slices(
    span: Span,
    origin: float,
    between: tuple[int, int],
    where: _Event,
    flows: dict[int, dict[str, _Event]],
) -> Generator[_Event, None, int]:
    """Yield a span and its parts, none outside of ``between``; return its end."""
    least, most = between
    start = min(max(_nanoseconds(span.start + origin), least), most)
    stop = min(max(_nanoseconds(span.stop + origin), start), most)
    if start == stop:
        return stop
    when = {**where, "ts": start / 1e3}
    about = {"name": span.name, "cat": span.kind, "args": span.args}
    yield {"ph": "X", **when, "dur": (stop - start) / 1e3, **about}
    for phase, flow in span.flows:
        told = {"name": "output", "cat": "output", "id": flow}
        flows.setdefault(flow, {})[phase] = {"ph": phase, **when, **told}
    for part in span.inner:
        start = yield from _slices(part, origin, (start, stop), where, flows)
    return stop


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def courses(run: Run) -> Iterator[Course]:
    """Yield what every training of a run was; some have no spans."""
    yield _pretraining(run.layers)
    for name, what in _TUNED.items():
        by_units = run.section(name).get("parallel") == "units"
        words = _WORDS | ({"allreduce": "waiting for other ranks"} if by_units else {})
        lines = run.metrics[name]
        course = _from_lines(Course(what), lines, _TUNING, "epoch", words)
        course.fill("saving")
        yield course
    of_comparison = run.name.endswith(("/average", "/exact"))
    what, lines = run.path.name if of_comparison else "sparse", run.metrics["sparse"]
    course = _from_lines(Course(what), lines, _SPARSE, "evaluation", _WORDS)
    course.fill("optimizer")
    yield course


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


def _from_lines(
    course: Course,
    lines: Sequence[Mapping[str, Any]],
    kinds: Sequence[str],
    counted: str,
    words: Mapping[str, str],
) -> Course:
    """Add epochs of fine-tuning on each rank, or evaluations on the first one."""
    ends = dict[int, float]()
    for line in lines:
        own = [line[kind] for kind in kinds]
        ranks = listing(line.get("ranks")) or [(line.get("host"), *own)]
        ended, now = number(line.get("seconds")), ends.get(0, 0.0)
        start = max(now, ended - sum(own)) if math.isfinite(ended) else now
        known = "iteration" in line
        told = {"iterations before": line["iteration"]} if known else {}
        for rank, (host, *seconds) in enumerate(ranks):
            begin = max(start, ends.get(rank, 0.0))
            parts = _in_turn(begin, zip(kinds, seconds, strict=True), words)
            ends[rank] = parts[-1].stop
            lane = Lane(str(host or ""), rank, course.what)
            whole = _whole(counted, line[counted], parts, told)
            course.spans.append((lane, _began(line), whole))
        course.note(ends[0], course.what, line)
    return course


def _in_turn(
    start: float, parts: Iterable[tuple[str, float]], words: Mapping[str, str]
) -> list[Span]:
    """Return spans of so many seconds, one after another."""
    spans = []
    for kind, seconds in parts:
        spans.append(Span(kind, words.get(kind, kind), start, start + seconds))
        start += seconds
    return spans


def _whole(
    kind: str, count: int, parts: Sequence[Span], args: Mapping[str, Any]
) -> Span:
    start, stop = parts[0].start, parts[-1].stop
    return Span(kind, f"{kind} {count}", start, stop, parts, args)


def _began(line: Mapping[str, Any]) -> float:
    """Return by what the launch of a line is known."""
    began = number(line.get("began"))
    return began if 0 <= began < _LATEST else 0.0
