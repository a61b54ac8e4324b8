"""``mpilayer finetune``: unroll a pre-trained stack and train it end to end."""

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
from mpilayer.config import FinetuneConfig
from mpilayer.runs.finetune import run_finetune


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run", type=Path, metavar="DIR", help="a pre-trained run")
    parser.add_argument(
        "--data", type=Path, metavar="DATA.h5", help="where the run's data set is now"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="start again from the pre-trained stack, though the run is fine-tuned",
    )
    add_threads(parser)
    add_safety(parser)
    add_config(parser, FinetuneConfig)


def run(args: argparse.Namespace) -> None:
    """Fine-tune, and print the errors."""
    config = config_from(args, FinetuneConfig, "finetune")
    session = begin_training(args, "finetune")
    summary = run_finetune(args.run, config, session, args.data, args.replace)
    if session.comm.rank == 0:
        show_run(summary)


def show_run(summary: dict[str, Any]) -> None:
    """Print the errors of a fine-tuned run."""
    out = show.console()
    out.print(show.error_table(summary))
    out.print(
        f"Fine-tuning took {summary['finetune_seconds']:.1f} s, "
        f"{summary['finetune_allreduce']:.1f} s of them in Allreduce; the best "
        f"weights are those after epoch {summary['finetune_best_epoch']}.",
        soft_wrap=True,
    )
