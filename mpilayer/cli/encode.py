"""``mpilayer encode``: write the codes of a data set."""

import argparse
from collections.abc import Callable
from pathlib import Path

from mpilayer import environment
from mpilayer.errors import ConfigError
from mpilayer.runs.use import encode


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run", type=Path, metavar="DIR", help="a run")
    parser.add_argument("data", type=Path, metavar="DATA.h5", help="the data set")
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        required=True,
        metavar="OUT.h5",
        help="the new file",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace an older OUT.h5"
    )


def run(args: argparse.Namespace) -> None:
    """Encode every split."""
    write(args, encode)


def write(
    args: argparse.Namespace, work: Callable[[Path, Path, Path, bool], dict[str, int]]
) -> None:
    """Do one-process work that reads a data set and writes another one.

    Raises
    ------
    ConfigError
        Several processes were started.
    """
    if environment.launched_size() > 1:
        raise ConfigError(
            f"this command runs in one process; got {environment.launched_size()}. "
            "Start it without mpiexec."
        )
    written = work(args.run, args.data, args.out, args.replace)
    rows = ", ".join(f"{count} {split} rows" for split, count in written.items())
    print(f"wrote {rows} to {args.out}")
