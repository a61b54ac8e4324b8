"""Pre-training that is interrupted and goes on, with checkpoints kept in memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpilayer.config import PretrainConfig
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import layers_to_ranks
from mpilayer.train.layer import LayerState
from mpilayer.train.plans import BEGINNING, Candidate, Plan, TablePlan
from mpilayer.train.pretrain import Keeper, Pipeline, Snapshot
from mpilayer.train.record import EpochRecord
from mpilayer.train.restart import newest_cut, outputs_again
from mpilayer.train.schedule import Schedule
from tests.support.pipeline import (
    CONFIG,
    EPOCHS,
    Outcome,
    async_plan,
    data,
    new_states,
)

N_LAYERS = 4


@dataclass(frozen=True)
class Course:
    """What a run does if nobody interrupts it.

    Attributes
    ----------
    table : Schedule or None
        None: asynchronous, with ``extra`` epochs for all layers but the first.
    """

    table: Schedule | None
    streamed: bool = True
    extra: int = 2
    end: str = "all"
    cut_short: bool = True
    config: PretrainConfig = CONFIG

    def plan(self) -> Plan:
        """Return what the schedule says."""
        if self.table is not None:
            return TablePlan(self.table, self.streamed)
        return async_plan(self.end, self.extra, self.streamed, self.cut_short)


@dataclass(frozen=True)
class Kept:
    """A layer's checkpoint."""

    layer: int
    vector: np.ndarray
    velocity: np.ndarray
    steps: int
    snapshot: Snapshot

    @property
    def candidate(self) -> Candidate:
        """What it is called."""
        return self.snapshot.candidate

    def restore(self, state: LayerState) -> None:
        """Put a layer there."""
        state.layer.parameters.vector[:] = self.vector
        state.optimizer.state["velocity"][:] = self.velocity
        state.optimizer.steps = self.steps
        state.epoch = self.candidate.epoch


class Memory(Keeper):
    """Keeps copies, in the order of time.

    Parameters
    ----------
    every : int
        Epochs of the leading layer between two saves; 0: none on the way.
    stop : callable
        Tells whether to end.
    """

    def __init__(
        self, every: int = 1, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.every, self.stop = every, stop
        self.kept: list[Kept] = []

    def due(self, epochs: int) -> bool:
        return 0 < self.every <= epochs

    def save(self, state: LayerState, snapshot: Snapshot) -> None:
        assert snapshot.candidate.epoch == state.epoch == len(snapshot.row)
        self.kept.append(
            Kept(
                state.index,
                state.layer.parameters.vector.copy(),
                state.optimizer.state["velocity"].copy(),
                state.optimizer.steps,
                snapshot,
            )
        )

    def stopping(self, epoch_seconds: float) -> bool:
        assert epoch_seconds >= 0
        return self.stop()


Line = tuple[int, int, int, float, float]


def lines(records: Iterable[EpochRecord]) -> list[Line]:
    """Return what a run's records say apart from its seconds."""
    return [
        (r.layer, r.epoch, r.used, r.train_error, r.validation_error) for r in records
    ]


@dataclass(frozen=True)
class Stage:
    """Where a run is, or ended: the same on all ranks.

    Attributes
    ----------
    kept : list of Kept
        All checkpoints that there are.
    records : list of list of tuple
        Of each layer, epoch after epoch; those after the checkpoints included.
    interrupted : bool
        A layer gave way.
    digests : tuple of str
        Of each layer.
    """

    kept: list[Kept] = field(default_factory=list)
    records: list[list[Line]] = field(default_factory=lambda: [[]] * N_LAYERS)
    interrupted: bool = False
    digests: tuple[str, ...] = ()
    dropped: tuple[tuple[int, ...], ...] = ((),) * N_LAYERS

    @property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """The table as it was carried out."""
        return tuple(tuple(line[2] for line in layer) for layer in self.records)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs done by each layer."""
        return tuple(map(len, self.records))

    def schedule(self) -> Schedule:
        """Return the recorded table."""
        return Schedule("async", self.used, (EPOCHS,) * N_LAYERS, self.dropped)

    def cut(self, plan: Plan) -> tuple[Candidate, ...]:
        """Return the newest checkpoints that go together."""
        return newest_cut(plan, candidates(self.kept))


def candidates(kept: Iterable[Kept]) -> list[list[Candidate]]:
    """Return the candidates of each layer."""
    kept = list(kept)
    return [[k.candidate for k in kept if k.layer == i] for i in range(N_LAYERS)]


def train(
    comm: Communicator,
    course: Course,
    keeper: Memory | None = None,
    before: Stage | None = None,
    cut: Sequence[Candidate] = (),
    prepare: Callable[[LayerState], object] = lambda state: None,
    limit: int = 10**9,
) -> Stage:
    """Train from the beginning or from a cut of what was before. Collective.

    With one rank ``limit`` is the number of epochs after which the process is lost.
    """
    before, keeper = before or Stage(), keeper or Memory(0)
    cut = tuple(cut) or before.cut(course.plan())
    found = {(k.layer, k.candidate): k for k in before.kept}
    starts = [found.get((i, mine)) for i, mine in enumerate(cut)]
    assert all(start or mine == BEGINNING for start, mine in zip(starts, cut))  # noqa: B905
    # What is newer than the cut may be another course of events.
    older = [k for k in before.kept if k.candidate <= cut[k.layer]]
    snapshots = [start.snapshot if start else Snapshot(BEGINNING) for start in starts]
    states = new_states(course.config)
    owners = layers_to_ranks([s.layer.shape.cost for s in states], comm.size)
    mine = [states[i] for i in owners[comm.rank]]
    for state in mine:
        prepare(state)
        if start := starts[state.index]:
            start.restore(state)
    rows = data()
    pipeline = Pipeline(
        mine,
        rows if comm.rank == 0 else None,
        tuple(map(len, rows.parts)),
        comm,
        course.plan(),
        keeper,
        snapshots,
        outputs_again(course.plan(), cut),
    )
    records = {
        index: before.records[index][: cut[index].epoch] for index in pipeline.states
    }
    for done, (_, record) in enumerate(pipeline.run(), start=1):
        records[record.layer].extend(lines([record]))
        if done == limit:
            break
    parts = comm.allgather(
        (
            records,
            keeper.kept,
            pipeline.interrupted,
            {i: s.layer.parameters.digest() for i, s in pipeline.states.items()},
            {i: pipeline.dropped(i) for i in pipeline.states},
        )
    )

    def merged(which: int) -> list:
        together = {k: v for part in parts for k, v in part[which].items()}
        return [together[k] for k in sorted(together)]

    return Stage(
        older + [k for part in parts for k in part[1]],
        merged(0),
        any(part[2] for part in parts),
        tuple(merged(3)),
        tuple(merged(4)),
    )


def assert_same(found: Stage, expected: Stage | Outcome) -> None:
    """Demand the same weights to the bit, and the same records but for the seconds."""
    assert not found.interrupted
    assert found.digests == expected.digests
    if isinstance(expected, Stage):
        assert found.records == expected.records
    else:
        assert found.records == [lines(layer) for layer in expected.records]
