"""Arguments that many commands have, without loading NumPy."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command of a room that has several."""

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


_USUAL: Mapping[str, Mapping[str, Any]] = {
    "run": {"type": Path, "metavar": "DIR"},
    "--run": {"type": Path, "metavar": "DIR"},
    "data": {"type": Path, "metavar": "DATA.h5", "help": "the data set"},
    "--data": {"type": Path, "metavar": "DATA.h5"},
    "-o": {"type": Path, "dest": "out"},
    "--replace": {"action": "store_true"},
    "--json": {"action": "store_true", "help": "print JSON"},
}
"""What arguments of a name have in common."""


def add(
    parser: argparse.ArgumentParser, name: str, help: str = "", **more: Any
) -> None:
    """Add an argument, with what those of its name have in common."""
    told = {"help": help} if help else {}
    parser.add_argument(name, **{**_USUAL.get(name, {}), **told, **more})


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas, for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a list of numbers; got {text!r}"
        ) from None
