"""Jobs under a live SLURM: written, submitted, waited for."""

import re
import subprocess
import sys
import time

import pytest

from tests.e2e.test_job import JOB, program, variables, write_job
from tests.support import breaks, launch

LIMIT = 300.0
"""Seconds for each step of a test: other tests run beside them, on the same cores."""

# SLURM's words when those of MPICH's ranks reach it garbled, inside MPI_Init under srun
# on two nodes: MPICH 5.0.2 tells its address with what lies behind it in memory, such
# as texts of Python, and SLURM's pmi2 cannot take so much. Never in 75 steps of a
# program of three lines, in one of forty of ours; then in each repetition, too.
GARBLED = "mpi/pmi2: invalid client request"


class Place:
    """A new folder in which jobs are written, submitted, and waited for.

    ``stopped`` is set when nobody is interested any more.
    """

    def __init__(self, folder, data, stopped):
        self.folder, self.run, self.data = folder, folder / "run", data
        self.jobs = []
        self._stopped = stopped

    def anew(self):
        """Return another place for the same work."""
        folder = self.folder / "again"
        folder.mkdir()
        place = Place(folder, self.data, self._stopped)
        place.undisturbed = self.undisturbed
        return place

    def start(self, command, *arguments, slowly=False):
        """Submit the batch script of a command with a run in the folder."""
        if slowly:
            # A launch lasts longer than what it must not survive, on any machine.
            text = f"#!{sys.executable}\n" + breaks.slowly(0.02)[1]
            program(self.folder / "bin" / "mpilayer", text)
        arguments = ("job", command, self.data, *JOB, *arguments)
        launch.run(*arguments, cwd=self.folder, limit=LIMIT).ok()
        (job,) = self.submit()
        return job

    def start_stand_in(self, *arguments, plan):
        """Submit the batch script of a pre-training that does what its plan says."""
        write_job(self.folder, "pretrain", "a.h5", *arguments)
        (job,) = self.submit(pretrain=plan)
        return job

    def submit(self, *command, **plans):
        """Submit; return the ids of the jobs in the order of their submission."""
        settings = launch.environment() | variables(self.folder, **plans)
        where = {"cwd": self.folder, "env": settings}
        done = shell(*(command or ("sbatch", "job.sh")), check=False, **where)
        if "node configuration is not available" in done.stderr:
            pytest.skip("needs two nodes")
        assert done.returncode == 0, done
        found = re.findall(r"\d+", done.stdout)
        self.jobs += found
        return found

    def wait_until(self, condition, every=0.1):
        """Wait until a condition holds; return its value."""
        end = time.monotonic() + LIMIT
        while not (found := condition()):
            told = self.everything()
            # Ranks that were not understood may wait for ever.
            assert GARBLED not in told, told
            assert time.monotonic() < end, told
            assert not self._stopped.wait(every)
        return found

    def ended(self, job):
        """Wait for the end of a job; return what SLURM knows then."""

        def look():
            found = describe(job)
            running = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED")
            return None if found["JobState"] in running else found

        return self.wait_until(look, every=0.4)

    def assert_outcome(self, job, state="COMPLETED", code=0, restarts=None):
        """Demand a state, an exit code, and so many restarts."""
        found = self.ended(job)
        outcome = found["JobState"], found["ExitCode"]
        assert outcome == (state, f"{code}:0"), self.everything()
        assert restarts in (None, int(found["Restarts"])), self.everything()

    def everything(self):
        """Return what the jobs have printed."""
        return "\n".join(path.read_text() for path in self.folder.glob("*.out"))

    def epochs(self):
        """Return how many epochs the last layer has."""
        path = self.run / "metrics" / "layer-4.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def shell(*words, check=True, **options):
    """Run a program of SLURM; return what it has printed."""
    options = {"capture_output": True, "text": True, "check": check, **options}
    return subprocess.run(words, timeout=LIMIT, **options)


def describe(job):
    """Return what SLURM knows about a job, by name."""
    shown = shell("scontrol", "show", "job", "-o", job).stdout
    return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)


def cancel(*arguments):
    """Cancel jobs, or send them a signal."""
    shell("scancel", *arguments)


def warn(job):
    """Send the warning of SLURM before its time."""
    cancel("--batch", "--signal=USR1", job)
