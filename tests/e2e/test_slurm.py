"""Under a live SLURM: jobs that are warned, requeued, cancelled, chained, looked at.

Jobs wait more than they work. Therefore all that the tests of this file do is started
before the first of them, several at a time, and each test waits for its part.
"""

import json
import re
import shlex
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.test_job import JOB, calls, write_job
from tests.support import launch
from tests.support.jobs import GARBLED, LIMIT, Place, cancel, describe, shell, warn
from tests.support.small import contents, digests, read_summary

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

AT_ONCE = 4
TRIES = 2
LAUNCHERS = [("mpiexec",), ("srun",)]
LAYERS = ("--layers", "14,10,8,4")
SETTINGS = (*LAYERS, "--epochs", "2", "--minibatch", "50", "--threads", "1")
LONG = (*LAYERS, "--epochs", "300", "--minibatch", "10")
# Three ranks to a layer.
TEAMS = ("--layers", "195,195", "--slices", "3", "--epochs", "40", "--minibatch", "50")

# The first start has the rest of a job whose time is nearly over: mpilayer leaves the
# last 30 s alone. The variable is SLURM's own.
NEARLY_OVER = """
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
    export SLURM_JOB_END_TIME=$(($(date +%s) + 33))
fi
"""

WORK = {}


def beside(*cases):
    """Make a function of a place and a case to a test that runs beside the others."""

    def register(work):
        for case in cases or [()]:
            name = "-".join([work.__name__, *map(str, case)])
            WORK[name] = lambda place, case=case: work(place, *case)
        return work

    return register


# --- with mpilayer


@beside(*LAUNCHERS)
def a_run_longer_than_its_time_goes_on_again_and_again(place, launcher):
    job = ["--nodes", 2, "--ntasks", 4, "--launcher", launcher]
    job = place.start(
        "pretrain", *LONG, *job, "--environment", NEARLY_OVER, slowly=True
    )
    place.wait_until(lambda: "requeue 1 of 5" in place.everything())
    before = place.epochs()
    place.wait_until(lambda: place.epochs() > before)
    warn(job)
    place.assert_outcome(job, restarts=2)
    said = place.everything()
    assert "saved and stopped because of the time limit" in said
    assert "saved and stopped because of SIGUSR1" in said
    assert "requeue 2 of 5" in said
    assert "going on after epochs" in said
    assert place.epochs() == 300
    summary = read_summary(place.run)
    assert (summary["ranks"], summary["hosts"]) == (4, 2)
    assert digests(place.run) == place.undisturbed()


@beside()
def a_cancelled_run_goes_on_by_hand(place):
    job = place.start("pretrain", *LONG, "--ntasks", 4, slowly=True)
    place.wait_until(place.epochs)
    cancel(job)
    assert place.ended(job)["JobState"] == "CANCELLED"
    assert not (place.run / "complete").exists()
    result = launch.run("resume", place.run, ranks=2, limit=LIMIT).ok()
    assert "going on after" in result.stderr
    assert digests(place.run) == place.undisturbed()


@beside(*LAUNCHERS)
def a_job_whose_ranks_were_killed_can_be_requeued(place, launcher):
    often = ["--checkpoint-every", 5, "--launcher", launcher]
    job = place.start("pretrain", *LONG, *often, "--ntasks", 4, slowly=True)
    place.wait_until(lambda: place.epochs() > 5)
    cancel("--signal=KILL", f"{job}.0")
    assert place.ended(job)["JobState"] == "FAILED", place.everything()
    shell("scontrol", "requeue", job)
    place.wait_until(lambda: describe(job)["Restarts"] == "1")
    place.assert_outcome(job, restarts=1)
    assert "going on after epochs" in place.everything()
    assert digests(place.run) == place.undisturbed()


@beside(("srun",))
def teams_on_two_nodes(place, launcher):
    """Warned, requeued, and one rank has the same bytes."""
    options = ["--nodes", 2, "--ntasks", 6, "--launcher", launcher]
    job = place.start("pretrain", *TEAMS, *options, slowly=True)
    lines = place.run / "metrics" / "layer-2.jsonl"
    place.wait_until(lambda: lines.exists() and len(lines.read_bytes()) > 500)
    warn(job)
    place.assert_outcome(job, restarts=1)
    said = place.everything()
    assert "going on after epochs" in said
    assert "ranks 0-2: layer 1 (20-195, slices 3); ranks 3-5: layer 2 (" in said
    summary = read_summary(place.run)
    assert (summary["ranks"], summary["hosts"]) == (6, 2)
    assert digests(place.run) == _pretrain(place.data, place.folder / "one", *TEAMS)


