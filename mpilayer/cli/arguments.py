"""Arguments that many commands have, without loading NumPy."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mpilayer.errors import ConfigError, check_known

T = TypeVar("T")


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
    parser: argparse._ActionsContainer, name: str, help: str = "", **more: Any
) -> None:
    """Add an argument, with what those of its name have in common."""
    told = {"help": help} if help else {}
    parser.add_argument(name, **{**_USUAL.get(name, {}), **told, **more})


def add_inner(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add the name of a command within this one, whose own parser reads the rest."""
    add(parser, "name", ", ".join(names), metavar="COMMAND", nargs="?")
    add(parser, "rest", argparse.SUPPRESS, nargs=argparse.REMAINDER)
    parser.set_defaults(parser=type(parser))


def inner_parser(
    args: argparse.Namespace, outer: str, names: Sequence[str]
) -> argparse.ArgumentParser:
    """Return an empty parser for the rest; ConfigError without one of the names."""
    if args.name is None:
        raise ConfigError(
            f"COMMAND must come first, one of {', '.join(names)}; found none. Try "
            f"'mpilayer {outer} pretrain --help'."
        )
    check_known("command", args.name, names)
    made: argparse.ArgumentParser = args.parser(prog=f"mpilayer {outer} {args.name}")
    return made


def reader(noun: str, read: Callable[[str], T]) -> Callable[[str], T]:
    """Return what reads a value for argparse: a ValueError says that it is no noun."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError:
            message = f"must be {noun}; got {text!r}"
            raise argparse.ArgumentTypeError(message) from None

    return convert


def whole(noun: str, least: int = 0) -> Callable[[str], int]:
    """Return what reads a whole number, which ``noun`` describes, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError
        return int(text)

    return reader(noun, read)


numbers = reader("a list of numbers", lambda text: tuple(map(int, text.split(","))))
"""Return whole numbers that are separated by commas, for argparse."""
