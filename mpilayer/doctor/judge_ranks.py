"""Judges cores, BLAS and messages. Pure: facts in, findings out."""

from pathlib import Path

from mpilayer.doctor.facts import Facts, Links, Pool, Rank, Sum
from mpilayer.doctor.finding import (
    NOTE,
    OK,
    Finding,
    by_host,
    count,
    family,
    size,
    spans,
)

_CLOCKS = 1.0
# Slower than these is worth a note: within a host, and between hosts (Gigabit Ethernet
# has 0.1 GB/s).
_SLOW_INSIDE = (100e-6, 0.5e9)
_SLOW_OUTSIDE = (200e-6, 0.2e9)
# OpenBLAS's names for kernels that use AVX2 or less.
_WITHOUT_AVX512 = ("prescott", "nehalem", "sandybridge", "haswell", "zen")
_WITHOUT_AVX2 = ("prescott", "nehalem", "sandybridge")


def check_hosts(facts: Facts) -> list[Finding]:
    """Say which ranks are where."""
    findings = []
    for host, ranks in by_host(facts.ranks).items():
        numbers = spans(r.rank for r in ranks)
        text = f"{host}: rank{'s' * (len(ranks) > 1)} {numbers}"
        findings.append(Finding("ranks", "host", OK, text))
    return findings


def check_cores(facts: Facts) -> list[Finding]:
    """Compare each host's cores with the BLAS threads of its ranks."""
    findings = []
    for host, ranks in by_host(facts.ranks).items():
        cores = frozenset(core for r in ranks for core in r.cores)
        threads = sum(r.threads for r in ranks)
        each = spans(sorted({r.threads for r in ranks}))
        text = (
            f"{host}: {count(len(ranks), 'rank')} x {each} BLAS "
            f"thread{'s' * (each != '1')} on {count(len(cores), 'core')}"
        )
        crowd = crowded(ranks)
        quota = min((r.quota for r in ranks if r.quota), default=None)
        if crowd:
            text = f"{text}: {crowd}"
            remedy = _fewer(facts)
            findings.append(Finding("cores", "threads", NOTE, text, remedy))
        elif quota is not None and quota < threads:
            text = f"{text}, of which a control group grants {quota:g}"
            remedy = f"Give --threads {max(1, int(quota / len(ranks)))}, or more CPU."
            findings.append(Finding("cores", "threads", NOTE, text, remedy))
        else:
            findings.append(Finding("cores", "threads", OK, text))
    return findings


def check_binding(facts: Facts) -> list[Finding]:
    """Say which cores each rank may use."""
    findings = []
    for host, ranks in by_host(facts.ranks).items():
        if len({r.cores for r in ranks}) == 1:
            text = f"{host}: all ranks may use cores {spans(ranks[0].cores)}"
        else:
            places = (f"{r.rank} on {spans(r.cores)}" for r in ranks)
            text = f"{host}: rank {', '.join(places)}"
        findings.append(Finding("cores", "binding", OK, text))
    return findings


def check_blas(facts: Facts) -> list[Finding]:
    """Judge the BLAS libraries: one, with kernels for the processor."""
    findings = []
    seen = set()
    for rank in facts.ranks:
        pools = used(rank.pools)
        what = (tuple(pools), rank.vectors)
        if what in seen:
            continue
        seen.add(what)
        findings += [_kernels(rank, pool) for pool in pools]
        if not pools:
            text = f"rank {rank.rank}: no BLAS library that threadpoolctl knows"
            remedy = "Set OMP_NUM_THREADS, since --threads has no effect on it."
            findings.append(Finding("cores", "BLAS", NOTE, text, remedy))
        if len(rank.pools) > len(pools):
            others = [p for p in rank.pools if p not in pools]
            text = f"{len(rank.pools)} are loaded, also {_named(others[0])}"
            remedy = (
                "mpilayer computes with NumPy's alone: the other one costs memory only."
            )
            findings.append(Finding("cores", "BLAS", NOTE, text, remedy))
    return findings


def check_links(facts: Facts) -> list[Finding]:
    """Judge the messages that were measured."""
    links, home = facts.links, facts.ranks[0].host
    findings = []
    for pair in links.pairs:
        inside = pair.host == home
        latency, bandwidth = _SLOW_INSIDE if inside else _SLOW_OUTSIDE
        place = "" if inside else f" on {pair.host}"
        text = (
            f"0 and {pair.rank}{place}: {1e6 * pair.latency:.3g} µs for 8 B, "
            f"{pair.bandwidth / 1e9:.3g} GB/s for 4 MB"
        )
        if pair.latency <= latency and pair.bandwidth >= bandwidth:
            findings.append(Finding("messages", "ping-pong", OK, text))
            continue
        remedy = (
            "See that ranks have cores of their own, and try again on an idle machine."
            if inside
            else "See that MPI uses the fast network (UCX_NET_DEVICES, FI_PROVIDER); "
            "over a slow one pre-train on several hosts, but fine-tune on one."
        )
        findings.append(Finding("messages", "ping-pong", NOTE, text, remedy))
    return findings + _sums(links)


