"""What trains: ``pretrain``, ``finetune``, ``resume``, ``run`` and the like."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpilayer.cli import options, results, show
from mpilayer.cli.arguments import Command, add, reader
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, read_toml
from mpilayer.errors import ConfigError, TrainingError
from mpilayer.runs.drive import resume, training_of
from mpilayer.runs.experiment import Experiment, Plan
from mpilayer.runs.session import Safety, Session
from mpilayer.runs.tasks import TASKS
from mpilayer.sweep.drive import Sweep
from mpilayer.sweep.plan import SweepPlan, read_sweep
from mpilayer.words import count, few


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains: its options, its start, and what it shows at its end."""

    name: str
    config: type[Any]
    description: str = ""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.description = self.description or parser.description
        anew = "replace a run that is there already"
        if self.name == "finetune":
            anew = (
                "start again from the pre-trained stack, though the run is fine-tuned"
            )
            add(parser, "run", "a pre-trained run")
            add(parser, "--data", _MOVED)
        else:
            add(parser, "data")
            add(parser, "--run", "the run directory to make", required=True)
        add(parser, "--replace", anew)
        options.add_threads(parser)
        options.add_safety(parser)
        if self.name == "compare":
            add(parser, "--json")
        options.add_config(parser, self.config)

    def run(self, args: argparse.Namespace) -> None:
        """Train, and print what was reached."""
        config = options.config_from(args, self.config, self.section(args))
        name = TASKS[config.task].name if self.name == "finetune" else self.name
        safety = options.safety_from(args)
        session = Session.begin(args.threads, show.say, show.progress, safety)
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


_MOVED = "where the run's data set is now"


def _configure_resume(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Go on with a run of pretrain, finetune, sparse or compare where it was "
        "interrupted. The result is that of an uninterrupted run."
    )
    add(parser, "run", "the run")
    add(parser, "--data", _MOVED)
    options.add_threads(parser, "as when the run began")
    options.add_safety(parser, starts=False)


def _resume(args: argparse.Namespace) -> None:
    """Go on, and print what the command itself would."""
    session = Session.begin(
        args.threads, show.say, show.progress, options.safety_from(args)
    )
    command, summary = resume(args.run, session, args.data)
    if session.comm.rank == 0:
        with show.told_by(args.run):
            results.show_result(command, args.run, summary)


def _configure_experiment(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Carry out an experiment: make the data set, train, evaluate, report. "
        "'mpilayer config experiment' writes a file to begin with. With --resume auto "
        "complete steps are skipped and an interrupted one goes on where it was saved."
    )
    add(parser, "file", "what to do", type=Path, metavar="EXPERIMENT.toml")
    options.add_sweep(parser)
    where = "directory of all results (default: what the file says, or runs/NAME)"
    add(parser, "--run", where)
    add(parser, "--replace", "replace an experiment that is there already")
    add(parser, "--json", "print the table of a sweep as JSON")
    part = "part K, from 0, of N of a sweep: for the tasks of a job array"
    number = reader("K/N, K from 0 and less than N", options.to_part)
    add(parser, "--part", part, metavar="K/N", type=number, default=(0, 1))
    options.add_threads(parser)
    options.add_safety(parser)


def _carry_out(args: argparse.Namespace) -> None:
    """Check everything, then carry out all steps."""
    safety = options.safety_from(args)
    plan = read_sweep(args.file, args.set, args.seeds, args.run, args.yes)
    if isinstance(plan, SweepPlan):
        _carry_out_all(args, plan, safety)
        return
    if args.json or args.at_once != 1 or args.part != (0, 1):
        raise ConfigError(
            "--json, --at-once and --part are for sweeps; this is one experiment. Give "
            "--seeds, or leave them out."
        )
    session = Session.begin(args.threads, show.say, show.progress, safety)
    experiment = Experiment(plan, session, _show_step, _report)
    experiment.carry_out(args.replace)
    if session.comm.rank == 0:
        show.console().print(f"Results: {plan.path}", soft_wrap=True)


def _carry_out_all(args: argparse.Namespace, plan: SweepPlan, safety: Safety) -> None:
    """Carry out a sweep, and print its table."""
    live = args.at_once == 1 and show.screen().is_interactive
    display = {"display": show.progress} if live else {}
    session = Session.begin(args.threads, show.say, safety=safety, **display)
    how = args.at_once, args.part
    Sweep(plan, session, show.say, _report, *how).carry_out(args.replace)
    if args.part != (0, 1):
        if session.comm.rank == 0:
            show.say(f"The table of all parts: mpilayer report {plan.path}")
        return
    comm = session.comm
    diverged = comm.on_root(lambda: results.show_sweep(plan, args.json).diverged)
    if comm.rank == 0:
        show.say(_report_of_all(plan))
    if diverged:
        raise TrainingError(
            f"{len(diverged)} of {count(len(plan.members), 'run')} diverged: "
            f"{few(diverged, 3)}. All others are in the table."
        ).of_all_ranks()


def _report_of_all(plan: SweepPlan) -> str:
    """Write the page of a sweep; return a line that says where."""
    from mpilayer.sweep.page import write_sweep_page

    out = plan.path / plan.members[0].plan.report.file
    try:
        write_sweep_page(plan, out, replace=True)
    except ConfigError as error:
        return f"no report: {error}"
    return f"wrote {out}"


def _show_step(step: str, run: Path, summary: dict[str, Any]) -> None:
    """Print what a step has reached, as its command does."""
    if step == "evaluate":
        show.console().print(results.evaluation_table(summary))
    else:
        results.show_result(step, run, summary, alone=False)


def _report(plan: Plan) -> tuple[bool, str]:
    """Write the report of an experiment; return whether, and a line that says where."""
    # Loaded here only: training alone writes no page.
    from mpilayer.report.build import write_report

    runs = list(dict.fromkeys(plan.folder(step) for step in plan.training))
    out = plan.path / plan.report.file
    try:
        remarks = write_report([run for run in runs if run.is_dir()], out, replace=True)
    except ConfigError as error:
        return False, f"no report: {error}"
    notes = "".join(f"\nnote: {remark}" for remark in remarks)
    return True, f"wrote {out}{notes}"


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

COMMANDS: Mapping[str, TrainingCommand | Command] = {
    **TRAINING,
    "resume": Command(_configure_resume, _resume),
    "run": Command(_configure_experiment, _carry_out),
}
"""The commands by their names."""
