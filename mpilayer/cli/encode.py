"""``mpilayer encode``: write the codes of a data set."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mpilayer.cli.arguments import require_one_process
from mpilayer.cli.options import add_task
from mpilayer.data.layout import SPLITS
from mpilayer.errors import ConfigError, unknown
from mpilayer.runs.tasks import model_in_words
from mpilayer.runs.use import Written, encode


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_arguments(parser)
    add_task(parser, "whose encoder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of what writes a data set."""
    parser.add_argument("run", type=Path, metavar="DIR", help="a run")
    parser.add_argument("data", type=Path, metavar="DATA.h5", help="the data set")
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        required=True,
        metavar="OUT",
        help="the new file; its ending says the format: .h5 or .hdf5 (a data set with "
        "all splits), .npy or .csv (one split)",
    )
    parser.add_argument(
        "--split",
        help=f"{', '.join(SPLITS)}: the one for .npy and .csv, if there are several",
    )
    parser.add_argument("--replace", action="store_true", help="replace an older OUT")


def run(args: argparse.Namespace) -> None:
    """Encode every split, or one."""
    write("encode", args, partial(encode, task=args.task), "the encoder of ")


def write(
    command: str, args: argparse.Namespace, work: Callable[..., Written], part: str = ""
) -> None:
    """Do one-process work of a model, or a part of it, from one data set to another.

    Raises
    ------
    ConfigError
        Several processes were started, or there is no such split.
    """
    require_one_process(command)
    if args.split is not None and args.split not in SPLITS:
        raise ConfigError(unknown("split", args.split, SPLITS))
    written = work(args.run, args.data, args.out, args.replace, args.split)
    rows = ", ".join(f"{count} {split} rows" for split, count in written.rows.items())
    model = f"{part}{model_in_words(written.model)}"
    print(f"wrote {rows} to {args.out}, by {model}")
