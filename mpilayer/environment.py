"""What a process finds around it: launcher, cores, BLAS; set up before NumPy loads.

Only the standard library is imported here, because BLAS libraries read their settings
once, when NumPy loads them.
"""

import os
from pathlib import Path

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
)
_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_SIZE_VARIABLES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")

# What OpenBLAS's SkylakeX kernels use, as /proc/cpuinfo spells it.
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def prepare() -> None:
    """Set up the BLAS library that NumPy is going to load; local.

    What the user has set stays. Threads are limited to this process's share of the
    cores, as far as the launcher's variables tell; :func:`mpilayer.parallel.start`
    sets them again when it knows all ranks.
    """
    share = max(1, len(cores()) // (_first(_LOCAL_SIZE_VARIABLES) or 1))
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, str(share))
    if openblas_misses_avx512(Path("/proc/cpuinfo")):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


def cores() -> frozenset[int]:
    """Return the numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def openblas_misses_avx512(cpuinfo: Path) -> bool:
    """Tell whether OpenBLAS would leave half of this processor unused.

    OpenBLAS chooses its kernels by processor model. For AMD models newer than itself it
    falls back to AVX2 kernels, which made products of float32 matrices 1.7 times slower
    on a Zen 5 server; ``OPENBLAS_CORETYPE=SkylakeX`` names the AVX-512 kernels.

    Parameters
    ----------
    cpuinfo : Path
        The description of the processors that Linux gives.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    fields = dict(
        line.split(":", 1) for line in reversed(text.splitlines()) if ":" in line
    )
    values = {key.strip(): value.strip() for key, value in fields.items()}
    is_amd = values.get("vendor_id") == "AuthenticAMD"
    return is_amd and _AVX512.issubset(values.get("flags", "").split())


def launched_rank() -> int:
    """Return this process's number as the launcher gave it; 0 without a launcher."""
    return _first(_RANK_VARIABLES) or 0


def launched_size() -> int:
    """Return how many processes the launcher started together; 1 without a launcher."""
    return _first(_SIZE_VARIABLES) or 1


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
