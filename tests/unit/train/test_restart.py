"""Which checkpoints go together; pure, against trying everything."""

from itertools import product

import numpy as np
import pytest

from mpilayer.train.plans import BEGINNING, AsyncPlan, Candidate, TablePlan
from mpilayer.train.restart import consistent, newest_cut, worth_keeping
from mpilayer.train.schedule import Schedule, lockstep, simulate

SEEDS = range(150)


def asynchronous(stipulated, streamed):
    return AsyncPlan(stipulated, (0,) * len(stipulated), streamed)


def random_table(rng, n_layers=3, most=5):
    """Return any table that can be executed."""
    below, used = int(rng.integers(1, most)), []
    used.append((0,) * below)
    for _ in range(n_layers - 1):
        n = int(rng.integers(1, most))
        used.append(tuple(sorted(int(e) for e in rng.integers(1, below + 1, n))))
        below = n
    stipulated = tuple(int(rng.integers(1, len(row) + 1)) for row in used)
    table = Schedule("async", tuple(used), stipulated)
    table.check()
    return table


def of_table(table, layer, epoch):
    """Return the checkpoint of a layer after an epoch, as it is named."""
    row = table.used[layer]
    return Candidate(epoch, row[epoch - 1], epoch == len(row)) if epoch else BEGINNING


def random_saved(rng, table):
    """Return some of the checkpoints that a run may leave, in any order."""
    saved = []
    for layer, n in enumerate(table.epochs):
        chosen = rng.permutation(np.arange(1, n + 1))[: rng.integers(0, n + 1)]
        saved.append([of_table(table, layer, int(epoch)) for epoch in chosen])
    return saved


def can_go_on(table, streamed, epochs):
    """Tell by hand whether all outputs that are still needed will come.

    Only what layers make from now on is there, and last outputs that the weights of
    now give again, layer by layer from the data.
    """
    again = True
    for layer in range(1, len(epochs)):
        mine, below = epochs[layer], epochs[layer - 1]
        row, row_below = table.used[layer], table.used[layer - 1]
        on_the_way = streamed and below < table.stipulated[layer - 1]
        is_input = layer == 1 or (below and row_below[below - 1] == epochs[layer - 2])
        again = bool(again and below and is_input and not on_the_way)
        if mine and row[mine - 1] > below:
            return False
        for needed in row[mine:]:
            if needed < below or (needed == below and not again):
                return False
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_the_plan_says_whether_all_outputs_will_come(seed):
    rng = np.random.default_rng(seed)
    table, streamed = random_table(rng), bool(seed % 2)
    plan = TablePlan(table, streamed)
    for epochs in product(*(range(n + 1) for n in table.epochs)):
        cut = [of_table(table, layer, epoch) for layer, epoch in enumerate(epochs)]
        assert consistent(plan, cut) == can_go_on(table, streamed, epochs), cut


def all_cuts(plan, saved):
    """Return all that go together, the most advanced first layers first."""
    choices = product(*({*own, BEGINNING} for own in saved))
    return sorted((cut for cut in choices if consistent(plan, cut)), reverse=True)


def random_async(rng, n_layers=3):
    """Return some checkpoints of an asynchronous run, whatever happened."""
    saved, below = [], 1
    for layer in range(n_layers):
        n = int(rng.integers(1, 6))
        row = sorted(int(e) for e in rng.integers(1, below + 1, n))
        row = row if layer else [0] * n
        own = [Candidate(e, row[e - 1]) for e in range(1, n + 1)]
        if rng.random() < 0.4:
            own[-1] = Candidate(n, row[-1], True)
        saved.append([own[int(i)] for i in rng.permutation(n)[: rng.integers(0, 5)]])
        below = n
    return saved


