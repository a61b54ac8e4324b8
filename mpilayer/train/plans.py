"""What a layer does next: it follows a table, or takes the newest output there is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mpilayer.parallel.channel import Inlet
from mpilayer.train.schedule import AsyncLayer, Schedule


class Plan(Protocol):
    """Decides what each layer does next."""

    replace: bool
    """Newer outputs may replace older ones that have not left."""

    enough: bool
    """Set it when all layers have done their stipulated epochs."""

    @property
    def until_stipulated(self) -> bool:
        """Whether everything stops then."""

    def next_output(self, layer: int, inlet: Inlet) -> int | None:
        """Return which output the layer uses for its next epoch, None if it waits."""

    def begin(self, layer: int, output: int) -> None:
        """Note that an epoch on that output begins."""

    def row(self, layer: int) -> tuple[int, ...]:
        """Return the outputs of the epochs begun so far."""

    def may_pause(self, layer: int, inlet: Inlet) -> bool:
        """Tell whether an interrupted layer could go on from here."""

    def finished(self, layer: int, inlet: Inlet) -> bool:
        """Tell whether the layer has no epoch left to do."""

    def leaves(self, layer: int, epoch: int) -> bool:
        """Tell whether the output after an epoch goes to the layer above."""

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether that output may be what training computed on the way."""

    def progress(self, layer: int) -> float:
        """Return how much of its epochs a layer has done."""

    def stops_all(self, layer: int) -> bool:
        """Tell whether everything stops when this layer has finished."""


class TablePlan:
    """Follows a table to the letter."""

    replace = False
    until_stipulated = False

    def __init__(
        self, schedule: Schedule, streamed: bool, begun: Sequence[int] = ()
    ) -> None:
        self.enough = False
        self._schedule = schedule
        self._streamed = streamed
        self._begun = list(begun) or [0] * schedule.n_layers
        self._needed = [schedule.needed(i) for i in range(schedule.n_layers)]
        self._repeats = self._repeatable()

    def next_output(self, layer: int, inlet: Inlet) -> int | None:
        """Return the table's entry, once that output is there."""
        row, begun = self._schedule.used[layer], self._begun[layer]
        # Only outputs that the table uses are sent, in its order: so the entry is the
        # output in use, or the newest one, or it has not arrived yet.
        if begun == len(row) or inlet.newest() < row[begun]:
            return None
        return row[begun]

    def begin(self, layer: int, output: int) -> None:  # noqa: ARG002
        """Count the epoch."""
        self._begun[layer] += 1

    def row(self, layer: int) -> tuple[int, ...]:
        """Return the table's row so far."""
        return self._schedule.used[layer][: self._begun[layer]]

    def may_pause(self, layer: int, inlet: Inlet) -> bool:
        """Tell whether the next entry is still to come, or can be made again.

        The latter holds for what is computed from the last weights of a layer that has
        ended, and from an input that can be made again, too.
        """
        row, begun = self._schedule.used[layer], self._begun[layer]
        if layer == 0 or begun == len(row) or row[begun] > inlet.newest():
            return True
        last = len(self._schedule.used[layer - 1])
        return inlet.ended and row[begun] == last and self._repeats[layer - 1]

    def _repeatable(self) -> list[bool]:
        """Return for each layer whether weights alone give its last output again."""
        result: list[bool] = []
        for i, row in enumerate(self._schedule.used):
            last = len(self._schedule.used[i - 1])
            has_input = i == 0 or (result[i - 1] and row[-1:] == (last,))
            result.append(has_input and not self.streams(i, len(row)))
        return result

    def finished(self, layer: int, inlet: Inlet) -> bool:  # noqa: ARG002
        """Tell whether the row of the table is done."""
        return self._begun[layer] == len(self._schedule.used[layer])

    def leaves(self, layer: int, epoch: int) -> bool:
        """Tell whether the row above names the epoch."""
        return epoch in self._needed[layer]

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether the epoch comes before the last stipulated one."""
        return self._streamed and epoch < self._schedule.stipulated[layer]

    def progress(self, layer: int) -> float:
        """Return the part of the row that is done."""
        return self._begun[layer] / max(1, len(self._schedule.used[layer]))

    def stops_all(self, layer: int) -> bool:  # noqa: ARG002
        """Return False: the table says when each layer ends."""
        return False


@dataclass
class AsyncPlan:
    """Lets layers go on as outputs arrive; records the table (Santara et al. §3).

    Attributes
    ----------
    layers : list of AsyncLayer
        The rule and the record of each layer.
    streamed : bool
        Outputs before the last stipulated epoch are streamed.
    end : str
        When training ends (``simulate``). An epoch that runs at the end is completed.
    """

    layers: list[AsyncLayer]
    streamed: bool
    end: str = "stipulated"
    replace: bool = field(default=True, init=False)
    enough: bool = field(default=False, init=False)
    _begun: set[int] = field(default_factory=set, init=False)

    @property
    def until_stipulated(self) -> bool:
        """Whether the stipulated epochs decide the end."""
        return self.end == "stipulated"

    def next_output(self, layer: int, inlet: Inlet) -> int | None:
        """Return what the rule says about the newest output."""
        mine, newest = self.layers[layer], inlet.newest()
        if layer not in self._begun and mine.used and newest > mine.used[-1]:
            mine.extra_left = 0  # the output that was in use before a restart is gone
        return mine.next_output(newest)

    def begin(self, layer: int, output: int) -> None:
        """Record the entry."""
        self._begun.add(layer)
        self.layers[layer].begin(output)

    def row(self, layer: int) -> tuple[int, ...]:
        """Return the record."""
        return tuple(self.layers[layer].used)

    def may_pause(self, layer: int, inlet: Inlet) -> bool:
        """Tell whether newer outputs will come, or the last one can be made again.

        Not so above a layer without extra epochs: it ends on an older input.
        """
        return not inlet.ended or all(below.extra for below in self.layers[1:layer])

    def finished(self, layer: int, inlet: Inlet) -> bool:
        """Tell whether nothing can wake the layer any more."""
        if inlet.stopped or self.enough:
            return True
        mine = self.layers[layer]
        # Without extra epochs nothing newer matters: those above must not wait for it.
        told = inlet.ended or (not mine.extra and self.end != "first-layer")
        return (
            told
            and len(mine.used) >= mine.stipulated
            and mine.next_output(inlet.newest()) is None
        )

    def leaves(self, layer: int, epoch: int) -> bool:
        """Every output is offered, but none that nobody could use any more."""
        if layer + 1 == len(self.layers):
            return False
        is_last = layer == 0 and epoch == self.layers[0].stipulated
        return not (is_last and self.end == "first-layer")

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether the epoch comes before the last stipulated one."""
        return self.streamed and epoch < self.layers[layer].stipulated

    def progress(self, layer: int) -> float:
        """Return epochs done over epochs stipulated; above 1 in extra epochs."""
        return len(self.layers[layer].used) / self.layers[layer].stipulated

    def stops_all(self, layer: int) -> bool:
        """Tell whether the first layer's end is the end."""
        return layer == 0 and self.end == "first-layer"
