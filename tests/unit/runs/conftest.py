"""Runs in this process, on one rank, which end when the test wants it."""

import shutil
from dataclasses import dataclass, field, replace

import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig
from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from mpilayer.interrupt import Interrupted
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.parallel.start import Placement
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import Safety, Session
from mpilayer.store import checkpoint
from tests.support.runs import pretrain
from tests.support.toys import rows

STACK = PretrainConfig(layers=(8, 5), epochs=(2,), minibatch=10)
LONG = replace(STACK, epochs=(6,))
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
        Placement(("here",) * comm.size, 1, "", "none"),
        said.append,
        safety=Safety(**{"checkpoint_every": 1, **safety}),
        limit=limit,
        said=said,
    )


def stopped(limit, train, *arguments, **safety):
    """Demand that a training is asked to end on its way, after so many questions."""
    with pytest.raises(Interrupted):
        train(*arguments, make_session(limit, **safety))


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Give a data set of a few rows that tests only read."""
    path = tmp_path_factory.mktemp("small") / "small.h5"
    splits = {"train": Split(rows(60)), "validation": Split(rows(20, seed=1))}
    write_dataset(path, splits, name="small", origin="made up", scale=1.0)
    return path


@pytest.fixture(scope="session")
def made(small, tmp_path_factory):
    """Give runs that tests copy: a pre-trained one, a longer one, that interrupted."""
    folder = tmp_path_factory.mktemp("made")
    pretrain(small, folder / "pretrained", STACK, make_session())
    pretrain(small, folder / "whole", LONG, make_session())
    stopped(7, pretrain, small, folder / "half", LONG)
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """Give a function that copies one of them."""
    return lambda name, to="run": shutil.copytree(made / name, tmp_path / to)


@pytest.fixture
def run(copy):
    """Give a copy of the first."""
    return copy("pretrained")


def tuned_weights(run):
    """Return all arrays of the checkpoint of fine-tuning."""
    return checkpoint.load_newest(RunDirectory(run).checkpoint("finetuned"))[0]


def digests(run):
    """Return the digests of the layers, of a run's folder or of its summary."""
    summary = run if isinstance(run, dict) else RunDirectory(run).read_summary()
    return [layer["digest"] for layer in summary["layers"]]