def random_run(kind, seed, n_layers=3):
    """Return a plan, and checkpoints of a run that follows it."""
    rng = np.random.default_rng(seed)
    if kind == "async":
        return asynchronous((3, 3, 3), bool(seed % 2)), random_async(rng)
    table = random_table(rng, n_layers)
    return TablePlan(table, bool(seed % 2)), random_saved(rng, table)


KINDS = pytest.mark.parametrize("kind", ["table", "async"])


@pytest.mark.parametrize("seed", SEEDS)
@KINDS
def test_the_newest_cut_is_the_best_of_all(seed, kind):
    plan, saved = random_run(kind, seed, n_layers=1 + seed % 4)
    assert newest_cut(plan, saved) == all_cuts(plan, saved)[0]


@pytest.mark.parametrize(
    ("cut", "goes"),
    [
        # Newer outputs will come.
        ([Candidate(2), Candidate(3, 1)], True),
        ([Candidate(2), Candidate(3, 2)], True),
        ([Candidate(2), BEGINNING], True),
        # What the upper layer knows, the lower one never did.
        ([Candidate(2), Candidate(3, 3)], False),
        ([BEGINNING, Candidate(1, 1)], False),
        # The last output comes again.
        ([Candidate(4, 0, True), Candidate(3, 2)], True),
        ([Candidate(4, 0, True), Candidate(3, 4)], True),
        ([Candidate(4, 0, True), BEGINNING], True),
        ([Candidate(4, 0, True), Candidate(5, 4, True)], True),
        # Nothing gives it again: the middle layer has ended on an older input.
        ([Candidate(4, 0, True), Candidate(4, 3, True), Candidate(2, 1)], False),
        ([Candidate(4, 0, True), Candidate(4, 4, True), Candidate(2, 1)], True),
        ([Candidate(4, 0, True), Candidate(4, 3, True), Candidate(6, 4, True)], True),
        # The middle one goes on: outputs will come from there.
        ([Candidate(4, 0, True), Candidate(4, 3), Candidate(2, 1)], True),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_asynchronous_checkpoints_by_hand(cut, goes, streamed):
    assert consistent(asynchronous((4,) * len(cut), streamed), cut) == goes


def losses(plan, saved):
    """Yield what is left when one file of the newest cut is damaged."""
    for layer, lost in enumerate(newest_cut(plan, saved)):
        if lost != BEGINNING:
            yield [
                [c for c in own if i != layer or c != lost]
                for i, own in enumerate(saved)
            ]


def pruned(plan, saved):
    """Remove what is not worth keeping, as a run does."""
    kept = worth_keeping(plan, saved)
    return [
        [c for c in own if c in some] for own, some in zip(saved, kept, strict=True)
    ]


@pytest.mark.parametrize("seed", SEEDS)
@KINDS
def test_a_damaged_file_costs_no_more_after_pruning(seed, kind):
    plan, saved = random_run(kind, seed)
    left = pruned(plan, saved)
    assert newest_cut(plan, left) == newest_cut(plan, saved)
    for with_all, with_few in zip(losses(plan, saved), losses(plan, left), strict=True):
        assert newest_cut(plan, with_few) == newest_cut(plan, with_all)
    assert pruned(plan, left) == left


def test_few_files_are_kept():
    """Of lockstep layers that save after every epoch the last two."""
    table = lockstep((9, 9, 9), (0, 0, 0))
    for done in range(2, 9):
        saved = [[of_table(table, i, e) for e in range(1, done + 1)] for i in range(3)]
        assert all(len(own) == 2 for own in pruned(TablePlan(table, False), saved))


def test_the_last_epochs_are_never_streamed():
    table = simulate((4, 4), (0, 2), (2, 1), 2)
    for plan in (TablePlan(table, True), asynchronous((4, 4), True)):
        assert [plan.streams(0, e) for e in (1, 3, 4, 5)] == [True, True, False, False]
    for plan in (TablePlan(table, False), asynchronous((4, 4), False)):
        assert not any(plan.streams(0, e) for e in range(6))
