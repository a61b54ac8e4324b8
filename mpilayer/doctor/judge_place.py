"""Judges memory and the folder for runs. Pure: facts in, findings out."""

from mpilayer.doctor.facts import Facts, Folder, Space
from mpilayer.doctor.finding import (
    NOTE,
    OK,
    PROBLEM,
    Finding,
    by_host,
    family,
    size,
    spans,
)

_MIB = 1 << 20
_CONTAINER_SHM = 64 * _MIB
# MPICH 5 was seen to take 5.4 MB a rank.
_SHM_OF_RANK = 8 * _MIB
_LEAST_DISK, _LITTLE_DISK = 10**9, 5 * 10**9
_LITTLE_MEMORY = 10**9
_SLOW_WRITE = 1.0
_LATE_SIGHT = 1.0
_FILE_SYSTEMS = {
    "nfs": "a network file system: small files and new names take long to get around",
    "nfs4": "a network file system: small files and new names take long to get around",
    "cifs": "a network file system without POSIX locks",
    "lustre": "Lustre: large files are fast, many small ones are not",
    "beegfs": "BeeGFS: large files are fast, many small ones are not",
    "gpfs": "GPFS: large files are fast, many small ones are not",
    "overlay": "a container's own layer, which ends with the container",
    "tmpfs": "in memory, and gone when the machine is switched off",
    "ramfs": "in memory, and gone when the machine is switched off",
}
_FILE_SYSTEM_REMEDIES = {
    "overlay": "Mount a folder of the host, and keep runs there.",
    "tmpfs": "Copy what you want to keep.",
    "ramfs": "Copy what you want to keep.",
    "cifs": "Keep runs on another file system if a check below fails.",
}
_USUAL_REMEDY = "Runs work there; a local disk or scratch may be faster on one host."


def check_shm(facts: Facts) -> list[Finding]:
    """Judge the memory that ranks on one host share."""
    findings = []
    for host, ranks in by_host(facts.ranks).items():
        shm, several = ranks[0].shm, len(ranks) > 1
        if shm is None:
            continue
        text = f"{host}: {size(shm.size)}, {size(shm.free)} free"
        if _shm_unused(facts):
            text = f"{text}; MPI is told not to use it"
            findings.append(Finding("memory", "/dev/shm", OK, text))
        elif shm_suffices(shm, len(ranks)):
            findings.append(Finding("memory", "/dev/shm", OK, text))
        else:
            verdict = PROBLEM if several else NOTE
            text = f"{text}: {'' if several else 'several '}ranks may crash"
            remedy = more_shm(family(facts.software.mpi))
            findings.append(Finding("memory", "/dev/shm", verdict, text, remedy))
    return findings


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


def check_neighbours(facts: Facts) -> list[Finding]:
    """Judge whether ranks may copy from one another's memory."""
    tried = [rank for rank in facts.ranks if rank.neighbour is not None]
    refused = [rank for rank in tried if rank.neighbour]
    if not tried:
        return []
    if not refused:
        text = "ranks on a host can read one another's memory"
        return [Finding("memory", "copies", OK, text)]
    text = (
        f"rank {refused[0].rank} may not read its neighbour's memory "
        f"(process_vm_readv: {refused[0].neighbour}): large messages are copied twice"
    )
    remedy = (
        "In a container give docker --cap-add=SYS_PTRACE, elsewhere sysctl "
        "kernel.yama.ptrace_scope=0; if Open MPI complains, "
        "OMPI_MCA_smsc=^cma (version 4: OMPI_MCA_btl_vader_single_copy_mechanism=none)."
    )
    return [Finding("memory", "copies", NOTE, text, remedy)]


