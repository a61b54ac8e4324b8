"""Row groups: ranks in teams, each of which has its rows of every minibatch.

And what ranks share, units or rows: decided by settings alone, never by the ranks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from mpilayer.config import FinetuneConfig
from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.parallel.comm import Communicator, SerialCommunicator, is_shared
from mpilayer.parallel.team import Team
from mpilayer.partition import shard_bounds
from mpilayer.train.layer import TILE, most_slices
from mpilayer.train.pools import (
    Need,
    check_held,
    held_bytes,
    memory_of,
    pool_rows,
    with_memory_of,
)
from mpilayer.train.strata import Strata
from mpilayer.train.sums import EAGER_SECONDS
from mpilayer.words import count

ROWS_FROM = 1000
"""Rows of a minibatch from which ranks share rows: the gradient, which they add up
then, weighs less than the products. Measured, see docs/results.md."""

# Products of fewer are slow: a rank more would not be worth its sums.
_ROWS_OF_A_RANK = 100

USUAL_SLICES = 4
"""On one rank they cost less than what a machine's speed varies by."""


def most_slices_of(shapes: Sequence[LayerShape], task: str) -> int:
    """Return into how many slices units can be cut: so many ranks of a host are of use.

    Of the steps of a stack of these layers every other one is cut, see ``slices``.
    """
    widths = [shape.n_hidden for shape in shapes]
    if task == "autoencode":
        widths += [shape.n_visible for shape in reversed(shapes)]
    else:
        widths += [1]
    return max(map(most_slices, widths[: len(widths) - 1 : 2]), default=1)


def resolved(
    config: FinetuneConfig, shapes: Sequence[LayerShape], hosts: Sequence[str] = ()
) -> FinetuneConfig:
    """Return the settings with what is chosen for a stack of these layers filled in.

    The slices are ``USUAL_SLICES``, so that few ranks do not change them; more, if one
    of the ``hosts``, of each rank, has more ranks.

    Raises
    ------
    ConfigError
        There are slices where there can be none, or too many of them.
    """
    most, given = most_slices_of(shapes, config.task), config.slices
    ways, large = {"auto": "units"}, config.minibatch >= ROWS_FROM
    if large and given < 2:
        ways = {"auto": "rows"}
    way = ways.get(config.parallel, config.parallel)
    if way == "rows":
        if given > 1:
            raise ConfigError(
                f"--slices is for --parallel units; got {given} and --parallel rows. "
                "Leave one of them out."
            )
        return replace(config, parallel=way, slices=1)
    if given > most:
        raise ConfigError(
            f"a slice must have at least {TILE} units; got --slices {given}, and the "
            f"layers that are cut have units for {most}. Give at most {most}."
        )
    usual = max([USUAL_SLICES, *Counter(hosts).values()])
    return replace(config, parallel=way, slices=given or min(usual, most))


def of_one_slice(run: FinetuneConfig) -> FinetuneConfig:
    """Return a run's settings; of those from before slices the ranks had rows."""
    run = memory_of(run)
    return run if run.slices else replace(run, slices=1, parallel="rows")


def with_choices_of(config: FinetuneConfig, run: FinetuneConfig) -> FinetuneConfig:
    """Return the settings with what is left open filled in from a run's."""
    config = with_memory_of(config, run)
    parallel = run.parallel if config.parallel == "auto" else config.parallel
    return replace(config, slices=config.slices or run.slices, parallel=parallel)


