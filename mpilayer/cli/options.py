"""Flags from configuration dataclasses: one place says name, default and help."""

import argparse
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from mpilayer.config import (
    TASKS,
    Config,
    FieldError,
    flag,
    from_values,
    read_sections,
    read_toml,
    value_from_text,
)
from mpilayer.errors import ConfigError
from mpilayer.runs.session import Safety


def add_config(parser: argparse.ArgumentParser, cls: type[Config]) -> None:
    """Add a flag for every field of a configuration, and ``--config``."""
    types = get_type_hints(cls)
    group = parser.add_argument_group("settings (also keys of --config)")
    for item in fields(cls):
        type_ = types[item.name]
        if type_ is bool:
            group.add_argument(
                flag(item.name),
                action=argparse.BooleanOptionalAction,
                default=None,
                help=f"{item.metadata['help']} (default: {item.default})",
            )
            continue
        group.add_argument(
            flag(item.name),
            type=_converter(type_),
            metavar=_metavar(type_, item.metadata["choices"]),
            help=f"{item.metadata['help']} (default: {_shown(item.default)})",
        )
    parser.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="read settings from a file"
    )


def add_threads(
    parser: argparse.ArgumentParser, usual: str = "its share of the cores"
) -> None:
    """Add ``--threads``, 0 unless given."""
    parser.add_argument(
        "--threads",
        type=_threads,
        default=0,
        metavar="N",
        help=f"BLAS threads of each rank (default: {usual})",
    )


def add_task(parser: argparse.ArgumentParser, help: str) -> None:
    """Add ``--task``, None unless given: which of a run's models to use."""
    parser.add_argument(
        "--task", choices=TASKS, help=f"{help} (default: what was trained last)"
    )


def add_safety(parser: argparse.ArgumentParser, starts: bool = True) -> None:
    """Add when a run saves and gives way; ``starts``: and ``--resume``."""
    usual = Safety()
    group = parser.add_argument_group("checkpoints and time (change no result)")
    if starts:
        group.add_argument(
            "--resume",
            choices=("auto",),
            help="auto: go on with the run if it is there, else start it",
        )
    group.add_argument(
        "--checkpoint-every",
        type=_threads,
        default=usual.checkpoint_every,
        metavar="N",
        help="save after so many epochs, iterations or passes (default: by time)",
    )
    group.add_argument(
        "--checkpoint-seconds",
        type=_seconds,
        default=usual.checkpoint_seconds,
        metavar="S",
        help=f"save when the last time is so long ago ({usual.checkpoint_seconds:g})",
    )
    group.add_argument(
        "--max-time",
        type=_seconds,
        default=usual.max_time,
        metavar="TIME",
        help="save and end with code 75 after seconds, MM:SS or HH:MM:SS",
    )
    group.add_argument(
        "--peer-timeout",
        type=_seconds,
        default=usual.peer_timeout,
        metavar="TIME",
        help="end the job when a rank has been silent so long (default: 600 s)",
    )


def safety_from(args: argparse.Namespace) -> Safety:
    """Return what ``add_safety`` has read.

    Raises
    ------
    ConfigError
        Both ``--resume`` and ``--replace``.
    """
    resume = getattr(args, "resume", None) == "auto"
    if resume and args.replace:
        raise ConfigError(
            "a run can go on or begin anew; got --resume and --replace. Leave one out."
        )
    return Safety(
        args.checkpoint_every,
        args.checkpoint_seconds,
        args.max_time,
        resume,
        args.peer_timeout,
    )


def _seconds(text: str) -> float:
    parts = text.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = [-1.0]
    if len(values) > 3 or not all(0 <= value < math.inf for value in values):
        raise argparse.ArgumentTypeError(
            f"must be seconds, MM:SS or HH:MM:SS; got {text!r}"
        )
    return sum(60.0**i * value for i, value in enumerate(reversed(values)))


def _threads(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more; got {text!r}")
    return int(text)


def config_from(args: argparse.Namespace, cls: type[Config], section: str) -> Config:
    """Return the configuration: flags over the file over defaults.

    Raises
    ------
    ConfigError
        A wrong key, type or range; in the words of the flag or file it is from.
    """
    in_file = {} if args.config is None else read_toml(args.config, section)
    found = {item.name: getattr(args, item.name) for item in fields(cls)}
    given = {name: value for name, value in found.items() if value is not None}
    try:
        return from_values(cls, {**in_file, **given})
    except FieldError as error:
        key, words = error.key, str(error)
        if key in in_file and key not in given:
            is_own = key in read_sections(args.config).get(section, {})
            place = section if is_own else "sparse"  # on which [compare] builds
            raise ConfigError(f"{args.config}, [{place}]: {words}") from error
        with_flag = words.replace(f"Change {key}.", f"Change {flag(key)}.")
        raise ConfigError(with_flag) from error


def _converter(type_: Any) -> Any:
    def convert(text: str) -> Any:
        try:
            return value_from_text(type_, text)
        except ValueError:
            kind = "a list of numbers" if get_origin(type_) is tuple else type_.__name__
            raise argparse.ArgumentTypeError(f"must be {kind}; got {text!r}") from None

    return convert


def _metavar(type_: Any, choices: tuple[str, ...]) -> str:
    if choices:
        return "{" + ",".join(choices) + "}"
    if get_origin(type_) is tuple:
        return "N[,N...]"
    return {int: "N", float: "X"}.get(type_, "NAME")


def _shown(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
