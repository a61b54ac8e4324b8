"""``mpilayer finetune``: train a pre-trained stack end to end, for one of the tasks."""

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
from mpilayer.config import FinetuneConfig, read_toml
from mpilayer.runs.finetune import run_finetune
from mpilayer.runs.tasks import TASKS, Task


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
    config = config_from(args, FinetuneConfig, task_section(args))
    task = TASKS[config.task]
    session = begin_training(args, task.name)
    summary = run_finetune(args.run, config, session, args.data, args.replace)
    if session.comm.rank == 0:
        with show.told_by(args.run):
            show_run(summary, task)


def task_section(args: argparse.Namespace) -> str:
    """Return the section of ``--config`` for the task: its own, if the file has one."""
    usual = TASKS["autoencode"].name
    if args.config is None or args.task not in TASKS:
        return usual
    name = TASKS[args.task].name
    return name if read_toml(args.config, name) else usual


def show_run(summary: dict[str, Any], task: Task = TASKS["autoencode"]) -> None:
    """Print the errors of a fine-tuned run."""
    out = show.console()
    if task == TASKS["autoencode"]:
        out.print(show.error_table(summary))
    else:
        out.print(show.prediction_table(summary[f"{task.name}_error"], task.name))
    out.print(
        f"Fine-tuning took {summary[f'{task.name}_seconds']:.1f} s, "
        f"{summary[f'{task.name}_allreduce']:.1f} s of them in Allreduce; the best "
        f"weights are those after epoch {summary[f'{task.name}_best_epoch']}.",
        soft_wrap=True,
    )
