"""Seconds of small pieces of a training, measured here.

Each piece is the code that trains, on some rows of the data set, as the first of so
many ranks (:class:`~mpilayer.plan.ghost.Ghost`) does it.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import Array32, StoredRows
from mpilayer.data.dataset import Dataset
from mpilayer.plan.ghost import Company, Work
from mpilayer.plan.measured import Curve
from mpilayer.rng import stream

Rows = Array32 | StoredRows
Timed = Callable[[int], float]
"""Does so many steps, and returns the seconds."""

ROUNDS = 5
BUDGET = 4.0
"""Seconds for all pieces, about."""
STILL = 1e-7
"""A learning rate with which nothing diverges."""

MOST_BYTES = 1 << 26
"""Of rows that are looked at."""

_MINIBATCHES = 40
_BYTES = 1 << 24  # copied and written


class Pieces:
    """Collects seconds, their spread, and what company costs."""

    def __init__(self, company: int) -> None:
        self.numbers: dict[str, float] = {}
        self.curves: dict[str, Curve] = {}
        self.crowding, self._company = 1.0, company
        self._spreads = [0.01]

    @property
    def spread(self) -> float:
        """Relative deviation between rounds, of the piece in the middle."""
        return median(self._spreads)

    def line(self, timed: Timed, most: int, budget: float) -> tuple[float, float]:
        """Return the seconds that do not depend on steps, and those of a step."""
        few = min(2, most)
        timed(few)
        once = timed(few) / few
        many = min(most, max(few + 3, int(budget / ROUNDS / once)))
        if many <= few:
            return 1e-9, once
        n_rounds = min(ROUNDS, max(3, int(budget / once / (few + many))))
        rounds = [(timed(few), timed(many)) for _ in range(n_rounds)]
        steps = [(long - short) / (many - few) for short, long in rounds]
        step = max(median(steps), 1e-9)
        self._spreads.append(median(abs(s - step) for s in steps) / step)
        return max(1e-9, median(short - few * step for short, _ in rounds)), step

    def beside(self, make: Callable[..., Work], *arguments: Any) -> None:
        """Find out what work costs, as made of the arguments, when all cores do it."""
        if self._company < 1:
            return
        work = make(*arguments)
        repeats = max(1, int(0.1 / max(once(work), 1e-4)))
        alone, together = list[float](), list[float]()
        company = Company(self._company, make, *arguments)
        try:
            for _ in range(ROUNDS):
                alone += [once(work) for _ in range(repeats)]
                with company.at_work():
                    together += [once(work) for _ in range(repeats)]
        finally:
            company.close()
        # The least: what else a machine does is not company.
        self.crowding = max(1.0, min(together) / min(alone))


def once(work: Work) -> float:
    """Return the seconds of doing something once."""
    began = perf_counter()
    work()
    return perf_counter() - began


def speeds() -> tuple[float, float]:
    """Return how many bytes a second this machine copies, and writes."""
    source = np.ones(_BYTES // 4, np.float32)
    copy = np.empty_like(source)
    taken = [once(lambda: np.copyto(copy, source)) for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.npy"
        written = [once(lambda: files.write_array(path, source)) for _ in range(2)]
    return _BYTES / median(taken), _BYTES / min(written)


def first_of(rows: Rows, n: int) -> Rows:
    """Return the first rows, as they are stored."""
    if isinstance(rows, StoredRows):
        return StoredRows(rows.values[:n], rows.scale)
    return rows[:n]


def some_of(dataset: Dataset, minibatch: int) -> Rows:
    """Return some training rows, for a few minibatches at most."""
    n = dataset.n_samples("train")
    most = max(2 * minibatch, MOST_BYTES // (4 * dataset.n_visible))
    return dataset.compact_rows("train", 0, min(n, most, _MINIBATCHES * minibatch))


def random_rows(n_rows: int, n_columns: int) -> Array32:
    """Return rows from 0 to 1, not so many that memory would matter."""
    most = max(1, MOST_BYTES // (4 * n_columns))
    return stream(0, "plan").random((min(n_rows, most), n_columns), dtype="f4")
