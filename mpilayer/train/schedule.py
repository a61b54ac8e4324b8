"""A schedule is a table: which output of the layer below fed each epoch of a layer.

``used[layer][epoch - 1]`` is the epoch of the layer below after which its output was
made. Layers count from 0, epochs from 1; the first layer uses 0, the data themselves.
Greedy, lockstep, asynchronous and simulated training are ways to fill one table; the
executors in :mod:`mpilayer.train.pretrain` give the same weights for the same table.
Nothing here knows MPI, models or time.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import ge
from typing import Any

from mpilayer.errors import ScheduleError

FORMAT_VERSION = 1
KINDS = ("greedy", "lockstep", "async", "simulate", "replay")

Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Schedule:
    """A table, ``used``, with what is needed to repeat and to judge it.

    ``kind`` is how it came about: greedy, lockstep, async or simulate. ``stipulated``
    are the epochs N_l each layer was asked for, without extra ones: from the N_l-th on
    a layer's outputs are always made with the weights at the end of the epoch; earlier
    ones may be streamed. ``dropped`` are per layer, of a recorded asynchronous run, the
    epochs whose outputs newer ones replaced before they were sent; ``virtual_end``, of
    a simulated table, when its last epoch ended, in epochs of the first layer.
    """

    kind: str
    used: Table
    stipulated: tuple[int, ...]
    dropped: Table = ()
    virtual_end: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        """How many there are."""
        return len(self.used)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs per layer, extra ones included."""
        return tuple(len(row) for row in self.used)

    def needed(self, layer: int) -> frozenset[int]:
        """Return after which epochs of a layer its output is used by the next one."""
        if layer + 1 == self.n_layers:
            return frozenset()
        return frozenset(self.used[layer + 1])

    def check(self) -> None:
        """Raise a ``ScheduleError`` unless the table can be executed."""
        if not self.used or len(self.stipulated) != self.n_layers:
            raise ScheduleError(
                "a schedule needs at least one layer, and stipulated epochs for each "
                f"layer; found {self.n_layers} layers and {len(self.stipulated)} "
                "numbers. Record the schedule again."
            )
        for layer, row in enumerate(self.used):
            below = 0 if layer == 0 else len(self.used[layer - 1])
            least = 0 if layer == 0 else 1
            for epoch, entry in enumerate(row, start=1):
                if not least <= entry <= below:
                    raise ScheduleError(
                        f"layer {layer + 1} can use outputs {least} to {below} of what "
                        f"is below it; epoch {epoch} asks for {entry}. Mend the table."
                    )
            if list(row) != sorted(row):
                raise ScheduleError(
                    f"a layer goes on from older to newer outputs; layer {layer + 1} "
                    "goes back. Mend the table."
                )
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Check what goes with the table; see ``check``."""
        first, most = len(self.used[0]), self.stipulated[0]
        if min(self.stipulated) < 0 or not 0 < first >= most:
            raise ScheduleError(
                "stipulated epochs must be 0 or more, and layer 1 must do its own, "
                f"and at least one; found {list(self.stipulated)}, of which layer 1 "
                f"does {first}. Mend the table."
            )
        lengths = {len(self.dropped), len(self.virtual_end)}
        times = self.virtual_end
        if lengths - {0, self.n_layers} or not all(0 <= t < math.inf for t in times):
            raise ScheduleError(
                "dropped and virtual_end must be empty or have an entry for each "
                f"layer, times finite and 0 or more; found {len(self.dropped)} entries "
                f"and {list(times)}. Mend the table."
            )

    def to_json(self) -> str:
        """Return the schedule as JSON text; ``from_json`` reads it."""
        content = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "stipulated": self.stipulated,
            "epochs": self.epochs,
            "settings": dict(self.settings),
            "used": self.used,
            "dropped": self.dropped,
            "virtual_end": self.virtual_end,
        }
        lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in content.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @staticmethod
    def from_json(text: str, source: str) -> "Schedule":
        """Read what ``to_json`` wrote, and check it.

        A ``ScheduleError`` says what is wrong with ``source``, a name for messages.
        """
        try:
            content = json.loads(text)
            version = content["format_version"]
            schedule = Schedule(
                kind=str(content["kind"]),
                used=_table(content["used"]),
                stipulated=_integers(content["stipulated"]),
                dropped=_table(content.get("dropped", [])),
                virtual_end=tuple(float(t) for t in content.get("virtual_end", ())),
                settings=dict(content.get("settings", {})),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ScheduleError(
                f"{source} must hold a schedule as a run writes it (schedule.json); "
                f"{type(error).__name__}: {error}. Give the schedule.json of a run."
            ) from error
        if version != FORMAT_VERSION:
            raise ScheduleError(
                f"{source} must have format version {FORMAT_VERSION}; found {version}. "
                "Use the mpilayer that wrote it, or a newer one."
            )
        schedule.check()
        return schedule


def _table(rows: Any) -> Table:
    if not isinstance(rows, list):
        raise TypeError(f"a table must be a list; found {rows!r}")
    return tuple(map(_integers, rows))


def _integers(entries: Any) -> tuple[int, ...]:
    if not (isinstance(entries, list) and all(type(n) is int for n in entries)):
        raise TypeError(f"a row must be a list of whole numbers; found {entries!r}")
    return tuple(entries)


def lockstep(
    epochs: Sequence[int],
    extra_epochs: Sequence[int],
    lag: int | Sequence[int] = 0,
    refresh_every: int = 1,
) -> Schedule:
    """Return the wavefront: epoch e uses the output after epoch min(e + g, T) below.

    T is the number of epochs of the layer below, extra ones included; those a layer
    does after its stipulated ones, on the last output below. With g = ``lag`` = 0, for
    all or one for each layer above the first, layers overlap fully; with g ≥ T − 1 each
    waits for the one below. A layer spends ``refresh_every`` epochs on an output before
    it takes a newer one. A deterministic variant of our own: in Santara et al. 2016
    layers run freely.
    """
    totals = [n + extra for n, extra in zip(epochs, extra_epochs, strict=True)]
    lags = [lag] * (len(epochs) - 1) if isinstance(lag, int) else list(lag)
    used: list[tuple[int, ...]] = [(0,) * totals[0]]
    for layer in range(1, len(epochs)):
        below, g = totals[layer - 1], lags[layer - 1]
        # Epoch e + 1 begins with the output after min(e + 1 + g, T), and keeps it.
        first = [
            min(e - e % refresh_every + 1 + g, below) for e in range(epochs[layer])
        ]
        used.append((*first, *[below] * extra_epochs[layer]))
    return Schedule(
        "lockstep",
        tuple(used),
        tuple(epochs),
        settings={"lag": lags, "refresh_every": refresh_every},
    )


def greedy(epochs: Sequence[int], extra_epochs: Sequence[int]) -> Schedule:
    """Return the baseline: a layer starts when the layer below has ended."""
    most = max(n + extra for n, extra in zip(epochs, extra_epochs, strict=True))
    table = lockstep(epochs, extra_epochs, lag=most)
    return Schedule("greedy", table.used, table.stipulated)


def finish_times(schedule: Schedule, costs: Sequence[float]) -> list[float]:
    """Return when each layer ends with one worker a layer, given an epoch's costs."""
    below: list[float] = []
    ends = []
    for row, cost in zip(schedule.used, costs, strict=True):
        now, mine = 0.0, []
        for entry in row:
            # An epoch begins when the one before is done, and its input is there.
            arrival = below[entry - 1] if entry else 0.0
            now = max(now, arrival) + cost
            mine.append(now)
        ends.append(now)
        below = mine
    return ends


