"""What trains: ``mpilayer pretrain``, ``finetune``, ``resume`` and the like."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpilayer.cli import results, show
from mpilayer.cli.arguments import add_data, add_replace
from mpilayer.cli.options import (
    add_config,
    add_safety,
    add_threads,
    config_from,
    safety_from,
)
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, read_toml
from mpilayer.runs.drive import resume, training_of
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import TASKS, command_of, noted_threads


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
            parser.add_argument(
                "run", type=Path, metavar="DIR", help="a pre-trained run"
            )
            add_data(parser)
            parser.add_argument(
                "--replace",
                action="store_true",
                help="start again from the pre-trained stack, though the run is "
                "fine-tuned",
            )
        else:
            parser.add_argument(
                "data", type=Path, metavar="DATA.h5", help="the data set"
            )
            made = "the run directory to make"
            parser.add_argument(
                "--run", type=Path, required=True, metavar="DIR", help=made
            )
            add_replace(parser, "a run that is there already")
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


class Resume:
    """``mpilayer resume``: go on with an interrupted run."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.description = (
            "Go on with a run of pretrain, finetune, sparse or compare where it was "
            "interrupted. The result is that of an uninterrupted run."
        )
        parser.add_argument("run", type=Path, metavar="DIR", help="the run")
        add_data(parser)
        add_threads(parser, "as when the run began")
        add_safety(parser, starts=False)

    def run(self, args: argparse.Namespace) -> None:
        """Go on, and print what the command itself would."""
        threads = args.threads or noted_threads(args.run, command_of(args.run))
        session = Session.begin(threads, show.say, show.progress, safety_from(args))
        command, summary = resume(args.run, session, args.data)
        if session.comm.rank == 0:
            with show.told_by(args.run):
                results.show_result(command, args.run, summary)


_BOTH = (
    "Train a sparse autoencoder twice from one start, with the average and with the "
    "exact sparsity term (or --kl exact-fused), and compare."
)

TRAINING: Mapping[str, TrainingCommand] = {
    "pretrain": TrainingCommand("pretrain", PretrainConfig),
    "finetune": TrainingCommand("finetune", FinetuneConfig),
    "sparse": TrainingCommand("sparse", SparseConfig),
    "compare": TrainingCommand("compare", SparseConfig, _BOTH),
}
"""The commands that start a training, by their names."""

COMMANDS: Mapping[str, TrainingCommand | Resume] = {**TRAINING, "resume": Resume()}
"""The commands by their names."""
