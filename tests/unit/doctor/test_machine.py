"""What a rank reads of its host, where the host says something and where not."""

import os
import sys
import time

import pytest

from mpilayer import memory
from mpilayer.doctor import machine
from mpilayer.doctor.facts import Job, Launch, Pool

INFO = "processor : 0\nflags\t\t: fpu sse {}\nbugs : none\n"


def test_vector_instructions():
    assert machine.vectors(INFO.format("avx2 avx512f avx512vl")) == "AVX-512"
    # The first of these processors, for which OpenBLAS has no kernels.
    assert machine.vectors(INFO.format("avx2 avx512f")) == "AVX2"
    assert machine.vectors(INFO.format("avx2")) == "AVX2"
    for text in (INFO.format(""), "Features : neon", ""):
        assert machine.vectors(text) == ""


def test_blas_pools():
    names = ("user_api", "internal_api", "version", "num_threads", "filepath")
    found = [
        dict(zip(names, values, strict=True))
        for values in (
            ("blas", "openblas", "0.3.28", 2, "/numpy.libs/x.so"),
            ("openmp", "openmp", None, 4, "/libgomp.so"),
            ("blas", "mkl", None, 1, "/mkl.so"),
        )
    ]
    found[0]["architecture"] = "Zen"
    assert machine.pools(found) == (
        Pool("openblas", "0.3.28", "Zen", 2, "/numpy.libs/x.so"),
        Pool("mkl", "", "", 1, "/mkl.so"),
    )


def test_without_the_files_of_linux(monkeypatch, tmp_path):
    for module in (memory, machine):
        monkeypatch.setattr(module, "read", lambda _: "")
    monkeypatch.setattr(machine, "SHM", tmp_path / "none")
    rank = machine.describe(3, 2)
    assert (rank.rank, rank.threads) == (3, 2)
    assert (rank.shm, rank.memory, rank.vectors, rank.quota) == (None, None, "", None)
    assert rank.cores
    assert rank.host
    names = [text.split()[0] for text in rank.versions]
    assert names == ["Python", "mpilayer", "NumPy", "HDF5"]


def test_claims_of_launchers(monkeypatch):
    values = {"PMI_SIZE": "4", "SLURM_NTASKS": "?", "UCX_TLS": "tcp", "HOME": "x"}
    monkeypatch.setattr(os, "environ", values)
    found = machine.launch(4, "no")
    assert found == Launch(4, {"PMI_SIZE": 4}, {"UCX_TLS": "tcp"}, "no")


def test_the_job(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    assert machine.job() == Job("", "", "", None)
    end = f"{time.time() + 5000:.0f}"
    values = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": end}
    monkeypatch.setattr(os, "environ", values)
    job = machine.job()
    assert job.id == "7"
    assert 4000 < job.seconds_left < 5001


HYDRA = "HYDRA build details:\n    Version:                                 5.0.2"
MPICH = "MPICH Version:      5.0.2\nMPICH configure: --with-device=ch4"


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (f"echo '{HYDRA}'", "MPICH 5.0.2"),
        ("echo 'mpirun (Open MPI) 4.1.6'; echo; echo Bugs", "mpirun (Open MPI) 4.1.6"),
        ("echo 4.1; exit 1", ""),
        ("exec sleep 9", ""),
        ("", ""),  # there is none
    ],
)
def test_the_launcher_s_version(tmp_path, monkeypatch, script, expected):
    launcher = script and program(tmp_path / "mpiexec", script)
    monkeypatch.setattr(machine, "_PATIENCE", 1.0)
    monkeypatch.setattr(machine.environment, "installed", lambda _: "")
    monkeypatch.setattr(machine.environment, "mpiexec", lambda: launcher)
    found = machine.software(None)
    assert (found.launcher, found.launcher_version) == (launcher, expected)
    assert (found.mpi, found.mpi_failure, found.versions["mpi4py"]) == ("", "", "")


@pytest.mark.parametrize(
    ("script", "mpi", "failure"),
    [
        (f"echo '{MPICH}'", "MPICH 5.0.2", ""),
        ("echo x >&2; echo cannot load MPI library >&2; exit 1", "", "cannot load MPI"),
        ("exit 7", "", "exit code 7"),
    ],
)
def test_mpi_is_asked_in_its_own_process(tmp_path, monkeypatch, script, mpi, failure):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", script))
    monkeypatch.setattr(machine.environment, "installed", lambda _: "4.1")
    found = machine.software(None)
    assert found.mpi == mpi
    assert failure in found.mpi_failure
    assert bool(failure) == bool(found.mpi_failure)


@pytest.mark.parametrize(
    ("variables", "library", "refused"),
    [
        ({}, MPICH, False),
        ({"PMIX_NAMESPACE": "x"}, MPICH, True),
        ({"PMIX_NAMESPACE": "x"}, f"{MPICH} --with-pmix=/usr", False),
        ({"PMIX_NAMESPACE": "x"}, "Open MPI v5.0.6, package: x", False),
        ({"PMIX_NAMESPACE": "x"}, "", False),
        ({"PMIX_NAMESPACE": "x", "PMI_SIZE": "2"}, MPICH, False),
    ],
)
def test_an_unknown_launcher(tmp_path, monkeypatch, variables, library, refused):
    monkeypatch.setattr(os, "environ", variables)
    python = program(tmp_path / "python", f"echo '{library}'")
    monkeypatch.setattr(sys, "executable", python)
    found = machine.refusal()
    assert ("PMIx, which MPICH 5.0.2 does not speak" in found) == bool(found) == refused
