"""``mpilayer run``: a whole experiment from one file, in one launch."""

import argparse
from pathlib import Path
from typing import Any

from rich.table import Table

from mpilayer.cli import show
from mpilayer.cli.arguments import add_replace
from mpilayer.cli.options import add_safety, add_threads, safety_from
from mpilayer.cli.results import show_result
from mpilayer.errors import ConfigError
from mpilayer.report.build import write_report
from mpilayer.runs.experiment import Experiment, Plan, read_plan
from mpilayer.runs.session import Session

_REGRESSION = "root mean square error of the labels"
_ERRORS = {"classifier": "wrong classes, percent", "regressor": _REGRESSION}
_RECONSTRUCTION = "reconstruction (sum over columns, mean over rows)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Carry out an experiment: make the data set, train, evaluate, report. "
        "'mpilayer config experiment' writes a file to begin with. With --resume auto "
        "complete steps are skipped and an interrupted one goes on where it was saved."
    )
    parser.add_argument("file", type=Path, metavar="EXPERIMENT.toml", help="what to do")
    key = "SECTION.KEY=VALUE"
    over = "settings over those of the file, such as finetune.epochs=3"
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar=key, help=over
    )
    results = "directory of all results (default: what the file says, or runs/NAME)"
    parser.add_argument("--run", type=Path, metavar="DIR", help=results)
    add_replace(parser, "an experiment that is there already")
    add_threads(parser, "in each step as its command has them")
    add_safety(parser)


def run(args: argparse.Namespace) -> None:
    """Check everything, then carry out all steps."""
    plan = read_plan(args.file, args.set, args.run)
    session = Session.begin(args.threads, show.say, show.progress, safety_from(args))
    experiment = Experiment(plan, session, show_step, report, args.threads)
    experiment.carry_out(args.replace)
    if session.comm.rank == 0:
        show.console().print(f"Results: {plan.path}", soft_wrap=True)


def show_step(step: str, run: Path, summary: dict[str, Any]) -> None:
    """Print what a step has reached, as its command does."""
    if step == "evaluate":
        show.console().print(_evaluation(summary))
    else:
        show_result(step, run, summary, alone=False)


def report(plan: Plan) -> tuple[bool, str]:
    """Write the report of an experiment; return whether, and a line that says where."""
    runs = list(dict.fromkeys(plan.folder(step) for step in plan.training))
    out = plan.path / plan.report.file
    try:
        remarks = write_report([run for run in runs if run.is_dir()], out, replace=True)
    except ConfigError as error:
        return False, f"no report: {error}"
    notes = "".join(f"\nnote: {remark}" for remark in remarks)
    return True, f"wrote {out}{notes}"


def _evaluation(summary: dict[str, Any]) -> Table:
    """Return the errors of all models, of whatever kind."""
    kinds = [_ERRORS.get(r["model"], _RECONSTRUCTION) for r in summary.values()]
    table = Table("run", "model", title=f"Error: {'; '.join(dict.fromkeys(kinds))}")
    for column in ("rows", "error", "PCA error", "components"):
        table.add_column(column, justify="right")
    for name, result in summary.items():
        rows = f"{result['n_samples']} {result['split']}"
        errors = map(show.number, (result["error"], result.get("pca_error")))
        components = str(result.get("n_code", "–"))
        table.add_row(name, result["model"], rows, *errors, components)
    return table
