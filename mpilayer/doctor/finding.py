"""A verdict, and the words that findings are made of."""

from collections.abc import Iterable
from dataclasses import dataclass

from mpilayer.doctor.facts import Rank

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """A verdict.

    Attributes
    ----------
    group, subject : str
        What it is about.
    verdict : str
        ``ok``, ``note`` or ``problem``.
    found : str
        What was found.
    remedy : str
        What to do, a sentence; empty if nothing is to be done.
    """

    group: str
    subject: str
    verdict: str
    found: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> str:
    """Return the gravest verdict."""
    verdicts = {finding.verdict for finding in findings}
    return next((v for v in (PROBLEM, NOTE) if v in verdicts), OK)


def by_host(ranks: Iterable[Rank]) -> dict[str, list[Rank]]:
    """Return the ranks of each host, in their order."""
    hosts: dict[str, list[Rank]] = {}
    for rank in ranks:
        hosts.setdefault(rank.host, []).append(rank)
    return hosts


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
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def size(n_bytes: int) -> str:
    """Return bytes as text, in MB, GB or TB."""
    if n_bytes < 10**9:
        return f"{n_bytes / 1e6:.3g} MB"
    if n_bytes >= 10**12:
        return f"{n_bytes / 1e12:.3g} TB"
    return f"{n_bytes / 1e9:.3g} GB"


def count(number: int, what: str) -> str:
    """Return a number of things as text: ``1 rank``, ``2 ranks``."""
    return f"{number} {what}{'s' * (number != 1)}"