def check_memory(facts: Facts) -> list[Finding]:
    """Judge the memory of each rank."""
    findings = []
    for host, ranks in by_host(facts.ranks).items():
        left = [r.memory for r in ranks if r.memory is not None]
        shares = [min(left) // len(ranks)] if left else []
        spaces = [r.address_space for r in ranks if r.address_space is not None]
        if not shares and not spaces:
            continue
        each = min(shares + spaces)
        limit = f", ulimit -v {size(min(spaces))}" if spaces else ""
        text = f"{host}: {size(each)} available for each rank{limit}"
        if each < _LITTLE_MEMORY:
            remedy = (
                "Start fewer ranks on it, or ask for more memory (SLURM: --mem)."
                if each in shares
                else "Raise it with ulimit -v unlimited before the start."
            )
            findings.append(Finding("memory", "RAM", NOTE, text, remedy))
        else:
            findings.append(Finding("memory", "RAM", OK, text))
    return findings


def check_file_system(facts: Facts) -> list[Finding]:
    """Judge where the folder lies, and the room there."""
    folder, found = facts.folder, []
    if folder.type:
        kind = folder.type.removeprefix("fuse.")
        words = _FILE_SYSTEMS.get(kind)
        text = f"{folder.path} is on {folder.mount} ({folder.type})"
        if words:
            remedy = _FILE_SYSTEM_REMEDIES.get(kind, _USUAL_REMEDY)
            found.append(Finding("folder", "disk", NOTE, f"{text}, {words}", remedy))
        else:
            found.append(Finding("folder", "disk", OK, text))
    if folder.space is not None:
        free = folder.space.free
        text = f"{size(free)} of {size(folder.space.size)} free"
        verdict = PROBLEM if free < _LEAST_DISK else NOTE if free < _LITTLE_DISK else OK
        remedy = "" if verdict == OK else "Remove what is not needed, or go elsewhere."
        found.append(Finding("folder", "room", verdict, text, remedy))
    return found


def check_writing(facts: Facts) -> list[Finding]:
    """Judge what was tried in the folder."""
    folder = facts.folder
    if folder.failure:
        text = f"{folder.path} must be a writable folder; {folder.failure}"
        remedy = "Make it, mend its permissions, or name another: mpilayer doctor DIR."
        return [Finding("folder", "writing", PROBLEM, text, remedy)]
    if folder.hdf5_failure:
        text = f"an HDF5 file cannot be written and read: {folder.hdf5_failure}"
        remedy = (
            "Set HDF5_USE_FILE_LOCKING=FALSE: locks do not work there."
            if folder.lock_failure
            else "Use another file system: a checkpoint would fail in the same way."
        )
        return [Finding("folder", "writing", PROBLEM, text, remedy)]
    text = (
        f"1 MB of HDF5 written, flushed, moved and verified in {folder.seconds:.2f} s"
    )
    if folder.seconds > _SLOW_WRITE:
        remedy = "Keep runs on a faster disk: every checkpoint waits for it."
        return [Finding("folder", "writing", NOTE, text, remedy), *_locks(folder)]
    return [Finding("folder", "writing", OK, text), *_locks(folder)]


def check_sharing(facts: Facts) -> list[Finding]:
    """Judge whether all ranks see the same folder."""
    seen = facts.folder.seen
    blind = [rank for rank, seconds in enumerate(seen) if seconds is None]
    if not seen:
        return []
    if blind:
        hosts = sorted({facts.ranks[rank].host for rank in blind})
        text = (
            f"rank{'s' * (len(blind) > 1)} {spans(blind)} on {', '.join(hosts)} cannot "
            "see what rank 0 writes"
        )
        remedy = "Keep runs on a file system that all hosts share."
        return [Finding("folder", "shared", PROBLEM, text, remedy)]
    longest = max(seconds for seconds in seen if seconds is not None)
    text = f"all ranks see a file of rank 0 after {longest:.2f} s"
    if longest > _LATE_SIGHT:
        remedy = "Keep runs elsewhere, or mount NFS with lookupcache=positive."
        return [Finding("folder", "shared", NOTE, text, remedy)]
    return [Finding("folder", "shared", OK, text)]


def _shm_unused(facts: Facts) -> bool:
    """Tell whether one of the variables that :func:`more_shm` names is set."""
    given = facts.launch.settings
    return {
        "openmpi": "OMPI_MCA_btl_sm_backing_directory" in given,
        "intel": given.get("I_MPI_FABRICS") == "ofi",
        "mpich": given.get("MPIR_CVAR_NOLOCAL") == "1"
        and set(given.get("UCX_TLS", "").split(",")) <= {"tcp", "self"},
    }.get(family(facts.software.mpi), False)


def _locks(folder: Folder) -> list[Finding]:
    if not folder.lock_failure:
        setting = f" (HDF5_USE_FILE_LOCKING={folder.locking})" if folder.locking else ""
        return [Finding("folder", "locks", OK, f"HDF5 can lock files{setting}")]
    text = f"HDF5 cannot lock files: {folder.lock_failure}"
    if folder.locking:
        return [Finding("folder", "locks", OK, f"{text}; it is told not to need it")]
    remedy = "Set HDF5_USE_FILE_LOCKING=FALSE if a program complains of locks."
    return [Finding("folder", "locks", NOTE, text, remedy)]
