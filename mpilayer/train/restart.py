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

from mpilayer.train.plans import BEGINNING, Candidate, Plan


def consistent(plan: Plan, candidates: Sequence[Candidate]) -> bool:
    """Tell whether one candidate of each layer, first layer first, go together."""
    repeatable = plan.repeatable(candidates)
    return all(
        candidates[i].used <= candidates[i - 1].epoch
        and plan.goes_on(i, candidates[i], candidates[i - 1], repeatable[i - 1])
        for i in range(1, len(candidates))
    )


def newest_cut(
    plan: Plan, saved: Sequence[Sequence[Candidate]]
) -> tuple[Candidate, ...]:
    """Return the most advanced checkpoints that go together, one of each layer.

    The first layers decide: a layer takes the newest of those ``saved`` for which the
    layers above find one that fits. The beginning, which need not be among them, always
    fits. There are few checkpoints, so all are tried.
    """

    def extend(chosen: tuple[Candidate, ...]) -> tuple[Candidate, ...] | None:
        if len(chosen) == len(saved):
            return chosen
        for mine in sorted({*saved[len(chosen)], BEGINNING}, reverse=True):
            more = (*chosen, mine)
            if consistent(plan, more) and (whole := extend(more)):
                return whole
        return None

    return extend(()) or (BEGINNING,) * len(saved)


def worth_keeping(
    plan: Plan, saved: Sequence[Sequence[Candidate]]
) -> list[set[Candidate]]:
    """Return for each layer the checkpoints to keep.

    With them training can go on even if one file of the newest cut proves damaged. In
    case it is that of an ended layer, one older checkpoint a layer is enough.
    """
    newest = newest_cut(plan, saved)
    cuts: list[tuple[Candidate, ...]] = [newest]
    spares: list[tuple[Candidate, ...]] = []
    for layer, lost in enumerate(newest):
        if lost != BEGINNING:
            rest = [list(own) for own in saved]
            rest[layer] = [other for other in rest[layer] if other != lost]
            (spares if lost.final else cuts).append(newest_cut(plan, rest))
    kept = []
    for i, own in enumerate(saved):
        least, some = min(cut[i].epoch for cut in cuts), {cut[i] for cut in spares}
        kept.append({c for c in own if c.final or c.epoch >= least or c in some})
    return kept


def outputs_again(plan: Plan, cut: Sequence[Candidate]) -> list[bool]:
    """Return for each layer whether it must send its last output once more.

    That output is computed from the layer's input, which then must come again, too.
    """
    again = [False] * len(cut)
    for i in reversed(range(len(cut) - 1)):
        needed = plan.following(i + 1, cut[i + 1], cut[i]) == cut[i].epoch
        again[i] = (needed or again[i + 1]) and cut[i].epoch > 0
    return again