@dataclass
class AsyncLayer:
    """How far one layer has come in asynchronous training, and what it does next.

    One rule serves the real pipeline and the simulation: until its stipulated epochs
    are done a layer never waits. Then it sleeps, with nothing left over from before;
    only an output newer than the one it used last wakes it, for ``extra`` epochs, of
    which ``extra_left`` are left (Santara et al. 2016 §3.1). With ``cut_short`` a still
    newer output ends these. ``resumed``: no epoch has begun since a restart, and what
    was used last may not come again.
    """

    stipulated: int
    extra: int
    cut_short: bool = True
    used: list[int] = field(default_factory=list)
    extra_left: int = 0
    resumed: bool = False

    def next_output(self, newest: int) -> int | None:
        """Return the output to use now, or None to wait (or to end).

        ``newest`` has arrived; −1 if none has.
        """
        current = self.used[-1] if self.used else -1
        if newest < 0:
            return None  # no layer begins before a first output
        if len(self.used) < self.stipulated:
            return newest  # it never waits
        is_newer = newest > current
        is_over = is_newer and (self.cut_short or self.resumed)
        if self.extra_left > 0 and not is_over:
            return current
        return newest if is_newer and self.extra > 0 else None  # it wakes, or sleeps

    def begin(self, output: int) -> None:
        """Note that an epoch begins on ``output``, which ``next_output`` has named."""
        if len(self.used) >= self.stipulated:
            left = self.extra if output > self.used[-1] else self.extra_left
            self.extra_left = left - 1
        self.used.append(output)
        self.resumed = False


