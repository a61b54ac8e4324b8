"""What launchers say, and what the BLAS library is told."""

import os
import subprocess
import sys
import time

import pytest

from mpilayer import environment

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture
def variables(monkeypatch):
    """Give an empty environment, before ``prepare``."""
    empty: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", empty)
    monkeypatch.setattr(environment, "_requested", None)
    return empty


@pytest.mark.parametrize(
    ("claims", "rank", "size"),
    [
        ({}, 0, 1),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, 2, 4),
        ({"PMIX_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, 1, 3),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, 2, 3),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"}, 5, 8),
        # One process that a batch script starts by itself in a job of eight tasks.
        ({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}, 0, 1),
        ({"PMI_RANK": "?", "PMI_SIZE": "", "SLURM_STEP_NUM_TASKS": "2"}, 0, 2),
        # mpiexec within a job: its word counts.
        ({"SLURM_STEP_NUM_TASKS": "1", "PMI_RANK": "1", "PMI_SIZE": "4"}, 1, 4),
    ],
)
def test_claims_of_launchers(variables, claims, rank, size):
    variables.update(claims, HOME="somewhere")
    assert environment.launched_rank() == rank
    assert environment.launched_size() == size
    told = environment.launcher_variables()
    assert told == {name: claims[name] for name in told}
    assert set(told) == set(claims)


def test_cores():
    cores = environment.cores()
    assert cores
    assert len(cores) <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("local", "expected"), [(None, "6"), ("1", "6"), ("2", "3"), ("4", "1"), ("9", "1")]
)
@pytest.mark.parametrize("name", ["MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"])
def test_blas_gets_the_share_of_the_cores(
    variables, monkeypatch, name, local, expected
):
    monkeypatch.setattr(environment, "cores", lambda: frozenset(range(6)))
    if local:
        variables[name] = local
    environment.prepare()
    assert [variables[name] for name in THREADS] == [expected] * 3
    assert environment.requested_threads() == 0
    # What was set a moment ago is no request of the user.
    environment.prepare()
    assert environment.requested_threads() == 0


def test_the_user_s_threads_stay(variables):
    variables.update(OMP_NUM_THREADS="3", MKL_NUM_THREADS="2", OPENBLAS_NUM_THREADS="x")
    environment.prepare()
    assert [variables[name] for name in THREADS] == ["3", "x", "2"]
    assert environment.requested_threads() == 3


def test_unprepared_there_is_no_request(variables):
    variables["OMP_NUM_THREADS"] = "3"
    assert environment.requested_threads() == 0


def test_it_can_be_imported_before_numpy():
    program = (
        "import sys; import mpilayer.environment as e; e.prepare();"
        "print('numpy' in sys.modules, 'mpi4py' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]


# --- when the job ends


def fake_scontrol(folder, text, code=0):
    """Put a scontrol on the path that prints a text."""
    folder.mkdir(exist_ok=True)
    script = folder / "scontrol"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
    script.chmod(0o755)
    return str(folder)


@pytest.fixture
def in_job(monkeypatch):
    """Give an environment without the words of a real job."""
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    return monkeypatch


def test_no_job_has_no_end(in_job):
    in_job.delenv("SLURM_JOB_ID")
    assert environment.job_end() is None


def test_slurm_says_when_the_job_ends(in_job):
    in_job.setenv("SLURM_JOB_END_TIME", "1790000000")
    assert environment.job_end() == 1790000000.0


SHOWN = "JobId=17 JobName=a b Requeue=1 StartTime=2026-11-21T08:00:00 {} Nodes=1"


@pytest.mark.parametrize("given", [None, "", "soon"])
def test_scontrol_says_when_the_job_ends(in_job, tmp_path, given):
    if given is not None:
        in_job.setenv("SLURM_JOB_END_TIME", given)
    text = SHOWN.format("EndTime=2026-11-21T09:30:00 Deadline=N/A")
    path = fake_scontrol(tmp_path / "bin", text)
    in_job.setenv("PATH", f"{path}:{os.environ['PATH']}")
    expected = time.mktime((2026, 11, 21, 9, 30, 0, 0, 0, -1))
    assert environment.job_end() == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SHOWN.format("EndTime=2026-11-21T09:30:00"), 1),
        (SHOWN.format("EndTime=Unknown"), 0),
        (SHOWN.format(""), 0),
        ("", 0),
    ],
)
def test_scontrol_does_not_know(in_job, tmp_path, text, code):
    path = fake_scontrol(tmp_path / "bin", text, code)
    in_job.setenv("PATH", f"{path}:{os.environ['PATH']}")
    assert environment.job_end() is None


def test_there_is_no_scontrol(in_job, tmp_path):
    in_job.setenv("PATH", str(tmp_path))
    assert environment.job_end() is None


def test_a_strange_job_number(in_job, tmp_path):
    in_job.setenv("SLURM_JOB_ID", "17; echo")
    assert environment.job_end() is None
