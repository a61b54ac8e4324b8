"""Whole runs of the sparse autoencoder: seconds for every number of rows and ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from mpilayer.bench.launches import launch
from mpilayer.bench.pairs import Comparison, take_turns
from mpilayer.bench.rows import check_rows, write_patches
from mpilayer.words import count

# Ratios below it are 1 when they are printed.
_WORTH_A_WORD = 1.005


@dataclass(frozen=True)
class Scaling:
    """Seconds of runs of every size on every number of ranks."""

    sizes: tuple[int, ...]  # rows
    ranks: tuple[int, ...]  # ascending
    comparison: Comparison  # by the names that label() gives
    # What each run really did: less than asked for where no step led down any more.
    evaluations: dict[str, int]

    def seconds(self, size: int, ranks: int) -> float:
        """Return the median seconds of a run."""
        return self.comparison.median(label(size, ranks))

    def speed_up(self, size: int, ranks: int, base: int = 0) -> float:
        """Return the speed, paired by rounds, against ``base`` ranks; 0: the fewest."""
        base = base or self.ranks[0]
        return self.comparison.ratio(label(size, base), label(size, ranks))

    def faster_with_fewer(self) -> list[str]:
        """Return a line for each number of ranks that fewer ranks outrun."""
        lines = []
        for size, ranks in product(self.sizes, self.ranks[1:]):
            speed_up = partial(self.speed_up, size, ranks)
            best = min([n for n in self.ranks if n < ranks], key=speed_up)
            # The inverse of the table's figure, also for an even number of rounds.
            ratio = 1 / speed_up(best)
            if ratio >= _WORTH_A_WORD:
                who = f"{count(best, 'rank')} {'is' if best == 1 else 'are'}"
                than = f"{ratio:.2f} times faster than {ranks}"
                lines.append(f"{size:,} rows: {who} {than}")
        return lines

    def stopped_early(self, asked: int) -> list[str]:
        """Return a line for each run that did fewer evaluations than asked for."""
        return [
            f"{name}: {done} evaluations, no step lowered the cost any more"
            for name, done in self.evaluations.items()
            if done < asked
        ]


def label(size: int, ranks: int) -> str:
    """Return the name of a run in a comparison."""
    return f"{size:,} rows, {count(ranks, 'rank')}"


def compare_scaling(
    data: Path | None,
    sizes: Sequence[int],
    ranks: Sequence[int],
    options: Sequence[str],
    rounds: int,
    folder: Path,
    say: Callable[[str], object],
) -> Scaling:
    """Time ``mpilayer sparse``: seconds as each run measures them, start-up left out.

    Every size (rows of all ranks) on every number of ranks of one thread, those of a
    size next to one another in time. All rounds count: every run has a process of its
    own. ``data`` None: random rows. ConfigError: the data have fewer than asked for.
    """
    sizes, ranks = sorted(set(sizes)), sorted(set(ranks))
    if data is not None:
        check_rows(data, sizes[-1])
    run, evaluations = folder / "run", dict[str, int]()
    paths = {size: write_patches(data, size, folder) for size in sizes}

    def timed(size: int, number: int) -> float:
        where = [str(paths[size]), "--run", str(run), "--replace"]
        line = ["sparse", *where, "--threads", "1", *options]
        summary = launch(run, number, line)
        evaluations[label(size, number)] = int(summary["evaluations"])
        return float(summary["seconds"])

    pairs = product(sizes, ranks)
    candidates = {label(*pair): partial(timed, *pair) for pair in pairs}
    comparison = take_turns(candidates, rounds, warm_up=0, say=say)
    return Scaling(tuple(sizes), tuple(ranks), comparison, evaluations)
