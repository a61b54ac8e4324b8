"""Every verdict and remedy, by facts about machines that nobody has."""

from dataclasses import replace
from functools import partial

import pytest

from mpilayer.cli.doctor import shortened
from mpilayer.doctor.facts import (
    NOTE,
    OK,
    PROBLEM,
    Facts,
    Finding,
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
    family,
    size,
    spans,
    worst,
)
from mpilayer.doctor.verdicts import judge

GB, MIB = 10**9, 1 << 20
NAMES = ("Python", "mpilayer", "NumPy", "SciPy", "h5py", "HDF5", "mpi4py")
VERSIONS = dict.fromkeys(NAMES, "1.0") | {"Python": "3.12.1"}
NUMPY_POOL = Pool("openblas", "0.3.28", "SkylakeX", 1, "/site/numpy.libs/blas.so")
WEAK = replace(NUMPY_POOL, kernels="Haswell")
OLD = replace(NUMPY_POOL, kernels="Nehalem")
RANK = Rank(
    rank=0,
    host="a",
    cores=(0, 1),
    quota=None,
    threads=1,
    pools=(NUMPY_POOL,),
    vectors="AVX-512",
    kernels_asked="",
    versions=("Python 3.12.1", "NumPy 2.1"),
    shm=Space(8 * GB, 7 * GB),
    memory=16 * GB,
)
ALONE = Facts(
    software=Software(VERSIONS, "MPICH 4.2.3", "", "/usr/bin/mpiexec", "MPICH 4.2.3"),
    launch=Launch(1, {}, {}, ""),
    job=Job("", "", "", None),
    ranks=(RANK,),
    folder=Folder(
        path="/home/me/runs",
        mount="/home",
        type="ext4",
        locking="",
        space=Space(100 * GB, 50 * GB),
        seconds=0.02,
    ),
    links=Links(),
)
PAIR = replace(
    ALONE,
    launch=Launch(2, {"PMI_SIZE": 2}, {}, ""),
    ranks=(RANK, replace(RANK, rank=1)),
    folder=replace(ALONE.folder, seen=(0.0, 0.1)),
    links=Links((PingPong(1, "a", 1e-6, 5e9),), 0, (Sum(32_000, 2e-5),)),
)
OPEN_MPI = "Open MPI v5.0.6"


def changed(part, facts=ALONE, **values):
    """Return facts with other values in a part of them."""
    return replace(facts, **{part: replace(getattr(facts, part), **values)})


def ranks(*changes):
    """Return facts with ranks that differ from ``RANK`` so."""
    found = tuple(replace(RANK, **{"rank": n} | c) for n, c in enumerate(changes))
    size = len(found)
    claims = {"PMI_SIZE": size} if size > 1 else {}
    return replace(PAIR, ranks=found, launch=Launch(size, claims, {}, ""))


def links(*pairs, left_out=0, sums=()):
    found = tuple(PingPong(*pair) for pair in pairs)
    return replace(PAIR, links=Links(found, left_out, sums))


def shm(size, free, n_ranks=2, mpi="MPICH 4.2.3", **settings):
    facts = ranks(*n_ranks * [{"shm": Space(size, free)}])
    facts = changed("launch", facts, settings=settings)
    return changed("software", facts, mpi=mpi, launcher_version=mpi)


folder, software = partial(changed, "folder"), partial(changed, "software")


def claims(size, **values):
    facts = ALONE if size == 1 else PAIR
    return changed("launch", facts, size=size, claims=values)


BOUND = ranks({"cores": (0,)}, {"cores": (0,)}, {"cores": (1, 2)})
OTHER = {"host": "b", "versions": ("Python 3.11.9", "NumPy 2.1")}
UNBOUND = changed("launch", BOUND, claims={"SLURM_STEP_NUM_TASKS": 3})
GRANTED = {"cores": tuple(range(8)), "threads": 8, "quota": 2.0}
LATE = replace(ALONE, job=Job("7", "n[1-2]", "pmi2", 60.0))
SMALL = (64 * MIB, 64 * MIB)
APART = "2 processes, but MPI joined 1. Start it with mpiexec."

