"""What the doctor knows when it judges, and the findings that come of it.

Facts are plain values that JSON can hold; texts are empty where nothing is known, or
nothing is wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mpilayer import words


@dataclass(frozen=True)
class Space:
    """Bytes of a file system: all of them, and those that this user may still fill."""

    size: int
    free: int


@dataclass(frozen=True)
class Pool:
    """A BLAS library that the process has loaded, as threadpoolctl describes it."""

    library: str
    version: str
    kernels: str  # the processor that they are written for
    threads: int
    path: str


@dataclass(frozen=True)
class Rank:
    """What one rank finds around it."""

    rank: int
    host: str
    cores: tuple[int, ...]
    quota: float | None  # cores' worth of time that a control group grants all ranks
    threads: int  # of BLAS
    pools: tuple[Pool, ...]
    vectors: str  # the processor's widest instructions: AVX-512, AVX2
    kernels_asked: str  # OPENBLAS_CORETYPE
    versions: tuple[str, ...]  # what results may depend on
    shm: Space | None  # /dev/shm
    memory: int | None  # bytes left on the host, or in the job's share of it
    boot: str = ""  # of the kernel: equal on hosts that are one machine


@dataclass(frozen=True)
class Software:
    """What is installed where rank 0 runs."""

    versions: dict[str, str]  # empty: not installed
    mpi: str  # the library that mpi4py loads
    mpi_failure: str  # why mpi4py is there but cannot be used
    launcher: str  # path of the mpiexec that a user would start
    launcher_version: str


@dataclass(frozen=True)
class Launch:
    """What the launcher says, and what came of it."""

    size: int  # ranks that MPI joined
    claims: dict[str, int]  # variables that tell how many were started together
    settings: dict[str, str]  # other variables of launcher and MPI that matter
    failure: str  # why the ranks were not joined


@dataclass(frozen=True)
class Job:
    """The SLURM job, as SLURM says; no id without one."""

    id: str
    nodes: str
    mpi_type: str
    seconds_left: float | None


@dataclass(frozen=True)
class Folder:
    """The folder for runs, as rank 0 finds it."""

    path: str
    mount: str
    type: str
    locking: str  # HDF5_USE_FILE_LOCKING
    space: Space | None
    failure: str = ""  # why nothing can be written, moved in one step, flushed
    hdf5_failure: str = ""  # why HDF5 files cannot be written and read as mpilayer does
    lock_failure: str = ""  # why an HDF5 file cannot be locked
    seconds: float = 0.0  # that writing took
    # Until each rank saw a file of rank 0, None if it never did; empty: not tried.
    seen: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class PingPong:
    """Messages between rank 0 and another: seconds of 8 bytes, bytes/s of 4 MB."""

    rank: int
    host: str
    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Sum:
    """Seconds of a sum over all ranks of an array of so many bytes."""

    bytes: int
    seconds: float


@dataclass(frozen=True)
class Links:
    """Messages: rank 0 with a rank of each other host, or with rank 1; and sums."""

    pairs: tuple[PingPong, ...] = ()
    left_out: int = 0  # hosts for which there was no time
    sums: tuple[Sum, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All of it; see the parts."""

    software: Software
    launch: Launch
    job: Job
    ranks: tuple[Rank, ...]
    folder: Folder
    links: Links


OK, NOTE, PROBLEM = "ok", "note", "problem"

Complaint = tuple[object, str, str, str]
"""Whether it holds, the verdict, what was found, and what to do, a sentence."""


@dataclass(frozen=True)
class Finding:
    """A verdict on a subject of a group; ``remedy`` is empty if all is well."""

    group: str
    subject: str
    verdict: str
    found: str
    remedy: str = ""


def judged(group: str, subject: str, fine: str, *complaints: Complaint) -> Finding:
    """Return the first complaint that holds; without one all is well, says ``fine``."""
    for holds, verdict, found, remedy in complaints:
        if holds:
            return Finding(group, subject, verdict, found, remedy)
    return Finding(group, subject, OK, fine)


def worst(findings: Iterable[Finding]) -> str:
    """Return the gravest verdict."""
    verdicts = (finding.verdict for finding in findings)
    return max(verdicts, key=(OK, NOTE, PROBLEM).index, default=OK)


def family(version: str) -> str:
    """Return which make of MPI a library or launcher is, empty if unknown."""
    text = version.lower().replace("-", " ")
    if "open mpi" in text or "openrte" in text or "prte" in text:
        return "openmpi"
    if "intel" in text:
        return "intel"
    return "mpich" if "mpich" in text or "hydra" in text else ""


def spans(numbers: Iterable[int]) -> str:
    """Return numbers in order as text: ``0-3, 7``."""
    return words.spans(numbers).replace(",", ", ")


def numbered(what: str, numbers: Iterable[int]) -> str:
    """Return things with their numbers: ``rank 3``, ``ranks 0-2``."""
    found = set(numbers)
    return f"{words.plural(what, len(found))} {spans(found)}"


def size(n_bytes: int) -> str:
    """Return bytes as text, in MB, GB or TB."""
    if n_bytes < 10**9:
        return f"{n_bytes / 1e6:.3g} MB"
    if n_bytes >= 10**12:
        return f"{n_bytes / 1e12:.3g} TB"
    return f"{n_bytes / 1e9:.3g} GB"
