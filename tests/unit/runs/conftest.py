"""Runs in this process, on one rank, which end when the test wants it."""

from dataclasses import dataclass, field

import pytest

from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.parallel.start import Placement
from mpilayer.runs.session import Safety, Session
from tests.support.toys import rows


@dataclass(frozen=True)
class Counted(Session):
    """A session that asks to end after so many questions; it keeps what it says."""

    limit: int = 10**9
    asked: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def must_stop(self, unit_seconds):
        """Count."""
        self.asked.append(unit_seconds)
        return len(self.asked) > self.limit


def make_session(limit=10**9, comm=None, **safety):
    """Return a session of one rank that saves after every epoch."""
    said = []
    return Counted(
        comm or SerialCommunicator(),
        Placement(("here",), (1,), "", "none"),
        said.append,
        safety=Safety(**{"checkpoint_every": 1, **safety}),
        limit=limit,
        said=said,
    )


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Give a data set of a few rows that tests only read."""
    path = tmp_path_factory.mktemp("small") / "small.h5"
    splits = {"train": Split(rows(60)), "validation": Split(rows(20, seed=1))}
    write_dataset(path, splits, name="small", origin="made up", scale=1.0)
    return path
