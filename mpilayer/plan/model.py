"""What numbers of ranks come to, in seconds and bytes; which one is best."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpilayer.errors import MpilayerError
from mpilayer.plan.links import GUESS, Links
from mpilayer.plan.measured import FORMAT_VERSION, KIND, Measured
from mpilayer.words import count

# Seconds of a barrier of two ranks of a host, as benchmarks.teams has it; of more, its
# logarithm times as many.
_BARRIER = 15e-6
# How far a prediction may be off besides what measurements vary by: for as many ranks
# as there are cores here, and for others.
_HERE, _ELSEWHERE = 0.08, 0.25
# Of a limit of time: over the interval, and seconds for start, reading and saving.
_MARGIN, _AROUND, _ROUND_TO = 1.5, 240, 300


@dataclass(frozen=True)
class Cost:
    """Of a run on some ranks."""

    layout: str  # who trains what
    seconds: float  # as the run will report them, start and reading left out
    waiting: float  # seconds that a rank waits, on average
    rank_bytes: int  # memory of the rank that needs most
    host_bytes: int  # and of the host
    bound: str  # what takes most of the time
    messages: float  # seconds between ranks, at most


@dataclass(frozen=True)
class Forecast:
    """A run on so many ranks: what it costs, between ``low`` and ``high`` seconds."""

    ranks: int
    hosts: int
    option: str  # must be given for it; empty for what is chosen anyway
    cost: Cost
    low: float
    high: float
    efficiency: float | None  # speed against one rank, by ranks; None: one is refused
    simulated: bool  # more ranks than cores here, or several hosts

    @property
    def rank_hours(self) -> float:
        """Ranks times hours."""
        return self.ranks * self.cost.seconds / 3600

    @property
    def limit(self) -> str:
        """A limit of time for a job, with a margin: [DAYS-]HH:MM:SS."""
        return limit_of(self.high)

    def to_json(self) -> dict[str, Any]:
        """Return all of it, flat."""
        values = asdict(self)
        values |= values.pop("cost")
        return {**values, "rank_hours": self.rank_hours, "time": self.limit}


def limit_of(seconds: float) -> str:
    """Return a limit of time for so many seconds, with a margin."""
    parts = math.ceil((_MARGIN * seconds + _AROUND) / _ROUND_TO)
    days, minutes = divmod(_ROUND_TO // 60 * parts, 24 * 60)
    clock = f"{minutes // 60:02}:{minutes % 60:02}:00"
    return f"{days}-{clock}" if days else clock


@dataclass(frozen=True)
class Outlook:
    """Forecasts of a training, and why there is none for other numbers of ranks."""

    measured: Measured
    links: str
    forecasts: Sequence[Forecast]
    refused: dict[int, str]
    notes: Sequence[str]

    @property
    def fastest(self) -> Forecast | None:
        """The one with the fewest seconds."""
        return min(
            self.forecasts, key=lambda f: (f.cost.seconds, f.ranks), default=None
        )

    @property
    def cheapest(self) -> Forecast | None:
        """The one with the fewest rank-hours."""
        return min(self.forecasts, key=lambda f: f.rank_hours, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return what ``plan --json`` prints, and ``--measured`` reads."""
        plans = list(self.forecasts)
        best = {"time": self.fastest, "rank_hours": self.cheapest}
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "command": self.measured.command,
            "links": self.links,
            "plans": [forecast.to_json() for forecast in plans],
            "refused": {str(ranks): why for ranks, why in self.refused.items()},
            "best": {k: plans.index(f) if f else None for k, f in best.items()},
            "notes": list(self.notes),
            "measured": asdict(self.measured),
        }


class Model:
    """How a training behaves on ranks of hosts, by the names of the hosts."""

    options: Sequence[str] = ()
    """Other ways to place the ranks: ``--layout``, with {} for their number."""

    def __init__(self, measured: Measured, links: Links) -> None:
        self.measured, self.links = measured, links
        self.n_train = int(measured.data["n_train"])
        self.n_validation = int(measured.data["n_validation"])

    def useful(self) -> int:
        """Return how many ranks of one host are of use."""
        raise NotImplementedError

    def cost(self, hosts: Sequence[str], option: str = "") -> Cost:
        """Return what a run comes to; an MpilayerError if it is refused."""
        raise NotImplementedError

    def slower(self, busy: int, hosts: int) -> float:
        """Return how many times as long work takes beside so many ranks of a host."""
        if not self.links.shared or hosts == 1:
            return self.measured.slower(busy)
        busy *= hosts
        return self.measured.slower(busy) * max(1.0, busy / self.measured.cores)

    def barrier(self, size: int) -> float:
        """Return the seconds of a barrier of a team."""
        return _BARRIER * math.log2(size) if size > 1 else 0.0


def outlook(model: Model, ranks: Sequence[int], n_hosts: int) -> Outlook:
    """Return what every number of ranks comes to; those refused with the reason."""
    forecasts, refused, one = list[Forecast](), dict[int, str](), None
    for n in sorted({1, *ranks}):
        hosts = [str(rank * min(n, n_hosts) // n) for rank in range(n)]
        layouts = set[str]()
        for option in ["", *(model.options if n > 1 else ())]:
            try:
                cost = model.cost(hosts, option.format(n))
            except MpilayerError as error:
                if not option and n in ranks:
                    refused[n] = str(error)
                continue
            one = cost.seconds if n == 1 else one
            if n in ranks and cost.layout not in layouts:
                layouts.add(cost.layout)
                forecasts.append(_forecast(model, hosts, option.format(n), cost, one))
    notes = _notes(model, forecasts)
    return Outlook(model.measured, model.links.name, forecasts, refused, notes)


def _forecast(
    model: Model, hosts: Sequence[str], option: str, cost: Cost, one: float | None
) -> Forecast:
    n, there, measured = len(hosts), len(set(hosts)), model.measured
    simulated = n > measured.cores or there > 1
    guessed = cost.messages if model.links.name == GUESS and there > 1 else 0.0
    off = math.hypot(measured.spread, _ELSEWHERE if simulated else _HERE)
    low = cost.seconds * (1 - off) - guessed / 2
    high = cost.seconds * (1 + off) + guessed
    efficiency = None if one is None else one / cost.seconds / n
    return Forecast(n, there, option, cost, low, high, efficiency, simulated)


def _notes(model: Model, forecasts: Sequence[Forecast]) -> list[str]:
    measured, links, notes = model.measured, model.links, []
    if links.shared:
        notes.append(
            f"hosts {' and '.join(links.shared)} are one machine: their ranks share "
            f"its {count(measured.cores, 'core')}, and so it is predicted"
        )
    elif any(f.simulated and f.hosts == 1 for f in forecasts):
        notes.append(
            f"more ranks than the {count(measured.cores, 'core')} here are simulated: "
            "for a host like this with a core for each"
        )
    if any(f.hosts > 1 for f in forecasts):
        guess = ", nobody's measurement" if links.name == GUESS else ""
        notes.append(
            f"several hosts are simulated, with messages by {links.name}{guess}"
        )
    return notes
