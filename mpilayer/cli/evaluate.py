"""``mpilayer evaluate``: the errors of a run, whatever it was trained for."""

import argparse
import json
from pathlib import Path
from typing import Any

from mpilayer.cli import show
from mpilayer.cli.options import add_task, add_threads
from mpilayer.data.layout import SPLITS
from mpilayer.errors import ConfigError, unknown
from mpilayer.runs.advice import ALWAYS
from mpilayer.runs.session import Session
from mpilayer.runs.use import evaluate


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run", type=Path, metavar="DIR", help="a run")
    parser.add_argument(
        "--split", default="test", help=f"{', '.join(SPLITS)} (default: test)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA.h5",
        help="another data set (default: the run's)",
    )
    add_task(parser, "what to evaluate")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate and print."""
    if args.split not in SPLITS:
        raise ConfigError(unknown("split", args.split, SPLITS))
    session = Session.begin(args.threads, show.say)
    result = evaluate(args.run, args.split, session, args.data, args.task)
    if session.comm.rank > 0:
        return
    if args.json:
        print(json.dumps(result))
        return
    if result["model"] == "classifier":
        _show_classes(result)
        return
    if result["model"] == "regressor":
        print(
            f"regressor on {result['n_samples']} {args.split} rows: root mean square "
            f"error {show.number(result['error'])}{_always(result)}"
        )
        return
    kind = "autoencoder" if result["model"] == "sparse" else "stack"
    pca = ""
    if result["pca_error"] is not None:
        usual = show.number(result["pca_error"])
        pca = f", PCA with {result['n_code']} components {usual}"
    print(
        f"{result['model']} {kind} on {result['n_samples']} {args.split} rows: error "
        f"{show.number(result['error'])}{pca}"
    )


def _show_classes(result: dict[str, Any]) -> None:
    show.console().print(show.confusion_table(result))
    print(
        f"classifier on {result['n_samples']} {result['split']} rows: "
        f"{result['errors']} wrong, {show.number(result['error'])} %"
        f"{_always(result, ' %')}"
    )


def _always(result: dict[str, Any], unit: str = "") -> str:
    """Return what the model must beat, in words; nothing if that is not known."""
    error = result["always_error"]
    known = f"\n({ALWAYS[result['model']]}: {show.number(error)}{unit})"
    return "" if error is None else known
