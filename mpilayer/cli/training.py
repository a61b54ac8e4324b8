"""The commands that train: ``pretrain``, ``finetune``, ``sparse`` and ``compare``."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpilayer.cli import results, show
from mpilayer.cli.options import (
    add_config,
    add_safety,
    add_threads,
    config_from,
    safety_from,
)
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, read_toml
from mpilayer.runs.drive import training_of
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import TASKS, noted_threads


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains: its options, its start, and what it shows at its end."""

    name: str
    config: type[Any]
    description: str = ""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        if self.description:
            parser.description = self.description
        if self.name == "finetune":
            _add_former_run(parser)
        else:
            _add_new_run(parser)
        add_threads(
            parser, str(training_of(self.name).threads or "its share of the cores")
        )
        add_safety(parser)
        if self.name == "compare":
            parser.add_argument("--json", action="store_true", help="print JSON")
        add_config(parser, self.config)

    def run(self, args: argparse.Namespace) -> None:
        """Train, and print what was reached."""
        config = config_from(args, self.config, self.section(args))
        name = TASKS[config.task].name if self.name == "finetune" else self.name
        safety = safety_from(args)
        # With other threads than the run began with, bits would differ.
        noted = noted_threads(args.run, name) if safety.resume else 0
        threads = args.threads or noted or training_of(name).threads
        session = Session.begin(threads, show.say, show.progress, safety)
        training = training_of(name)(args.run, session, config, args.data, args.replace)
        summary = training.drive()
        if session.comm.rank > 0:
            return
        if getattr(args, "json", False):
            print(json.dumps(summary))
        else:
            with show.told_by(args.run):
                results.show_result(name, args.run, summary)

    def section(self, args: argparse.Namespace) -> str:
        """Return the section of ``--config``; a task has its own, if the file has."""
        if self.name != "finetune" or args.config is None or args.task not in TASKS:
            return self.name
        name = TASKS[args.task].name
        return name if read_toml(args.config, name) else self.name


def _add_new_run(parser: argparse.ArgumentParser) -> None:
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


def _add_former_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="DIR", help="a pre-trained run")
    parser.add_argument(
        "--data", type=Path, metavar="DATA.h5", help="where the run's data set is now"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="start again from the pre-trained stack, though the run is fine-tuned",
    )


_BOTH = (
    "Train a sparse autoencoder twice from one start, with the average and with the "
    "exact sparsity term (or --kl exact-fused), and compare."
)

COMMANDS: Mapping[str, TrainingCommand] = {
    command.name: command
    for command in (
        TrainingCommand("pretrain", PretrainConfig),
        TrainingCommand("finetune", FinetuneConfig),
        TrainingCommand("sparse", SparseConfig),
        TrainingCommand("compare", SparseConfig, _BOTH),
    )
}
"""The commands by their names."""
