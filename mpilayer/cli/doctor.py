"""``mpilayer doctor``: what would break or slow down a run here."""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mpilayer import environment
from mpilayer.cli import show
from mpilayer.cli.options import add_threads
from mpilayer.doctor.examine import examine
from mpilayer.doctor.facts import Facts
from mpilayer.doctor.finding import NOTE, OK, PROBLEM, Finding, worst
from mpilayer.doctor.verdicts import judge
from mpilayer.words import count

EXIT_PROBLEM = 1

_MOST_ALIKE = 4

_STYLES = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = (
        "Start it as you start a run, with the same launcher and in the same job. "
        "Exit code: 0, or 1 when something would break a run."
    )
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path(),
        metavar="DIR",
        help="where runs are to be (default: here)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """Examine and print.

    SystemExit: with 1, when something would break a run: on rank 0 alone, since
    launchers end the others, perhaps before they have printed, when a rank ends so.
    """
    comm, facts = examine(args.directory, args.threads, _say)
    findings = judge(facts)
    number = comm.rank if comm.size > 1 else environment.launched_rank()
    if number > 0:
        return
    if args.json:
        print_json(facts, findings)
    else:
        print_report(findings)
    if worst(findings) == PROBLEM:
        raise SystemExit(EXIT_PROBLEM)


def print_json(facts: Facts, findings: Iterable[Finding]) -> None:
    """Print all facts and findings."""
    record = {
        "verdict": worst(findings),
        "ranks": facts.launch.size,
        "findings": [asdict(finding) for finding in findings],
        "facts": asdict(facts),
    }
    print(json.dumps(record), flush=True)


def print_report(findings: list[Finding]) -> None:
    """Print a line a finding, group by group; at the end what is not in order."""
    out = show.console()
    for group in dict.fromkeys(finding.group for finding in findings):
        out.print(Text(group, style="bold"))
        out.print(table(shortened([f for f in findings if f.group == group])))
    problems = [finding for finding in findings if finding.verdict == PROBLEM]
    notes = sum(finding.verdict == NOTE for finding in findings)
    out.print()
    counts = f"{_count(len(problems), 'problem')}, {_count(notes, 'note')}."
    out.print(f"{counts} What to mend:" if problems else counts)
    for finding in problems:
        text = Text(f"{finding.group}, {finding.subject}: {finding.remedy}")
        out.print(Padding(text, (0, 0, 0, 2)))


def shortened(findings: list[Finding]) -> list[Finding]:
    """Return the findings of a group; of many hosts in order only the first few."""
    fine = Counter(finding.subject for finding in findings if finding.verdict == OK)
    told: Counter[str] = Counter()
    short = []
    for finding in findings:
        subject, is_fine = finding.subject, finding.verdict == OK
        if is_fine:
            told[subject] += 1
        if not is_fine or told[subject] <= _MOST_ALIKE:
            short.append(finding)
        elif told[subject] == fine[subject]:
            rest = f"and {fine[subject] - _MOST_ALIKE} more like these"
            short.append(replace(finding, found=rest))
    return short


def table(findings: Iterable[Finding]) -> Padding:
    """Return the findings of a group."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=7)
    grid.add_column(width=10)
    grid.add_column(ratio=1)
    for finding in findings:
        text = [Text(finding.found, overflow="fold")]
        if finding.remedy:
            text.append(Text(f"→ {finding.remedy}", overflow="fold"))
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        grid.add_row(verdict, finding.subject, Group(*text))
    return Padding(grid, (0, 0, 0, 2))


def _count(number: int, what: str) -> str:
    return count(number, what) if number else f"no {what}s"


def _say(line: str) -> None:
    """Say what cannot wait for the report, once."""
    if environment.launched_rank() == 0:
        show.say(line)
