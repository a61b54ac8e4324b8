"""Arguments that many commands have, without loading NumPy."""

import argparse
from pathlib import Path
from typing import Any


def add_data(
    parser: argparse.ArgumentParser, help: str = "where the run's data set is now"
) -> None:
    """Add ``--data``."""
    parser.add_argument("--data", type=Path, metavar="DATA.h5", help=help)


def add_out(
    parser: argparse.ArgumentParser, metavar: str, help: str, **options: Any
) -> None:
    """Add ``-o``."""
    parser.add_argument(
        "-o", dest="out", type=Path, metavar=metavar, help=help, **options
    )


def add_replace(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--replace``."""
    parser.add_argument("--replace", action="store_true", help=f"replace {what}")


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas, for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a list of numbers; got {text!r}"
        ) from None
