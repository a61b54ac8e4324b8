"""Every verdict and remedy, by facts about machines that nobody has."""

from dataclasses import replace

import pytest

from mpilayer.doctor import judge_place, judge_ranks, judge_software
from mpilayer.doctor.facts import Job, Links, PingPong, Space, Sum
from mpilayer.doctor.finding import NOTE, OK, PROBLEM, Finding, family, size, spans
from mpilayer.doctor.finding import worst as worst_of
from mpilayer.doctor.verdicts import judge
from tests.unit.doctor.made_up import (
    ALONE,
    FOLDER,
    GB,
    NUMPY_POOL,
    PAIR,
    SCIPY_POOL,
    SOFTWARE,
    VERSIONS,
    a_rank,
    changed,
    with_ranks,
)

MIB = 1 << 20


@pytest.mark.parametrize("facts", [ALONE, PAIR], ids=["alone", "pair"])
def test_a_machine_without_complaints(facts):
    findings = judge(facts)
    assert {finding.verdict for finding in findings} == {OK}
    assert not any(finding.remedy for finding in findings)
    assert worst_of(findings) == OK


def test_the_worst_counts():
    findings = [Finding("g", "s", verdict, "") for verdict in (OK, NOTE, PROBLEM)]
    assert [worst_of(findings[:n]) for n in range(4)] == [OK, OK, NOTE, PROBLEM]


def without(name):
    return changed(ALONE, "software", versions=VERSIONS | {name: ""})


def claims(size, settings=None, **values):
    facts = ALONE if size == 1 else PAIR
    return changed(facts, "launch", size=size, claims=values, settings=settings or {})


OPEN_MPI = "Open MPI v5.0.6"
WRONG_WORLD = (
    "the launcher started 2 processes, but MPI joined 1. Start it with mpiexec."
)
OTHER = a_rank(1, "b", versions=("Python 3.11.9", "NumPy 2.1"))

SOFTWARE_CASES = {
    "versions differ": (
        judge_software.check_versions,
        with_ranks(a_rank(0, versions=("Python 3.12.1", "NumPy 2.1")), OTHER),
        NOTE,
        "Python 3.12.1 on rank 0",
        "one Python environment",
    ),
    "no mpi4py": (
        judge_software.check_mpi,
        without("mpi4py"),
        NOTE,
        "mpi4py is not installed",
        "install mpilayer[mpi]",
    ),
    "no MPI": (
        judge_software.check_mpi,
        changed(ALONE, "software", mpi="", mpi_failure="no libmpi.so"),
        NOTE,
        "finds no MPI library: no libmpi.so",
        "MPI module",
    ),
    "no mpiexec": (
        judge_software.check_launcher,
        changed(ALONE, "software", launcher="", launcher_version=""),
        NOTE,
        "no mpiexec",
        "MPI module",
    ),
    "another mpiexec": (
        judge_software.check_launcher,
        changed(ALONE, "software", launcher_version="mpirun (Open MPI) 4.1.6"),
        NOTE,
        "is not that of MPICH 4.2.3",
        "mpiexec of MPICH 4.2.3",
    ),
    "root": (
        judge_software.check_launcher,
        replace(
            ALONE,
            software=replace(
                SOFTWARE, root=True, mpi=OPEN_MPI, launcher_version=OPEN_MPI
            ),
        ),
        NOTE,
        "no ranks for root",
        "OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
    ),
    "no matplotlib": (
        judge_software.check_extras,
        without("matplotlib"),
        NOTE,
        "not installed",
        "mpilayer[plot]",
    ),
    "no Pillow": (
        judge_software.check_extras,
        without("Pillow"),
        NOTE,
        "not installed",
        "mpilayer[images]",
    ),
    "worlds of their own": (
        judge_software.check_world,
        changed(ALONE, "launch", failure=WRONG_WORLD),
        PROBLEM,
        "MPI joined 1",
        "Start it with mpiexec.",
    ),
    "an unknown launcher": (
        judge_software.check_world,
        claims(1, FLUX_JOB_SIZE=4),
        PROBLEM,
        "FLUX_JOB_SIZE=4, but this process is alone",
        "mpiexec",
    ),
    "tasks that are not used": (
        judge_software.check_world,
        claims(1, SLURM_NTASKS=8),
        NOTE,
        "1 rank in a job of 8 tasks",
        "mpiexec -n 8",
    ),
    "the job ends": (
        judge_software.check_job,
        replace(ALONE, job=Job("7", "n[1-2]", "pmi2", 1060.0, 1000.0)),
        NOTE,
        "7 on n[1-2], srun --mpi=pmi2, 1 minutes left",
        "--time",
    ),
}

