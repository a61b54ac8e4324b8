"""``mpilayer data``: make, fetch and describe data sets; commands of one process."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpilayer.cli import lines, patches
from mpilayer.cli.arguments import require_one_process
from mpilayer.config import SCALINGS, DataConfig
from mpilayer.data.catalog import CATALOG, Fetched, fetch
from mpilayer.data.dataset import Dataset
from mpilayer.data.download import Progress
from mpilayer.data.recipe import make_data
from mpilayer.errors import ConfigError
from mpilayer.runs.rows import like_of

_WIDTH = 80
# More of them are numbers to learn, or too many to read.
_MOST_LABELS = 50
_ENDINGS = (".h5", ".hdf5")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mpilayer data``."""
    commands = parser.add_subparsers(
        dest="action", metavar="COMMAND", required=True, parser_class=type(parser)
    )
    _configure_prepare(
        commands.add_parser("prepare", help="write a data set from files of samples")
    )
    _configure_patches(
        commands.add_parser("patches", help="write a data set of patches of images")
    )
    _configure_fetch(commands.add_parser("fetch", help="download a known data set"))
    _configure_info(commands.add_parser("info", help="describe a data set"))


def run(args: argparse.Namespace) -> None:
    """Carry out ``prepare``, ``patches``, ``fetch`` or ``info``."""
    require_one_process("data")
    args.carry_out(args)


def _configure_prepare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(carry_out=_prepare)
    parser.description = "Write a data set from files of samples."
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        help="folder of IDX files named as MNIST's or of pictures, or a .csv, .npy, "
        ".npz, .mat, .h5 file",
    )
    _add_making(
        parser,
        validation="training rows to set apart, equally many of each class",
        seed="chooses the rows that are set apart",
    )
    parser.add_argument(
        "--test",
        metavar="N",
        type=int,
        default=0,
        help="further rows to set apart, for tests (default: 0)",
    )
    parser.add_argument(
        "--unbalanced",
        action="store_true",
        help="set rows apart whatever their classes are",
    )
    parser.add_argument(
        "--labels",
        metavar="COLUMN",
        default="",
        help="the column of a .csv, by name or number, or the array that holds labels: "
        "whole numbers or texts are classes, other numbers are for finetune --task "
        "regress (default: 'label' in .csv, 'labels' or 'y' elsewhere, if there)",
    )
    parser.add_argument(
        "--scale",
        choices=SCALINGS,
        default="none",
        help="each column by its training rows: minmax to 0 to 1, standard to mean 0 "
        "and standard deviation 1 (default: none)",
    )
    parser.add_argument(
        "--like",
        metavar="RUN|DATA.h5",
        default="",
        help="prepare the source as the data of a run, or a data set, were: the same "
        "labels, classes and scaling",
    )


