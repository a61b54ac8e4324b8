"""What ranks that share units gain in fine-tuning: measured together, and alone.

    mpiexec -n 2 python -m benchmarks.units [--optimizer adam] [--minibatch 100]
    python -m benchmarks.units --alone 2

The first compares epochs on rank 0 alone with those on all ranks, by units and by rows,
in turn. The second counts the processor's seconds of each rank's own work in a team of
that size, made by itself: what a busy machine can tell; waiting and memory that cores
share are not in it.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from time import process_time
from unittest import mock

import numpy as np

from mpilayer.bench.pairs import Comparison
from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.initial import random_weights
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.parallel.start import place, start
from mpilayer.parallel.team import Team
from mpilayer.rng import stream
from mpilayer.train import finetune as training
from mpilayer.train.groups import RowGroups
from mpilayer.train.strata import Strata

SIZES = (784, 1000, 500, 250, 30)
_STEPS = 10


class Ghost(Team):
    """One rank of a team whose others are not there."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(SerialCommunicator())
        self.rank, self.size = rank, size

    def wait(self, barrier: object) -> None:
        """Wait for nobody."""


class Ghosts(RowGroups):
    """A team, of which this rank alone is there."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(SerialCommunicator())
        self.team = Ghost(rank, size)

    def of_team(self, minibatch: int) -> slice:
        """Return all rows."""
        return slice(0, minibatch)

    def strata(self, n_rows: int, minibatch: int) -> Strata:
        """Return the rank's part."""
        return Strata.of_rank(n_rows, minibatch, self.team.rank, self.team.size)


def epochs(
    groups: RowGroups, n_slices: int, options: argparse.Namespace
) -> Iterator[training.FinetuneRecord]:
    """Return fine-tuning that has no end."""
    stack = DeepAutoencoder([LayerShape(*pair) for pair in pairwise(SIZES)])
    random_weights(stack, 0)
    batch = options.minibatch
    settings = {"optimizer": options.optimizer, "minibatch": batch}
    config = FinetuneConfig(
        slices=n_slices, epochs=10**9, learning_rate=1e-6, **settings
    )
    rows = stream(0, "bench", 0).random((_STEPS * batch, SIZES[0]), dtype="f4")
    state = training.FinetuneState(stack, config, groups.team)
    strata = groups.strata(len(rows), batch)
    mine = rows[slice(*strata.rows)]
    return training.finetune(state, strata, mine, rows[:0], groups)


def together(
    world: Communicator, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return seconds of a step and, of all ranks, of waiting in it. Collective."""
    alone, host = RowGroups(SerialCommunicator()), ["here"] * world.size
    candidates = {
        "1 rank, 1 slice": (alone, 1),
        "1 rank, 4 slices": (alone, 4),
        "all ranks, units": (RowGroups(world, host), 4),
        "all ranks, rows": (RowGroups(world), 1),
    }
    courses = {name: epochs(*how, options) for name, how in candidates.items()}
    seconds: dict[str, list[float]] = {}
    for turn in range(options.rounds + 1):
        for name, course in courses.items():
            world.barrier()
            if world.rank > 0 and name.startswith("1 rank"):
                continue
            found = next(course)
            if turn:
                spent = (found.training + found.allreduce) / _STEPS
                seconds.setdefault(name, []).append(spent)
                waited = seconds.setdefault(f"{name}, waiting", [])
                waited.append(found.allreduce / _STEPS)
    return seconds


def by_itself(size: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the processor's seconds of a step of each rank of a team."""
    alone = {
        f"1 rank, {n} slices": (RowGroups(SerialCommunicator()), n) for n in (1, 4)
    }
    ghosts = {f"rank {r} of {size}": (Ghosts(r, size), 4) for r in range(size)}
    courses = {name: epochs(*how, options) for name, how in {**alone, **ghosts}.items()}
    spent: list[float] = []

    def timed(*arguments: object, original: object = training._epoch) -> None:
        began = process_time()
        original(*arguments)  # type: ignore[operator]
        spent.append((process_time() - began) / _STEPS)

    # What the others should have computed is not there.
    whole = mock.patch.object(training.FinetuneState, "check_finite")
    with mock.patch.object(training, "_epoch", timed), whole, np.errstate(all="ignore"):
        for _ in range(options.rounds + 1):
            for course in courses.values():
                next(course)
    taken = spent[len(courses) :]
    return {name: taken[i :: len(courses)] for i, name in enumerate(courses)}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--minibatch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", type=int, default=0, metavar="RANKS")
    options, world = parser.parse_args(), start()
    place(world, 1)
    if options.alone:
        seconds = by_itself(options.alone, options)
    else:
        seconds = together(world, options)
    if world.rank:
        return
    found, base = Comparison(seconds), next(iter(seconds))
    for name in seconds:
        ratio = (
            "" if "waiting" in name else f"  speed {1 / found.ratio(name, base):.2f}"
        )
        print(f"{name:26s} {1e3 * found.median(name):7.2f} ms a step{ratio}")


if __name__ == "__main__":
    main()
