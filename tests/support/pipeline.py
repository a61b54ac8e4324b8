"""Four small layers under any plan, on any communicator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpilayer.config import PretrainConfig
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import layers_to_ranks
from mpilayer.train.layer import LayerState, layer_shapes, monitored
from mpilayer.train.plans import AsyncPlan, Plan
from mpilayer.train.pretrain import Keeper, Pipeline
from mpilayer.train.record import EpochRecord
from mpilayer.train.schedule import Schedule, greedy, lockstep, simulate
from tests.support import toys

N_VISIBLE = 12
EPOCHS = 4
CONFIG = PretrainConfig(layers=(9, 8, 6, 4), epochs=(EPOCHS,), minibatch=20)


FOUR = (EPOCHS,) * 4
TABLES = {
    "lockstep": lockstep(FOUR, (0, 1, 2, 3)),
    "lag 2": lockstep(FOUR, (0, 0, 0, 0), 2),
    "refresh": lockstep(FOUR, (1, 0, 0, 2), (1, 0, 2), 2),
    "greedy": greedy(FOUR, (0, 1, 0, 1)),
    "simulate": simulate(FOUR, (0, 2, 3, 4), (108, 72, 48, 24), 4, "first-layer"),
    "gaps": Schedule("async", ((0,) * 5, (1, 3, 3), (1, 2), (1, 1, 2)), (4, 3, 2, 2)),
}


def data(n_train: int = 90, n_validation: int = 30) -> Rows:
    """Return small data, training rows no whole number of minibatches."""
    validation = toys.rows(n_validation, N_VISIBLE, 1)
    return monitored(toys.rows(n_train, N_VISIBLE), validation, 50)


def new_states(config: PretrainConfig = CONFIG) -> list[LayerState]:
    """Return all layers, untrained."""
    shapes = layer_shapes(config, N_VISIBLE)
    return [LayerState(config, shapes, index) for index in range(len(shapes))]


def async_plan(
    end: str = "all",
    extra: int = 2,
    streamed: bool = True,
    cut_short: bool = True,
    epochs: Sequence[int] = (EPOCHS,) * 4,
) -> AsyncPlan:
    """Return a plan whose layers above the first have extra epochs."""
    extra_epochs = [extra if i else 0 for i in range(len(epochs))]
    return AsyncPlan(epochs, extra_epochs, streamed, end, cut_short)


@dataclass(frozen=True)
class Outcome:
    """What all layers of all ranks did."""

    digests: tuple[str, ...]
    records: tuple[tuple[EpochRecord, ...], ...]
    dropped: tuple[tuple[int, ...], ...]

    @property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """The table."""
        return tuple(tuple(r.used for r in layer) for layer in self.records)

    def schedule(self) -> Schedule:
        """Return the recorded table."""
        return Schedule("async", self.used, (EPOCHS,) * 4, self.dropped)


def pretrain(
    comm: Communicator,
    plan: Plan,
    rows: Rows,
    config: PretrainConfig = CONFIG,
    prepare: Callable[[LayerState], object] = lambda state: None,
    keeper: Keeper | None = None,
) -> Outcome:
    """Train from the start. Collective on ``comm``.

    ``prepare`` may change this rank's states before.
    """
    states = new_states(config)
    costs = [state.layer.shape.cost for state in states]
    mine = [states[i] for i in layers_to_ranks(costs, comm.size)[comm.rank]]
    for state in mine:
        prepare(state)
    data = rows if comm.rank == 0 else None
    n_rows = tuple(map(len, rows.parts))
    pipeline = Pipeline(mine, data, n_rows, comm, plan, keeper)
    records: dict[int, list[EpochRecord]] = {state.index: [] for state in mine}
    for state, record in pipeline.run():
        records[state.index].append(record)
    comm.everywhere(pipeline.check)
    found = [
        (
            index,
            pipeline.states[index].layer.parameters.digest(),
            tuple(layer),
            pipeline.dropped(index),
        )
        for index, layer in records.items()
    ]
    together = sorted(item for part in comm.allgather(found) for item in part)
    _, digests, all_records, dropped = zip(*together, strict=True)
    return Outcome(digests, all_records, dropped)