def check_clocks(facts: Facts) -> list[Finding]:
    """Compare the clocks of hosts: times in metrics and files come from them."""
    clocks = {r.host: r.clock for r in facts.ranks}
    if len(clocks) == 1:
        return []
    apart = max(clocks.values()) - min(clocks.values())
    text = f"hosts differ by {apart:.2f} s"
    if apart <= _CLOCKS:
        return [Finding("messages", "clocks", OK, text)]
    late = min(clocks, key=lambda host: clocks[host])
    remedy = f"Set the clocks by NTP (chronyc tracking); {late} is behind."
    return [Finding("messages", "clocks", NOTE, text, remedy)]


def crowded(ranks: list[Rank]) -> str:
    """Say where more BLAS threads than cores are, empty if nowhere.

    Parameters
    ----------
    ranks : list of Rank
        Those of one host.
    """
    everything = frozenset(core for r in ranks for core in r.cores)
    for cores in [everything, *sorted({r.cores for r in ranks}, key=len)]:
        there = [r for r in ranks if set(r.cores) <= set(cores)]
        threads = sum(r.threads for r in there)
        if threads > len(cores):
            numbers = spans(r.rank for r in there)
            on = "core" if len(cores) == 1 else "cores"
            return (
                f"rank{'s' * (len(there) > 1)} {numbers} run {threads} threads on {on} "
                f"{spans(cores)} and hold one another up"
            )
    return ""


def used(pools: tuple[Pool, ...]) -> list[Pool]:
    """Return NumPy's BLAS, which mpilayer uses; all if NumPy does not bring its own."""
    return [p for p in pools if "numpy" in Path(p.path).parent.name] or list(pools)


def _fewer(facts: Facts) -> str:
    threads = ", give --threads 1," if any(r.threads > 1 for r in facts.ranks) else ""
    remedy = f"Start fewer ranks{threads} or give them more cores"
    if "SLURM_STEP_NUM_TASKS" in facts.launch.claims:
        return f"{remedy} (srun --cpus-per-task)."
    bound = len({r.cores for r in facts.ranks}) > 1
    if bound and family(facts.software.mpi) == "openmpi":
        return f"{remedy}; let them share all (mpirun --bind-to none)."
    return f"{remedy}."


def _kernels(rank: Rank, pool: Pool) -> Finding:
    weak = {"AVX-512": _WITHOUT_AVX512, "AVX2": _WITHOUT_AVX2}.get(rank.vectors, ())
    text = _named(pool)
    if pool.library != "openblas" or pool.kernels.lower() not in weak:
        return Finding("cores", "BLAS", OK, text)
    text = f"{text}, on a processor with {rank.vectors}"
    better = "SkylakeX" if rank.vectors == "AVX-512" else "Haswell"
    remedy = (
        f"Unset OPENBLAS_CORETYPE={rank.kernels_asked}, unless runs must repeat those "
        "of older processors to the bit."
        if rank.kernels_asked
        else f"Try OPENBLAS_CORETYPE={better}, or a newer NumPy."
    )
    return Finding("cores", "BLAS", NOTE, text, remedy)


def _named(pool: Pool) -> str:
    kernels = f", {pool.kernels} kernels" if pool.kernels else ""
    folder = Path(pool.path).parent.name
    owner = next((n for n in ("NumPy", "SciPy", "torch") if n.lower() in folder), "")
    whose = f"{owner}'s " if owner else ""
    name = f"{whose}{pool.library} {pool.version}".strip()
    return f"{name}{kernels}, {count(pool.threads, 'thread')}"


def _sums(links: Links) -> list[Finding]:
    findings = []
    if links.sums:
        text = "; ".join(map(_sum_text, links.sums))
        findings.append(Finding("messages", "Allreduce", OK, text))
    if links.left_out:
        text = f"{count(links.left_out, 'more host')} not measured, for want of time"
        findings.append(Finding("messages", "ping-pong", OK, text))
    return findings


def _sum_text(item: Sum) -> str:
    speed = item.bytes / item.seconds / 1e9
    amount = f"{item.bytes / 1e3:.0f} kB" if item.bytes < 10**6 else size(item.bytes)
    return f"{amount} in {1e6 * item.seconds:.0f} µs ({speed:.3g} GB/s)"