@beside()
def a_run_is_looked_at_while_it_is_in_a_job(place):
    endless = [*LAYERS, "--epochs", 1_000_000, "--minibatch", 50]
    job = place.start("pretrain", *endless, "--nodes", 2, "--ntasks", 4, slowly=True)

    def watch():
        """Return the epochs of all layers in a view that says that the run goes on."""
        looked = ["watch", "run", "--once"]
        view = launch.run(*looked, cwd=place.folder, limit=LIMIT).ok().stdout
        assert re.match(r"run: pre-training, running, [\d:]+ left\n", view), view
        for shape in ("20-14", "14-10", "10-8", "8-4"):
            assert shape in view
        return [int(n) for n in re.findall(r"(\d+)/1000000\b", view)]

    place.wait_until(place.epochs)
    first = watch()
    before = place.epochs()
    place.wait_until(lambda: place.epochs() > before)
    then = watch()
    assert len(first) == len(then) == 4
    assert all(a < b for a, b in zip(first, then, strict=True)), (first, then)
    launch.run("report", "run", cwd=place.folder, limit=LIMIT).ok()
    page = (place.folder / "report.html").read_text()
    found = re.search(
        r"still running(?:, or broken off)?: epochs ([\d, ]+) of layers", page
    )
    assert found is not None
    reported = [int(n) for n in found[1].split(",")]
    assert all(a <= b for a, b in zip(then, reported, strict=True)), (then, reported)
    assert "the last line was written" in page
    assert page.count("<svg") >= 2
    assert describe(job)["JobState"] == "RUNNING"


@beside(*LAUNCHERS)
def scaling_of_the_sparse_mode(place, launcher):
    options = ["--evaluations", 5, "--nodes", 2, "--ntasks", 4, "--launcher", launcher]
    job = place.start("scaling", *options)
    place.assert_outcome(job)
    table = r"ranks  seconds  speed-up\n +1 .* 1\.00\n +2 .*\n +4 "
    assert re.search(table, place.everything())
    for ranks in (1, 2, 4):
        assert read_summary(place.run / f"ranks-{ranks}")["ranks"] == ranks


@beside(*LAUNCHERS)
def a_comparison_on_two_nodes(place, launcher):
    options = ["--hidden", 6, "--evaluations", 30, "--launcher", launcher]
    job = place.start("compare", *options, "--nodes", 2, "--ntasks", 4)
    place.assert_outcome(job)
    assert (place.run / "complete").read_text() == "compare\n"
    result = json.loads((place.run / "compare.json").read_text())
    assert result["ranks"] == 4
    assert result["runs"]["average"]["gap"]["measured"] >= 0


# Recorded script to arguments that make it short.
SHORT = {
    "async": ("--epochs", "2"),
    "finetune": ("--epochs", "1"),
    "lockstep": ("--epochs", "2"),
    "sparse": ("--evaluations", "5"),
    "average-against-exact": ("--evaluations", "5"),
    "scaling": ("--evaluations", "5"),
}
RECORDED = [(path.stem,) for path in sorted((launch.ROOT / "jobs").glob("*.sh"))]


@beside(*RECORDED)
def a_recorded_script_in_a_fresh_checkout(place, name):
    environment = Path(sys.prefix)
    if not (environment / "bin" / "activate").exists():
        pytest.skip("needs pytest in an environment with bin/activate")
    (place.folder / ".venv").symlink_to(environment)
    for folder in ("jobs", "data"):
        shutil.copytree(launch.ROOT / folder, place.folder / folder)
    first = ["async"] if name == "finetune" else []
    after = []
    for script in (*first, name):
        words = ["sbatch", *after, f"jobs/{script}.sh", *SHORT[script]]
        (job,) = place.submit(*words)
        after = [f"--dependency=afterok:{job}"]
    place.assert_outcome(job)


def by_srun(place, *options, srun):
    """Pre-train by srun, in a script that is not mpilayer's."""
    words = ["pretrain", place.data, "--run", "run", *SETTINGS]
    command = [sys.executable, "-m", "mpilayer", *map(str, words)]
    script = f"#!/bin/bash\nexec srun {srun} {shlex.join(command)}\n"
    (place.folder / "job.sh").write_text(script)
    outputs = ["--time=5", "--output=job.out", "--error=job.err"]
    (job,) = place.submit("sbatch", "--ntasks=4", *outputs, *options, "job.sh")
    code = int(place.ended(job)["ExitCode"].partition(":")[0])
    texts = [(place.folder / name).read_text() for name in ("job.out", "job.err")]
    return launch.Result(code, *texts, 0.0)


@beside((1,), (2,))
def pretraining_by_srun(place, nodes):
    options = [f"--nodes={nodes}", f"--ntasks-per-node={4 // nodes}"]
    result = by_srun(place, *options, srun="--mpi=pmi2 --kill-on-bad-exit=1").ok()
    summary = read_summary(place.run)
    assert (summary["ranks"], summary["hosts"]) == (4, nodes)
    assert result.stdout.count("Seconds of each layer") == 1
    assert digests(place.run) == place.pretrained()


@beside()
def srun_without_mpi_is_refused(place):
    result = by_srun(place, srun="--mpi=none")
    words = ["launcher started 4 processes", "joined 1", "srun --mpi=pmi2"]
    launch.assert_user_error(result, *words)
    assert result.stdout == ""
    assert set(contents(place.folder)) == {"job.sh", "job.out", "job.err"}


# --- with the stand-in


