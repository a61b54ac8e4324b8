"""Judges software, launcher and job. Pure: facts in, findings out."""

from mpilayer.doctor.facts import Facts
from mpilayer.doctor.finding import NOTE, OK, PROBLEM, Finding, count, family

_END_IS_NEAR = 600.0


def check_versions(facts: Facts) -> list[Finding]:
    """List versions; hosts should agree on those that results depend on."""
    versions = facts.software.versions
    python = [f"{name} {versions[name]}" for name in ("Python", "mpilayer")]
    arrays = [f"{name} {versions[name]}" for name in ("NumPy", "SciPy")]
    text = ", ".join(python + arrays)
    different = sorted({rank.versions for rank in facts.ranks})
    if len(different) == 1:
        return [Finding("software", "Python", OK, text)]
    odd = [
        f"{' '.join(sorted(set(v) - set(different[0])))} on rank "
        f"{next(r.rank for r in facts.ranks if r.versions == v)}"
        for v in different
        if v != different[0]
    ]
    remedy = "Start all ranks with one Python environment that all hosts see."
    return [
        Finding("software", "Python", NOTE, f"{text}; but {'; '.join(odd)}", remedy)
    ]


def check_hdf5(facts: Facts) -> list[Finding]:
    """Name h5py and HDF5; parallel HDF5 is neither needed nor in the way."""
    versions = facts.software.versions
    build = "parallel" if facts.software.hdf5_mpi else "serial"
    text = f"h5py {versions['h5py']}, HDF5 {versions['HDF5']} ({build}; either is fine)"
    return [Finding("software", "HDF5", OK, text)]


def check_mpi(facts: Facts) -> list[Finding]:
    """Judge mpi4py and its library."""
    found = facts.software
    version = found.versions["mpi4py"]
    if not version:
        remedy = "For several ranks install mpilayer[mpi]."
        return [Finding("software", "MPI", NOTE, "mpi4py is not installed", remedy)]
    if found.mpi_failure:
        text = f"mpi4py {version} finds no MPI library: {found.mpi_failure}"
        remedy = "For several ranks load an MPI module, or install mpilayer[mpi]."
        return [Finding("software", "MPI", NOTE, text, remedy)]
    return [Finding("software", "MPI", OK, f"mpi4py {version}, {found.mpi}")]


def check_launcher(facts: Facts) -> list[Finding]:
    """Judge, before several ranks are started, the mpiexec that would start them."""
    found = facts.software
    if facts.launch.size > 1 or facts.launch.failure or not found.mpi:
        return []
    if not found.launcher:
        remedy = "Load your cluster's MPI module, or install mpilayer[mpi]."
        text = "no mpiexec on the path"
        return [Finding("software", "launcher", NOTE, text, remedy)]
    text = f"{found.launcher} ({found.launcher_version or 'of unknown make'})"
    theirs, ours = family(found.launcher_version), family(found.mpi)
    if theirs and ours and theirs != ours:
        remedy = f"Start ranks with the mpiexec of {found.mpi}."
        text = f"{text} is not that of {found.mpi}"
        return [Finding("software", "launcher", NOTE, text, remedy)]
    return [Finding("software", "launcher", OK, text), *_root(facts)]


def check_extras(facts: Facts) -> list[Finding]:
    """Tell which optional packages are missing."""
    findings = []
    uses = {"matplotlib": ("plot", "figures"), "Pillow": ("images", "image files")}
    for name, (extra, use) in uses.items():
        version = facts.software.versions[name]
        if version:
            findings.append(Finding("software", name, OK, version))
        else:
            remedy = f"For {use} install mpilayer[{extra}]."
            findings.append(Finding("software", name, NOTE, "not installed", remedy))
    return findings


def check_job(facts: Facts) -> list[Finding]:
    """Describe the SLURM job."""
    job = facts.job
    if not job.id:
        return []
    interface = f", srun --mpi={job.mpi_type}" if job.mpi_type else ""
    nodes = f" on {job.nodes}" if job.nodes else ""
    text = f"{job.id}{nodes}{interface}"
    if job.ends is None:
        return [Finding("job", "SLURM", OK, text)]
    left = job.ends - job.now
    text = f"{text}, {max(0.0, left) / 60:.0f} minutes left"
    if left < _END_IS_NEAR:
        remedy = "Ask for a longer job (sbatch --time), or start a new one."
        return [Finding("job", "SLURM", NOTE, text, remedy)]
    return [Finding("job", "SLURM", OK, text)]


def check_world(facts: Facts) -> list[Finding]:
    """Compare the ranks that MPI joined with those that a launcher started."""
    launch = facts.launch
    if launch.failure:
        found, _, remedy = launch.failure.partition(". ")
        return [Finding("ranks", "launch", PROBLEM, found, remedy)]
    together = {n: s for n, s in launch.claims.items() if n != "SLURM_NTASKS"}
    if launch.size == 1 and max(together.values(), default=1) > 1:
        name = max(together, key=lambda n: together[n])
        text = f"{name}={together[name]}, but this process is alone"
        remedy = "Start it with the mpiexec of its MPI library."
        return [Finding("ranks", "launch", PROBLEM, text, remedy)]
    tasks = launch.claims.get("SLURM_NTASKS", 1)
    n_ranks = count(launch.size, "rank")
    if tasks > launch.size:
        text = f"{n_ranks} in a job of {tasks} tasks"
        remedy = (
            f"Start all with mpiexec -n {tasks}, or srun --mpi=pmi2 (MPICH, Intel MPI) "
            "or --mpi=pmix (Open MPI)."
        )
        return [Finding("ranks", "launch", NOTE, text, remedy)]
    names = ", ".join(f"{n}={s}" for n, s in launch.claims.items())
    return [Finding("ranks", "launch", OK, f"{n_ranks} ({names or 'no launcher'})")]


def _root(facts: Facts) -> list[Finding]:
    """Note that Open MPI starts nothing for root unless it is told to."""
    given = facts.launch.settings
    names = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    missing = [name for name in names if given.get(name) != "1"]
    if (
        not facts.software.root
        or family(facts.software.mpi) != "openmpi"
        or not missing
    ):
        return []
    text = "Open MPI starts no ranks for root"
    remedy = f"Be another user, or set {' and '.join(f'{n}=1' for n in missing)}."
    return [Finding("software", "root", NOTE, text, remedy)]
