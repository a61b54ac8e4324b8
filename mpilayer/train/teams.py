"""Teams for the layers of a stack: which they are, and how the ranks form them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mpilayer.config import PretrainConfig
from mpilayer.far import Scratch
from mpilayer.parallel.comm import Communicator, owned
from mpilayer.parallel.team import Team
from mpilayer.placement import Place, check_useful, place_teams
from mpilayer.train.layer import layer_shapes, most_slices
from mpilayer.train.layers import bytes_of_rows, held_of_rows
from mpilayer.train.pools import Need, check_held
from mpilayer.train.schedule import Schedule


def places_for(
    config: PretrainConfig,
    hosts: Sequence[str],
    n_visible: int = 1,
    table: Schedule | None = None,
    idle: bool = False,
) -> list[Place]:
    """Return which of the ranks, of which the hosts are given, have which layers.

    Epochs are those of the ``table``, or what is stipulated; ``idle`` ranks, without a
    slice, may be allowed. See ``place_teams`` and ``check_useful`` for errors.
    """
    shapes = layer_shapes(config, n_visible)
    counts = table.epochs if table else config.stipulated_epochs
    costs = [shape.cost * n for shape, n in zip(shapes, counts, strict=True)]
    most = _most_slices(config)
    if not idle:
        check_useful(most, len(hosts))
    return place_teams(costs, most, hosts, config.layout)


def useful_ranks(config: PretrainConfig) -> int:
    """Return how many ranks can have a slice; 0 if a layout says how many there are."""
    return sum(_most_slices(config)) if config.layout == "auto" else 0


def _most_slices(config: PretrainConfig) -> list[int]:
    """Return into how many slices each layer is cut, or can be."""
    return [
        given or most_slices(units)
        for given, units in zip(config.slices_of_layers, config.layers, strict=True)
    ]


def with_slices(config: PretrainConfig, places: Sequence[Place]) -> PretrainConfig:
    """Return the settings with the slices that are left to the ranks filled in."""
    ranks = [len(place.ranks) for place in places for _ in place.layers]
    slices = [
        given or min(own, most_slices(units))
        for given, own, units in zip(
            config.slices_of_layers, ranks, config.layers, strict=True
        )
    ]
    return replace(config, slices=tuple(slices))


def with_memory(
    config: PretrainConfig,
    places: Sequence[Place],
    hosts: Sequence[str],
    n_visible: int,
    n_rows: int,
    row_bytes: int,
) -> PretrainConfig:
    """Return the settings with the memory for rows filled in.

    ``hosts`` are those of each rank; a training row has ``row_bytes``. See ``Need`` and
    ``check_held`` for errors.
    """
    shapes = layer_shapes(config, n_visible)
    costs = [sum(shapes[i].cost for i in place.layers) for place in places]
    rows = [bytes_of_rows(config, p.layers, n_rows, row_bytes)[0] for p in places]
    # With velocities, and a slice's copies of both.
    need = Need(max(rows), 4 * 4 * max(costs), hosts.count(hosts[0]))
    config = replace(config, memory=need.settle(config.memory))
    if held := held_of_rows(config, n_rows, row_bytes):
        for index, shape in enumerate(shapes):
            own = 4 * shape.n_visible if index else row_bytes
            what = f"the rows and outputs of layer {index + 1}"
            check_held(held, config.minibatch, what, own, shape.n_hidden)
        need.check(held)
    return config


def with_slices_of(config: PretrainConfig, run: PretrainConfig) -> PretrainConfig:
    """Return the settings with the slices that are left open filled in from a run's."""
    if len(config.layers) != len(run.layers):
        return config
    pairs = zip(config.slices_of_layers, run.slices_of_layers, strict=True)
    return replace(config, slices=tuple(given or own for given, own in pairs))


def of_one_slice(run: PretrainConfig) -> PretrainConfig:
    """Return a run's settings; those from before there were slices have said none."""
    return replace(run, slices=tuple(own or 1 for own in run.slices_of_layers))


@contextmanager
def folder_of(scratch: Scratch | None, comm: Communicator) -> Iterator[Scratch | None]:
    """Give what lies in a folder, empty at first, that goes with the block. Collective.

    None, and no folder, where all rows stay in memory.
    """
    if scratch is None:
        yield None
        return
    comm.on_root(scratch.make)
    try:
        yield scratch
    finally:
        if comm.rank == 0:
            scratch.clear()


@contextmanager
def team_up(
    comm: Communicator, places: Sequence[Place], eager: float
) -> Iterator[tuple[Team, range, Communicator]]:
    """Give this rank's team, its layers, and the heads of all teams. Collective.

    The heads are in the order of their layers; what followers get there is of no use.
    """
    mine = next(i for i, place in enumerate(places) if comm.rank in place.ranks)
    with (
        owned(comm.split(mine)) as part,
        Team(part, eager, places[mine].ranks) as team,
        owned(comm.split(0 if team.is_head else 1, mine)) as heads,
    ):
        yield team, places[mine].layers, heads