def chain(place, *seeds, **plans):
    """Submit a chain of three; return the jobs that stand for its steps."""
    steps = ["--then", "finetune,evaluate", "--run", "run", "-o", "chain", *seeds]
    write_job(place.folder, "pretrain", "a.h5", *steps)
    jobs = place.submit("bash", "chain/submit.sh", **plans)
    assert len(jobs) == 3
    return [f"{job}_0" if seeds else job for job in jobs]


@beside((), ("--seeds", "2"))
def a_chain_waits_for_the_end_of_requeues(place, *seeds):
    plans = dict.fromkeys(("pretrain", "finetune"), "more end")
    for job in chain(place, *seeds, **plans):
        place.assert_outcome(job)
    done = [(act, words.split()[0]) for _, act, words in calls(place.folder)]
    again = [
        (act, name) for name in ("pretrain", "finetune") for act in ("more", "end")
    ]
    assert done == [*again, ("end", "evaluate")]


@beside(("mpiexec", 1), ("mpiexec", 2), ("srun", 1), ("srun", 2))
def a_warned_job_starts_again_and_ends(place, launcher, nodes):
    options = ["--nodes", nodes, "--ntasks", 4, "--launcher", launcher]
    run = place.folder / "a run"
    to_run = ["--run", run, "-o", "job.sh"]
    job = place.start_stand_in(*to_run, *options, plan="save end")
    place.wait_until(lambda: len(list(run.glob("waits-0-*"))) == 4)
    warn(job)
    place.assert_outcome(job, restarts=1)
    assert [call[:2] for call in calls(place.folder)] == [["0", "save"], ["1", "end"]]
    output = place.folder / f"pretrain-a run-{job}.out"
    assert "received USR1" in output.read_text()
    if launcher == "mpiexec":
        assert len(list(run.glob("saved-0-*"))) == 4


@beside()
def an_array_of_seeds(place):
    job = place.start_stand_in(*JOB, "--seeds", "5,3", plan="save end")
    runs = [place.folder / f"run-seed-{seed}" for seed in (5, 3)]
    place.wait_until(lambda: all((run / "waits-0-0").exists() for run in runs))
    warn(f"{job}_0")
    warn(f"{job}_1")
    for task, run in enumerate(runs):
        place.assert_outcome(f"{job}_{task}", restarts=1)
        assert (run / "complete").read_text() == "pretrain\n"


@beside(("more", 75, 1), ("fail", 3, 0), ("nothing", 1, 0), ("crash", 0, 0))
def only_what_has_saved_is_repeated_and_not_for_ever(place, plan, code, restarts):
    job = place.start_stand_in(*JOB, "--requeues", 1, plan=plan)
    place.assert_outcome(job, "FAILED" if code else "COMPLETED", code, restarts)


@beside()
def a_cancelled_job_stays_cancelled(place):
    job = place.start_stand_in(*JOB, plan="save end")
    place.wait_until(lambda: (place.run / "waits-0-0").exists())
    cancel(job)
    found = place.ended(job)
    assert (found["JobState"], found["Restarts"]) == ("CANCELLED", "0")


@beside((), ("--seeds", "2"))
def a_chain_ends_where_a_step_fails(place, *seeds):
    jobs = chain(place, *seeds, pretrain="fail")
    ends = [place.ended(job)["JobState"] for job in jobs]
    assert ends == ["FAILED", "CANCELLED", "CANCELLED"]
    assert len(calls(place.folder)) == 1


# --- all of them


def _pretrain(data, run, *options):
    """Return the weights of a run that nothing disturbs."""
    words = ["pretrain", data, "--run", run, "--threads", 1, *options]
    launch.run(*words, limit=LIMIT).ok()
    return digests(run)


def _work(work, place):
    """Do the work of a test, anew if MPI did not start; leave no job behind."""
    for left in reversed(range(TRIES)):
        try:
            return work(place)
        except AssertionError:
            if GARBLED not in place.everything():
                raise
            if not left:
                pytest.skip(f"MPICH's words reached SLURM garbled, {TRIES} times")
        finally:
            if place.jobs:
                shell("scancel", *place.jobs, check=False)
        place = place.anew()
    return None


@pytest.fixture(scope="module")
def under_way(request, tiny, tmp_path_factory):
    """Start the work of those tests that were chosen; give what will come of it."""
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("needs an MPI that srun --mpi=pmi2 can start (MPICH, Intel MPI)")
    items = [item for item in request.session.items if item.module is request.module]
    names = [item.callspec.params["name"] for item in items]
    folder, stopped = tmp_path_factory.mktemp("slurm"), threading.Event()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        long = pool.submit(_pretrain, tiny, folder / "long", *LONG)
        short = pool.submit(_pretrain, tiny, folder / "short", *SETTINGS)
        futures = {}
        for name in names:
            (folder / name).mkdir()
            place = Place(folder / name, tiny, stopped)
            place.undisturbed, place.pretrained = long.result, short.result
            futures[name] = pool.submit(_work, WORK[name], place)
        yield futures
        stopped.set()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", WORK)
def test_in_jobs(under_way, name):
    """The work of each test is above, under its name."""
    under_way[name].result()
