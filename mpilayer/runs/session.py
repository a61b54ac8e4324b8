"""What every command on a data set needs: ranks, threads, the rows of each."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpilayer.arrays import Array32, row_blocks
from mpilayer.data.dataset import SPLITS, Dataset
from mpilayer.errors import DataError
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.start import Placement, place, start
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory
from mpilayer.train.evaluate import PCA, reconstruction_error

Goals = dict[str, int | None]
"""Name of a metrics file to the epochs it will hold; None if nobody knows."""


def _silent(_: str) -> None:
    """Say nothing."""


def _no_display(_: RunDirectory, __: Goals) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True)
class Session:
    """The ranks of this launch, and how they talk to the user.

    Attributes
    ----------
    comm : Communicator
        All ranks.
    placement : Placement
        Hosts and threads.
    say : callable
        Tells the user a line; only rank 0's is heard.
    display : callable
        Makes the context in which progress is shown; only on rank 0.
    """

    comm: Communicator
    placement: Placement
    say: Callable[[str], None] = _silent
    display: Callable[[RunDirectory, Goals], AbstractContextManager[object]] = field(
        default=_no_display
    )

    @staticmethod
    def begin(
        threads: int = 0,
        say: Callable[[str], None] = _silent,
        display: Callable[
            [RunDirectory, Goals], AbstractContextManager[object]
        ] = _no_display,
    ) -> "Session":
        """Start the ranks and their threads. Collective on the world."""
        comm = start()
        return Session(
            comm,
            place(comm, threads),
            say if comm.rank == 0 else _silent,
            display if comm.rank == 0 else _no_display,
        )

    def announce(self) -> None:
        """Say where the ranks run: once it is sure that there is something to do."""
        self.say(self.placement.describe())
        if self.placement.crowded:
            self.say(f"warning: {self.placement.crowded}")

    def facts(self) -> dict[str, Any]:
        """Return what a summary says about the ranks."""
        threads = sorted(set(self.placement.threads))
        return {
            "ranks": self.comm.size,
            "threads_per_rank": threads[0] if len(threads) == 1 else threads[-1],
            "hosts": len(set(self.placement.hosts)),
            "mpi": self.placement.library,
        }


def local_blocks(dataset: Dataset, split: str, comm: Communicator) -> Iterator[Array32]:
    """Yield this rank's contiguous rows of a split, block by block."""
    start, stop = shard_bounds(dataset.n_samples(split), comm.size)[comm.rank]
    for where in row_blocks(stop - start):
        yield dataset.rows(split, start + where.start, start + where.stop)


def check_range(
    rows: Array32,
    visible: str,
    path: Path,
    advice: str = "give --visible linear and a learning rate of 0.001 to 0.01",
) -> None:
    """Check that data suit the visible units.

    Raises
    ------
    DataError
        Sigmoid units with values outside [0, 1].
    """
    if visible == "sigmoid" and len(rows):
        least, most = float(rows.min()), float(rows.max())
        if least < 0 or most > 1:
            raise DataError(
                f"sigmoid visible units need data in [0, 1]; {path} has {least:g} to "
                f"{most:g}. Scale the data, or {advice}."
            )


def stack_errors(
    stack: DeepAutoencoder, data: Path, comm: Communicator
) -> dict[str, float | None]:
    """Return the reconstruction error of each split, None where there is none.

    Collective; every rank reads its own rows.
    """
    with Dataset.open(data) as dataset:
        errors = {
            split: reconstruction_error(stack, local_blocks(dataset, split, comm), comm)
            for split in SPLITS
            if split in dataset.splits
        }
    return {split: finite(errors.get(split, math.nan)) for split in SPLITS}


def pca_errors(data: Path, n_components: int, comm: Communicator) -> dict[str, Any]:
    """Return the errors of as many principal components, fitted on the training rows.

    Collective; every rank reads its own rows.
    """
    with Dataset.open(data) as dataset:
        pca = PCA(local_blocks(dataset, "train", comm), dataset.n_visible, comm)
        errors = {
            split: pca.error(local_blocks(dataset, split, comm), n_components, comm)
            for split in SPLITS
            if split in dataset.splits
        }
    return {split: finite(errors.get(split, math.nan)) for split in SPLITS}


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return value if math.isfinite(value) else None
