"""Whole runs of the sparse autoencoder: seconds for every number of rows and ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpilayer.bench.launches import launch
from mpilayer.bench.pairs import Comparison, Say, silent, take_turns
from mpilayer.bench.patches import check_rows, write_patches
from mpilayer.data.dataset import Dataset
from mpilayer.words import count

_WORTH_A_WORD = 1.005
"""Ratios below it are 1 when they are printed."""


@dataclass(frozen=True)
class Scaling:
    """Seconds of runs of every size on every number of ranks.

    Attributes
    ----------
    sizes, ranks : tuple of int
        Rows, and ranks in ascending order.
    comparison : Comparison
        By the names that ``label`` gives.
    evaluations : dict of str to int
        What each run really did: less than asked for where no step led down any more.
    """

    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    comparison: Comparison
    evaluations: dict[str, int]

    def seconds(self, size: int, ranks: int) -> float:
        """Return the median seconds of a run."""
        return self.comparison.median(label(size, ranks))

    def speed_up(self, size: int, ranks: int) -> float:
        """Return the speed against the smallest number of ranks, paired by rounds."""
        return self._speed(size, ranks, self.ranks[0])

    def faster_with_fewer(self) -> list[str]:
        """Return a line for each number of ranks that fewer ranks outrun."""
        lines = []
        for size in self.sizes:
            for number, ranks in enumerate(self.ranks):
                fewer = self.ranks[:number]
                # The inverse of the table's figure, also for an even number of rounds.
                ratios = {few: 1 / self._speed(size, ranks, few) for few in fewer}
                best = max(ratios, key=lambda few: ratios[few], default=ranks)
                if ratios.get(best, 1.0) >= _WORTH_A_WORD:
                    verb = "is" if best == 1 else "are"
                    lines.append(
                        f"{size:,} rows: {count(best, 'rank')} {verb} "
                        f"{ratios[best]:.2f} times faster than {ranks}"
                    )
        return lines

    def stopped_early(self, asked: int) -> list[str]:
        """Return a line for each run that did fewer evaluations than asked for."""
        return [
            f"{name}: {done} evaluations, no step lowered the cost any more"
            for name, done in self.evaluations.items()
            if done < asked
        ]

    def _speed(self, size: int, ranks: int, base: int) -> float:
        return self.comparison.ratio(label(size, base), label(size, ranks))


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
    say: Say = silent,
) -> Scaling:
    """Time ``mpilayer sparse``: seconds as each run measures them, start-up left out.

    Every size on every number of ranks, one thread a rank, the ranks of a size next to
    one another in time.

    Parameters
    ----------
    data : Path or None
        A data set; None for random rows.
    sizes, ranks : sequence of int
        Rows of all ranks together, and ranks.
    options : sequence of str
        Of ``mpilayer sparse``, for all runs.
    rounds : int
        All count: every run has a process of its own.
    folder : Path
        Where rows and runs may be put; runs replace one another.
    say : callable
        Receives a line a round.

    Raises
    ------
    ConfigError
        The data have fewer rows than the largest size.
    """
    sizes, ranks = sorted(set(sizes)), sorted(set(ranks))
    if data is not None:
        with Dataset.open(data) as dataset:
            check_rows(data, sizes[-1], dataset.n_samples("train"))
    evaluations: dict[str, int] = {}
    candidates = {}
    for size in sizes:
        path = write_patches(data, size, folder)
        for number in ranks:
            candidates[label(size, number)] = _timed(
                path, number, options, evaluations, label(size, number)
            )
    comparison = take_turns(candidates, rounds, warm_up=0, say=say)
    return Scaling(tuple(sizes), tuple(ranks), comparison, evaluations)


def _timed(
    data: Path,
    ranks: int,
    options: Sequence[str],
    evaluations: dict[str, int],
    name: str,
) -> Callable[[], float]:
    run = data.with_name("run")
    arguments = ["sparse", str(data), "--run", str(run), "--replace", "--threads", "1"]

    def timed() -> float:
        summary = launch(run, ranks, [*arguments, *options])
        evaluations[name] = int(summary["evaluations"])
        return float(summary["seconds"])

    return timed
