"""The course of a run in Chrome's trace format, which Perfetto opens.

A process is a host, a thread what a rank did for a layer, in fine-tuning or in a sparse
training; one process more has the launches of the run, and its errors.
"""

import json
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from mpilayer import __version__, files
from mpilayer.errors import CheckpointError
from mpilayer.report.course import Course, Lane, Span, courses
from mpilayer.report.run import Run, collect

STDOUT = Path("-")

_Event: TypeAlias = dict[str, Any]

_FOREVER = 1 << 62  # nanoseconds


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
