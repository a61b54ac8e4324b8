"""What a process finds around it: launcher, cores, BLAS; set up before NumPy loads.

Only the standard library is imported here, because BLAS libraries read their settings
once, when NumPy loads them.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where control groups are mounted."""

_THREAD_VARIABLES = [f"{k}_NUM_THREADS" for k in ("OPENBLAS", "MKL", "BLIS", "OMP")]
# Names of launchers and their helpers, and how far above a rank they may be.
_LAUNCHERS = ("mpiexec", "mpirun", "hydra", "prte", "prun", "orte", "srun")
_ANCESTORS = 5

_prepared = False
# Rank and size go together: a size alone is that of a job, or left over.
_CLAIMS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
# What makes a process a rank.
_OF_RANKS = (
    *("PMI_", "PMIX_", "OMPI_COMM_WORLD_", "MPI_LOCAL"),
    *("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


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

    It gets one thread, whatever is set: a library that loads later, or that
    :mod:`mpilayer.parallel.start` cannot speak to, would round as the machine and the
    user's shell have it. The launcher's variables that a rank has left to a program
    that it started are dropped.
    """
    global _prepared
    if _prepared:
        return
    _prepared = True
    if _of_another_rank():
        for name in [*os.environ]:
            if name.startswith(_OF_RANKS):
                del os.environ[name]
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))


def cores() -> frozenset[int]:
    """Return the numbers of the cores that this process may keep busy.

    A container's quota of time counts as so many of those it may run on: the first
    ones, so that ranks with one quota share it.
    """
    quota = cpu_quota(GROUPS, read(Path("/proc/self/cgroup")))
    limit = None if quota is None else max(1, int(quota))
    return frozenset(sorted(affinity())[:limit])


def whole_cores() -> frozenset[str]:
    """Return names of the same cores, one for hardware threads that share a core."""
    folder = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    names = ((core, read(Path(folder.format(core))).strip()) for core in cores())
    return frozenset(name or str(core) for core, name in names)


def affinity() -> frozenset[int]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cpu_quota(root: Path, groups: str) -> float | None:
    """Return the cores' worth of time that control groups grant, None without a limit.

    The groups are mounted at ``root``; ``groups`` is the text of ``/proc/self/cgroup``.
    """
    texts = [read(f / "cpu.max") for f in group_folders(root, groups, "")]
    for folder in group_folders(root, groups, "cpu"):
        parts = (read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        texts.append(" ".join(parts))
    found = (re.fullmatch(r"(\d+)\s+(\d+)\s*", text) for text in texts)
    return min((int(pair[1]) / int(pair[2]) for pair in found if pair), default=None)


def group_folders(root: Path, groups: str, controller: str) -> list[Path]:
    """Return the folders of a process's control group and of those around it."""
    top = root / controller
    for line in groups.splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if path and controller in names.split(","):
            inner = top / path.lstrip("/")
            around = [inner, *inner.parents]
            return [folder for folder in around if folder.is_relative_to(top)]
    return []


def read(path: Path) -> str:
    """Return the text of a file of the system, empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def boot() -> str:
    """Return what the kernel calls its start, empty if it does not say."""
    return read(Path("/proc/sys/kernel/random/boot_id")).strip()


def one_machine(seats: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return hosts of several names whose kernel (see ``boot``) is the same one."""
    names: dict[str, set[str]] = {}
    for host, kernel in seats:
        names.setdefault(kernel, set()).add(host)
    return [sorted(own) for kernel, own in names.items() if kernel and len(own) > 1]


def launched_rank() -> int:
    """Return this process's number as the launcher gave it; 0 without a launcher."""
    return _launched()[0]


def launched_size() -> int:
    """Return how many processes the launcher started together; 1 without a launcher."""
    return _launched()[1]


def _launched() -> tuple[int, int]:
    """Return rank and size by the first launcher that tells both."""
    for names in _CLAIMS:
        rank, size = map(_number, names)
        if rank is not None and size:
            return rank, size
    return 0, 1


def launcher_variables() -> dict[str, str]:
    """Return the launcher's variables that are set, for messages."""
    claims = (name for claim in _CLAIMS for name in claim)
    names = dict.fromkeys((*claims, "SLURM_NTASKS", "SLURM_JOB_ID"))
    return {name: os.environ[name] for name in names if name in os.environ}


def installed(package: str) -> str:
    """Return the version of a package, empty if it is not installed."""
    from importlib import metadata  # takes a while

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def mpiexec() -> str:
    """Return the launcher beside this Python, else that on the path; empty without."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec") or ""


def mpi_name(told: str) -> str:
    """Return name and version from all that an MPI library says about itself."""
    line = told.strip("\0 \n").partition("\n")[0].replace("MPICH Version:", "MPICH")
    return " ".join(line.split()).split(",")[0]


def terminal() -> Path | None:
    """Return the terminal that standard error reaches, if it reaches one.

    Launchers pass their ranks' output on through a pipe: then the terminal is that of
    the launcher, an ancestor of this process on the same host.
    """
    for process, name in _line_of_processes():
        try:
            target = Path(f"/proc/{process}/fd/2").readlink()
        except OSError:
            return None
        if process == "self" or name.startswith(_LAUNCHERS):
            if target.is_relative_to("/dev/pts") or target.name.startswith("tty"):
                return target
        elif not name.startswith("python"):
            return None
    return None


def _line_of_processes() -> Iterator[tuple[str, str]]:
    """Yield number and name of this process and of its ancestors, as far as needed."""
    process = "self"
    for _ in range(_ANCESTORS):
        status = read(Path(f"/proc/{process}/status"))
        fields = dict(
            line.split(":\t", 1) for line in status.splitlines() if ":\t" in line
        )
        if "Name" not in fields:
            return
        yield process, fields["Name"]
        process = fields["PPid"]


def _of_another_rank() -> bool:
    """Tell whether the launcher's variables are those of a process above this one.

    A program that a rank starts has them, too, but either not its connection to the
    launcher, or an ancestor that uses it.
    """
    if connection := os.environ.get("PMI_FD", ""):
        try:
            os.fstat(int(connection))
        except (OSError, ValueError, OverflowError):
            return True
    for process, name in _line_of_processes():
        if name.startswith(_LAUNCHERS):
            return False
        if process != "self" and "/libmpi" in read(Path(f"/proc/{process}/maps")):
            return True
    return False


def job_end() -> float | None:
    """Return when the SLURM job around this process ends, in seconds since 1970.

    None without a job, if nobody tells, or if it has ended: then what is told of it was
    left over.
    """
    end: float | None = _number("SLURM_JOB_END_TIME")
    if end is None or end <= time.time():
        end = _end_by_scontrol(os.environ.get("SLURM_JOB_ID", ""))
    return end if end is not None and end > time.time() else None


def _end_by_scontrol(job: str) -> float | None:
    if not re.fullmatch("[0-9]+", job):
        return None
    command = ["scontrol", "show", "job", "--oneliner", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        told = re.search(r"(?<!\S)EndTime=(\S+)", done.stdout)
        if done.returncode or told is None:
            return None
        return time.mktime(time.strptime(told[1], "%Y-%m-%dT%H:%M:%S"))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _number(name: str) -> int | None:
    """Return the whole number in a variable; None if there is none."""
    text = os.environ.get(name, "").strip()
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None
