"""Four small layers under any plan, on any communicator, lost or stopped anywhere."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mpilayer.config import PretrainConfig
from mpilayer.far import Scratch
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.parallel.notice import Notice
from mpilayer.placement import place_teams
from mpilayer.train.layer import LayerState, layer_shapes, monitored
from mpilayer.train.plans import BEGINNING, AsyncPlan, Candidate, Plan
from mpilayer.train.pretrain import Keeper, Pipeline, Snapshot
from mpilayer.train.record import EpochRecord
from mpilayer.train.restart import newest_cut, outputs_again
from mpilayer.train.schedule import Schedule, greedy, lockstep, simulate
from mpilayer.train.teams import team_up
from tests.support import toys

N_VISIBLE = 12
N_LAYERS = 4
EPOCHS = 4
CONFIG = PretrainConfig(layers=(9, 8, 6, 4), epochs=(EPOCHS,), minibatch=20)
FOUR = (EPOCHS,) * N_LAYERS
TABLES = {
    "lockstep": lockstep(FOUR, (0, 1, 2, 3)),
    "lag 2": lockstep(FOUR, (0, 0, 0, 0), 2),
    "refresh": lockstep(FOUR, (1, 0, 0, 2), (1, 0, 2), 2),
    "greedy": greedy(FOUR, (0, 1, 0, 1)),
    "simulate": simulate(FOUR, (0, 2, 3, 4), (108, 72, 48, 24), 4, "first-layer"),
    "replay": Schedule("async", ((0,) * 4, (2, 2, 4), (3,), (1,) * 5), (4, 3, 1, 5)),
    "gaps": Schedule("async", ((0,) * 5, (1, 3, 3), (1, 2), (1, 1, 2)), (4, 3, 2, 2)),
}


def data(n_train: int = 90, n_validation: int = 30, n_visible: int = N_VISIBLE) -> Rows:
    """Return small data, training rows no whole number of minibatches."""
    validation = toys.rows(n_validation, n_visible, 1)
    return monitored(toys.rows(n_train, n_visible), validation, 50)


def new_states(config: PretrainConfig = CONFIG) -> list[LayerState]:
    """Return all layers, untrained."""
    shapes = layer_shapes(config, N_VISIBLE)
    return [LayerState(config, shapes, index) for index in range(len(shapes))]


def async_plan(
    end: str = "all",
    extra: int = 2,
    streamed: bool = True,
    cut_short: bool = True,
    epochs: Sequence[int] = FOUR,
) -> AsyncPlan:
    """Return a plan whose layers above the first have extra epochs."""
    extra_epochs = [extra if i else 0 for i in range(len(epochs))]
    return AsyncPlan(epochs, extra_epochs, streamed, end, cut_short)


@dataclass(frozen=True)
class Kept:
    """A layer's checkpoint."""

    layer: int
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]
    snapshot: Snapshot

    @property
    def candidate(self) -> Candidate:
        """What it is called."""
        return self.snapshot.candidate


