"""``mpilayer pretrain``: all layers of a stack, at once or one after the other."""

import argparse
from pathlib import Path
from typing import Any

from mpilayer.cli import show
from mpilayer.cli.options import (
    add_config,
    add_safety,
    add_threads,
    begin_training,
    config_from,
)
from mpilayer.config import PretrainConfig
from mpilayer.runs.pretrain import pretrain


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("data", type=Path, metavar="DATA.h5", help="the data set")
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        metavar="DIR",
        help="the run directory to make",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace a run that is there already"
    )
    add_threads(parser)
    add_safety(parser)
    add_config(parser, PretrainConfig)


def run(args: argparse.Namespace) -> None:
    """Pre-train, and print errors and times."""
    config = config_from(args, PretrainConfig, "pretrain")
    session = begin_training(args, "pretrain")
    summary = pretrain(args.data, args.run, config, session, args.replace)
    if session.comm.rank == 0:
        with show.told_by(args.run):
            show_run(args.run, summary)


def show_run(run: Path | None, summary: dict[str, Any]) -> None:
    """Print errors and times of a pre-trained run, and what may follow in ``run``."""
    out = show.console()
    out.print(show.time_table(summary))
    out.print(show.error_table(summary))
    following = f" Next: mpilayer finetune {run}" if run else ""
    out.print(
        f"Pre-training took {summary['pretrain_seconds']:.1f} s.{following}",
        soft_wrap=True,
    )
