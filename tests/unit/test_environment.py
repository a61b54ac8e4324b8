"""What launchers say, and what the BLAS library is told."""

import os
import subprocess
import sys

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
