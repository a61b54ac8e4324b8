"""Ranks that die or fall silent: the job ends, and says which rank it was."""

import pytest

from tests.support import launch

KILL = "os.kill(os.getpid(), 9)"
STOP = "os.kill(os.getpid(), 19)"

IN_PRETRAINING = """
from mpilayer.train.layer import LayerState
original = LayerState.train_epoch

def train_epoch(self, *arguments):
    if rank == 1 and self.epoch == 3:
        {act}
    original(self, *arguments)

LayerState.train_epoch = train_epoch
"""

IN_SPARSE = """
from mpilayer.models.sparse import SparseAutoencoder
original = SparseAutoencoder.fire
calls = 0

def fire(self, rows):
    global calls
    calls += 1
    if rank == 1 and calls == 20:
        {act}
    return original(self, rows)

SparseAutoencoder.fire = fire
"""


def start(tiny, run, mode, act):
    """Run one of the modes on three ranks until rank 1 acts."""
    if mode == "sparse":
        program = launch.driver(IN_SPARSE.format(act=act))
        arguments = ["sparse", tiny, "--hidden", 6, "--evaluations", 10**6]
    else:
        program = launch.driver(IN_PRETRAINING.format(act=act))
        arguments = ["pretrain", tiny, "--layers", "8,6,4", "--minibatch", 50]
        arguments += ["--epochs", 10**6]
    options = ["--run", run, "--peer-timeout", 2]
    return launch.run(*arguments, *options, ranks=3, program=program, limit=60)


@pytest.mark.parametrize("mode", ["pretrain", "sparse"])
def test_a_silent_rank_is_named_and_the_job_can_go_on(tiny, tmp_path, mode):
    result = start(tiny, tmp_path / "run", mode, STOP)
    assert "mpilayer: rank 1 " in result.stderr, str(result)
    assert "mpilayer resume" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.seconds < 40
    if not launch.is_open_mpi():
        assert result.code == 75, str(result)


@pytest.mark.parametrize("mode", ["pretrain", "sparse"])
def test_a_dead_rank_ends_the_job(tiny, tmp_path, mode):
    result = start(tiny, tmp_path / "run", mode, KILL)
    assert result.code not in (0, 2), str(result)
    assert result.seconds < 40
    # A launcher may end everything before it has passed the sentinel's words on.
    if "has died" in result.stderr:
        assert "mpilayer: rank 1 (process " in result.stderr, str(result)
