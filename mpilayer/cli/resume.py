"""``mpilayer resume``: go on with an interrupted run."""

import argparse
from pathlib import Path

from mpilayer.cli import show
from mpilayer.cli.options import add_safety, add_threads, safety_from
from mpilayer.cli.results import show_result
from mpilayer.runs.drive import resume
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import command_of, noted_threads


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Go on with a run of pretrain, finetune, sparse or compare where it was "
        "interrupted. The result is that of an uninterrupted run."
    )
    parser.add_argument("run", type=Path, metavar="DIR", help="the run")
    parser.add_argument(
        "--data", type=Path, metavar="DATA.h5", help="where the run's data set is now"
    )
    add_threads(parser, "as when the run began")
    add_safety(parser, starts=False)


def run(args: argparse.Namespace) -> None:
    """Go on, and print what the command itself would."""
    threads = args.threads or noted_threads(args.run, command_of(args.run))
    session = Session.begin(threads, show.say, show.progress, safety_from(args))
    command, summary = resume(args.run, session, args.data)
    if session.comm.rank == 0:
        with show.told_by(args.run):
            show_result(command, args.run, summary)
