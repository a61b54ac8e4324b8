"""``mpilayer attend``: what the batch scripts of ``mpilayer job`` end with."""

import argparse
import os
import time

from mpilayer.attend import Attendant, is_srun, on_ranks, table
from mpilayer.cli import lines
from mpilayer.cli.arguments import add, numbers
from mpilayer.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.usage = "%(prog)s --mark MARK [--requeues N] [--ranks N,...] DIR -- COMMAND"
    parser.description = (
        "Run a command within a SLURM job: pass SLURM's warnings (USR1, TERM) on to it "
        "as USR1, believe the mark in the run directory rather than the exit status, "
        "and requeue the job when the command has saved (75)."
    )
    add(parser, "--mark", "what the command leaves in DIR/complete", required=True)
    often = "how often the job may start again by itself (default: 5)"
    add(parser, "--requeues", often, type=int, default=5, metavar="N")
    each = (
        "run the command on each of these, in DIR/ranks-N, and end with a table of "
        "their seconds; the command has %%ranks, %%nodes and %%run in it"
    )
    add(parser, "--ranks", each, type=numbers, default=(), metavar="N[,N...]")
    add(parser, "run", "the run directory")
    add(parser, "rest", argparse.SUPPRESS, nargs=argparse.REMAINDER)


def run(args: argparse.Namespace) -> None:
    """Attend; the exit code is the job's."""
    # Some versions of argparse keep the separator.
    command = args.rest[args.rest[:1] == ["--"] :]
    if not command:
        raise ConfigError(
            "a command must follow DIR and '--'; found none. 'mpilayer job' writes "
            "scripts that call this."
        )
    attendant = Attendant(args.mark, args.requeues, _say)
    if is_srun(command):
        attendant.skip_steps(max(1, len(args.ranks)))
    if not args.ranks:
        attendant.attend(command, args.run)
        return
    parts = {ranks: args.run / f"ranks-{ranks}" for ranks in args.ranks}
    for ranks, part in parts.items():
        if not attendant.is_done(part):
            attendant.attend(on_ranks(command, ranks, part), part)
    print(table(args.mark, parts))


def _say(text: str) -> None:
    job = os.environ.get("SLURM_JOB_ID", "")
    lines.to_stderr(f"job {job}, {time.strftime('%F %T')}: {text}")
