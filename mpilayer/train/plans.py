"""What a schedule answers while layers train, are interrupted, and go on.

A plan never changes, and knows neither MPI nor arrays nor time. How far a layer has
come is in its *track*: the outputs of the layer below that its epochs used.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from mpilayer.config import PretrainConfig
from mpilayer.models.base import LayerShape
from mpilayer.train.schedule import AsyncLayer, Schedule, greedy, lockstep, simulate


@dataclass(frozen=True, order=True)
class Candidate:
    """A checkpoint of a layer, or the beginning if its epoch is 0.

    ``epoch`` epochs are done; the last used output ``used`` of the layer below, 0 for
    the data. ``final``: no epoch is left to do.
    """

    epoch: int
    used: int = 0
    final: bool = False


BEGINNING = Candidate(0)


@dataclass(frozen=True)
class View:
    """What a layer sees of its channels: see ``Inlet``; there is ``room`` above."""

    newest: int = -1
    ended: bool = False
    paused: bool = False
    stopped: bool = False
    saved: int = 0
    room: bool = True

    @property
    def told(self) -> bool:
        """Nothing more comes from below in this launch."""
        return self.ended or self.paused


@dataclass
class TableLayer:
    """How far a layer has come whose row of the table is known."""

    row: tuple[int, ...]
    used: list[int] = field(default_factory=list)
    extra_left: int = 0

    def next_output(self, newest: int) -> int | None:
        """Return the table's entry, once that output is there; None to wait."""
        # Only outputs that the table uses are sent, in its order: so the entry is the
        # output in use, or the newest one, or it has not arrived yet.
        done = len(self.used)
        if done == len(self.row) or newest < self.row[done]:
            return None
        return self.row[done]

    def begin(self, output: int) -> None:
        """Note that an epoch begins on ``output``, which ``next_output`` has named."""
        self.used.append(output)


Track = TableLayer | AsyncLayer
"""How far a layer has come: the outputs ``used``, and which one is next."""


class Plan(ABC):
    """What each layer does next, and which checkpoints of the layers go together.

    Outputs before the last of a layer's ``stipulated`` epochs N_l may be ``streamed``.
    A layer has done all its work after ``lengths`` epochs; ``repeats`` tells of each
    whether weights alone give its last output again, once it has ended.
    """

    lengths: Sequence[int]
    repeats: Sequence[bool]

    replace: ClassVar[bool]
    """Newer outputs may replace older ones that have not left."""

    until_stipulated = False
    """Everything stops when all layers have done their stipulated epochs."""

    def __init__(self, stipulated: Sequence[int], streamed: bool) -> None:
        self.stipulated = tuple(stipulated)
        self.streamed = streamed

    @abstractmethod
    def track(self, layer: int, used: Sequence[int] = (), left: int = 0, /) -> Track:
        """Return a layer's track, perhaps as an interrupted run has left it.

        ``left`` are extra epochs, see ``AsyncLayer``.
        """

    @abstractmethod
    def leaves(self, layer: int, epoch: int) -> bool:
        """Tell whether the output after an epoch goes to the layer above."""

    @abstractmethod
    def finished(self, layer: int, track: Track, view: View, /) -> bool:
        """Tell whether the layer has no epoch left to do."""

    @abstractmethod
    def following(self, layer: int, mine: Candidate, below: Candidate, /) -> int | None:
        """Return which output a layer needs next after an interruption, None for none.

        Output ``below.epoch`` would have to come once more.
        """

    def stops_all(self, layer: int) -> bool:  # noqa: ARG002
        """Tell whether everything stops when this layer has finished."""
        return False

    def progress(self, layer: int, epochs: int) -> float:
        """Return how much of its work a layer has done; above 1 in extra epochs."""
        return epochs / max(1, self.lengths[layer])

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether an output is what training computed on the way.

        Weights cannot repeat it.
        """
        return self.streamed and epoch < self.stipulated[layer]

    def goes_on(
        self, layer: int, mine: Candidate, below: Candidate, repeatable: bool
    ) -> bool:
        """Tell whether a layer gets what it needs next after an interruption.

        ``repeatable``: output ``below.epoch`` can be computed from the weights.
        """
        output = self.following(layer, mine, below)
        if output is None or output > below.epoch:
            return True
        return output == below.epoch and repeatable

    def may_pause(self, layer: int, mine: Candidate, view: View) -> bool:
        """Tell whether an interrupted layer could go on from here."""
        if layer == 0:
            return True
        if not view.told:
            return False
        # With its end the layer below has told its last checkpoint. One that has paused
        # makes, or sends again, all that has not arrived.
        below = Candidate(view.saved if view.ended else view.newest, final=view.ended)
        repeatable = view.ended and self.repeats[layer - 1]
        return self.goes_on(layer, mine, below, repeatable)

    def repeatable(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Return for each layer whether weights alone give its last output again.

        That is so if they made it, and from an input that can be made again, too.
        """
        result: list[bool] = []
        for i, mine in enumerate(candidates):
            is_last = i == 0 or (result[i - 1] and mine.used == candidates[i - 1].epoch)
            made = mine.epoch > 0 and not self.streams(i, mine.epoch)
            result.append(made and is_last)
        return result


