"""What uses runs: ``mpilayer evaluate``, ``encode``, ``report`` and the like."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpilayer.cli import show
from mpilayer.cli.arguments import Command, add
from mpilayer.cli.options import add_task, add_threads
from mpilayer.cli.results import show_sweep
from mpilayer.data.split import SPLITS
from mpilayer.errors import ConfigError, check_known
from mpilayer.runs.evaluate import ALWAYS, evaluate
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import model_in_words
from mpilayer.runs.use import PARTS, export, write_rows
from mpilayer.sweep.drive import read_before

_OUT = "the new file; its ending says the format: "


def _configure_evaluate(parser: argparse.ArgumentParser) -> None:
    add(parser, "run", "a run")
    add(parser, "--split", f"{', '.join(SPLITS)} (default: test)", default="test")
    add(parser, "--data", "another data set (default: the run's)")
    add_task(parser, "what to evaluate")
    add(parser, "--json")
    add_threads(parser)


def _evaluate(args: argparse.Namespace) -> None:
    check_known("split", args.split, SPLITS)
    session = Session.begin(args.threads, show.say)
    result = evaluate(args.run, args.split, session, args.data, args.task)
    if session.comm.rank > 0:
        return
    if args.json:
        print(json.dumps(result))
        return
    if result["model"] == "classifier":
        show.console().print(show.confusion_table(result))
    print(_in_words(result))


def _in_words(result: dict[str, Any]) -> str:
    """Return an error, and what the model must beat if that is known."""
    model, error = result["model"], show.number(result["error"])
    rows = f"on {result['n_samples']} {result['split']} rows"
    if model not in ALWAYS:
        kind = "autoencoder" if model == "sparse" else "stack"
        pca = ""
        if result["pca_error"] is not None:
            usual = show.number(result["pca_error"])
            pca = f", PCA with {result['n_code']} components {usual}"
        return f"{model} {kind} {rows}: error {error}{pca}"
    words, unit = f"root mean square error {error}", ""
    if model == "classifier":
        words, unit = f"{result['errors']} wrong, {error} %", " %"
    always = ""
    if result["always_error"] is not None:
        usual = show.number(result["always_error"])
        always = f"\n({ALWAYS[model]}: {usual}{unit})"
    return f"{model} {rows}: {words}{always}"


def _writing(what: str, task: str = "", more: str = "") -> Command:
    """Return the command that writes what a model makes of rows, see ``write_rows``.

    ``task`` is what the help says of ``--task``, empty if it is not there; ``more``, a
    description in place of the summary.
    """

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.description = more or parser.description
        add(parser, "run", "a run")
        add(parser, "data")
        formats = ".h5 or .hdf5 (a data set with all splits), .npy or .csv (one split)"
        add(parser, "-o", f"{_OUT}{formats}", metavar="OUT", required=True)
        several = "the one for .npy and .csv, if there are several"
        add(parser, "--split", f"{', '.join(SPLITS)}: {several}")
        add(parser, "--replace", "replace an older OUT")
        if task:
            add_task(parser, task)
        else:
            parser.set_defaults(task=None)

    def run(args: argparse.Namespace) -> None:
        if args.split is not None:
            check_known("split", args.split, SPLITS)
        rows, kind = write_rows(
            what, args.run, args.data, args.out, args.replace, args.split, args.task
        )
        counts = (f"{count} {split} rows" for split, count in rows.items())
        model = model_in_words(kind)
        part = "the encoder of " if what == "codes" else ""
        print(f"wrote {', '.join(counts)} to {args.out}, by {part}{model}")

    return Command(configure, run)


def _configure_export(parser: argparse.ArgumentParser) -> None:
    add(parser, "run", "a run")
    formats = ".npz (NumPy, scikit-learn), .safetensors (PyTorch), .onnx, .h5"
    add(parser, "-o", f"{_OUT}{formats}", metavar="FILE", required=True)
    what = f"what to write; the encoder ends at the code (default: {PARTS[0]})"
    parts = "{" + ",".join(PARTS) + "}"
    add(parser, "--part", what, default=PARTS[0], metavar=parts)
    add_task(parser, "which model")
    add(parser, "--replace", "replace an older FILE")


def _export(args: argparse.Namespace) -> None:
    model = export(args.run, args.out, args.part, args.replace, args.task)
    name = model_in_words(model.about["model"])
    if model.about["part"] == "encoder":
        name = f"the encoder of {name}"
    sizes = "-".join(map(str, model.sizes))
    print(f"wrote {name} {sizes} to {args.out}")


def _configure_report(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write one HTML page about runs: finished, running or broken off, of any mode. "
        "It needs nothing but a browser, and no network. Of a sweep: its settings "
        "beside one another, and the table of its runs."
    )
    runs = "a run, or several, or a sweep"
    add(parser, "runs", runs, type=Path, nargs="+", metavar="DIR")
    page = "the page to write (default: %(default)s)"
    add(parser, "-o", page, metavar="FILE.html", default=Path("report.html"))
    add(parser, "--data", "where the runs' data set is now")
    too = "write every figure as a file, too"
    add(parser, "--figures", too, type=Path, metavar="FOLDER")
    add(parser, "--replace", "replace files that are there already")
    add(parser, "--json", "print the table of a sweep as JSON")


def _report(args: argparse.Namespace) -> None:
    # Loaded here only: the other commands write no page.
    from mpilayer.report.build import write_report
    from mpilayer.sweep.page import write_sweep_page

    sweep = read_before(args.runs[0]) if len(args.runs) == 1 else None
    if sweep is not None:
        write_sweep_page(sweep, args.out, args.figures, args.replace)
        show_sweep(sweep, args.json)
    elif args.json:
        raise ConfigError(
            f"--json prints the table of a sweep; {args.runs[0]} is none. Leave it out."
        )
    else:
        where = args.out, args.figures, args.replace, args.data
        for remark in write_report(args.runs, *where):
            show.say(f"note: {remark}")
    if args.json:
        return
    kilobytes = args.out.stat().st_size / 1024
    print(f"wrote {args.out} ({kilobytes:,.0f} kB): open it in a browser")
    if args.figures is not None:
        print(f"wrote its figures to {args.figures}")


COMMANDS: Mapping[str, Command] = {
    "evaluate": Command(_configure_evaluate, _evaluate),
    "encode": _writing("codes", "whose encoder"),
    "predict": _writing(
        "predictions",
        "who predicts",
        "Write the probability of each class and the most probable one, or the number "
        "that a regressor predicts, for each row of a data set. It needs no labels.",
    ),
    "reconstruct": _writing("reconstructions"),
    "export": Command(_configure_export, _export),
    "report": Command(_configure_report, _report),
}