# Subject, verdict, part of what was found, part of the remedy.
COMPLAINTS = {
    "Python | note | Python 3.12.1 on rank 0 | one Python": ranks({}, OTHER),
    "MPI | note | mpi4py is not installed | install mpilayer[mpi]": software(
        versions=VERSIONS | {"mpi4py": ""}
    ),
    "MPI | note | no MPI library: it | MPI module": software(mpi="", mpi_failure="it"),
    "launcher | note | no mpiexec | MPI": software(launcher="", launcher_version=""),
    "launcher | note | is not that of MPICH 4.2.3 | mpiexec of MPICH 4.2.3": software(
        launcher_version="mpirun (Open MPI) 4.1.6"
    ),
    "SLURM | note | 7 on n[1-2], srun --mpi=pmi2, 1 minutes left | --time": LATE,
    "launch | problem | 1 | with mpiexec.": changed("launch", failure=APART),
    "launch | problem | F_SIZE=4, but this process is alone | mpi": claims(1, F_SIZE=4),
    "launch | note | 1 rank in a job of 8 tasks | -n 8": claims(1, SLURM_NTASKS=8),
    "threads | note | ranks 0-2 run 3 threads on cores 0-1 | fewer": ranks({}, {}, {}),
    "threads | note | 4 threads on cores 0-1 | --threads 1": ranks({"threads": 4}),
    "threads | note | ranks 0-1 run 2 threads on core 0 | give them more": BOUND,
    "threads | note | on core 0 | srun --cpus-per-task": UNBOUND,
    "threads | note | on core 0 | --bind-to none": software(BOUND, mpi=OPEN_MPI),
    "threads | note | a control group grants 2 | --threads 2": ranks(GRANTED),
    "threads | note | a control group grants 2 | fewer ranks": ranks(
        *3 * [{**GRANTED, "threads": 1}]
    ),
    "BLAS | note | on a processor with AVX-512 | Unset OPENBLAS_CORETYPE=Zen": ranks(
        {"pools": (WEAK,), "kernels_asked": "Zen"}
    ),
    "BLAS | note | Haswell kernels | CORETYPE=SkylakeX": ranks({"pools": (WEAK,)}),
    "BLAS | note | Nehalem kernels | Try OPENBLAS_CORETYPE=Haswell": ranks(
        {"pools": (OLD,), "vectors": "AVX2"}
    ),
    "BLAS | note | rank 0: no BLAS library | OpenBLAS, MKL": ranks({"pools": ()}),
    "/dev/shm | problem | 67.1 MB free: ranks may crash | NOLOCAL=1": shm(*SMALL),
    "/dev/shm | problem | 10.5 MB free | size=1g, or --ipc=host)": shm(GB, 10 * MIB),
    "/dev/shm | note | several ranks may crash | --shm-size": shm(*SMALL, n_ranks=1),
    "/dev/shm | note | 784-1000-500-250-30 on 1,000 rows | 1g, or --ipc=host).": shm(
        GB, 60 * 10**6
    ),
    "/dev/shm | problem | may crash | sm_backing": shm(*SMALL, mpi=OPEN_MPI),
    "/dev/shm | problem | may crash | FABRICS=ofi": shm(*SMALL, mpi="Intel(R) MPI"),
    "/dev/shm | problem | may crash | --ipc=host).": shm(*SMALL, mpi="?"),
    "RAM | note | a: 500 MB available for each | --mem": ranks(*2 * [{"memory": GB}]),
    "ping-pong | note | 1: 500 µs for 8 B, 5 GB/s | own": links((1, "a", 5e-4, 5e9)),
    "ping-pong | note | 0.1 GB/s | idle machine": links((1, "a", 1e-6, 1e8)),
    "ping-pong | note | 1 on b: 50 µs | on one": links((1, "b", 5e-5, 1.1e8)),
    "disk | note | (nfs4), a network file system | work there": folder(type="nfs4"),
    "disk | note | BeeGFS | Runs work there": folder(type="fuse.beegfs"),
    "disk | note | gone when | Copy": folder(type="tmpfs"),
    "disk | note | ends with the container | Mount a folder": folder(type="overlay"),
    "room | problem | 1e+03 MB of 5 GB | Remove": folder(space=Space(5 * GB, GB - 1)),
    "room | note | 2 GB of 100 GB free | Remove": folder(space=Space(100 * GB, 2 * GB)),
    "writing | problem | must be a writable folder; no | name": folder(failure="no"),
    "writing | problem | no flock | HDF5_USE_FILE_LOCKING=FALSE": folder(
        hdf5_failure="no flock", lock_failure="no locks"
    ),
    "writing | problem | differs | another file system": folder(hdf5_failure="differs"),
    "writing | note | in 3.00 s | faster disk": folder(seconds=3.0),
    "locks | note | no locks | FILE_LOCKING=FALSE": folder(lock_failure="no locks"),
    "shared | problem | rank 1 on b cannot see what rank 0 writes | all hosts": folder(
        ranks({}, {"host": "b"}), seen=(0.0, None)
    ),
    "shared | note | after 2.50 s | lookupcache": folder(seen=(0.0, 2.5)),
}


@pytest.mark.parametrize("expected", COMPLAINTS)
def test_verdict_and_remedy(expected):
    subject, verdict, found, remedy = expected.split(" | ")
    (complaint,) = [f for f in judge(COMPLAINTS[expected]) if f.verdict != OK]
    assert (complaint.subject, complaint.verdict) == (subject, verdict)
    assert found in complaint.found
    assert remedy in complaint.remedy
    assert complaint.remedy.endswith(".")


TWO_HOSTS = ranks({}, {"host": "b", "cores": (0,)})
KNOWING = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self"}
APIECE = ({"cores": (0, 1)}, {"cores": (2, 3)})