def _configure_patches(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(carry_out=_patches)
    patches.configure(parser)
    _add_making(
        parser,
        validation="further patches, for validation",
        seed="chooses the patches",
    )


def _configure_fetch(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(carry_out=_fetch)
    parser.description = "Download a known data set and check it."
    parser.add_argument("name", metavar="NAME", help=", ".join(CATALOG))
    _add_output(parser, "DIR", "the folder for its files")
    parser.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        default=[],
        help="folder on the web to try first; may be repeated",
    )


def _configure_info(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(carry_out=_info)
    parser.description = "Describe a data set."
    parser.add_argument("file", metavar="FILE", type=Path, help="the data set")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--verify", action="store_true", help="compare the content with its digest"
    )


def _add_making(parser: argparse.ArgumentParser, validation: str, seed: str) -> None:
    """Add the options of all commands that make a data set."""
    _add_output(parser, "OUT.h5", "the data set to write")
    parser.add_argument(
        "--validation",
        metavar="N",
        type=int,
        default=0,
        help=f"{validation} (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help=f"{seed} (default: 0)")
    parser.add_argument("--name", help="what to call it (default: the source's name)")
    parser.add_argument("--replace", action="store_true", help="replace OUT.h5")


def _add_output(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    parser.add_argument(
        "-o", "--output", metavar=metavar, type=Path, required=True, help=text
    )


def _prepare(args: argparse.Namespace) -> None:
    _check_making(args)
    config = DataConfig(
        source=str(args.source),
        validation=args.validation,
        test=args.test,
        unbalanced=args.unbalanced,
        labels=args.labels,
        scale=args.scale,
        like=args.like,
        seed=args.seed,
        name=args.name or "",
    )
    make_data(config, args.output, like_of(args.like))
    _print_written(args.output)


def _patches(args: argparse.Namespace) -> None:
    _check_making(args)
    patches.check(args)
    patches.write(args)
    _print_written(args.output)


def _print_written(path: Path) -> None:
    with Dataset.open(path) as dataset:
        summary = dataset.summary()
    print(lines.shown(f"Wrote {path}"))
    _print_summary(summary)


def _check_making(args: argparse.Namespace) -> None:
    for option in ("validation", "test", "seed"):
        value = getattr(args, option, 0)
        if value < 0:
            raise ConfigError(f"--{option} must be 0 or more; got {value}.")
    if args.output.is_dir():
        raise ConfigError(
            f"-o/--output must name a file; {args.output} is a folder. Name a file in "
            "it."
        )
    if args.output.suffix.lower() not in _ENDINGS:
        raise ConfigError(
            f"-o/--output must end in {' or '.join(_ENDINGS)}, as a data set is an "
            f"HDF5 file; got {args.output}. Choose another name."
        )
    if args.output.exists() and not args.replace:
        raise ConfigError(
            f"-o/--output must name a new file; {args.output} exists. "
            "Choose another name, or replace it with --replace."
        )
    if not args.output.parent.is_dir():
        raise ConfigError(
            f"-o/--output must lie in a folder that exists; {args.output.parent} is "
            "none. Make it first."
        )


def _fetch(args: argparse.Namespace) -> None:
    with _progress() as progress:
        fetched = fetch(args.name, args.output, args.mirror, progress)
    for file in fetched:
        print(lines.shown(_describe(file)))
    print(lines.shown(f"Next: mpilayer data prepare {args.output} -o {args.name}.h5"))


def _describe(file: Fetched) -> str:
    origin = f"from {file.url}" if file.url else "was there already"
    return f"{file.path.name}: {origin}"


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show bars on a terminal, else a line when a file begins."""
    if not sys.stderr.isatty():
        yield _print_begin
        return
    # Loaded here only, because the other commands show no bars.
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    from mpilayer.cli import show

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Bars(*columns, console=show.screen()) as bars:
        tasks: dict[str, Any] = {}

        def update(name: str, received: int, expected: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=received, total=expected)

        yield update


def _print_begin(name: str, received: int, expected: int | None) -> None:
    if received == 0:
        size = "" if expected is None else f" ({expected / 1e6:.1f} MB)"
        print(f"{name}: downloading{size}", file=sys.stderr, flush=True)


def _info(args: argparse.Namespace) -> None:
    with Dataset.open(args.file) as dataset:
        if args.verify:
            dataset.verify()
        summary = dataset.summary()
    if args.json:
        verified = {"verified": True} if args.verify else {}
        print(json.dumps({**summary, **verified}, indent=2))
        return
    _print_summary(summary)
    _print_label_counts(summary)
    if args.verify:
        print("\nThe content agrees with the digest.")


def _print_summary(summary: dict[str, Any]) -> None:
    for key in ("name", "origin", "digest"):
        print(_filled(lines.shown(f"{key:10}  {summary[key]}"), indent=12))
    prepared = summary["preparation"]
    print(f"{'columns':10}  {summary['n_visible']}")
    if prepared["scaling"]:
        print(f"{'scaled':10}  {prepared['scaling']['method']}")
    print()
    print(f"{'split':10}  {'rows':>9}  {'type':7}  {'values':20}  labels")
    for split, facts in summary["splits"].items():
        values = f"{facts['minimum']:.4g} to {facts['maximum']:.4g}"
        print(
            f"{split:10}  {facts['n_samples']:9}  {facts['dtype']:7}  {values:20}  "
            f"{_labels_in_short(facts)}"
        )


def _labels_in_short(facts: dict[str, Any]) -> str:
    if "label_range" in facts:
        low, high = facts["label_range"]
        return f"{low:.4g} to {high:.4g}"
    counts = facts["label_counts"]
    if counts is None:
        return "none"
    if len(counts) > _MOST_LABELS:
        names = list(counts)  # in order
        return lines.shown(f"{len(counts)}: {names[0]} to {names[-1]}")
    low, high = min(counts.values()), max(counts.values())
    each = f"{low} row{'s' * (low != 1)} each"
    rows = each if low == high else f"{low} to {high} rows"
    return f"{len(counts)}: {rows}"


def _print_label_counts(summary: dict[str, Any]) -> None:
    for split, facts in summary["splits"].items():
        if 0 < len(facts["label_counts"] or ()) <= _MOST_LABELS:
            # A number stays with its label when the line is broken.
            pairs = " ".join(f"{k}:{n}" for k, n in facts["label_counts"].items())
            print(f"\nrows of each label in {split}")
            print(_filled(f"  {pairs}", indent=2))


def _filled(text: str, indent: int) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
