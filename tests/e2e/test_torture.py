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
SIMILAR = ("lockstep, lag 0", "teams", "fine-tuning, momentum", "sparse, cg, average")
SHORT = 0.06
# Far longer than there is time for: who does not end at once is found out.
ENDLESS = 1000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder whose data and pre-trained stack serve all tests."""
    return tmp_path_factory.mktemp("torture")


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


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("lockstep, lag 0", 0),
        ("lockstep, lag 0", 1),
        ("sparse, lbfgs, exact", 0),
        ("sparse, lbfgs, exact", 1),
        ("teams", 1),
    ],
)
def test_one_of_several_ranks_is_killed_by_srun(folder, name, rank):
    """All end soon, say why, and the run goes on; see also ``tests/robust``."""
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("needs an MPI that srun --mpi=pmi2 can start (MPICH, Intel MPI)")
    mode, run = MODES[name], folder / "endless"
    place = Place(folder, launcher("srun"), ranks=mode.least, scale=ENDLESS)
    place.prepare(mode, run)
    line = mode.line(place.data(mode), run, place.scale)
    with closing(Launch(place, line, place.ranks)) as job:
        until = time.monotonic() + 60
        while not list((run / "checkpoints").glob("*")):
            assert job.wait(0.05) is None, job.errors()
            assert time.monotonic() < until, job.errors()
        pids = job.rank_pids()
        assert sorted(pids) == list(range(place.ranks))
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
    with closing(Launch(place, ["resume", run, "--max-time", "0.5"], ranks=2)) as job:
        code, text = job.wait(60), job.errors()
    assert (code, "going on after" in text) == (75, True), text
    assert not list(traces.broken_metrics(run))
