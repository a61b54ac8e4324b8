"""Flags from configuration dataclasses: one place says name, default and help."""

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpilayer.cli.arguments import add, reader, whole
from mpilayer.config import (
    TASKS,
    Config,
    FieldError,
    Option,
    flag,
    from_values,
    options_of,
    read_sections,
    read_toml,
)
from mpilayer.errors import ConfigError
from mpilayer.runs.session import Safety


def add_config(parser: argparse.ArgumentParser, cls: type[Config]) -> None:
    """Add a flag for every field of a configuration, and ``--config``."""
    group = parser.add_argument_group("settings (also keys of --config)")
    for item in options_of(cls).values():
        add_option(group, item)
    text = "read settings from a file"
    add(parser, "--config", text, type=Path, metavar="FILE.toml")


def add_option(
    group: argparse._ActionsContainer, item: Option, default: Any = None, help: str = ""
) -> None:
    """Add the flag of a field, perhaps with another help; None unless given.

    With another default, there is no flag to turn a switch off.
    """
    name, text, usual = flag(item.name), help or item.help, item.default
    if item.is_list:
        usual = ",".join(map(str, usual))
    if item.type is bool:
        switch = argparse.BooleanOptionalAction if default is None else "store_true"
        told = f" (default: {usual})" if default is None else ""
        group.add_argument(name, action=switch, default=default, help=text + told)
        return

    metavar = {int: "N", float: "X"}.get(item.type, "TEXT")
    metavar = "N[,N...]" if item.is_list else metavar
    if item.choices:
        metavar = "{" + ",".join(item.choices) + "}"
    group.add_argument(
        name,
        type=reader(item.noun, item.from_text),
        default=default,
        metavar=item.metavar or metavar,
        help=text if usual == "" else f"{text} (default: {usual})",
    )


def add_threads(parser: argparse.ArgumentParser, usual: str = "1") -> None:
    """Add ``--threads``, 0 unless given."""
    help = f"BLAS threads of each rank; others round otherwise (default: {usual})"
    add(parser, "--threads", help, type=_count, default=0, metavar="N")


def add_task(parser: argparse.ArgumentParser, help: str) -> None:
    """Add ``--task``, None unless given: which of a run's models to use."""
    add(parser, "--task", f"{help} (default: what was trained last)", choices=TASKS)


def add_safety(parser: argparse.ArgumentParser, starts: bool = True) -> None:
    """Add when a run saves and gives way; ``starts``: and ``--resume``."""
    usual = vars(Safety())
    group = parser.add_argument_group("checkpoints and time (change no result)")
    if starts:
        auto = "auto: go on with the run if it is there, else start it"
        group.add_argument("--resume", choices=("auto",), help=auto)

    ago = f"save when the last time is so long ago ({usual['checkpoint_seconds']:g})"
    every = "save after so many epochs, iterations or passes (default: by time)"
    end = "save and end with code 75 after seconds, MM:SS or HH:MM:SS"
    silent = "end the job when a rank has been silent so long (default: 600 s)"
    for name, read, metavar, text in (
        ("checkpoint_every", _count, "N", every),
        ("checkpoint_seconds", _seconds, "S", ago),
        ("max_time", _seconds, "TIME", end),
        ("peer_timeout", _seconds, "TIME", silent),
    ):
        more = {"default": usual[name], "metavar": metavar}
        add(group, flag(name), text, type=read, **more)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add what changes an experiment's settings, or makes several of it."""
    over = (
        "settings over those of the file, such as finetune.epochs=3. Several values "
        "make a sweep, all combinations of them: KEY=A,B for keys of one value; for "
        "lists, and in [data], KEY=A KEY=B"
    )
    several: dict[str, Any] = {"action": "extend", "nargs": "+", "default": []}
    add(parser, "--set", over, metavar="SECTION.KEY=VALUE", **several)
    seeds = "a sweep: one run for each seed, such as 0-9 or 0,3,7-9"
    add(parser, "--seeds", seeds, metavar="K-K")
    at_once = "runs of a sweep at a time; the ranks are shared out (default: 1)"
    number = reader("a whole number", int)
    add(parser, "--at-once", at_once, metavar="N", type=number, default=1)
    add(parser, "--yes", "more than 1000 runs are meant", action="store_true")


def to_part(text: str) -> tuple[int, int]:
    """Return K and N of ``K/N``, or ValueError."""
    number, of = map(int, text.split("/"))
    if not 0 <= number < of:
        raise ValueError
    return number, of


def safety_from(args: argparse.Namespace) -> Safety:
    """Return what ``add_safety`` has read, if it fits ``--replace``."""
    resume = getattr(args, "resume", None) == "auto"
    if resume and args.replace:
        raise ConfigError(
            "a run can go on or begin anew; got --resume and --replace. Leave one out."
        )
    every, seconds = args.checkpoint_every, args.checkpoint_seconds
    return Safety(every, seconds, args.max_time, resume, args.peer_timeout)


def config_from(args: argparse.Namespace, cls: type[Config], section: str) -> Config:
    """Return the configuration, checked: flags over the file over defaults."""
    in_file = {} if args.config is None else read_toml(args.config, section)
    found = {name: getattr(args, name) for name in options_of(cls)}
    given = {name: value for name, value in found.items() if value is not None}
    with with_flags():
        try:
            return from_values(cls, {**in_file, **given})
        except FieldError as error:
            if error.key not in in_file or error.key in given:
                raise
            is_own = error.key in read_sections(args.config).get(section, {})
            place = section if is_own else "sparse"  # on which [compare] builds
            raise ConfigError(f"{args.config}, [{place}]: {error}") from error


@contextmanager
def with_flags() -> Iterator[None]:
    """Let the error of a field advise to change its flag."""
    try:
        yield
    except FieldError as error:
        found, wanted = f"Change {error.key}.", f"Change {flag(error.key)}."
        raise ConfigError(str(error).replace(found, wanted)) from error


def _to_seconds(text: str) -> float:
    values = [float(part) for part in text.split(":")]
    if len(values) > 3 or not all(0 <= value < math.inf for value in values):
        raise ValueError
    return sum(60.0**i * value for i, value in enumerate(reversed(values)))


_seconds = reader("seconds, MM:SS or HH:MM:SS", _to_seconds)
_count = whole("a number, 0 or more")
