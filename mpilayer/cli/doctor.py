"""``mpilayer doctor``: what would break or slow down a run here."""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from mpilayer import environment
from mpilayer.cli import show
from mpilayer.cli.arguments import add
from mpilayer.cli.options import add_threads
from mpilayer.doctor.examine import examine
from mpilayer.doctor.facts import NOTE, OK, PROBLEM, Finding, worst
from mpilayer.doctor.verdicts import judge
from mpilayer.words import count

_MOST_ALIKE = 4
_STYLES = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = (
        "Start it as you start a run, with the same launcher and in the same job. "
        "Exit code: 0, or 1 when something would break a run."
    )
    where = "where runs are to be (default: here)"
    usual = {"type": Path, "nargs": "?", "default": Path(), "metavar": "DIR"}
    add(parser, "directory", where, **usual)
    add(parser, "--json")
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """Examine and print; exit with 1 when something would break a run.

    On rank 0 alone, since launchers end the others, perhaps before they have printed,
    when a rank ends so.
    """
    comm, facts = examine(args.directory, args.threads or 1, _say)
    findings = judge(facts)
    number = comm.rank if comm.size > 1 else environment.launched_rank()
    if number > 0:
        return
    if args.json:
        record = {"verdict": worst(findings), "ranks": facts.launch.size}
        told = {"findings": list(map(asdict, findings)), "facts": asdict(facts)}
        print(json.dumps({**record, **told}), flush=True)
    else:
        print_report(findings)
    if worst(findings) == PROBLEM:
        raise SystemExit(1)


def print_report(findings: list[Finding]) -> None:
    """Print a line a finding, group by group; at the end what is not in order."""
    out = show.console()
    for group in dict.fromkeys(finding.group for finding in findings):
        out.print(Text(group, style="bold"))
        out.print(table(shortened([f for f in findings if f.group == group])))
    problems = [finding for finding in findings if finding.verdict == PROBLEM]
    notes = sum(finding.verdict == NOTE for finding in findings)
    numbers = {"problem": len(problems), "note": notes}.items()
    counts = ", ".join(count(n, what) if n else f"no {what}s" for what, n in numbers)
    out.print()
    out.print(f"{counts}. What to mend:" if problems else f"{counts}.")
    for finding in problems:
        text = Text(f"{finding.group}, {finding.subject}: {finding.remedy}")
        out.print(Padding(text, (0, 0, 0, 2)))


def shortened(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the findings of a group; of many hosts in order only the first few."""
    fine = Counter(finding.subject for finding in findings if finding.verdict == OK)
    seen = Counter[str]()
    for finding in findings:
        subject, is_fine = finding.subject, finding.verdict == OK
        seen[subject] += is_fine
        if not is_fine or seen[subject] <= _MOST_ALIKE:
            yield finding
        elif seen[subject] == fine[subject]:
            rest = f"and {seen[subject] - _MOST_ALIKE} more like these"
            yield replace(finding, found=rest)


def table(findings: Iterable[Finding]) -> Padding:
    """Return the findings of a group."""
    grid = Table.grid(
        Column(width=7), Column(width=10), Column(ratio=1), padding=(0, 2, 0, 0)
    )
    for finding in findings:
        text = [finding.found, f"→ {finding.remedy}"][: 1 + bool(finding.remedy)]
        told = Group(*(Text(line, overflow="fold") for line in text))
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        grid.add_row(verdict, finding.subject, told)
    return Padding(grid, (0, 0, 0, 2))


def _say(line: str) -> None:
    """Say what cannot wait for the report, once."""
    if environment.launched_rank() == 0:
        show.say(line)