class Memory(Keeper):
    """Keeps copies, in the order of time, after so many epochs; 0: none on the way."""

    def __init__(
        self, every: int = 1, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.every, self.stop = every, stop
        self.kept: list[Kept] = []

    def due(self, epochs: int) -> bool:
        return 0 < self.every <= epochs

    def save(self, state: LayerState, snapshot: Snapshot) -> None:
        assert snapshot.candidate.epoch == state.epoch == len(snapshot.row)
        kept = Kept(state.index, state.arrays(), state.numbers(), snapshot)
        self.kept.append(kept)

    def stopping(self, epoch_seconds: float) -> bool:
        assert epoch_seconds >= 0
        return self.stop()


@dataclass(frozen=True)
class Stage:
    """Where a run is, or ended, by layers: the same on all ranks."""

    kept: list[Kept] = field(default_factory=list)
    # Those after the checkpoints included.
    records: list[list[EpochRecord]] = field(default_factory=lambda: [[]] * N_LAYERS)
    interrupted: bool = False  # a layer gave way
    digests: list[str] = field(default_factory=list)
    dropped: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """The table as it was carried out."""
        return tuple(tuple(r.used for r in layer) for layer in self.records)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs done by each layer."""
        return tuple(map(len, self.records))

    def schedule(self) -> Schedule:
        """Return the recorded table."""
        return Schedule("async", self.used, FOUR, tuple(self.dropped))

    def cut(self, plan: Plan) -> tuple[Candidate, ...]:
        """Return the newest checkpoints that go together."""
        return newest_cut(plan, candidates(self.kept))


def candidates(kept: Iterable[Kept]) -> list[list[Candidate]]:
    """Return the candidates of each layer."""
    kept = list(kept)
    return [[k.candidate for k in kept if k.layer == i] for i in range(N_LAYERS)]


def train(
    comm: Communicator,
    plan: Plan,
    keeper: Keeper | None = None,
    before: Stage | None = None,
    cut: Sequence[Candidate] = (),
    *,
    rows: Rows | None = None,
    config: PretrainConfig = CONFIG,
    prepare: Callable[[LayerState], object] = lambda state: None,
    limit: int = 10**9,
    layout: str = "auto",
    scratch: Scratch | None = None,
) -> Stage:
    """Train from the beginning or from a cut of what was before. Collective.

    ``prepare`` may change this rank's states before; the only rank is lost after so
    many epochs as ``limit`` says.
    """
    rows, before, keeper = rows or data(), before or Stage(), keeper or Memory(0)
    shapes = layer_shapes(config, rows.train.shape[1])
    if not cut:
        cut = before.cut(plan) if before.kept else (BEGINNING,) * len(shapes)
    found = {(k.layer, k.candidate): k for k in before.kept}
    starts = [found.get((i, mine)) for i, mine in enumerate(cut)]
    assert all(start or mine == BEGINNING for start, mine in zip(starts, cut))  # noqa: B905
    costs, most = [shape.cost for shape in shapes], [comm.size] * len(shapes)
    places = place_teams(costs, most, ["here"] * comm.size, layout)
    with team_up(comm, places, 0.0) as (team, own, heads):
        mine = [LayerState(config, shapes, index, team) for index in own]
        for state in mine:
            prepare(state)
            if start := starts[state.index]:
                state.restore(start.arrays, start.numbers)
        pipeline = Pipeline(
            mine,
            rows if comm.rank == 0 else None,
            tuple(map(len, rows.parts)),
            heads,
            plan,
            keeper,
            [start.snapshot if start else Snapshot(BEGINNING) for start in starts],
            outputs_again(plan, cut),
            scratch,
        )
        records = {i: before.records[i][: cut[i].epoch] for i in pipeline.states}
        for done, (_, record) in enumerate(pipeline.run(), start=1):
            records[record.layer].append(record)
            if done == limit:
                break
        comm.everywhere(pipeline.check)
        digests = {i: s.layer.parameters.digest() for i, s in pipeline.states.items()}
        dropped = {i: pipeline.dropped(i) for i in pipeline.states}

    def merged(mine: dict[int, Any]) -> list[Any]:
        together = {k: v for part in comm.allgather(mine) for k, v in part.items()}
        return [together[k] for k in sorted(together)]

    # What is newer than the cut may be another course of events.
    kept = [k for k in before.kept if k.candidate <= cut[k.layer]]
    for part in comm.allgather(getattr(keeper, "kept", [])):
        kept += part
    interrupted = any(comm.allgather(pipeline.interrupted))
    return Stage(kept, merged(records), interrupted, merged(digests), merged(dropped))


def interrupted(
    world: Communicator,
    plan: Plan,
    rank: int,
    epochs: int,
    before: Stage | None = None,
    every: int = 0,
    delay: float = 0.0,
    **options: Any,
) -> Stage:
    """Train until a rank asks to end after so many epochs of its own; all save."""
    notice, done = Notice(world), []

    def stop() -> bool:
        if world.rank == rank and len(done) >= epochs:
            notice.raise_it()
        return notice.is_raised()

    def count(*_: object) -> None:
        done.append(0)
        time.sleep(delay)

    keeper, prepare = Memory(every, stop), each_epoch(count)
    stage = train(world, plan, keeper, before, prepare=prepare, **options)
    notice.close()
    return stage


def hesitate(state: LayerState) -> None:
    """Let a layer sleep now and then between minibatches."""
    rng = np.random.default_rng(state.index)
    contrast = state.layer.contrast

    def slow(*arguments: Any) -> np.ndarray:
        if rng.random() < 0.5:
            time.sleep(0.02 * rng.random())
        return contrast(*arguments)

    state.layer.contrast = slow  # type: ignore[method-assign]


def alone(world: Communicator, plan: Plan, *before: Any, **options: Any) -> Stage:
    """Return what one rank alone does, on all ranks. Collective."""
    work = partial(train, SerialCommunicator(), plan, None, *before, **options)
    return world.on_root(work)


def each_epoch(
    do: Callable[[LayerState, np.ndarray], object],
) -> Callable[[LayerState], None]:
    """Return what lets something be done before each epoch of a layer, on its rows."""

    def prepare(state: LayerState) -> None:
        trained = state.train_epoch

        def train_epoch(rows: np.ndarray, *rest: Any) -> None:
            do(state, rows)
            trained(rows, *rest)

        state.train_epoch = train_epoch  # type: ignore[method-assign]

    return prepare


def lines(stage: Stage) -> list[list[tuple[Any, ...]]]:
    """Return what a run's records say apart from its seconds."""
    return [
        [(r.epoch, r.used, r.train_error, r.validation_error) for r in layer]
        for layer in stage.records
    ]


def assert_same(found: Stage, expected: Stage) -> None:
    """Demand the same weights to the bit, and the same records but for the seconds."""
    assert not found.interrupted
    assert found.digests == expected.digests
    assert lines(found) == lines(expected)


def assert_sensible(recorded: Stage, end: str) -> None:
    """Demand what holds of every asynchronous run."""
    table = recorded.schedule()
    table.check()
    assert table.epochs[0] == EPOCHS
    for layer, dropped in enumerate(recorded.dropped):
        assert not set(dropped) & table.needed(layer)
        assert dropped == tuple(sorted(set(dropped)))
    if end != "first-layer":
        assert min(table.epochs) >= EPOCHS
    if end == "all":
        assert not any(
            epochs in dropped
            for epochs, dropped in zip(table.epochs, recorded.dropped, strict=True)
        )
        for below, row in zip(table.epochs, table.used[1:], strict=False):
            assert row[-1] == below
