"""What the doctor knows when it judges; plain values that JSON can hold.

Texts are empty where nothing is known, or nothing is wrong.
"""

from dataclasses import dataclass


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
    failure: str  # why nothing can be written, moved in one step, flushed
    hdf5_failure: str  # why an HDF5 file cannot be written and read as mpilayer does
    lock_failure: str  # why an HDF5 file cannot be locked
    seconds: float  # that writing took
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
