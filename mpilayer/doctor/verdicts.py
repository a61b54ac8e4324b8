"""What the facts mean: group by group, complaints with their conditions and remedies.

Pure: facts in, findings out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mpilayer.doctor.facts import (
    NOTE,
    PROBLEM,
    Facts,
    Finding,
    Folder,
    PingPong,
    Pool,
    Rank,
    Space,
    family,
    judged,
    numbered,
    size,
    spans,
)
from mpilayer.environment import one_machine
from mpilayer.words import count, plural

_END_IS_NEAR = 600.0
_CONTAINER_SHM = 64 << 20
# MPICH 5 was seen to take 5.4 MB a rank.
_SHM_OF_RANK = 8 << 20
# What a team shares for this stack, by measurement, and for a row of pixels more.
_STACK_BYTES, _STACK_ROW_BYTES = 36e6, 784 + 2 * 4 * (1000 + 500 + 250)
_FEW_THOUSANDS = 2
_LEAST_DISK, _LITTLE_DISK = 10**9, 5 * 10**9
_LITTLE_MEMORY = 10**9
_SLOW_WRITE = 1.0
_LATE_SIGHT = 1.0
# Slower than these is worth a note: within a host, and between hosts (Gigabit Ethernet
# has 0.1 GB/s).
_SLOW_INSIDE = (100e-6, 0.5e9)
_SLOW_OUTSIDE = (200e-6, 0.2e9)
# The processor's instructions to OpenBLAS's names for kernels without them, and with.
_WEAK_KERNELS = {
    "AVX-512": (("prescott", "nehalem", "sandybridge", "haswell", "zen"), "SkylakeX"),
    "AVX2": (("prescott", "nehalem", "sandybridge"), "Haswell"),
}
_NFS = "a network file system: small files and new names take long to get around"
_ELSEWHERE = "Runs work there; a local disk or scratch may be faster on one host."
_IN_MEMORY = "in memory, and gone when the machine is switched off"
_FILE_SYSTEMS = {
    **dict.fromkeys(("nfs", "nfs4"), (_NFS, _ELSEWHERE)),
    "cifs": (
        "a network file system without POSIX locks",
        "Keep runs on another file system if a check below fails.",
    ),
    "lustre": ("Lustre: large files are fast, many small ones are not", _ELSEWHERE),
    "beegfs": ("BeeGFS: large files are fast, many small ones are not", _ELSEWHERE),
    "gpfs": ("GPFS: large files are fast, many small ones are not", _ELSEWHERE),
    "overlay": (
        "a container's own layer, which ends with the container",
        "Mount a folder of the host, and keep runs there.",
    ),
    **dict.fromkeys(("tmpfs", "ramfs"), (_IN_MEMORY, "Copy what you want to keep.")),
}
"""Type to what is to be known of it, and to what to do."""


def judge(facts: Facts) -> list[Finding]:
    """Return all findings, group by group."""
    groups = (_software, _job, _ranks, _cores, _memory, _messages, _folder)
    return [finding for group in groups for finding in group(facts)]


def shm_suffices(shm: Space, n_ranks: int) -> bool:
    """Tell whether so many ranks of a host can share that memory."""
    return shm.size > _CONTAINER_SHM and shm.free >= _SHM_OF_RANK * n_ranks


def more_shm(make: str) -> str:
    """Return what helps against too little shared memory, by the make of MPI."""
    start = "Give the container more (docker --shm-size=1g, or --ipc=host)"
    ways = {
        "openmpi": "OMPI_MCA_btl_sm_backing_directory=/tmp",
        "intel": "I_MPI_FABRICS=ofi",
        "mpich": "MPIR_CVAR_NOLOCAL=1 and UCX_TLS=tcp,self (slower)",
    }
    return f"{start}, or set {ways[make]}." if make in ways else f"{start}."


def _software(facts: Facts) -> Iterator[Finding]:
    found, versions = facts.software, facts.software.versions
    names = ("Python", "mpilayer", "NumPy", "SciPy")
    text = ", ".join(f"{name} {versions[name]}" for name in names)
    first, *others = sorted({rank.versions for rank in facts.ranks})
    odd = []
    for other in others:
        rank = next(r.rank for r in facts.ranks if r.versions == other)
        odd.append(f"{' '.join(sorted(set(other) - set(first)))} on rank {rank}")
    remedy = "Start all ranks with one Python environment that all hosts see."
    differ = (odd, NOTE, f"{text}; but {'; '.join(odd)}", remedy)
    yield judged("software", "Python", text, differ)
    text = f"h5py {versions['h5py']}, HDF5 {versions['HDF5']}"
    yield judged("software", "HDF5", text)

    mpi4py = versions["mpi4py"]
    remedy = "For several ranks install mpilayer[mpi]."
    missing = (not mpi4py, NOTE, "mpi4py is not installed", remedy)
    remedy = "For several ranks load an MPI module, or install mpilayer[mpi]."
    text = f"mpi4py {mpi4py} finds no MPI library: {found.mpi_failure}"
    useless = (found.mpi_failure, NOTE, text, remedy)
    yield judged("software", "MPI", f"mpi4py {mpi4py}, {found.mpi}", missing, useless)

    if facts.launch.size > 1 or facts.launch.failure or not found.mpi:
        return
    remedy = "Load your cluster's MPI module, or install mpilayer[mpi]."
    missing = (not found.launcher, NOTE, "no mpiexec on the path", remedy)
    text = f"{found.launcher} ({found.launcher_version or 'of unknown make'})"
    makes = {family(found.launcher_version), family(found.mpi)} - {""}
    remedy = f"Start ranks with the mpiexec of {found.mpi}."
    foreign = (len(makes) > 1, NOTE, f"{text} is not that of {found.mpi}", remedy)
    yield judged("software", "launcher", text, missing, foreign)


def _job(facts: Facts) -> Iterator[Finding]:
    job = facts.job
    if not job.id:
        return
    nodes = f" on {job.nodes}" if job.nodes else ""
    interface = f", srun --mpi={job.mpi_type}" if job.mpi_type else ""
    text, left = f"{job.id}{nodes}{interface}", job.seconds_left
    if left is not None:
        text += f", {left / 60:.0f} minutes left"
    remedy = "Ask for a longer job (sbatch --time), or start a new one."
    short = (left is not None and left < _END_IS_NEAR, NOTE, text, remedy)
    yield judged("job", "SLURM", text, short)


def _ranks(facts: Facts) -> Iterator[Finding]:
    launch = facts.launch
    joined = count(launch.size, "rank")
    failure, _, remedy = launch.failure.partition(". ")
    apart = (failure, PROBLEM, failure, remedy)
    tasks = launch.claims.get("SLURM_NTASKS", 1)
    claims = {n: s for n, s in launch.claims.items() if n != "SLURM_NTASKS"}
    name, most = max(claims.items(), key=lambda claim: claim[1], default=("", 1))
    text = f"{name}={most}, but this process is alone"
    remedy = "Start it with the mpiexec of its MPI library."
    alone = (launch.size == 1 and most > 1, PROBLEM, text, remedy)
    remedy = (
        f"Start all with mpiexec -n {tasks}, or srun --mpi=pmi2 (MPICH, Intel MPI) "
        "or --mpi=pmix (Open MPI)."
    )
    text = f"{joined} in a job of {tasks} tasks"
    few = (tasks > launch.size, NOTE, text, remedy)
    names = ", ".join(f"{name}={number}" for name, number in launch.claims.items())
    text = f"{joined} ({names or 'no launcher'})"
    yield judged("ranks", "launch", text, apart, alone, few)
    for host, ranks in _by_host(facts).items():
        yield judged("ranks", "host", f"{host}: {_numbers(ranks)}")
    for own in one_machine((rank.host, rank.boot) for rank in facts.ranks):
        text = f"{', '.join(own)} are one machine, and share its cores"
        remedy = "Let the cores of all of them be as many as the machine's own."
        yield Finding("ranks", "host", NOTE, text, remedy)


def _cores(facts: Facts) -> Iterator[Finding]:
    for host, ranks in _by_host(facts).items():
        each = {r.threads for r in ranks}
        cores = {core for r in ranks for core in r.cores}
        threads = f"{spans(each)} BLAS {plural('thread', max(each))}"
        there = f"{threads} on {count(len(cores), 'core')}"
        text = f"{host}: {count(len(ranks), 'rank')} x {there}"
        crowd = _crowd(ranks)
        crowded = (crowd, NOTE, f"{text}: {crowd}", _fewer(facts))
        quota = min((r.quota for r in ranks if r.quota), default=float(len(cores)))
        scarce = quota < sum(r.threads for r in ranks)
        granted = f"{text}, of which a control group grants {quota:g}"
        most = int(quota / len(ranks))
        fewer = f"Give --threads {most}" if most else "Start fewer ranks"
        remedy = f"{fewer}, or give them more CPU."
        limited = (scarce, NOTE, granted, remedy)
        yield judged("cores", "threads", text, crowded, limited)
    for host, ranks in _by_host(facts).items():
        places = (f"{r.rank} on {spans(r.cores)}" for r in ranks)
        text = f"rank {', '.join(places)}"
        if len({r.cores for r in ranks}) == 1:
            text = f"all ranks may use cores {spans(ranks[0].cores)}"
        yield judged("cores", "binding", f"{host}: {text}")
    # Ranks that are alike are told of once, the first of them.
    alike = {(r.pools, r.vectors): r for r in reversed(facts.ranks)}
    for rank in reversed(alike.values()):
        yield from _blas(rank)


def _crowd(ranks: list[Rank]) -> str:
    """Say where on a host more BLAS threads than cores are, empty if nowhere."""
    everything = tuple({core for r in ranks for core in r.cores})
    for cores in [everything, *sorted({r.cores for r in ranks}, key=len)]:
        there = [r for r in ranks if set(r.cores) <= set(cores)]
        threads = sum(r.threads for r in there)
        if threads > len(cores):
            what = f"{_numbers(there)} run {threads} threads"
            return f"{what} on {numbered('core', cores)} and hold one another up"
    return ""


def _fewer(facts: Facts) -> str:
    threads = ", give --threads 1," if any(r.threads > 1 for r in facts.ranks) else ""
    remedy = f"Start fewer ranks{threads} or give them more cores"
    if "SLURM_STEP_NUM_TASKS" in facts.launch.claims:
        return f"{remedy} (srun --cpus-per-task)."
    bound = len({r.cores for r in facts.ranks}) > 1
    if bound and family(facts.software.mpi) == "openmpi":
        return f"{remedy}; let them share all (mpirun --bind-to none)."
    return f"{remedy}."


def _blas(rank: Rank) -> Iterator[Finding]:
    if not rank.pools:
        text = f"rank {rank.rank}: no BLAS library that threadpoolctl knows"
        remedy = "Use a NumPy with OpenBLAS, MKL or BLIS: --threads has no effect here."
        yield Finding("cores", "BLAS", NOTE, text, remedy)
    # mpilayer computes with NumPy's; SciPy's wheels bring another one.
    numpy_s = [p for p in rank.pools if "numpy" in Path(p.path).parent.name]
    weak, better = _WEAK_KERNELS.get(rank.vectors, ((), ""))
    remedy = f"Try OPENBLAS_CORETYPE={better}, or a newer NumPy."
    if rank.kernels_asked:
        remedy = (
            f"Unset OPENBLAS_CORETYPE={rank.kernels_asked}, unless runs must repeat "
            "those of older processors to the bit."
        )
    for pool in numpy_s or rank.pools:
        text = _named(pool)
        below = pool.library == "openblas" and pool.kernels.lower() in weak
        slow = (below, NOTE, f"{text}, on a processor with {rank.vectors}", remedy)
        yield judged("cores", "BLAS", text, slow)


def _named(pool: Pool) -> str:
    kernels = f", {pool.kernels} kernels" if pool.kernels else ""
    folder = Path(pool.path).parent.name
    owners = [f"{n}'s " for n in ("NumPy", "SciPy", "torch") if n.lower() in folder]
    name = f"{''.join(owners)}{pool.library} {pool.version}".strip()
    return f"{name}{kernels}, {count(pool.threads, 'thread')}"


def _memory(facts: Facts) -> Iterator[Finding]:
    for host, ranks in _by_host(facts).items():
        if ranks[0].shm is not None:
            yield _shm(facts, host, ranks[0].shm, len(ranks))
    for host, ranks in _by_host(facts).items():
        left = [r.memory for r in ranks if r.memory is not None]
        if left:
            each = min(left) // len(ranks)
            text = f"{host}: {size(each)} available for each rank"
            remedy = "Start fewer ranks on it, or ask for more memory (SLURM: --mem)."
            little = (each < _LITTLE_MEMORY, NOTE, text, remedy)
            yield judged("memory", "RAM", text, little)


def _shm(facts: Facts, host: str, shm: Space, n_ranks: int) -> Finding:
    """Judge the memory that ranks on one host share."""
    make, given = family(facts.software.mpi), facts.launch.settings
    unused = {
        "openmpi": "OMPI_MCA_btl_sm_backing_directory" in given,
        "intel": given.get("I_MPI_FABRICS") == "ofi",
        "mpich": given.get("MPIR_CVAR_NOLOCAL") == "1"
        and set(given.get("UCX_TLS", "").split(",")) <= {"tcp", "self"},
    }
    text = f"{host}: {size(shm.size)}, {size(shm.free)} free"
    if unused.get(make):
        text += "; MPI is told not to use it"
        if make == "mpich":
            text += ", so that no layer can have several ranks"
        return judged("memory", "/dev/shm", text)
    scarce, remedy = not shm_suffices(shm, n_ranks), more_shm(make)
    crash = (scarce and n_ranks > 1, PROBLEM, f"{text}: ranks may crash", remedy)
    others = (scarce, NOTE, f"{text}: several ranks may crash", remedy)
    thousands = max(0, int((shm.free - _STACK_BYTES) / _STACK_ROW_BYTES / 1000))
    rows = f"{1000 * thousands:,} rows" if thousands else "no rows"
    text += f"; several ranks a layer can train 784-1000-500-250-30 on {rows}"
    little = (thousands < _FEW_THOUSANDS, NOTE, text, more_shm(""))
    return judged("memory", "/dev/shm", text, crash, others, little)


def _messages(facts: Facts) -> Iterator[Finding]:
    links = facts.links
    for pair in links.pairs:
        yield _ping_pong(pair, inside=pair.host == facts.ranks[0].host)
    sums = []
    for item in links.sums:
        kilobytes = item.bytes < 10**6
        amount = f"{item.bytes / 1e3:.0f} kB" if kilobytes else size(item.bytes)
        speed = item.bytes / item.seconds / 1e9
        sums.append(f"{amount} in {1e6 * item.seconds:.0f} µs ({speed:.3g} GB/s)")
    if sums:
        yield judged("messages", "Allreduce", "; ".join(sums))
    if links.left_out:
        text = f"{count(links.left_out, 'more host')} not measured, for want of time"
        yield judged("messages", "ping-pong", text)


def _ping_pong(pair: PingPong, inside: bool) -> Finding:
    where = "" if inside else f" on {pair.host}"
    took = f"{1e6 * pair.latency:.3g} µs for 8 B"
    text = f"0 and {pair.rank}{where}: {took}, {pair.bandwidth / 1e9:.3g} GB/s for 4 MB"
    latency, bandwidth = _SLOW_INSIDE if inside else _SLOW_OUTSIDE
    remedy = "See that ranks have cores of their own, and try again on an idle machine."
    if not inside:
        remedy = (
            "See that MPI uses the fast network (UCX_NET_DEVICES, FI_PROVIDER); over a "
            "slow one pre-train on several hosts, but fine-tune on one."
        )
    slow = pair.latency > latency or pair.bandwidth < bandwidth
    return judged("messages", "ping-pong", text, (slow, NOTE, text, remedy))


def _folder(facts: Facts) -> Iterator[Finding]:
    folder = facts.folder
    if folder.type:
        kind = folder.type.removeprefix("fuse.")
        words, remedy = _FILE_SYSTEMS.get(kind, ("", ""))
        text = f"{folder.path} is on {folder.mount} ({folder.type})"
        strange = (words, NOTE, f"{text}, {words}", remedy)
        yield judged("folder", "disk", text, strange)
    if folder.space is not None:
        free = folder.space.free
        text = f"{size(free)} of {size(folder.space.size)} free"
        remedy = "Remove what is not needed, or go elsewhere."
        full = (free < _LEAST_DISK, PROBLEM, text, remedy)
        nearly = (free < _LITTLE_DISK, NOTE, text, remedy)
        yield judged("folder", "room", text, full, nearly)

    text = f"{folder.path} must be a writable folder; {folder.failure}"
    remedy = "Make it, mend its permissions, or name another: mpilayer doctor DIR."
    closed = (folder.failure, PROBLEM, text, remedy)
    text = f"an HDF5 file cannot be written and read: {folder.hdf5_failure}"
    remedy = "Use another file system: a checkpoint would fail in the same way."
    if folder.lock_failure:
        remedy = "Set HDF5_USE_FILE_LOCKING=FALSE: locks do not work there."
    broken = (folder.hdf5_failure, PROBLEM, text, remedy)
    wrote = "1 MB of HDF5 written, flushed, moved and verified"
    text = f"{wrote} in {folder.seconds:.2f} s"
    remedy = "Keep runs on a faster disk: every checkpoint waits for it."
    slow = (folder.seconds > _SLOW_WRITE, NOTE, text, remedy)
    yield judged("folder", "writing", text, closed, broken, slow)
    if not (folder.failure or folder.hdf5_failure):
        yield _locks(folder)
    if folder.seen:
        yield _sharing(facts)


def _locks(folder: Folder) -> Finding:
    setting = f" (HDF5_USE_FILE_LOCKING={folder.locking})" if folder.locking else ""
    if not folder.lock_failure:
        return judged("folder", "locks", f"HDF5 can lock files{setting}")
    text = f"HDF5 cannot lock files: {folder.lock_failure}"
    remedy = "Set HDF5_USE_FILE_LOCKING=FALSE if a program complains of locks."
    needed = (not folder.locking, NOTE, text, remedy)
    return judged("folder", "locks", f"{text}; it is told not to need it", needed)


def _sharing(facts: Facts) -> Finding:
    seen = facts.folder.seen
    ranks = [facts.ranks[rank] for rank, after in enumerate(seen) if after is None]
    hosts = ", ".join(sorted({rank.host for rank in ranks}))
    text = f"{_numbers(ranks)} on {hosts} cannot see what rank 0 writes"
    remedy = "Keep runs on a file system that all hosts share."
    blind = (ranks, PROBLEM, text, remedy)
    longest = max((after for after in seen if after is not None), default=0.0)
    text = f"all ranks see a file of rank 0 after {longest:.2f} s"
    remedy = "Keep runs elsewhere, or mount NFS with lookupcache=positive."
    late = (longest > _LATE_SIGHT, NOTE, text, remedy)
    return judged("folder", "shared", text, blind, late)


def _by_host(facts: Facts) -> dict[str, list[Rank]]:
    """Return the ranks of each host, in their order."""
    hosts = dict.fromkeys(rank.host for rank in facts.ranks)
    return {host: [r for r in facts.ranks if r.host == host] for host in hosts}


def _numbers(ranks: Iterable[Rank]) -> str:
    return numbered("rank", (r.rank for r in ranks))