WEAK = replace(NUMPY_POOL, kernels="Haswell")
OLD = replace(NUMPY_POOL, kernels="Nehalem")
SLOW_INSIDE = (PingPong(1, "a", 5e-4, 5e9),)
THIN_INSIDE = (PingPong(1, "a", 1e-6, 1e8),)
SLOW_OUTSIDE = (PingPong(1, "b", 5e-5, 1.1e8),)
BOUND = (a_rank(0, cores=(0,)), a_rank(1, cores=(0,)), a_rank(2, cores=(1, 2)))

RANKS_CASES = {
    "crowded": (
        judge_ranks.check_cores,
        with_ranks(*(a_rank(rank) for rank in range(3))),
        NOTE,
        "ranks 0-2 run 3 threads on cores 0-1",
        "Start fewer ranks or give them more cores.",
    ),
    "too many threads": (
        judge_ranks.check_cores,
        with_ranks(a_rank(threads=4)),
        NOTE,
        "rank 0 run 4 threads",
        "--threads 1",
    ),
    "bound to one core": (
        judge_ranks.check_cores,
        with_ranks(*BOUND),
        NOTE,
        "ranks 0-1 run 2 threads on core 0",
        "fewer ranks",
    ),
    "crowded in a job step": (
        judge_ranks.check_cores,
        replace(
            with_ranks(*BOUND),
            launch=claims(2, SLURM_STEP_NUM_TASKS=3).launch,
        ),
        NOTE,
        "core 0",
        "srun --cpus-per-task",
    ),
    "crowded under Open MPI": (
        judge_ranks.check_cores,
        changed(with_ranks(*BOUND), "software", mpi=OPEN_MPI),
        NOTE,
        "core 0",
        "mpirun --bind-to none",
    ),
    "quota": (
        judge_ranks.check_cores,
        with_ranks(a_rank(cores=range(8), threads=8, quota=2.0)),
        NOTE,
        "grants 2",
        "--threads 2",
    ),
    "kernels asked for": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=(WEAK,), kernels_asked="Haswell")),
        NOTE,
        "Haswell kernels, 1 thread, on a processor with AVX-512",
        "Unset OPENBLAS_CORETYPE=Haswell",
    ),
    "kernels found": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=(WEAK,))),
        NOTE,
        "AVX-512",
        "Try OPENBLAS_CORETYPE=SkylakeX",
    ),
    "old kernels": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=(OLD,), vectors="AVX2")),
        NOTE,
        "Nehalem kernels",
        "Try OPENBLAS_CORETYPE=Haswell",
    ),
    "two libraries": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=(SCIPY_POOL, NUMPY_POOL))),
        NOTE,
        "2 are loaded, also SciPy's openblas",
        "NumPy's alone",
    ),
    "no library": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=())),
        NOTE,
        "no BLAS library",
        "OMP_NUM_THREADS",
    ),
    "late messages": (
        judge_ranks.check_links,
        replace(PAIR, links=Links(SLOW_INSIDE, 0, ())),
        NOTE,
        "0 and 1: 500 µs for 8 B, 5 GB/s for 4 MB",
        "cores of their own",
    ),
    "thin messages": (
        judge_ranks.check_links,
        replace(PAIR, links=Links(THIN_INSIDE, 0, ())),
        NOTE,
        "0.1 GB/s",
        "idle machine",
    ),
    "a slow network": (
        judge_ranks.check_links,
        replace(PAIR, links=Links(SLOW_OUTSIDE, 0, ())),
        NOTE,
        "0 and 1 on b: 50 µs",
        "fine-tune on one",
    ),
    "clocks": (
        judge_ranks.check_clocks,
        with_ranks(a_rank(0), a_rank(1, "b", clock=1003.0)),
        NOTE,
        "hosts differ by 3.00 s",
        "a is behind",
    ),
}


