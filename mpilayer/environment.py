"""What a process finds around it: launcher, cores, BLAS; set up before NumPy loads.

Only the standard library is imported here, because BLAS libraries read their settings
once, when NumPy loads them.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
)
# Names of launchers and their helpers, and how far above a rank they may be.
_LAUNCHERS = ("mpiexec", "mpirun", "hydra", "prte", "prun", "orte", "srun")
_ANCESTORS = 5

_requested: int | None = None
_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_SIZE_VARIABLES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")


def use_utf8() -> None:
    """Begin this process anew in Python's UTF-8 mode, if the locale is another; local.

    So all text files are UTF-8, and names of files in them mean the same in every
    locale. The terminal keeps the encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def prepare() -> None:
    """Set up the BLAS library that NumPy is going to load; local.

    What the user has set stays, and :func:`requested_threads` tells it. Otherwise the
    threads are limited to this process's share of the cores, as far as the launcher's
    variables tell; :mod:`mpilayer.parallel.start` sets them again when it knows all
    ranks.
    """
    global _requested
    if _requested is not None:
        return
    given = [os.environ[name] for name in _THREAD_VARIABLES if name in os.environ]
    _requested = max((int(n) for n in given if n.isdigit()), default=0)
    share = max(1, len(cores()) // (_first(_LOCAL_SIZE_VARIABLES) or 1))
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, str(share))


def requested_threads() -> int:
    """Return the threads that the user's environment asks for, 0 if it does not."""
    return _requested or 0


def cores() -> frozenset[int]:
    """Return the numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def launched_rank() -> int:
    """Return this process's number as the launcher gave it; 0 without a launcher."""
    return _first(_RANK_VARIABLES) or 0


def launched_size() -> int:
    """Return how many processes the launcher started together; 1 without a launcher."""
    return _first(_SIZE_VARIABLES) or 1


def terminal() -> Path | None:
    """Return the terminal that standard error reaches, if it reaches one.

    Launchers pass their ranks' output on through a pipe: then the terminal is that of
    the launcher, an ancestor of this process on the same host.
    """
    process = "self"
    for _ in range(_ANCESTORS):
        try:
            status = Path(f"/proc/{process}/status").read_text()
            target = Path(f"/proc/{process}/fd/2").readlink()
        except OSError:
            return None
        fields = dict(
            line.split(":\t", 1) for line in status.splitlines() if ":\t" in line
        )
        if process == "self" or fields["Name"].startswith(_LAUNCHERS):
            if target.is_relative_to("/dev/pts") or target.name.startswith("tty"):
                return target
        elif not fields["Name"].startswith("python"):
            return None
        process = fields["PPid"]
    return None


def job_end() -> float | None:
    """Return when the SLURM job around this process ends, in seconds since 1970.

    None without a job, or if nobody tells.
    """
    given = os.environ.get("SLURM_JOB_END_TIME", "")
    if given.isdigit():
        return float(given)
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdigit():
        return None
    command = ["scontrol", "show", "job", "--oneliner", job]
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
        end = dict(f.split("=", 1) for f in shown.split() if "=" in f)["EndTime"]
        return time.mktime(time.strptime(end, "%Y-%m-%dT%H:%M:%S"))
    except (OSError, subprocess.SubprocessError, KeyError, ValueError):
        return None


def launcher_variables() -> dict[str, str]:
    """Return the launcher's variables that are set, for messages."""
    names = (*_RANK_VARIABLES, *_SIZE_VARIABLES, "SLURM_NTASKS", "SLURM_JOB_ID")
    return {name: os.environ[name] for name in names if name in os.environ}


def _first(names: tuple[str, ...]) -> int | None:
    for name in names:
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return None
