"""A strict reader of Chrome's trace format: the Trace Event Format, in JSON.

Phases X (complete), M (metadata), C (counter), s and f (flow); times in nanoseconds.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field

_KEYS = {
    "X": {"ph", "pid", "tid", "ts", "dur", "name", "cat", "args"},
    "M": {"ph", "pid", "tid", "name", "args"},
    "C": {"ph", "pid", "tid", "ts", "name", "args"},
    "s": {"ph", "pid", "tid", "ts", "name", "cat", "id"},
    "f": {"ph", "pid", "tid", "ts", "name", "cat", "id", "bp"},
}
_META = {
    f"{what}_{key}": (key, kind)
    for what in ("process", "thread")
    for key, kind in (("name", str), ("sort_index", int))
}


@dataclass
class Slice:
    """What took a time on a thread; ``parts`` lie within."""

    thread: str
    kind: str
    name: str
    start: int
    stop: int
    parts: list["Slice"] = field(default_factory=list)

    def inside(self, start, stop):
        """Tell whether a time is within."""
        return self.start <= start and stop <= self.stop


@dataclass
class Trace:
    """What a program would show."""

    about: dict
    processes: dict  # name to the names of its threads
    threads: dict  # name to its outermost slices, in order
    slices: list[Slice]
    flows: list[tuple[Slice, Slice]]
    counters: dict  # name to values in order

    def seconds(self, thread=""):
        """Return seconds by kind of slice, of threads whose names end so."""
        found = defaultdict(float)
        for one in self.slices:
            if one.thread.endswith(thread):
                found[one.kind] += (one.stop - one.start) / 1e9
        return found


def read(text):
    """Return a trace; AssertionError says what is not as the format demands."""
    whole = json.loads(text, parse_constant=_no_number)
    assert whole.keys() == {"displayTimeUnit", "otherData", "traceEvents"}
    assert whole["displayTimeUnit"] in ("ms", "ns")
    by_phase = defaultdict(list)
    for event in whole["traceEvents"]:
        phase = event["ph"]
        assert event.keys() == _KEYS[phase], event
        assert all(type(event[key]) is int for key in ("pid", "tid"))
        assert type(event["name"]) is str
        assert phase == "M" or _nanoseconds(event["ts"]) >= 0
        by_phase[phase].append(event)
    names = _names(by_phase["M"])
    found = _slices(by_phase["X"], names)
    processes = defaultdict(list)
    for (pid, tid), name in names.items():
        if tid is not None:
            processes[names[pid, None]].append(name)
    return Trace(
        whole["otherData"],
        dict(processes),
        {names[where]: own for where, (own, _) in found.items()},
        [one for _, every in found.values() for one in every],
        _flows(by_phase["s"], by_phase["f"], found),
        _counters(by_phase["C"], names),
    )


def _no_number(word):
    raise AssertionError(f"JSON has no {word}")


def _nanoseconds(value):
    assert type(value) in (int, float)
    assert abs(value * 1000 - round(value * 1000)) < 1e-2
    return round(value * 1000)


def _names(events):
    """Return the names of processes, and of their threads, none of them twice."""
    names, places = {}, []
    for event in events:
        key, kind = _META[event["name"]]
        assert [*event["args"]] == [key]
        assert type(event["args"][key]) is kind
        of_process = event["name"].startswith("process")
        where = event["pid"], None if of_process else event["tid"]
        if key == "sort_index":
            places.append(where)
            continue
        assert where not in names
        names[where] = event["args"][key]
    assert sorted(names, key=str) == sorted(places, key=str)
    assert all((pid, None) in names for pid, _ in names)
    assert len(set(names.values())) == len(names)
    threads = [tid for _, tid in names if tid is not None]
    assert not set(threads) & {pid for pid, _ in names}
    assert len(set(threads)) == len(threads)
    return names


def _slices(events, names):
    """Return of each thread the outermost slices, and all."""
    threads = defaultdict(lambda: ([], []))
    # Programs sort by time; who begins at once lies in who came first.
    for event in sorted(events, key=lambda e: e["ts"]):
        where = event["pid"], event["tid"]
        start, took = _nanoseconds(event["ts"]), _nanoseconds(event["dur"])
        assert took > 0
        about = names[where], event["cat"], event["name"]
        one = Slice(*about, start, start + took)
        own, every = threads[where]
        every.append(one)
        while own and own[-1].stop > start:
            assert own[-1].inside(one.start, one.stop), (own[-1], one)
            own = own[-1].parts
        own.append(one)
    return threads


def _flows(sent, used, found):
    """Return where each flow leaves, and where it ends."""
    pairs = [{event["id"]: event for event in events} for events in (sent, used)]
    assert pairs[0].keys() == pairs[1].keys()
    assert len(pairs[0]) == len(sent) == len(used)
    flows = []
    for number, begin in pairs[0].items():
        end = pairs[1][number]
        assert begin["ts"] <= end["ts"]
        assert end["bp"] == "e"
        assert all(begin[key] == end[key] for key in ("name", "cat"))
        flows.append(tuple(_around(event, found) for event in (begin, end)))
    return flows


def _around(event, found):
    """Return the innermost slice around an event."""
    now, inner = _nanoseconds(event["ts"]), None
    own, _ = found[event["pid"], event["tid"]]
    while some := [one for one in own if one.start <= now < one.stop]:
        (inner,) = some
        own = inner.parts
    assert inner is not None, event
    return inner


def _counters(events, names):
    counters = defaultdict(list)
    for event in sorted(events, key=lambda e: e["ts"]):
        assert (event["pid"], None) in names
        for key, value in event["args"].items():
            assert type(value) in (int, float)
            counters[f"{event['name']} {key}"].append(value)
    return dict(counters)
