"""``mpilayer data``: make, fetch and describe data sets; commands of one process."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpilayer import files
from mpilayer.cli import lines
from mpilayer.cli.arguments import add
from mpilayer.cli.options import add_option, with_flags
from mpilayer.config import DataConfig, Option, of_others, options_of
from mpilayer.data.catalog import CATALOG, fetch
from mpilayer.data.dataset import Dataset
from mpilayer.data.recipe import make_data, patch_range
from mpilayer.data.table import Progress
from mpilayer.errors import ConfigError
from mpilayer.runs.rows import like_of
from mpilayer.words import count

_WIDTH = 80
# More of them are numbers to learn, or too many to read.
_MOST_LABELS = 50
_SUMMARIES = {
    "prepare": "write a data set from files of samples",
    "patches": "write a data set of patches of images",
    "fetch": "download a known data set",
    "info": "describe a data set",
}
# Of the commands that make a data set: what they do, and from what.
_MAKING = {
    "prepare": (
        "Write a data set from files of samples.",
        "folder of IDX files named as MNIST's or of pictures, or a .csv, .npy, .npz, "
        ".mat, .h5 file; several: the rows of one after those of the other",
    ),
    "patches": (
        "Draw square patches from images, each from another position, as the rows of a "
        "data set. A negative LOW needs --range=LOW,HIGH.",
        "folder of image files, or a .h5 (dataset 'images'), .mat, .npy file",
    ),
}
# Settings of DataConfig that are arguments here, or have no use.
_ARGUMENTS = ("path", "source", "make")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mpilayer data``."""
    commands = parser.add_subparsers(
        dest="action", metavar="COMMAND", required=True, parser_class=type(parser)
    )
    made = {name: commands.add_parser(name, help=h) for name, h in _SUMMARIES.items()}
    for name, (description, source) in _MAKING.items():
        made[name].description = description
        made[name].set_defaults(carry_out=_make)
        several = "+" if name == "prepare" else 1
        add(made[name], "source", source, metavar="SOURCE", type=Path, nargs=several)
        _add_output(made[name], "OUT.h5", "the data set to write")
        add(made[name], "--replace", "replace OUT.h5")
        for item in _settings(name).values():
            text, _, of_patches = item.help.partition("; patches: ")
            text = (name == "patches" and of_patches) or text.removeprefix(f"{name}: ")
            add_option(made[name], item, item.default, text)
    fetching, info = made["fetch"], made["info"]
    fetching.set_defaults(carry_out=_fetch)
    fetching.description = "Download a known data set and check it."
    add(fetching, "name", ", ".join(CATALOG), metavar="NAME")
    _add_output(fetching, "DIR", "the folder for its files")
    first = "folder on the web to try first; may be repeated"
    add(fetching, "--mirror", first, metavar="URL", action="append", default=[])
    info.set_defaults(carry_out=_info)
    info.description = "Describe a data set."
    add(info, "file", "the data set", metavar="FILE", type=Path)
    add(info, "--json")
    add(info, "--verify", "compare the content with its digest", action="store_true")


def run(args: argparse.Namespace) -> None:
    """Carry out ``prepare``, ``patches``, ``fetch`` or ``info``."""
    args.carry_out(args)


def _add_output(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    parser.add_argument(
        "-o", "--output", metavar=metavar, type=Path, required=True, help=text
    )


def _settings(command: str) -> dict[str, Option]:
    options, others = options_of(DataConfig), of_others(DataConfig, command)
    return {k: o for k, o in options.items() if k not in {*_ARGUMENTS, *others}}


def _make(args: argparse.Namespace) -> None:
    settings = {key: getattr(args, key) for key in _settings(args.action)}
    with with_flags():
        config = DataConfig(source=str(args.source[0]), make=args.action, **settings)
    patch_range(config.range)
    _check_sources(args.source)
    _check_output(args)
    like = like_of(config.like)
    with _progress(quiet=True) as progress:
        make_data(config, args.output, like, args.source[1:], progress)
    with Dataset.open(args.output) as dataset:
        summary = dataset.summary()
    print(lines.shown(f"Wrote {args.output}"))
    _print_summary(summary)


def _check_sources(sources: list[Path]) -> None:
    """Refuse rows that would count twice, and perhaps validate themselves."""
    seen: dict[Path, Path] = {}
    for path in sources:
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            raise ConfigError(
                f"each SOURCE must be another one; {other} and {path} are the same. "
                "Name it once."
            )


def _check_output(args: argparse.Namespace) -> None:
    out = args.output
    if any(source.resolve() == out.resolve() for source in args.source):
        raise ConfigError(
            f"-o must be another file than SOURCE; got {out} for both. Choose another "
            "one."
        )
    files.check_new(out, "data.h5", (".h5", ".hdf5"), args.replace)


def _fetch(args: argparse.Namespace) -> None:
    with _progress() as progress:
        fetched = fetch(args.name, args.output, args.mirror, progress)
    for file, url in fetched.items():
        origin = f"from {url}" if url else "was there already"
        print(lines.shown(f"{file}: {origin}"))
    print(lines.shown(f"Next: mpilayer data prepare {args.output} -o {args.name}.h5"))


@contextmanager
def _progress(quiet: bool = False) -> Iterator[Progress]:
    """Show bars on a terminal, else a line when a file begins, or nothing."""
    if not sys.stderr.isatty():
        yield (lambda *_: None) if quiet else _print_begin
        return
    # Loaded here only, because the other commands show no bars.
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    from mpilayer.cli import show

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn())
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
    for split, facts in summary["splits"].items():
        counts = facts["label_counts"] or {}
        if 0 < len(counts) <= _MOST_LABELS:
            # A number stays with its label when the line is broken.
            pairs = " ".join(f"{k}:{n}" for k, n in counts.items())
            print(f"\nrows of each label in {split}")
            print(lines.filled(f"  {pairs}", _WIDTH, " " * 2))
    if args.verify:
        print("\nThe content agrees with the digest.")


def _print_summary(summary: dict[str, Any]) -> None:
    for key in ("name", "origin", "digest"):
        text = lines.shown(f"{key:10}  {summary[key]}")
        print(lines.filled(text, _WIDTH, " " * 12))
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
    each = f"{low} to {high} rows" if low < high else f"{count(low, 'row')} each"
    return f"{len(counts)}: {each}"
