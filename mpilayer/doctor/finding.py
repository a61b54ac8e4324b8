"""A verdict, and the words that findings are made of."""

from collections.abc import Iterable
from dataclasses import dataclass

from mpilayer.words import plural

OK, NOTE, PROBLEM = "ok", "note", "problem"

Complaint = tuple[object, str, str, str]
"""Whether it holds, the verdict, what was found, and what to do, a sentence."""


@dataclass(frozen=True)
class Finding:
    """A verdict on a subject of a group; ``remedy`` is empty if all is well."""

    group: str
    subject: str
    verdict: str
    found: str
    remedy: str = ""


def judged(group: str, subject: str, fine: str, *complaints: Complaint) -> Finding:
    """Return the first complaint that holds; without one all is well, says ``fine``."""
    for holds, verdict, found, remedy in complaints:
        if holds:
            return Finding(group, subject, verdict, found, remedy)
    return Finding(group, subject, OK, fine)


def worst(findings: Iterable[Finding]) -> str:
    """Return the gravest verdict."""
    verdicts = (finding.verdict for finding in findings)
    return max(verdicts, key=(OK, NOTE, PROBLEM).index, default=OK)


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


def numbered(what: str, numbers: Iterable[int]) -> str:
    """Return things with their numbers: ``rank 3``, ``ranks 0-2``."""
    found = set(numbers)
    return f"{plural(what, len(found))} {spans(found)}"


def size(n_bytes: int) -> str:
    """Return bytes as text, in MB, GB or TB."""
    if n_bytes < 10**9:
        return f"{n_bytes / 1e6:.3g} MB"
    if n_bytes >= 10**12:
        return f"{n_bytes / 1e12:.3g} TB"
    return f"{n_bytes / 1e9:.3g} GB"
