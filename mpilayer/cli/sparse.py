"""``mpilayer sparse``: a sparse autoencoder on rows that all ranks share."""

import argparse
from pathlib import Path
from typing import Any

from mpilayer import files
from mpilayer.cli import show
from mpilayer.cli.options import (
    add_config,
    add_safety,
    add_threads,
    begin_training,
    config_from,
)
from mpilayer.config import SparseConfig
from mpilayer.report import figures
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.sparse import run_sparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_run(parser)
    add_config(parser, SparseConfig)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the data, the run directory and the threads."""
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
    # More threads slow down products as small as those of a block of rows.
    add_threads(parser, "1")
    add_safety(parser)


def run(args: argparse.Namespace) -> None:
    """Train, and print the cost and where the time went."""
    config = config_from(args, SparseConfig, "sparse")
    session = begin_training(args, "sparse", 1)
    summary = run_sparse(args.data, args.run, config, session, args.replace)
    if session.comm.rank == 0:
        with show.told_by(args.run):
            show_run(args.run, summary)


def show_run(run: Path, summary: dict[str, Any]) -> None:
    """Print what a run has reached, and draw its filters."""
    picture = draw_filters(RunDirectory(run), summary)
    out = show.console()
    out.print(show.cost_table(summary))
    out.print(
        f"{show.count(summary['evaluations'], 'evaluation')}, "
        f"{show.count(summary['iterations'], 'iteration')} in "
        f"{summary['seconds']:.1f} s, {summary['allreduce_seconds']:.1f} s of them in "
        f"Allreduce; stopped by {summary['stopped_by']}.",
        soft_wrap=True,
    )
    out.print(picture, soft_wrap=True)


def draw_filters(directory: RunDirectory, summary: dict[str, Any]) -> str:
    """Draw the filters of square patches; return a line that says where they are."""
    filters, source = None, directory.filters
    picture = source.with_suffix(".png")
    with files.optional(source, "there is no picture of the filters"):
        filters = files.read_array(source)
    if filters is None or filters.ndim != 3:
        return f"Filters: {source}"
    if not figures.available():
        return f"Filters: {source}. For a picture of them install mpilayer[plot]."
    n_visible, n_hidden = summary["n_visible"], summary["n_hidden"]
    title = (
        f"{n_visible}-{n_hidden}-{n_visible}, {summary['optimizer']}, "
        f"cost {show.number(summary['cost'])}"
    )
    with files.optional(picture, "there is no picture of the filters"):
        figures.draw_filters(filters, picture, title)
    return f"Filters: {picture if picture.exists() else source}"