class TablePlan(Plan):
    """Follows a table to the letter."""

    replace = False

    def __init__(self, schedule: Schedule, streamed: bool) -> None:
        super().__init__(schedule.stipulated, streamed)
        self._schedule = schedule
        self._needed = [schedule.needed(i) for i in range(schedule.n_layers)]
        self.lengths = schedule.epochs
        ends = [Candidate(len(row), row[-1] if row else 0) for row in schedule.used]
        self.repeats = self.repeatable(ends)

    def track(self, layer: int, used: Sequence[int] = (), _: int = 0) -> TableLayer:
        """Return the track along a row."""
        return TableLayer(self._schedule.used[layer], list(used))

    def leaves(self, layer: int, epoch: int) -> bool:
        """Tell whether the row above names the epoch."""
        return epoch in self._needed[layer]

    def finished(self, layer: int, track: Track, _: View) -> bool:
        """Tell whether the row is done."""
        return len(track.used) == self.lengths[layer]

    def following(self, layer: int, mine: Candidate, _: Candidate) -> int | None:
        """Look the next entry up."""
        row = self._schedule.used[layer]
        return row[mine.epoch] if mine.epoch < len(row) else None


class AsyncPlan(Plan):
    """Lets layers go on as outputs arrive (Santara et al. 2016 §3).

    ``extra`` and ``cut_short`` as in ``AsyncLayer``, ``end`` as in ``simulate``; an
    epoch that runs at the end is completed.
    """

    replace = True

    def __init__(
        self,
        stipulated: Sequence[int],
        extra: Sequence[int],
        streamed: bool,
        end: str = "stipulated",
        cut_short: bool = True,
    ) -> None:
        super().__init__(stipulated, streamed)
        self.lengths, self.extra = self.stipulated, tuple(extra)
        # Above a layer without extra epochs not: it ends on an older input.
        self.repeats = [all(self.extra[1 : i + 1]) for i in range(len(self.extra))]
        self.end = end
        self.until_stipulated = end == "stipulated"
        self._cut_short = cut_short

    def track(self, layer: int, used: Sequence[int] = (), left: int = 0) -> AsyncLayer:
        """Return a layer that follows the rule of the paper."""
        n, extra = self.stipulated[layer], self.extra[layer]
        # Runs of older versions count extra epochs before the stipulated are done.
        left = left if len(used) > n else 0
        return AsyncLayer(n, extra, self._cut_short, list(used), left, bool(used))

    def leaves(self, layer: int, epoch: int) -> bool:
        """Every output is offered, but none that nobody could use any more."""
        if layer + 1 == len(self.stipulated):
            return False
        is_last = layer == 0 and epoch == self.stipulated[0]
        return not (is_last and self.end == "first-layer")

    def finished(self, layer: int, track: Track, view: View) -> bool:
        """Tell whether nothing can wake the layer any more."""
        # Without extra epochs nothing newer matters: those above must not wait for it.
        deaf = not self.extra[layer] and self.end != "first-layer"
        return (
            (view.ended or deaf)
            and len(track.used) >= self.stipulated[layer]
            and track.next_output(view.newest) is None
        )

    def stops_all(self, layer: int) -> bool:
        """Tell whether the first layer's end is the end."""
        return layer == 0 and self.end == "first-layer"

    def following(self, _: int, mine: Candidate, below: Candidate) -> int | None:
        """Any newer output will do; if none will come, the last one."""
        if mine.final:
            return None
        return below.epoch if below.final else below.epoch + 1


# --- from the settings


def effective(config: PretrainConfig, table: Schedule | None) -> PretrainConfig:
    """Return the settings with the defaults that depend on others filled in."""
    activations = config.activations
    if activations == "auto":
        name = config.schedule.partition(":")[0]
        activations = "transformed" if name in ("async", "simulate") else "streamed"
        if name == "replay" and table is not None:
            activations = table.settings.get("activations", activations)
    return replace(config, extra_epochs=config.extra, activations=activations)


def table_of(
    config: PretrainConfig,
    shapes: Sequence[LayerShape],
    replayed: Schedule | None = None,
) -> Schedule | None:
    """Return the table of the settings, or the one to be ``replayed`` with them.

    None if it comes about as outputs arrive.
    """
    epochs, extra = config.stipulated_epochs, config.extra
    if config.schedule == "async":
        return None
    if replayed is not None:
        table = replayed
    elif config.schedule == "greedy":
        table = greedy(epochs, extra)
    elif config.schedule == "lockstep":
        lag = config.lag[0] if len(config.lag) == 1 else config.lag
        table = lockstep(epochs, extra, lag, config.refresh_every)
    else:
        pairs = zip(config.epoch_costs, shapes, strict=True)
        costs = [given or shape.cost for given, shape in pairs]
        n_cores = config.cores or len(shapes)
        table = simulate(epochs, extra, costs, n_cores, config.end, config.cut_short)
    activations = effective(config, table).activations
    return replace(table, settings={**table.settings, "activations": activations})


def plan_of(config: PretrainConfig, table: Schedule | None) -> Plan:
    """Return who trains when, and which checkpoints of the layers go together."""
    streamed = config.activations == "streamed"
    if table is not None:
        return TablePlan(table, streamed)
    return AsyncPlan(
        config.stipulated_epochs, config.extra, streamed, config.end, config.cut_short
    )
