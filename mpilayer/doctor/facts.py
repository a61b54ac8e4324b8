"""What the doctor knows when it judges; plain values that JSON can hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Space:
    """Bytes of a file system: all of them, and those that this user may still fill."""

    size: int
    free: int


@dataclass(frozen=True)
class Pool:
    """A BLAS library that the process has loaded.

    Attributes
    ----------
    library, version : str
        As it names itself, e.g. ``openblas``.
    kernels : str
        The processor that its kernels are written for, empty if it does not say.
    threads : int
        Threads that it uses.
    path : str
        Its file.
    """

    library: str
    version: str
    kernels: str
    threads: int
    path: str


@dataclass(frozen=True)
class Rank:
    """What one rank finds around it.

    Attributes
    ----------
    rank, pid : int
        Number of the rank, and of its process.
    host : str
        Where it runs.
    cores : tuple of int
        Cores it may use.
    quota : float or None
        Cores' worth of time that a control group grants all its processes.
    threads : int
        BLAS threads.
    pools : tuple of Pool
        BLAS libraries.
    vectors : str
        The processor's widest vector instructions: ``AVX-512``, ``AVX2`` or empty.
    kernels_asked : str
        Value of ``OPENBLAS_CORETYPE``.
    versions : tuple of str
        Python, mpilayer, NumPy and HDF5: what results may depend on.
    shm : Space or None
        ``/dev/shm``; None where there is none.
    neighbour : str or None
        Why the memory of another rank on the host cannot be read, empty if it can;
        None without such a rank or such a call.
    memory : int or None
        Bytes of memory that are left on the host, or in the job's share of it.
    address_space : int or None
        Bytes that ``ulimit -v`` grants.
    clock : float
        Seconds since 1970, taken on all ranks together.
    """

    rank: int
    pid: int
    host: str
    cores: tuple[int, ...]
    quota: float | None
    threads: int
    pools: tuple[Pool, ...]
    vectors: str
    kernels_asked: str
    versions: tuple[str, ...]
    shm: Space | None
    neighbour: str | None
    memory: int | None
    address_space: int | None
    clock: float


@dataclass(frozen=True)
class Software:
    """What is installed where rank 0 runs.

    Attributes
    ----------
    versions : dict of str to str
        Name to version, empty where it is missing.
    mpi : str
        The MPI library that mpi4py loads, empty without one.
    mpi_failure : str
        Why mpi4py is there but cannot be used, else empty.
    hdf5_mpi : bool
        h5py was built with parallel HDF5.
    launcher : str
        Path of the mpiexec that a user would start, empty if there is none.
    launcher_version : str
        What it says about itself.
    root : bool
        The user is root.
    """

    versions: dict[str, str]
    mpi: str
    mpi_failure: str
    hdf5_mpi: bool
    launcher: str
    launcher_version: str
    root: bool


@dataclass(frozen=True)
class Launch:
    """What the launcher says, and what came of it.

    Attributes
    ----------
    size : int
        Ranks that MPI joined.
    claims : dict of str to int
        Variables of launchers that tell how many processes were started together.
    settings : dict of str to str
        Other variables of the launcher and of MPI that matter.
    failure : str
        Why the ranks were not joined, else empty.
    """

    size: int
    claims: dict[str, int]
    settings: dict[str, str]
    failure: str


@dataclass(frozen=True)
class Job:
    """The SLURM job, if there is one.

    Attributes
    ----------
    id : str
        Empty without a job.
    nodes, mpi_type : str
        As SLURM says, empty if it does not.
    ends, now : float or None
        Seconds since 1970.
    """

    id: str
    nodes: str
    mpi_type: str
    ends: float | None
    now: float


@dataclass(frozen=True)
class Folder:
    """The folder for runs, as rank 0 finds it; a failure is empty if there is none.

    Attributes
    ----------
    path, mount, type, locking : str
        Where it is, on which mount, of which type (empty if unknown), and the value
        of ``HDF5_USE_FILE_LOCKING``.
    space : Space or None
        None if the file system does not say.
    failure : str
        Why nothing can be written, moved in one step, or flushed to disk.
    hdf5_failure : str
        Why an HDF5 file cannot be written and read back as mpilayer does.
    lock_failure : str
        Why an HDF5 file cannot be locked.
    seconds : float
        What writing that file took.
    seen : tuple of float or None
        Seconds until each rank saw a file of rank 0, None if it never did; empty if
        that was not tried.
    """

    path: str
    mount: str
    type: str
    locking: str
    space: Space | None
    failure: str
    hdf5_failure: str
    lock_failure: str
    seconds: float
    seen: tuple[float | None, ...]


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
    """Messages as they were measured.

    Attributes
    ----------
    pairs : tuple of PingPong
        Rank 0 with a rank of each other host, or with rank 1.
    left_out : int
        Hosts for which there was no time.
    sums : tuple of Sum
        Empty with one rank.
    """

    pairs: tuple[PingPong, ...]
    left_out: int
    sums: tuple[Sum, ...]


@dataclass(frozen=True)
class Facts:
    """All of it; see the parts."""

    software: Software
    launch: Launch
    job: Job
    ranks: tuple[Rank, ...]
    folder: Folder
    links: Links
