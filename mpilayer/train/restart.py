"""Which checkpoints of the layers go together, so that training can go on from them.

Layers save at moments of their own, without a barrier. A layer's checkpoint after its
epoch c, of which the last used output v of the layer below, fits a checkpoint of that
layer after its epoch b if nothing is missing or known too early:

- v ≤ b: what the layer has seen, the layer below has made;
- what it will use next is made again: either after epoch b, or it is output b itself
  and can be computed from the weights alone.

Nothing that was under way between the layers is needed then, and the table goes on as
if there had been no interruption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mpilayer.train.schedule import Schedule


@dataclass(frozen=True, order=True)
class Candidate:
    """A checkpoint of a layer, or the beginning if its epoch is 0.

    Attributes
    ----------
    epoch : int
        Epochs done.
    used : int
        Output of the layer below that the last of them used; 0 for the data.
    final : bool
        The layer has no epoch left to do.
    """

    epoch: int
    used: int = 0
    final: bool = False


BEGINNING = Candidate(0)


class Rule(Protocol):
    """What the schedule says about going on."""

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether an output was computed on the way: weights cannot repeat it."""

    def goes_on(
        self, layer: int, mine: Candidate, below: Candidate, repeatable: bool
    ) -> bool:
        """Tell whether a layer gets what it needs next.

        ``repeatable``: output ``below.epoch`` can be computed from the weights.
        """

    def needs_again(self, layer: int, mine: Candidate, below: Candidate) -> bool:
        """Tell whether a layer needs output ``below.epoch`` once more."""


class TableRule:
    """The rule of a table.

    Parameters
    ----------
    schedule : Schedule
        The table.
    streamed : bool
        Outputs before the last stipulated epoch are streamed.
    """

    def __init__(self, schedule: Schedule, streamed: bool) -> None:
        self._schedule = schedule
        self._streamed = streamed

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether the epoch comes before the last stipulated one."""
        return self._streamed and epoch < self._schedule.stipulated[layer]

    def goes_on(
        self, layer: int, mine: Candidate, below: Candidate, repeatable: bool
    ) -> bool:
        """Look the next entry up."""
        following = self._next(layer, mine)
        if following is None or following > below.epoch:
            return True
        return following == below.epoch and repeatable

    def needs_again(self, layer: int, mine: Candidate, below: Candidate) -> bool:
        """Tell whether the next entry is the output that was there before."""
        return self._next(layer, mine) == below.epoch

    def _next(self, layer: int, mine: Candidate) -> int | None:
        row = self._schedule.used[layer]
        return row[mine.epoch] if mine.epoch < len(row) else None


class AsyncRule:
    """The rule of asynchronous training: any newer output will do.

    Parameters
    ----------
    stipulated : sequence of int
        Epochs of each layer.
    streamed : bool
        Outputs before the last stipulated epoch are streamed.
    """

    def __init__(self, stipulated: Sequence[int], streamed: bool) -> None:
        self._stipulated = tuple(stipulated)
        self._streamed = streamed

    def streams(self, layer: int, epoch: int) -> bool:
        """Tell whether the epoch comes before the last stipulated one."""
        return self._streamed and epoch < self._stipulated[layer]

    def goes_on(
        self,
        layer: int,  # noqa: ARG002
        mine: Candidate,
        below: Candidate,
        repeatable: bool,
    ) -> bool:
        """Tell whether a newer output will come, or the last one again."""
        return mine.final or not below.final or repeatable

    def needs_again(self, layer: int, mine: Candidate, below: Candidate) -> bool:  # noqa: ARG002
        """Tell whether nothing newer will come and the layer is not done."""
        return below.final and not mine.final


def consistent(rule: Rule, candidates: Sequence[Candidate]) -> bool:
    """Tell whether one candidate of each layer, first layer first, go together."""
    repeatable = _repeatable(rule, candidates)
    return all(
        candidates[i].used <= candidates[i - 1].epoch
        and rule.goes_on(i, candidates[i], candidates[i - 1], repeatable[i - 1])
        for i in range(1, len(candidates))
    )


def newest_cut(
    rule: Rule, saved: Sequence[Sequence[Candidate]]
) -> tuple[Candidate, ...]:
    """Return the most advanced checkpoints that go together, one of each layer.

    Parameters
    ----------
    rule : Rule
        What the schedule says.
    saved : sequence of sequences of Candidate
        The checkpoints of each layer; the beginning need not be among them.

    Notes
    -----
    The first layers decide: a layer takes the newest for which the layers above find
    one that fits. The beginning of all layers always fits. There are few checkpoints,
    so all are tried.
    """

    def extend(chosen: tuple[Candidate, ...]) -> tuple[Candidate, ...] | None:
        if len(chosen) == len(saved):
            return chosen
        for mine in sorted({*saved[len(chosen)], BEGINNING}, reverse=True):
            more = (*chosen, mine)
            if consistent(rule, more) and (whole := extend(more)):
                return whole
        return None

    return extend(()) or (BEGINNING,) * len(saved)


def worth_keeping(rule: Rule, saved: Sequence[Sequence[Candidate]]) -> list[int]:
    """Return for each layer from which epoch on its checkpoints are worth keeping.

    With them training can go on even if one file of the newest cut proves damaged.
    """
    newest = newest_cut(rule, saved)
    cuts = [newest]
    for layer, lost in enumerate(newest):
        if lost != BEGINNING and not lost.final:
            rest = [list(own) for own in saved]
            rest[layer] = [other for other in rest[layer] if other != lost]
            cuts.append(newest_cut(rule, rest))
    return [min(cut[layer].epoch for cut in cuts) for layer in range(len(saved))]


def spares(rule: Rule, saved: Sequence[Sequence[Candidate]]) -> list[set[Candidate]]:
    """Return for each layer what to keep in case the file of an ended layer is damaged.

    Older than what is worth keeping otherwise; one checkpoint a layer, if there is one.
    """
    kept: list[set[Candidate]] = [set() for _ in saved]
    for layer, lost in enumerate(newest_cut(rule, saved)):
        if lost.final:
            for i, candidate in enumerate(newest_cut(rule, _without(saved, layer))):
                kept[i].add(candidate)
    return kept


def _without(saved: Sequence[Sequence[Candidate]], layer: int) -> list[list[Candidate]]:
    """Return the checkpoints without that of a layer's end."""
    return [
        [mine for mine in own if i != layer or not mine.final]
        for i, own in enumerate(saved)
    ]


def outputs_again(rule: Rule, cut: Sequence[Candidate]) -> list[bool]:
    """Return for each layer whether it must send its last output once more.

    That output is computed from the layer's input, which then must come again, too.
    """
    again = [False] * len(cut)
    for i in reversed(range(len(cut) - 1)):
        above = rule.needs_again(i + 1, cut[i + 1], cut[i])
        again[i] = (above or again[i + 1]) and cut[i].epoch > 0
    return again


def _repeatable(rule: Rule, candidates: Sequence[Candidate]) -> list[bool]:
    """Return for each layer whether weights alone give its last output again."""
    result: list[bool] = []
    for i, mine in enumerate(candidates):
        has_input = i == 0 or (result[i - 1] and mine.used == candidates[i - 1].epoch)
        made = mine.epoch > 0 and not rule.streams(i, mine.epoch)
        result.append(made and has_input)
    return result