def shm(free, total, n_ranks=2, mpi="MPICH 4.2.3", settings=None):
    facts = with_ranks(
        *(a_rank(n, shm=Space(total, free)) for n in range(n_ranks)),
        facts=changed(PAIR, "launch", settings=settings or {}),
    )
    return changed(facts, "software", mpi=mpi)


def in_folder(**values):
    return changed(PAIR, "folder", **values)


PLACE_CASES = {
    "a container": (
        judge_place.check_shm,
        shm(64 * MIB, 64 * MIB),
        PROBLEM,
        "a: 67.1 MB, 67.1 MB free: ranks may crash",
        "docker --shm-size=1g, or --ipc=host), or set MPIR_CVAR_NOLOCAL=1",
    ),
    "full": (
        judge_place.check_shm,
        shm(10 * MIB, 8 * GB),
        PROBLEM,
        "10.5 MB free",
        "--shm-size",
    ),
    "a container, one rank": (
        judge_place.check_shm,
        shm(64 * MIB, 64 * MIB, 1),
        NOTE,
        "several ranks may crash",
        "--shm-size",
    ),
    "a container, Open MPI": (
        judge_place.check_shm,
        shm(64 * MIB, 64 * MIB, mpi=OPEN_MPI),
        PROBLEM,
        "may crash",
        "OMPI_MCA_btl_sm_backing_directory=/tmp",
    ),
    "a container, Intel MPI": (
        judge_place.check_shm,
        shm(64 * MIB, 64 * MIB, mpi="Intel(R) MPI Library 2021.13"),
        PROBLEM,
        "may crash",
        "I_MPI_FABRICS=ofi",
    ),
    "a container, other MPI": (
        judge_place.check_shm,
        shm(64 * MIB, 64 * MIB, mpi="?"),
        PROBLEM,
        "may crash",
        "--ipc=host).",
    ),
    "memory is private": (
        judge_place.check_neighbours,
        with_ranks(a_rank(0), a_rank(1, neighbour="operation not permitted")),
        NOTE,
        "rank 1 may not read its neighbour's memory (process_vm_readv: operation not",
        "--cap-add=SYS_PTRACE",
    ),
    "little memory": (
        judge_place.check_memory,
        with_ranks(*(a_rank(n, memory=GB) for n in range(4))),
        NOTE,
        "a: 250 MB available for each rank",
        "--mem",
    ),
    "ulimit": (
        judge_place.check_memory,
        with_ranks(a_rank(address_space=GB // 2)),
        NOTE,
        "ulimit -v 500 MB",
        "ulimit -v unlimited",
    ),
    "NFS": (
        judge_place.check_file_system,
        in_folder(type="nfs4"),
        NOTE,
        "a network file system",
        "Runs work there",
    ),
    "FUSE": (
        judge_place.check_file_system,
        in_folder(type="fuse.beegfs"),
        NOTE,
        "BeeGFS",
        "Runs work there",
    ),
    "Lustre": (
        judge_place.check_file_system,
        in_folder(type="lustre"),
        NOTE,
        "many small ones",
        "scratch",
    ),
    "in memory": (
        judge_place.check_file_system,
        in_folder(type="tmpfs"),
        NOTE,
        "gone when",
        "Copy",
    ),
    "in a container": (
        judge_place.check_file_system,
        in_folder(type="overlay"),
        NOTE,
        "ends with the container",
        "Mount a folder",
    ),
    "no room": (
        judge_place.check_file_system,
        in_folder(space=Space(100 * GB, GB - 1)),
        PROBLEM,
        "1e+03 MB of 100 GB free",
        "Remove",
    ),
    "little room": (
        judge_place.check_file_system,
        in_folder(space=Space(100 * GB, 2 * GB)),
        NOTE,
        "2 GB of 100 GB free",
        "Remove",
    ),
    "not writable": (
        judge_place.check_writing,
        in_folder(failure="permission denied"),
        PROBLEM,
        "/home/me/runs must be a writable folder; permission denied",
        "name another",
    ),
    "locks in the way": (
        judge_place.check_writing,
        in_folder(hdf5_failure="unable to lock file", lock_failure="no locks"),
        PROBLEM,
        "unable to lock file",
        "HDF5_USE_FILE_LOCKING=FALSE",
    ),
    "HDF5 fails": (
        judge_place.check_writing,
        in_folder(hdf5_failure="what was read back differs"),
        PROBLEM,
        "differs",
        "another file system",
    ),
    "no locks": (
        judge_place.check_writing,
        in_folder(lock_failure="no locks available"),
        NOTE,
        "no locks available",
        "HDF5_USE_FILE_LOCKING=FALSE",
    ),
    "slow": (
        judge_place.check_writing,
        in_folder(seconds=3.0),
        NOTE,
        "in 3.00 s",
        "faster disk",
    ),
    "not shared": (
        judge_place.check_sharing,
        replace(
            with_ranks(a_rank(0), a_rank(1, "b")),
            folder=replace(FOLDER, seen=(0.0, None)),
        ),
        PROBLEM,
        "rank 1 on b cannot see what rank 0 writes",
        "that all hosts share",
    ),
    "shared late": (
        judge_place.check_sharing,
        in_folder(seen=(0.0, 2.5)),
        NOTE,
        "after 2.50 s",
        "lookupcache",
    ),
}
CASES = SOFTWARE_CASES | RANKS_CASES | PLACE_CASES


@pytest.mark.parametrize("name", CASES)
def test_verdict_and_remedy(name):
    check, facts, verdict, found, remedy = CASES[name]
    findings = [finding for finding in check(facts) if finding.verdict != OK]
    assert len(findings) == 1, findings
    assert findings[0].verdict == verdict
    assert found in findings[0].found
    assert remedy in findings[0].remedy
    assert findings[0].remedy.endswith(".")
    assert findings[0] in judge(facts)


ENDLESS = Job("7", "", "", None, 1000.0)
LATER = Job("7", "", "", 8200.0, 1000.0)
TWO_HOSTS = with_ranks(a_rank(0), a_rank(1, "b", clock=1000.5, cores=(0,)))
FINE = {
    "the launch": (judge_software.check_world, PAIR, ["2 ranks (PMI_SIZE=2)"]),
    "a launch in a step": (
        judge_software.check_world,
        claims(2, PMI_SIZE=2, SLURM_STEP_NUM_TASKS=1),
        ["2 ranks (PMI_SIZE=2, SLURM_STEP_NUM_TASKS=1)"],
    ),
    "no launcher": (judge_software.check_world, ALONE, ["1 rank (no launcher)"]),
    "no job": (judge_software.check_job, ALONE, []),
    "a job": (judge_software.check_job, replace(ALONE, job=ENDLESS), ["7"]),
    "a long job": (
        judge_software.check_job,
        replace(ALONE, job=LATER),
        ["7, 120 minutes left"],
    ),
    "parallel HDF5": (
        judge_software.check_hdf5,
        changed(ALONE, "software", hdf5_mpi=True),
        ["h5py 3.12, HDF5 1.14.4 (parallel; either is fine)"],
    ),
    "launched": (judge_software.check_launcher, PAIR, []),
    "an unknown mpiexec": (
        judge_software.check_launcher,
        changed(ALONE, "software", launcher_version=""),
        ["/usr/bin/mpiexec (of unknown make)"],
    ),
    "root who knows": (
        judge_software.check_launcher,
        replace(
            claims(
                1,
                {
                    "OMPI_ALLOW_RUN_AS_ROOT": "1",
                    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                },
            ),
            software=replace(SOFTWARE, root=True, mpi=OPEN_MPI, launcher_version=""),
        ),
        ["/usr/bin/mpiexec (of unknown make)"],
    ),
    "hosts": (judge_ranks.check_hosts, TWO_HOSTS, ["a: rank 0", "b: rank 1"]),
    "binding": (
        judge_ranks.check_binding,
        with_ranks(a_rank(0, cores=(0, 1)), a_rank(1, cores=(2, 3))),
        ["a: rank 0 on 0-1, 1 on 2-3"],
    ),
    "clocks": (judge_ranks.check_clocks, TWO_HOSTS, ["hosts differ by 0.50 s"]),
    "one BLAS of the system": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=(replace(NUMPY_POOL, path="/usr/lib/libblas.so"),))),
        ["openblas 0.3.28, SkylakeX kernels, 1 thread"],
    ),
    "another library's kernels": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=(replace(WEAK, library="blis"),))),
        ["NumPy's blis 0.3.28, Haswell kernels, 1 thread"],
    ),
    "weak kernels on a weak processor": (
        judge_ranks.check_blas,
        with_ranks(a_rank(pools=(OLD,), vectors="")),
        ["NumPy's openblas 0.3.28, Nehalem kernels, 1 thread"],
    ),
    "one host more": (
        judge_ranks.check_links,
        replace(PAIR, links=Links((), 1, (Sum(11_000_000, 2e-3),))),
        [
            "11 MB in 2000 µs (5.5 GB/s)",
            "1 more host not measured, for want of time",
        ],
    ),
    "no /dev/shm": (judge_place.check_shm, with_ranks(a_rank(shm=None)), []),
    "a container that knows": (
        judge_place.check_shm,
        shm(
            64 * MIB,
            64 * MIB,
            settings={"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self"},
        ),
        ["a: 67.1 MB, 67.1 MB free; MPI is told not to use it"],
    ),
    "no neighbours": (
        judge_place.check_neighbours,
        with_ranks(a_rank(neighbour=None)),
        [],
    ),
    "memory unknown": (judge_place.check_memory, with_ranks(a_rank(memory=None)), []),
    "disk unknown": (
        judge_place.check_file_system,
        in_folder(type="", space=None),
        [],
    ),
    "locks as set": (
        judge_place.check_writing,
        in_folder(locking="TRUE"),
        [
            "1 MB of HDF5 written, flushed, moved and verified in 0.02 s",
            "HDF5 can lock files (HDF5_USE_FILE_LOCKING=TRUE)",
        ],
    ),
    "locks not needed": (
        judge_place.check_writing,
        in_folder(lock_failure="no locks", locking="FALSE"),
        [
            "1 MB of HDF5 written, flushed, moved and verified in 0.02 s",
            "HDF5 cannot lock files: no locks; it is told not to need it",
        ],
    ),
    "one rank sees all": (judge_place.check_sharing, ALONE, []),
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_in_order(name):
    check, facts, found = FINE[name]
    findings = check(facts)
    assert [finding.found for finding in findings] == found
    assert {finding.verdict for finding in findings} <= {OK}


@pytest.mark.parametrize(
    ("version", "make"),
    [
        ("MPICH 5.0.2", "mpich"),
        ("HYDRA build details:", "mpich"),
        ("Open MPI v5.0.6", "openmpi"),
        ("mpirun (Open MPI) 4.1.6", "openmpi"),
        ("mpiexec (OpenRTE) 4.0.3", "openmpi"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.13", "intel"),
        ("srun 23.11", ""),
    ],
)
def test_makes_of_mpi(version, make):
    assert family(version) == make


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((), ""), ((3,), "3"), ((0, 1, 2, 5), "0-2, 5"), ((4, 2, 0), "0, 2, 4")],
)
def test_spans(numbers, text):
    assert spans(numbers) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(64 * MIB, "67.1 MB"), (5 * GB, "5 GB"), (1234 * GB, "1.23 TB")],
)
def test_sizes(n_bytes, text):
    assert size(n_bytes) == text
