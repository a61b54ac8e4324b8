"""What a rank reads of its host, where the host says something and where not."""

import os
import subprocess
import sys
import time

import pytest

from mpilayer import memory
from mpilayer.doctor import machine
from mpilayer.doctor.facts import Job, Launch, Pool, Space

INFO = "processor : 0\nflags\t\t: fpu sse {}\nbugs : none\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (INFO.format("avx2 avx512f avx512vl"), "AVX-512"),
        # The first of these processors, for which OpenBLAS has no kernels.
        (INFO.format("avx2 avx512f"), "AVX2"),
        (INFO.format("avx2"), "AVX2"),
        (INFO.format(""), ""),
        ("Features : neon", ""),
        ("", ""),
    ],
)
def test_vector_instructions(text, expected):
    assert machine.vectors(text) == expected


def test_blas_pools():
    found = [
        {
            "user_api": "blas",
            "internal_api": "openblas",
            "version": "0.3.28",
            "architecture": "Zen",
            "num_threads": 2,
            "filepath": "/numpy.libs/x.so",
        },
        {
            "user_api": "openmp",
            "internal_api": "openmp",
            "version": None,
            "num_threads": 4,
            "filepath": "/libgomp.so",
        },
        {
            "user_api": "blas",
            "internal_api": "mkl",
            "version": None,
            "num_threads": 1,
            "filepath": "/mkl.so",
        },
    ]
    assert machine.pools(found) == (
        Pool("openblas", "0.3.28", "Zen", 2, "/numpy.libs/x.so"),
        Pool("mkl", "", "", 1, "/mkl.so"),
    )


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_memory_of_new_groups(tmp_path):
    groups = "0::/job/step\n"
    assert memory.room(tmp_path, groups) is None
    write(tmp_path / "job" / "step", memory__max="max", memory__current=10)
    assert memory.room(tmp_path, groups) is None
    write(
        tmp_path / "job",
        memory__max=1000,
        memory__current=400,
        memory__stat="anon 1\ninactive_file 150",
    )
    assert memory.room(tmp_path, groups) == 750
    write(tmp_path, memory__max=100, memory__current=400)
    assert memory.room(tmp_path, groups) == 0


def test_memory_of_old_groups(tmp_path):
    groups = "9:memory:/job\n4:cpu,cpuacct:/job\n0::/\n"
    names = {"memory__limit_in_bytes": 1000, "memory__usage_in_bytes": 400}
    write(tmp_path / "memory", memory__limit_in_bytes=2**63 - 4096)
    assert memory.room(tmp_path, groups) is None
    stat = "inactive_file 5\ntotal_inactive_file 100"
    write(tmp_path / "memory" / "job", **names, memory__stat=stat)
    assert memory.room(tmp_path, groups) == 700


@pytest.mark.parametrize("groups", ["", "\n", "nonsense", "0::/a:b\n"])
def test_without_groups(tmp_path, groups):
    assert memory.room(tmp_path, groups) is None


def test_without_the_files_of_linux(monkeypatch, tmp_path):
    for module in (memory, machine):
        monkeypatch.setattr(module, "read", lambda _: "")
    monkeypatch.setattr(machine, "SHM", tmp_path / "none")
    rank = machine.describe(3, 2)
    assert (rank.rank, rank.threads) == (3, 2)
    assert (rank.shm, rank.memory, rank.vectors, rank.quota) == (None, None, "", None)
    assert rank.cores


def test_this_machine():
    rank = machine.describe(0, 1)
    assert rank.host
    names = [text.split()[0] for text in rank.versions]
    assert names == ["Python", "mpilayer", "NumPy", "HDF5"]


def test_space(tmp_path):
    found = machine.space(tmp_path)
    assert isinstance(found, Space)
    assert 0 <= found.free <= found.size
    assert machine.space(tmp_path / "none") is None


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


HYDRA = "HYDRA build details:\n    Version:                                 5.0.2\n"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (HYDRA, "MPICH 5.0.2"),
        ("mpirun (Open MPI) 4.1.6\n\nReport bugs", "mpirun (Open MPI) 4.1.6"),
        ("", ""),
    ],
)
def test_the_launcher_s_version(tmp_path, monkeypatch, printed, expected):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(subprocess, "run", run)
    found = machine.software(None)
    assert found.launcher_version in ("", expected)
    assert found.launcher_version == (expected if found.launcher else "")


def test_a_program_that_fails_or_hangs(monkeypatch):
    monkeypatch.setattr(machine, "_PATIENCE", 0.2)
    ask = machine._output
    assert ask(["/does/not/exist"])[0] == ""
    assert "No such file" in ask(["/does/not/exist"])[1]
    assert ask([sys.executable, "-c", "raise SystemExit('no luck')"])[0] == ""
    assert "timed out" in ask([sys.executable, "-c", "import time; time.sleep(9)"])[1]


MPICH = "MPICH Version: 5.0.2\nMPICH configure: --with-device=ch4"


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
def test_a_launcher_that_mpi_does_not_understand(
    monkeypatch, variables, library, refused
):
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.setattr(machine, "_output", lambda _: (library, ""))
    found = machine.refusal()
    assert bool(found) == refused
    if refused:
        assert "PMIx, which MPICH 5.0.2 does not speak" in found


@pytest.mark.parametrize("failure", ["", "RuntimeError: cannot load MPI library"])
def test_the_mpi_library_is_asked_in_a_process_of_its_own(monkeypatch, failure):
    text = "" if failure else "MPICH Version:      5.0.2"
    monkeypatch.setattr(machine, "version", lambda _: "4.1")
    monkeypatch.setattr(machine, "_output", lambda _: (text, failure))
    found = machine.software(None)
    assert found.mpi == ("" if failure else "MPICH 5.0.2")
    assert found.mpi_failure == failure


def test_without_mpi4py(monkeypatch):
    def version(name):
        raise machine.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", version)
    found = machine.software(None)
    assert (found.mpi, found.mpi_failure) == ("", "")
    assert found.versions["mpi4py"] == ""