BLIS = replace(WEAK, library="blis", version="0.3")
TOLD = shm(*SMALL, **KNOWING)
FINE = {
    "launch | 2 ranks (PMI_SIZE=2)": PAIR,
    "launch | 2 ranks (SLURM_STEP_NUM_TASKS=1)": claims(2, SLURM_STEP_NUM_TASKS=1),
    "launch | 1 rank (no launcher)": ALONE,
    "SLURM | ": ALONE,
    "SLURM | 7": changed("job", id="7"),
    "SLURM | 7, 120 minutes left": changed("job", id="7", seconds_left=7200.0),
    "launcher | ": PAIR,
    "launcher | /usr/bin/mpiexec (of unknown make)": software(launcher_version=""),
    "host | a: rank 0 | b: rank 1": TWO_HOSTS,
    "binding | a: rank 0 on 0-1, 1 on 2-3": ranks(*APIECE),
    "BLAS | NumPy's openblas 0.3.28, SkylakeX kernels, 1 thread": ranks(
        {"pools": (replace(NUMPY_POOL, path="/site/scipy.libs/b.so"), NUMPY_POOL)}
    ),
    "BLAS | openblas 0.3.28, SkylakeX kernels, 1 thread": ranks(
        {"pools": (replace(NUMPY_POOL, path="/usr/lib/libblas.so"),)}
    ),
    "BLAS | NumPy's blis 0.3, Haswell kernels, 1 thread": ranks({"pools": (BLIS,)}),
    "BLAS | NumPy's openblas 0.3.28, Nehalem kernels, 1 thread": ranks(
        {"pools": (OLD,), "vectors": ""}
    ),
    "ping-pong | 1 more host not measured, for want of time": links(left_out=1),
    "Allreduce | 32 kB in 20 µs (1.6 GB/s); 11 MB in 2000 µs (5.5 GB/s)": links(
        sums=(Sum(32_000, 2e-5), Sum(11_000_000, 2e-3))
    ),
    "/dev/shm | ": ranks({"shm": None}),
    "/dev/shm | a: 67.1 MB, 67.1 MB free; MPI is told not to use it, so that no layer "
    "can have several ranks": TOLD,
    "/dev/shm | a: 2 GB, 1 GB free; several ranks a layer can train "
    "784-1000-500-250-30 on 65,000 rows": shm(2 * GB, GB),
    "RAM | ": ranks({"memory": None}),
    "disk | ": folder(type=""),
    "room | ": folder(space=None),
    "writing | 1 MB of HDF5 written, flushed, moved and verified in 0.02 s": ALONE,
    "locks | HDF5 can lock files (HDF5_USE_FILE_LOCKING=TRUE)": folder(locking="TRUE"),
    "locks | HDF5 cannot lock files: no; it is told not to need it": folder(
        lock_failure="no", locking="FALSE"
    ),
    "shared | ": ALONE,
}


@pytest.mark.parametrize("expected", FINE)
def test_what_is_in_order(expected):
    subject, *texts = expected.split(" | ")
    findings = [f for f in judge(FINE[expected]) if f.subject == subject]
    assert [finding.found for finding in findings] == list(filter(None, texts))
    assert {finding.verdict for finding in findings} <= {OK}


def test_the_worst_counts():
    for findings in (judge(ALONE), judge(PAIR)):
        assert not any(finding.remedy for finding in findings)
        assert worst(findings) == OK
    findings = [Finding("g", "s", verdict, "") for verdict in (OK, NOTE, PROBLEM)]
    assert [worst(findings[:n]) for n in range(4)] == [OK, OK, NOTE, PROBLEM]


def test_makes_of_mpi():
    makes = {
        "mpich": ["MPICH 5.0.2", "HYDRA build details:"],
        "openmpi": ["Open MPI v5", "mpirun (Open MPI) 4", "mpiexec (OpenRTE) 4.0.3"],
        "intel": ["Intel(R) MPI Library for Linux* OS, Version 2021.13"],
        "": ["srun 23.11"],
    }
    for make, versions in makes.items():
        assert {family(version) for version in versions} == {make}


def test_numbers_and_sizes():
    texts = [spans(n) for n in ((), (3,), (0, 1, 2, 5), (4, 2, 0))]
    assert texts == ["", "3", "0-2, 5", "0, 2, 4"]
    texts = [size(n) for n in (64 * MIB, 5 * GB, 1234 * GB)]
    assert texts == ["67.1 MB", "5 GB", "1.23 TB"]


def test_the_report_of_many_hosts_is_shortened():
    many = [Finding("ranks", "host", OK, f"host {number}") for number in range(9)]
    few = [*many[:4], replace(many[4], subject="x")]
    assert list(shortened(few)) == few
    many[6] = replace(many[6], verdict=NOTE)
    found = [finding.found for finding in shortened(many)]
    some = [f"host {number}" for number in (0, 1, 2, 3, 6)]
    assert found == [*some, "and 4 more like these"]
