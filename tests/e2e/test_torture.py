"""Killed, and resumed: the short form of benchmarks/torture.py, at chosen moments."""

import os
import random
import re
import signal
import sys
import time
from contextlib import closing

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


@pytest.mark.parametrize("name", sorted(EXACT.keys() - SIMILAR))
def test_a_process_is_killed_while_it_works_on_files(folder, name):
    """At steps that are chosen by their number; the same bits come of it."""
    place = Place(folder, [], ranks=1, scale=SHORT)
    victim = Torture(place, EXACT[name], random.Random(0))
    n_steps = victim.reference.steps[0]
    chosen = [n_steps // 2, n_steps // 4]
    if name in ("lockstep, lag 2", "sparse, sgd"):
        # While the run is made, and while it is completed.
        chosen += [*range(14, 21, 2), n_steps - 2]
    row = victim.suffer([f"step:0:{step}" for step in chosen])
    assert row.is_clean(), row
    assert row.kills == len(chosen)


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


@pytest.mark.parametrize(
    ("name", "trained"),
    [("lockstep, lag 0", "layer-*"), ("fine-tuning, adam", "finetune")],
)
def test_a_launch_that_saves_after_every_epoch_loses_few(folder, name, trained):
    place = Place(folder, [], ranks=1, scale=ENDLESS)
    mode, run = MODES[name], folder / "endless"
    place.prepare(mode, run)

    def epochs():
        files = (run / "metrics").glob(f"{trained}.jsonl")
        return max((path.read_bytes().count(b"\n") for path in files), default=0)

    with started(place, mode.line(place.data(mode), run, place.scale)) as job:
        until = time.monotonic() + 60
        while epochs() < 12:
            assert time.monotonic() < until, job.errors()
            time.sleep(0.05)
    before = traces.metrics(run)
    text = went_on(place, run, "0.01")
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
    went_on(place, run, "0.5")
    assert not list(traces.broken_metrics(run))


def went_on(place, run, seconds):
    """Demand that a run goes on, until its time is over; return what was told."""
    with started(place, ["resume", run, "--max-time", seconds]) as job:
        code, text = job.wait(60), job.errors()
    assert code == 75, text
    assert "going on after" in text
    return text


def started(place, arguments):
    """Return a launch that ends with the block."""
    return closing(Launch(place, arguments, place.ranks))


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
