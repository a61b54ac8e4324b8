"""What every command on a data set needs: ranks, threads, the rows of each."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpilayer import ending, environment, interrupt
from mpilayer.arrays import Array32, row_blocks
from mpilayer.data.dataset import Dataset
from mpilayer.data.layout import SPLITS
from mpilayer.errors import DataError
from mpilayer.models.stack import Stack
from mpilayer.parallel import watchdog
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.start import Placement, place, start
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory
from mpilayer.train.evaluate import PCA, reconstruction_error

Goals = dict[str, int | None]
"""Name of a metrics file to the epochs it will hold; None if nobody knows."""


# A request to end is heeded this much earlier than the time for it seems to need.
_MARGIN = 1.5
# What ending a job well may take after the last checkpoint.
_JOB_RESERVE = 30.0


@dataclass(frozen=True)
class Safety:
    """When a run saves and when it gives way. Nothing of it changes the result.

    Attributes
    ----------
    checkpoint_every : int
        Save after so many epochs, iterations or passes; 0: by the clock alone.
    checkpoint_seconds : float
        Save at the next boundary after so many seconds.
    max_time : float
        Save and end after so many seconds of this launch; 0: never.
    resume : bool
        Go on with a run that is there already.
    peer_timeout : float
        End the job when a rank has been silent for so many seconds; 0: generous.
    """

    checkpoint_every: int = 0
    checkpoint_seconds: float = 60.0
    max_time: float = 0.0
    resume: bool = False
    peer_timeout: float = 0.0


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
    safety : Safety
        Equal on all ranks.
    deadline : float
        When everything must be saved, in seconds since 1970; infinite if never.
    """

    comm: Communicator
    placement: Placement
    say: Callable[[str], None] = _silent
    display: Callable[[RunDirectory, Goals], AbstractContextManager[object]] = field(
        default=_no_display
    )
    safety: Safety = field(default_factory=Safety)
    deadline: float = math.inf

    @staticmethod
    def begin(
        threads: int = 0,
        say: Callable[[str], None] = _silent,
        display: Callable[
            [RunDirectory, Goals], AbstractContextManager[object]
        ] = _no_display,
        safety: Safety | None = None,
    ) -> "Session":
        """Start the ranks and their threads. Collective on the world."""
        began = time.time()
        comm = start()
        safety = safety or Safety()
        job_end = comm.on_root(environment.job_end)
        ends = [job_end - _JOB_RESERVE if job_end else math.inf]
        if safety.max_time:
            ends.append(began + safety.max_time)
        placement = place(comm, threads)
        watchdog.watch(comm, safety.peer_timeout)
        return Session(
            comm,
            placement,
            say if comm.rank == 0 else _silent,
            display if comm.rank == 0 else _no_display,
            safety,
            min(ends),
        )

    def must_stop(self, unit_seconds: float) -> bool:
        """Tell whether this rank was asked to end, or time would run out. Local.

        Parameters
        ----------
        unit_seconds : float
            What it takes until the question can be asked again.
        """
        if interrupt.requested():
            return True
        return time.time() + _MARGIN * unit_seconds > self.deadline

    def is_due(self, units: int, seconds: float) -> bool:
        """Tell whether to save, so many epochs and seconds after the last time."""
        every = self.safety.checkpoint_every
        return units > 0 and (
            (every > 0 and units >= every) or seconds >= self.safety.checkpoint_seconds
        )

    def listening(self) -> AbstractContextManager[None]:
        """Return the context in which signals ask to save and end."""
        return interrupt.listening(_give_up)

    def interrupted(self, directory: RunDirectory) -> interrupt.Interrupted:
        """Return what all ranks raise after they have saved."""
        reason = interrupt.requested() or "the time limit"
        return interrupt.Interrupted(
            f"saved and stopped because of {reason}; go on with "
            f"'mpilayer resume {directory.path}'"
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
            "crowded": bool(self.placement.crowded),
            "mpi": self.placement.library,
        }


def _give_up() -> None:
    ending.end_all(interrupt.EXIT_RESUME)


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
                f"{most:g}. Prepare them with --scale minmax, or {advice}."
            )


def stack_errors(
    stack: Stack, data: Path, comm: Communicator
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


def pca_errors(
    data: Path,
    n_components: int,
    session: Session,
    splits: Sequence[str] = SPLITS,
    of: Path | None = None,
) -> dict[str, float | None]:
    """Return the errors of as many principal components, fitted on the training rows.

    The errors are those of the same data set, or ``of`` another one. None for a split
    that is not there; for all, and a word, when there are too many columns. Collective;
    every rank reads its own rows.
    """
    comm, errors = session.comm, {}
    with Dataset.open(data) as dataset, Dataset.open(of or data) as judged:
        shape = dataset.n_samples("train"), dataset.n_visible
        if not PCA.fits(*shape):
            session.say(
                f"PCA of {shape[0]} rows with {shape[1]} columns would take too long: "
                "its error is left out"
            )
            return dict.fromkeys(splits)
        pca = PCA(local_blocks(dataset, "train", comm), shape, n_components, comm)
        for split in splits:
            if split in judged.splits:
                errors[split] = pca.error(local_blocks(judged, split, comm), comm)
    return {split: finite(errors.get(split, math.nan)) for split in splits}


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return value if math.isfinite(value) else None
