"""Facts about machines that nobody has."""

from dataclasses import replace

from mpilayer.doctor.facts import (
    Facts,
    Folder,
    Job,
    Launch,
    Links,
    PingPong,
    Pool,
    Rank,
    Software,
    Space,
    Sum,
)

GB = 10**9
VERSIONS = {
    "Python": "3.12.1",
    "mpilayer": "1.0",
    "NumPy": "2.1",
    "SciPy": "1.14",
    "h5py": "3.12",
    "HDF5": "1.14.4",
    "mpi4py": "4.1.0",
    "matplotlib": "3.9",
    "Pillow": "11.0",
}
NUMPY_POOL = Pool("openblas", "0.3.28", "SkylakeX", 1, "/site/numpy.libs/blas.so")
SCIPY_POOL = replace(NUMPY_POOL, path="/site/scipy.libs/blas.so")


def a_rank(rank=0, host="a", cores=(0, 1), **values):
    """Return a rank without complaints."""
    usual = {
        "rank": rank,
        "pid": 100 + rank,
        "host": host,
        "cores": tuple(cores),
        "quota": None,
        "threads": 1,
        "pools": (NUMPY_POOL,),
        "vectors": "AVX-512",
        "kernels_asked": "",
        "versions": ("Python 3.12.1", "NumPy 2.1"),
        "shm": Space(8 * GB, 7 * GB),
        "neighbour": "",
        "memory": 16 * GB,
        "address_space": None,
        "clock": 1000.0,
    }
    return Rank(**(usual | values))


SOFTWARE = Software(
    versions=VERSIONS,
    mpi="MPICH 4.2.3",
    mpi_failure="",
    hdf5_mpi=False,
    launcher="/usr/bin/mpiexec",
    launcher_version="MPICH 4.2.3",
    root=False,
)
FOLDER = Folder(
    path="/home/me/runs",
    mount="/home",
    type="ext4",
    locking="",
    space=Space(100 * GB, 50 * GB),
    failure="",
    hdf5_failure="",
    lock_failure="",
    seconds=0.02,
    seen=(0.0, 0.1),
)
ALONE = Facts(
    software=SOFTWARE,
    launch=Launch(1, {}, {}, ""),
    job=Job("", "", "", None, 1000.0),
    ranks=(a_rank(neighbour=None),),
    folder=replace(FOLDER, seen=()),
    links=Links((), 0, ()),
)
PAIR = Facts(
    software=SOFTWARE,
    launch=Launch(2, {"PMI_SIZE": 2}, {}, ""),
    job=Job("", "", "", None, 1000.0),
    ranks=(a_rank(0), a_rank(1)),
    folder=FOLDER,
    links=Links((PingPong(1, "a", 1e-6, 5e9),), 0, (Sum(32_000, 2e-5),)),
)


def changed(facts, part, **values):
    """Return facts with other values in a part of them."""
    return replace(facts, **{part: replace(getattr(facts, part), **values)})


def with_ranks(*ranks, facts=PAIR):
    """Return facts with these ranks."""
    return replace(facts, ranks=ranks, launch=replace(facts.launch, size=len(ranks)))
