"""What a rank finds on its host; local. What a host does not tell is None or empty."""

import ctypes
import os
import re
import resource
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from mpilayer import __version__, environment, memory
from mpilayer.doctor.facts import Pool, Rank, Space
from mpilayer.doctor.software import hdf5_version
from mpilayer.environment import GROUPS, cpu_quota, read

SHM = Path("/dev/shm")


def describe(rank: int, threads: int, neighbour: str | None, clock: float) -> Rank:
    """Return what this rank finds.

    Parameters
    ----------
    rank : int
        Its number.
    threads : int
        Its BLAS threads.
    neighbour : str or None
        See :class:`mpilayer.doctor.facts.Rank`.
    clock : float
        Likewise.
    """
    return Rank(
        rank=rank,
        pid=os.getpid(),
        host=socket.gethostname(),
        cores=tuple(sorted(environment.affinity())),
        quota=cpu_quota(GROUPS, read(Path("/proc/self/cgroup"))),
        threads=threads,
        pools=pools(threadpool_info()),
        vectors=vectors(read(Path("/proc/cpuinfo"))),
        kernels_asked=os.environ.get("OPENBLAS_CORETYPE", ""),
        versions=versions(),
        shm=space(SHM),
        neighbour=neighbour,
        memory=memory.available(),
        address_space=address_space(),
        clock=clock,
    )


def versions() -> tuple[str, ...]:
    """Return the versions that should be the same on all hosts."""
    return (
        f"Python {sys.version.split()[0]}",
        f"mpilayer {__version__}",
        f"NumPy {np.__version__}",
        f"HDF5 {hdf5_version()}",
    )


def pools(found: list[dict[str, Any]]) -> tuple[Pool, ...]:
    """Return the BLAS libraries among what threadpoolctl finds."""
    return tuple(
        Pool(
            library=str(pool["internal_api"]),
            version=str(pool.get("version") or ""),
            kernels=str(pool.get("architecture") or ""),
            threads=int(pool["num_threads"]),
            path=str(pool["filepath"]),
        )
        for pool in found
        if pool["user_api"] == "blas"
    )


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


def address_space() -> int | None:
    """Return what ``ulimit -v`` grants."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def read_process(pid: int, address: int, n_bytes: int) -> str | None:
    """Try to read another process's memory as MPI libraries do for large messages.

    Returns
    -------
    str or None
        Empty if it works, else the reason; None where there is no such call.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).process_vm_readv
    except (AttributeError, OSError):
        return None
    buffer = ctypes.create_string_buffer(n_bytes)
    here = _Piece(ctypes.addressof(buffer), n_bytes)
    there = _Piece(address, n_bytes)
    call.restype = ctypes.c_ssize_t
    done = call(
        ctypes.c_int(pid),
        *(ctypes.byref(here), ctypes.c_ulong(1)),
        *(ctypes.byref(there), ctypes.c_ulong(1)),
        ctypes.c_ulong(0),
    )
    if done == n_bytes:
        return ""
    return os.strerror(ctypes.get_errno()).lower()