def simulate(
    epochs: Sequence[int],
    extra_epochs: Sequence[int],
    costs: Sequence[float],
    n_cores: int,
    end: str = "stipulated",
    cut_short: bool = True,
) -> Schedule:
    """Return the table that asynchronous training would fill on ``n_cores`` cores.

    Epochs are those of ``lockstep``, but extra ones are per newer output. ``costs`` are
    the times of an epoch of each layer on a core of its own, in any unit; the layers,
    one worker each, share the cores evenly when more are busy. What runs at the end is
    not done: when all layers have done their ``stipulated`` epochs; when ``all`` have
    nothing left to do; when ``first-layer`` has done its own. See ``AsyncLayer`` for
    ``cut_short``.
    """
    # Santara et al. 2016 §3, and §5.2 for the experiment. Discrete events in virtual
    # time: the next one is the end of the epoch with the least remaining work.
    layers = [
        AsyncLayer(n, extra, cut_short)
        for n, extra in zip(epochs, extra_epochs, strict=True)
    ]
    remaining: dict[int, float] = {}
    done = [0] * len(layers)
    ended_at = [0.0] * len(layers)
    now = 0.0

    def start_idle() -> None:
        for index, layer in enumerate(layers):
            newest = 0 if index == 0 else (done[index - 1] or -1)
            output = layer.next_output(newest)
            if index not in remaining and output is not None:
                layer.begin(output)
                remaining[index] = float(costs[index])

    start_idle()
    while remaining:
        speed = min(1.0, n_cores / len(remaining))
        step = min(remaining.values())
        now += step / speed
        for index in sorted(remaining):
            remaining[index] -= step
            if remaining[index] <= 1e-9 * costs[0]:
                del remaining[index]
                done[index] += 1
                ended_at[index] = now
        deciding = {"stipulated": len(layers), "first-layer": 1}.get(end, 0)
        if deciding and all(map(ge, done[:deciding], epochs[:deciding])):
            break
        start_idle()
    return Schedule(
        "simulate",
        # What was still running at the end never came into being.
        tuple(tuple(layer.used[:n]) for layer, n in zip(layers, done, strict=True)),
        tuple(min(n, d) for n, d in zip(epochs, done, strict=True)),
        virtual_end=tuple(t / costs[0] for t in ended_at),
        settings={"cores": n_cores, "end": end, "cut_short": cut_short},
    )
