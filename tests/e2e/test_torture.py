"""Killed, and resumed: the short form of benchmarks/torture.py, at chosen moments."""

import os
import random
import re
import signal
import sys
import time

import pytest

from benchmarks import traces
from benchmarks.launches import Launch, Place, launcher
from benchmarks.modes import MODES
from benchmarks.torture import SOON, Torture
from tests.support import launch

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="finds processes in /proc"
)
EXACT = {name: mode for name, mode in MODES.items() if mode.ranks != "rounding"}
SIMILAR = ("lockstep, lag 0", "fine-tuning, momentum", "sparse, cg, average")
SHORT = 0.06
# Far longer than there is time for: who does not end at once is found out.
ENDLESS = 1000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder whose data and pre-trained stack serve all tests."""
    return tmp_path_factory.mktemp("torture")


def by_mpiexec(ranks):
    """Return the launcher's command as ``Place`` wants it."""
    return [*launch.launcher(ranks)[:-1], "{ranks}"]


def suffer(folder, mode, choose):
    """Kill a process at steps that are chosen by their number; demand the same bits."""
    place = Place(folder, [], ranks=1, scale=SHORT)
    victim = Torture(place, mode, random.Random(0))
    kinds = [f"step:0:{step}" for step in choose(victim.reference.steps[0])]
    row = victim.suffer(kinds)
    assert row.is_clean(), row
    assert row.kills == len(kinds)
    return row


@pytest.mark.parametrize("name", sorted(EXACT.keys() - SIMILAR))
def test_a_process_is_killed_while_it_works_on_files(folder, name):
    suffer(folder, EXACT[name], lambda n_steps: (n_steps // 2, n_steps // 4))


@pytest.mark.parametrize("name", ["lockstep, lag 2", "sparse, sgd"])
def test_a_process_is_killed_while_it_makes_or_completes_the_run(folder, name):
    suffer(folder, MODES[name], lambda n_steps: (*range(14, 21, 2), n_steps - 2))


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("lockstep, lag 0", 0),
        ("async, and its replay", 1),
        ("fine-tuning, adam", 0),
        ("sparse, lbfgs, exact", 1),
    ],
)
def test_one_of_two_ranks_is_killed(folder, name, rank):
    place = Place(folder, by_mpiexec(2), ranks=2, scale=ENDLESS)
    kill_a_rank(place, MODES[name], rank)


@pytest.mark.parametrize("name", ["lockstep, lag 0", "fine-tuning, adam"])
def test_a_launch_that_saves_after_every_epoch_loses_few(folder, name):
    place = Place(folder, [], ranks=1, scale=ENDLESS)
    mode, run = MODES[name], folder / "endless"
    place.prepare(mode, run)
    with started(place, mode.line(place.data(mode), run, place.scale)) as job:
        until = time.monotonic() + 60
        while not run.exists() or max(map(len, numbers(run)), default=0) < 12:
            assert time.monotonic() < until, job.errors()
            time.sleep(0.05)
    before = traces.metrics(run)
    with started(place, ["resume", run, "--max-time", "0.01"]) as job:
        code, text = job.wait(60), job.errors()
    assert code == 75, text
    assert "going on after" in text
    # One that is being written, one that waits for the layers above.
    assert traces.lost_work(before, text) <= 4


@pytest.mark.slurm
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["lockstep, lag 0", "sparse, lbfgs, exact"])
def test_one_of_two_ranks_is_killed_by_srun(folder, name, rank):
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("needs an MPI that srun --mpi=pmi2 can start (MPICH, Intel MPI)")
    place = Place(folder, launcher("srun"), ranks=2, scale=ENDLESS)
    kill_a_rank(place, MODES[name], rank)


def kill_a_rank(place, mode, rank):
    """Kill one rank amid training: all end soon, say why, and the run goes on."""
    run = place.folder / "endless"
    place.prepare(mode, run)
    with started(place, mode.line(place.data(mode), run, place.scale)) as job:
        wait_for_checkpoint(job, run)
        pids = job.rank_pids()
        assert sorted(pids) == [0, 1]
        began = time.monotonic()
        os.kill(pids[rank], signal.SIGKILL)
        code = job.wait(60)
        seconds = time.monotonic() - began
        text = job.errors()
    assert code not in (None, 0), text
    assert seconds < SOON, text
    # A launcher that ends all at once may swallow the message, but never changes it.
    named = f"rank {rank} (process {pids[rank]} " in text
    assert named or not re.search("ha(s|ve) died", text)
    assert "Traceback" not in text
    assert not list(traces.broken_files(run))
    with started(place, ["resume", run, "--max-time", "0.5"]) as job:
        code, text = job.wait(60), job.errors()
    assert code == 75, text
    assert "going on after" in text
    assert not list(traces.broken_metrics(run))


def numbers(run):
    """Return the lines of what is being trained, not of what came before it."""
    found = traces.metrics(run)
    return [found["finetune"]] if "finetune" in found else found.values()


class started(Launch):
    """A launch that ends with the block."""

    def __init__(self, place, arguments):
        super().__init__(place, arguments, place.ranks)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def wait_for_checkpoint(job, run):
    """Wait until something was saved; what fine-tuning begins with does not count."""
    before, until = traces.files(run) if run.exists() else set(), time.monotonic() + 60
    while time.monotonic() < until:
        assert job.wait(0) is None, job.errors()
        new = traces.files(run) - before if run.exists() else set()
        if any(name.startswith("checkpoints/") for name in new):
            return
        time.sleep(0.05)
    pytest.fail(job.errors())
