"""What launchers say, and what the BLAS library is told."""

import os
import subprocess
import sys
import time

import pytest

from mpilayer import environment

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
)


@pytest.fixture
def variables(monkeypatch):
    """Give an empty environment, before ``prepare``."""
    empty: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", empty)
    monkeypatch.setattr(environment, "_prepared", False)
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
        ({"PMI_RANK": "?", "PMI_SIZE": "", "SLURM_STEP_NUM_TASKS": "2"}, 0, 1),
        # Left over, or another program's.
        ({"SLURM_STEP_NUM_TASKS": "4"}, 0, 1),
        ({"SLURM_PROCID": "²", "SLURM_STEP_NUM_TASKS": "4"}, 0, 1),
        ({"PMI_RANK": "1", "PMI_SIZE": "9" * 5000}, 0, 1),
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


OLD_QUOTA, OLD_PERIOD = "cpu/job/cpu.cfs_quota_us", "cpu/job/cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/job\n", {}, None),
        ("0::/job\n", {"job/cpu.max": "max 100000"}, None),
        ("0::/job\n", {"job/cpu.max": "150000 100000"}, 1.5),
        ("4:cpu:/job\n", {OLD_QUOTA: "-1", OLD_PERIOD: "100000"}, None),
        ("4:cpu:/job\n", {OLD_QUOTA: "200000", OLD_PERIOD: "100000"}, 2.0),
        *((groups, {}, None) for groups in ("", "\n", "nonsense", "0::/a:b\n")),
    ],
)
def test_quota_of_groups(tmp_path, groups, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert environment.cpu_quota(tmp_path, groups) == quota


@pytest.mark.parametrize(("quota", "count"), [(None, 4), (1.5, 1), (2, 2), (0.05, 1)])
def test_a_container_s_quota_counts_as_cores(monkeypatch, quota, count):
    monkeypatch.setattr(environment, "affinity", lambda: frozenset({3, 5, 7, 9}))
    monkeypatch.setattr(environment, "cpu_quota", lambda *_: quota)
    assert environment.cores() == frozenset([3, 5, 7, 9][:count])


def test_what_a_rank_has_left_is_dropped(variables, monkeypatch):
    claims = {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "4", "HOME": "x"}
    here, there = os.pipe()
    for connection, size in ((here, 4), (9999, 1), ("x", 1)):
        variables.update(claims, PMI_FD=str(connection))
        monkeypatch.setattr(environment, "_prepared", False)
        environment.prepare()
        assert environment.launched_size() == size
        assert ("PMI_FD" in variables) == ("MPI_LOCALNRANKS" in variables) == (size > 1)
        assert variables["HOME"] == "x"
    os.close(here)
    os.close(there)


@pytest.mark.parametrize("given", [None, "3", "1,1", "x"])
def test_blas_has_one_thread_whatever_is_set(variables, given):
    if given:
        variables.update(dict.fromkeys(THREADS, given))
    environment.prepare()
    assert [variables[name] for name in THREADS] == ["1"] * len(THREADS)


def test_hardware_threads_of_one_core(monkeypatch):
    texts = {0: "0,2\n", 1: "1,3\n", 2: "0,2\n", 3: "1,3\n", 4: ""}
    monkeypatch.setattr(environment, "cores", lambda: frozenset(texts))
    folder = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    told = {folder.format(core): text for core, text in texts.items()}
    monkeypatch.setattr(environment, "read", lambda path: told[str(path)])
    assert environment.whole_cores() == {"0,2", "1,3", "4"}


def test_it_can_be_imported_before_numpy():
    program = (
        "import sys; import mpilayer.environment as e; e.prepare();"
        "sys.exit('numpy' in sys.modules or 'mpi4py' in sys.modules)"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    subprocess.run(command, env={**os.environ, **path}, timeout=60, check=True)


# --- when the job ends

LATER = "4102444800"  # in 2100
SHOWN = "JobId=17 JobName=a b Requeue=1 StartTime=2096-11-21T08:00:00 {} Nodes=1"
GOOD = SHOWN.format("EndTime=2096-11-21T09:30:00 Deadline=N/A")
END = time.mktime((2096, 11, 21, 9, 30, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("job", "told", "shown", "code", "end"),
    [
        (None, None, GOOD, 0, None),
        ("17; echo", None, GOOD, 0, None),
        ("17", LATER, "", 1, float(LATER)),
        ("17", None, GOOD, 0, END),
        ("17", "", GOOD, 0, END),
        ("17", "soon", GOOD, 0, END),
        # What was left over from a job that has ended.
        ("17", "1700000000", SHOWN.format(""), 0, None),
        ("17", "1700000000", SHOWN.format("EndTime=2023-11-14T22:13:20"), 0, None),
        # SLURM does not know, or is not there.
        ("17", None, GOOD, 1, None),
        ("17", None, SHOWN.format("EndTime=Unknown"), 0, None),
        ("17", None, SHOWN.format(""), 0, None),
        ("17", None, "", 0, None),
        ("17", None, None, 0, None),
    ],
)
def test_when_the_job_ends(monkeypatch, tmp_path, job, told, shown, code, end):
    for name, value in {"JOB_ID": job, "JOB_END_TIME": told}.items():
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
        if value is not None:
            monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if shown is not None else "")
    if shown is not None:
        script = tmp_path / "scontrol"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{shown}\nEND\nexit {code}\n")
        script.chmod(0o755)
    assert environment.job_end() == end


def test_packages():
    assert environment.installed("pytest") == pytest.__version__
    assert environment.installed("no-such-package") == ""