def with_memory(
    config: FinetuneConfig,
    shapes: Sequence[LayerShape],
    hosts: Sequence[str],
    n_bytes: int,
    row_bytes: int,
) -> FinetuneConfig:
    """Return the settings with the memory for rows filled in.

    All ranks together, on these ``hosts``, have rows of ``n_bytes``; a training row has
    ``row_bytes``. See ``Need`` and ``check_held`` for errors.
    """
    ranks = len(hosts)
    # Of the optimizer, the best ones, and a slice's copies.
    weights = 8 * 4 * 2 * sum(shape.cost for shape in shapes)
    need = Need(-(-n_bytes // ranks), weights, hosts.count(hosts[0]))
    config = replace(config, memory=need.settle(config.memory))
    if held := held_bytes(config, n_bytes):
        check_held(held, config.minibatch, "the rows", row_bytes)
        need.check(-(-held // ranks))
    return config


def rows_at_a_time(config: FinetuneConfig, n_bytes: int, row_bytes: int) -> int:
    """Return how many rows of a stratum are met together; 0 if all are in memory."""
    held = held_bytes(config, n_bytes)
    return pool_rows(held, row_bytes) // config.minibatch


def check_ranks(
    config: FinetuneConfig, shapes: Sequence[LayerShape], hosts: Sequence[str]
) -> None:
    """Check that no rank has nothing to do because there are too few slices.

    A stack of small layers may have ranks that are idle; see ``idle_ranks``.

    Raises
    ------
    ConfigError
        There are more ranks on one of the ``hosts``, of each rank, than slices; or
        the hosts share units, and have different numbers of ranks.
    """
    if config.parallel == "units":
        _check_equal(hosts)
    most = most_slices_of(shapes, config.task)
    name, ranks = Counter(hosts).most_common(1)[0]
    if config.parallel == "units" and most > 1 and ranks > config.slices:
        raise ConfigError(
            "there must not be more ranks on a host than slices of units; got "
            f"{ranks} ranks on {name} and {count(config.slices, 'slice')}. Start at "
            f"most {config.slices} a host. A training that begins may have up to "
            f"{most} --slices, or --parallel rows."
        )


def _check_equal(names: Sequence[object]) -> None:
    """Check that all teams, of which each rank names its own, are of one size."""
    sizes = Counter(names)
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{n} on {name}" for name, n in sizes.items())
        raise ConfigError(
            "to share the units of a stack, every host must have the same number of "
            f"ranks; found {found}. Start {min(sizes.values())} on each, or share rows "
            "with --parallel rows."
        )


def how_ranks_share(config: FinetuneConfig) -> str:
    """Return what ranks share, and why, for the start of a log."""
    rows = f"minibatches of {config.minibatch} rows"
    if config.parallel == "rows":
        return f"{rows}, shared by the ranks: weights agree to rounding for any number"
    return (
        f"{rows}, units in {count(config.slices, 'slice')}: the same weights for any "
        "number of ranks of a host"
    )


def useful_ranks(config: FinetuneConfig, n_hosts: int) -> int:
    """Return how many ranks have work that is worth what they exchange."""
    if config.parallel == "rows":
        return config.minibatch // _ROWS_OF_A_RANK
    return config.slices * n_hosts


def idle_ranks(config: FinetuneConfig, hosts: Sequence[str]) -> str:
    """Return a warning that ranks of a host have nothing to share, or an empty text."""
    n_ranks, crowd = len(hosts), max(Counter(hosts).values())
    if crowd == 1 or config.slices > 1 or config.parallel == "rows":
        return ""
    return (
        f"{n_ranks} ranks, and only one on each host has work: layers of fewer than "
        f"{2 * TILE} units are not cut into slices. Start 1 a host, or train with "
        "--parallel rows"
    )


class RowGroups:
    """All ranks, in teams of one size. Collective to make and, as a context, to leave.

    A team cuts its rows' work by slices of units; ranks of the same place in their
    teams have the same slices, and add up what they find for them.

    Parameters
    ----------
    comm, eager
        As ``Team`` takes them: all ranks.
    teams : sequence
        Of each rank, what all ranks of its team share: by default each is one.

    Attributes
    ----------
    team, peers : Team, Communicator
        Those that share this rank's rows; those that share its slices.
    numbers : list of int
        Of each rank, if all are counted team by team.

    Raises
    ------
    ConfigError
        On all ranks: teams of different sizes.
    """

    def __init__(
        self,
        comm: Communicator,
        teams: Sequence[object] = (),
        eager: float = EAGER_SECONDS,
    ) -> None:
        self.comm, self.eager = comm, eager
        names = list(teams or range(comm.size))
        sizes = Counter(names)
        try:
            _check_equal(names)
        except ConfigError as error:
            raise error.of_all_ranks() from None
        order = {name: number for number, name in enumerate(sizes)}
        size, number = sizes[names[0]], order[names[comm.rank]]
        place = names[: comm.rank].count(names[comm.rank])
        teams_in_turn = sorted(range(comm.size), key=lambda rank: order[names[rank]])
        self.numbers = [teams_in_turn.index(rank) for rank in range(comm.size)]
        alone = SerialCommunicator()
        together, apart = size == comm.size, size == 1
        own = comm if together else alone if apart else comm.split(number)
        self.team = Team(own, eager)
        self.peers = comm if apart else alone if together else comm.split(place)
        self._split = [] if together or apart else [own, self.peers]
        self._first = number * size

    def strata(self, n_rows: int, minibatch: int) -> Strata:
        """Return this rank's part of every minibatch of so many training rows."""
        number = self.numbers[self.comm.rank]
        return Strata.of_rank(n_rows, minibatch, number, self.comm.size)

    def of_team(self, minibatch: int) -> slice:
        """Return which rows of a minibatch are the team's."""
        bounds = shard_bounds(minibatch, self.comm.size)
        last = self._first + self.team.size - 1
        return slice(bounds[self._first][0], bounds[last][1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.team.__exit__(kind, error, trace)
        if error is None or is_shared(error):
            for comm in self._split:
                comm.free()
