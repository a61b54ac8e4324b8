"""What a team of ranks gains in contrastive divergence: measured here, and simulated.

    mpiexec -n 2 python -m benchmarks.teams [--rounds 9]
    python -m benchmarks.teams --simulate
    python -m benchmarks.teams --far mnist.h5 --memory 64M

The first compares an epoch of one layer on one rank with that of all ranks, in turn.
The second asks how many more ranks than cores would help: a rank's own work in a team
of any size is measured by doing it alone, as ``mpilayer plan`` does, barriers cost what
they did here, teams are placed as ``pretrain`` places them. It is simulated: cores that
share memory are not modelled. The third compares an epoch on rows in memory, which
passes on what it computes, with one on rows that stay in the data set: 784 x 1000, and
outputs in a file.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
from threadpoolctl import threadpool_limits

from mpilayer.arrays import Array32
from mpilayer.bench.pairs import take_turns
from mpilayer.config import PretrainConfig
from mpilayer.data.dataset import Dataset
from mpilayer.data.far import DataRows
from mpilayer.far import Scratch
from mpilayer.memory import size_of
from mpilayer.models.base import LayerShape
from mpilayer.parallel.start import start
from mpilayer.parallel.team import ALONE, Team
from mpilayer.placement import place_teams
from mpilayer.plan.layers import layer_work
from mpilayer.rng import stream
from mpilayer.train.layer import LayerState, most_slices
from mpilayer.train.pools import Pool

LAYERS = ((784, 1000), (1000, 500), (500, 250))
STACKS = {
    "784-1000-500-250-30": (784, 1000, 500, 250, 30),
    "784-4000-4000-4000-4000": (784, 4000, 4000, 4000, 4000),
}
RANKS = (2, 4, 8, 16, 64)
_STEPS = 60
# Seconds of one barrier of two ranks on one host, by --measure; of more, its logarithm
# times as many.
_BARRIER = 15e-6


def data(team: Team, n_visible: int) -> Array32:
    """Return rows that the whole team sees."""
    rows = team.array((100 * _STEPS, n_visible))
    if team.is_head:
        rows[:] = stream(0, "bench", 0).random(rows.shape, dtype="f4")
    team.barrier()
    return rows


def layer(team: Team, shape: tuple[int, int], n_slices: int) -> LayerState:
    """Return an untrained layer."""
    config = PretrainConfig(layers=shape[1:], slices=(n_slices,))
    return LayerState(config, [LayerShape(*shape)], 0, team)


def step_seconds(state: LayerState, rows: Array32) -> float:
    """Return the seconds of a step."""
    began = perf_counter()
    state.train_epoch(rows)
    return (perf_counter() - began) / _STEPS


def compare(rounds: int) -> None:
    """Print, for each layer, how much faster all ranks are than one. Collective."""
    world = start()
    with Team(world, 0.02) as team:
        for shape in LAYERS:
            rows = data(team, shape[0])
            together = layer(team, shape, team.size)
            alone = {n: layer(ALONE, shape, n) for n in (1, team.size)}
            seconds: dict[str, list[float]] = {}
            for turn in range(rounds + 1):
                taken = {}
                if team.is_head:
                    for n, state in alone.items():
                        taken[f"1 rank, {n} slices"] = step_seconds(state, rows)
                world.barrier()
                team.waited = 0.0
                taken["team"] = step_seconds(together, rows)
                taken["at barriers"] = team.waited / _STEPS
                for name, value in taken.items():
                    seconds.setdefault(name, []).extend([value] if turn else [])
            if team.is_head:
                show(shape, team.size, seconds)


def show(shape: tuple[int, int], n_ranks: int, seconds: dict[str, list[float]]) -> None:
    """Print the ratios of one layer."""
    for base in [name for name in seconds if name.startswith("1 rank")]:
        pairs = zip(seconds[base], seconds["team"], strict=True)
        ratios = sorted(one / team for one, team in pairs)
        waits = zip(seconds["at barriers"], seconds["team"], strict=True)
        print(
            f"{shape[0]} x {shape[1]}, {n_ranks} ranks over {base}: "
            f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
            f"{1e3 * median(seconds['team']):.2f} ms a step, "
            f"{100 * median(w / t for w, t in waits):.1f} % at barriers"
        )
    sys.stdout.flush()


def own_work(shape: tuple[int, int], size: int) -> float:
    """Return the seconds that a step takes each rank of a team, without waiting."""
    rows = data(ALONE, shape[0])
    _, timed = layer_work(PretrainConfig(), LayerShape(*shape), 0, size, rows)
    timed(_STEPS)
    return min(timed(_STEPS) for _ in range(5)) / _STEPS


def simulate(stacks: Sequence[str]) -> None:
    """Print the speed of numbers of ranks on one host, against one."""
    for name in stacks:
        shapes = list(pairwise(STACKS[name]))
        alone = [own_work(shape, 1) for shape in shapes]
        most = [most_slices(n_hidden) for _, n_hidden in shapes]
        print(f"{name}, simulated; one rank: {1e3 * sum(alone):.1f} ms for all layers")
        for n_ranks in RANKS:
            if n_ranks > sum(most):
                continue
            places = place_teams(alone, most, ["one host"] * n_ranks)
            slowest = 0.0
            for place in places:
                size = len(place.ranks)
                barriers = 2 * _BARRIER * (size - 1).bit_length()
                work = [own_work(shapes[i], size) + barriers for i in place.layers]
                slowest = max(slowest, sum(work))
            speed = sum(alone) / slowest
            teams = ", ".join(f"{len(p.ranks)} on {len(p.layers)}" for p in places)
            print(
                f"  {n_ranks:3} ranks: {speed:5.2f} x, efficiency "
                f"{speed / n_ranks:.2f} (ranks on layers: {teams})"
            )


def compare_far(path: Path, held: int, rounds: int) -> None:
    """Print how much longer an epoch takes with rows, and outputs, in files."""
    far = DataRows(path, "train")
    with Dataset.open(path) as dataset, TemporaryDirectory() as folder:
        rows = dataset.compact_rows("train")
        scratch = Scratch(Path(folder) / "scratch", held)
        scratch.make()
        shape = far.shape[1], LAYERS[0][1]
        written = scratch.rows(0, "out-0", (len(far), shape[1]))
        passed, pool = np.empty(written.shape, np.float32), Pool(ALONE, held)
        states = [layer(ALONE, shape, 1) for _ in range(2)]
        candidates = {
            "memory": lambda: states[0].train_epoch(rows, passed),
            "files": lambda: states[1].train_epoch(far, written, pool=pool),
        }
        for clock in (perf_counter, process_time):
            found = take_turns(
                {name: timed(work, clock) for name, work in candidates.items()}, rounds
            )
            ratios = sorted(found.ratios("files", "memory"))
            print(
                f"files over memory, {clock.__name__}: {median(ratios):.3f} "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f}), epochs of "
                f"{found.median('memory'):.3g} and {found.median('files'):.3g} s"
            )


def timed(
    work: Callable[[], object], clock: Callable[[], float]
) -> Callable[[], float]:
    """Return a function that does the work and returns the seconds of a clock."""

    def seconds() -> float:
        began = clock()
        work()
        return clock() - began

    return seconds


def main() -> None:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--far", type=Path, metavar="DATA.h5")
    parser.add_argument("--memory", type=size_of, default="64M")
    args = parser.parse_args()
    with threadpool_limits(1):
        if args.far is not None:
            compare_far(args.far, args.memory, args.rounds)
        else:
            simulate(list(STACKS)) if args.simulate else compare(args.rounds)


if __name__ == "__main__":
    main()
