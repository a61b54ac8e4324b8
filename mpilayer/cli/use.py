"""What uses runs: ``mpilayer evaluate``, ``encode``, ``report`` and the like."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mpilayer.cli import show
from mpilayer.cli.arguments import add_data, add_out, add_replace
from mpilayer.cli.options import add_task, add_threads
from mpilayer.data.dataset import SPLITS
from mpilayer.errors import ConfigError, unknown
from mpilayer.runs.advice import ALWAYS
from mpilayer.runs.evaluate import evaluate
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import model_in_words
from mpilayer.runs.use import PARTS, export, write_rows


class Command(NamedTuple):
    """A command of this room."""

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


_OUT = "the new file; its ending says the format: "


def _configure_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="DIR", help="a run")
    parser.add_argument(
        "--split", default="test", help=f"{', '.join(SPLITS)} (default: test)"
    )
    add_data(parser, "another data set (default: the run's)")
    add_task(parser, "what to evaluate")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_threads(parser)


def _evaluate(args: argparse.Namespace) -> None:
    _check_split(args.split)
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


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))


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
        parser.add_argument("run", type=Path, metavar="DIR", help="a run")
        parser.add_argument("data", type=Path, metavar="DATA.h5", help="the data set")
        formats = ".h5 or .hdf5 (a data set with all splits), .npy or .csv (one split)"
        add_out(parser, "OUT", f"{_OUT}{formats}", required=True)
        several = "the one for .npy and .csv, if there are several"
        parser.add_argument("--split", help=f"{', '.join(SPLITS)}: {several}")
        add_replace(parser, "an older OUT")
        if task:
            add_task(parser, task)
        else:
            parser.set_defaults(task=None)

    def run(args: argparse.Namespace) -> None:
        if args.split is not None:
            _check_split(args.split)
        written = write_rows(
            what, args.run, args.data, args.out, args.replace, args.split, args.task
        )
        counts = (f"{count} {split} rows" for split, count in written.rows.items())
        model = model_in_words(written.model)
        part = "the encoder of " if what == "codes" else ""
        print(f"wrote {', '.join(counts)} to {args.out}, by {part}{model}")

    return Command(configure, run)


def _configure_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="DIR", help="a run")
    formats = ".npz (NumPy, scikit-learn), .safetensors (PyTorch), .onnx, .h5"
    add_out(parser, "FILE", f"{_OUT}{formats}", required=True)
    parser.add_argument(
        "--part",
        default=PARTS[0],
        metavar="{" + ",".join(PARTS) + "}",
        help=f"what to write; the encoder ends at the code (default: {PARTS[0]})",
    )
    add_task(parser, "which model")
    add_replace(parser, "an older FILE")


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
        "It needs nothing but a browser, and no network."
    )
    several = "a run, or several"
    parser.add_argument("runs", type=Path, nargs="+", metavar="DIR", help=several)
    page = "the page to write (default: %(default)s)"
    add_out(parser, "FILE.html", page, default=Path("report.html"))
    add_data(parser, "where the runs' data set is now")
    too = "write every figure as a file, too"
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help=too)
    add_replace(parser, "files that are there already")


def _report(args: argparse.Namespace) -> None:
    # Loaded here only: the other commands write no page.
    from mpilayer.report.build import write_report

    remarks = write_report(args.runs, args.out, args.figures, args.replace, args.data)
    for remark in remarks:
        show.say(f"note: {remark}")
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
