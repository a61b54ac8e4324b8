"""Runs in this process, on one rank, which end when the test wants it."""

import shutil
from dataclasses import dataclass, field

import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig
from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.parallel.start import Placement
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import Safety, Session
from tests.support.runs import pretrain
from tests.support.toys import rows

STACK = PretrainConfig(layers=(8, 5), epochs=(2,), minibatch=10)
TUNE = FinetuneConfig(epochs=2, minibatch=10, optimizer="adam")
SPARSE = SparseConfig(hidden=5, evaluations=10)


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
    said, comm = [], comm or SerialCommunicator()
    return Counted(
        comm,
        Placement(("here",) * comm.size, (1,), "", "none"),
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


@pytest.fixture(scope="session")
def pretrained(small, tmp_path_factory):
    """Give a pre-trained run that tests copy."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain(small, run, STACK, make_session())
    return run


@pytest.fixture
def run(pretrained, tmp_path):
    """Give a copy of it."""
    return shutil.copytree(pretrained, tmp_path / "run")


def digests(run):
    """Return the digests of the layers, of a run's folder or of its summary."""
    summary = run if isinstance(run, dict) else RunDirectory(run).read_summary()
    return [layer["digest"] for layer in summary["layers"]]
