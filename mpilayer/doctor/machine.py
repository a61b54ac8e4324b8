"""What a rank finds on its host, installed there, or told by the launcher; local."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from mpilayer import __version__, environment, memory
from mpilayer.doctor.facts import Job, Launch, Pool, Rank, Software, Space, family
from mpilayer.environment import GROUPS, cpu_quota, read

SHM = Path("/dev/shm")

_PACKAGES = {"NumPy": "numpy", "SciPy": "scipy", "h5py": "h5py", "mpi4py": "mpi4py"}
# What results may depend on.
_OF_RESULTS = ("Python", "mpilayer", "NumPy", "HDF5")
_CLAIMS = (
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "FLUX_JOB_SIZE",
    "JSM_NAMESPACE_SIZE",
)
_SETTINGS = (
    "SLURM_MPI_TYPE",
    "SLURM_CPUS_PER_TASK",
    "OMPI_MCA_btl_sm_backing_directory",
    "MPIR_CVAR_NOLOCAL",
    "I_MPI_FABRICS",
    "UCX_TLS",
)
# Run in a process of its own: an MPI that cannot be loaded may end the process, and
# asking for its version must not start it.
_ASK_MPI = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.Get_library_version().strip("\\0 \\n"))
"""
_PATIENCE = 20.0


def describe(rank: int, threads: int) -> Rank:
    """Return what this rank, with so many BLAS threads, finds."""
    versions = _versions()
    return Rank(
        rank=rank,
        host=socket.gethostname(),
        cores=tuple(sorted(environment.affinity())),
        quota=cpu_quota(GROUPS, read(Path("/proc/self/cgroup"))),
        threads=threads,
        pools=pools(threadpool_info()),
        vectors=vectors(read(Path("/proc/cpuinfo"))),
        kernels_asked=os.environ.get("OPENBLAS_CORETYPE", ""),
        versions=tuple(f"{name} {versions[name]}" for name in _OF_RESULTS),
        shm=space(SHM),
        memory=memory.available(),
        boot=environment.boot(),
    )


def pools(found: list[dict[str, Any]]) -> tuple[Pool, ...]:
    """Return the BLAS libraries among what threadpoolctl finds."""
    keys = ("internal_api", "version", "architecture", "num_threads", "filepath")
    blas = [pool for pool in found if pool["user_api"] == "blas"]
    values: list[list[Any]] = [[pool.get(key) or "" for key in keys] for pool in blas]
    return tuple(Pool(*each) for each in values)


def vectors(cpuinfo: str) -> str:
    """Return the widest vector instructions by the text of ``/proc/cpuinfo``."""
    line = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = line[1].split() if line else []
    # OpenBLAS wants both of these for its kernels.
    if {"avx512f", "avx512vl"} <= set(flags):
        return "AVX-512"
    return "AVX2" if "avx2" in flags else ""


def space(path: Path) -> Space | None:
    """Return the space of a path's file system, None if it does not say."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return Space(usage.total, usage.free) if usage.total else None


def software(mpi: str | None) -> Software:
    """Return what is installed here.

    ``mpi`` is the MPI library in use; None to find out, and to ask the launcher
    likewise. That starts processes, which is no good once MPI is running.
    """
    versions, launcher = _versions(), environment.mpiexec()
    failure = launcher_version = ""
    if mpi is None:
        mpi = ""
        if versions["mpi4py"]:
            text, failure = _output([sys.executable, "-c", _ASK_MPI])
            mpi = environment.mpi_name(text)
        launcher_version = _launcher_version(launcher)
    return Software(versions, mpi, failure, launcher, launcher_version)


def launch(size: int, failure: str) -> Launch:
    """Return what the launcher says, given how many ranks were joined, or why not."""
    told = {name: os.environ.get(name, "") for name in _CLAIMS}
    claims = {name: int(text) for name, text in told.items() if text.isdecimal()}
    settings = {n: os.environ[n] for n in _SETTINGS if n in os.environ}
    return Launch(size, claims, settings, failure)


def refusal() -> str:
    """Return why MPI would end this process at its start, empty if it would not.

    An MPICH without PMIx, Open MPI's and ``srun --mpi=pmix``'s protocol, does so.
    """
    if "PMIX_NAMESPACE" not in os.environ or "PMI_SIZE" in os.environ:
        return ""
    text, _ = _output([sys.executable, "-c", _ASK_MPI])
    # The text lists the options that the library was built with.
    if family(text) != "mpich" or "pmix" in text.lower():
        return ""
    name = environment.mpi_name(text)
    return (
        f"the launcher started {environment.launched_size()} processes together by "
        f"PMIx, which {name} does not speak: MPI would end them all. Start it with the "
        "mpiexec of that library, or with srun --mpi=pmi2."
    )


def job() -> Job:
    """Return the SLURM job of this process."""
    names = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_MPI_TYPE")
    end = environment.job_end()
    left = None if end is None else end - time.time()
    job, nodes, mpi_type = (os.environ.get(name, "") for name in names)
    return Job(job, nodes, mpi_type, left)


def _versions() -> dict[str, str]:
    # The door to h5py has loaded it; what it was built with is not a file.
    hdf5 = str(sys.modules["h5py"].version.hdf5_version)
    packages = {name: environment.installed(p) for name, p in _PACKAGES.items()}
    own = {"Python": sys.version.split()[0], "mpilayer": __version__}
    return {**own, **packages, "HDF5": hdf5}


def _launcher_version(launcher: str) -> str:
    text = _output([launcher, "--version"])[0] if launcher else ""
    hydra = re.search(r"^\s*Version:\s*(\S+)", text, re.MULTILINE)
    if text.startswith("HYDRA") and hydra:
        return f"MPICH {hydra[1]}"
    return text.partition("\n")[0].strip()


def _output(command: list[str]) -> tuple[str, str]:
    """Return what a program prints, and why it failed: one of the two is empty."""
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True}
    try:
        done = subprocess.run(command, text=True, timeout=_PATIENCE, **quiet)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return "", said[-1]
    return done.stdout.strip(), ""
