"""What is installed, what the launcher says, and the job; local."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mpilayer import __version__, environment, hdf5
from mpilayer.doctor.facts import Job, Launch, Software
from mpilayer.doctor.finding import family

_PACKAGES = {
    "NumPy": "numpy",
    "SciPy": "scipy",
    "h5py": "h5py",
    "mpi4py": "mpi4py",
    "matplotlib": "matplotlib",
    "Pillow": "pillow",
}
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
    "OMPI_ALLOW_RUN_AS_ROOT",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
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


def software(mpi: str | None) -> Software:
    """Return what is installed here.

    Parameters
    ----------
    mpi : str or None
        The MPI library in use; None to find out, and to ask the launcher likewise.
        That starts processes, which is no good once MPI is running.
    """
    launcher = mpiexec()
    failure = launcher_version = ""
    if mpi is None:
        mpi, failure = _mpi_library()
        launcher_version = _launcher_version(launcher)
    return Software(
        versions=_versions(),
        mpi=mpi,
        mpi_failure=failure,
        hdf5_mpi=bool(_h5py().get_config().mpi),
        launcher=launcher,
        launcher_version=launcher_version,
        root=hasattr(os, "geteuid") and os.geteuid() == 0,
    )


def launch(size: int, failure: str) -> Launch:
    """Return what the launcher says.

    Parameters
    ----------
    size : int
        Ranks that MPI joined.
    failure : str
        Why they are not all, else empty.
    """
    claims = {n: os.environ.get(n, "") for n in _CLAIMS}
    return Launch(
        size=size,
        claims={name: int(text) for name, text in claims.items() if text.isdecimal()},
        settings={n: os.environ[n] for n in _SETTINGS if n in os.environ},
        failure=failure,
    )


def refusal() -> str:
    """Return why MPI would end this process at its start, empty if it would not.

    An MPICH that does not speak PMIx, the protocol of Open MPI's launcher and of
    ``srun --mpi=pmix``, ends the process without a chance to report.
    """
    if "PMIX_NAMESPACE" not in os.environ or "PMI_SIZE" in os.environ:
        return ""
    text, _ = _output([sys.executable, "-c", _ASK_MPI])
    # The text lists the options that the library was built with.
    if family(text) != "mpich" or "pmix" in text.lower():
        return ""
    return (
        f"the launcher started {environment.launched_size()} processes together by "
        f"PMIx, which {_short_name(text)} does not speak: MPI would end them all. "
        "Start it with the mpiexec of that library, or with srun --mpi=pmi2."
    )


def job() -> Job:
    """Return the SLURM job of this process."""
    return Job(
        id=os.environ.get("SLURM_JOB_ID", ""),
        nodes=os.environ.get("SLURM_JOB_NODELIST", ""),
        mpi_type=os.environ.get("SLURM_MPI_TYPE", ""),
        ends=environment.job_end(),
        now=time.time(),
    )


def hdf5_version() -> str:
    """Return the version of HDF5."""
    return str(_h5py().version.hdf5_version)


def mpiexec() -> str:
    """Return the launcher: the one beside this Python, else the one on the path."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec") or ""


def _h5py() -> Any:
    # The door to h5py has loaded it; what it was built with is not a file.
    return sys.modules[hdf5.File.__module__.partition(".")[0]]


def _versions() -> dict[str, str]:
    found = {"Python": sys.version.split()[0], "mpilayer": __version__}
    for name, package in _PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = ""
    return found | {"HDF5": hdf5_version()}


def _mpi_library() -> tuple[str, str]:
    """Return the MPI library, or why there is none: empty without mpi4py."""
    try:
        version("mpi4py")
    except PackageNotFoundError:
        return "", ""
    text, failure = _output([sys.executable, "-c", _ASK_MPI])
    if failure:
        return "", failure
    return _short_name(text), ""


def _short_name(text: str) -> str:
    """Return name and version from all that an MPI library says about itself."""
    line = text.partition("\n")[0].replace("MPICH Version:", "MPICH")
    return " ".join(line.split()).split(",")[0]


def _launcher_version(launcher: str) -> str:
    text = _output([launcher, "--version"])[0] if launcher else ""
    hydra = re.search(r"^\s*Version:\s*(\S+)", text, re.MULTILINE)
    if text.startswith("HYDRA") and hydra:
        return f"MPICH {hydra[1]}"
    return text.splitlines()[0].strip() if text else ""


def _output(command: list[str]) -> tuple[str, str]:
    """Return what a program prints, and why it failed: one of the two is empty."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return "", said[-1]
    return done.stdout.strip(), ""
