"""Flags from configuration dataclasses: one place says name, default and help."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from mpilayer.config import (
    Config,
    flag,
    from_values,
    read_toml,
    value_from_text,
)


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


def add_threads(parser: argparse.ArgumentParser, default: int = 0) -> None:
    """Add ``--threads``; 0 is a rank's share of the cores."""
    usual = str(default) if default else "its share of the cores"
    parser.add_argument(
        "--threads",
        type=_threads,
        default=default,
        metavar="N",
        help=f"BLAS threads of each rank (default: {usual})",
    )


def _threads(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more; got {text!r}")
    return int(text)


def config_from(args: argparse.Namespace, cls: type[Config], section: str) -> Config:
    """Return the configuration: flags over the file over defaults.

    Raises
    ------
    ConfigError
        A wrong key, type or range.
    """
    values: dict[str, Any] = {}
    if args.config is not None:
        values |= read_toml(args.config, section)
    given = {item.name: getattr(args, item.name) for item in fields(cls)}
    values |= {name: value for name, value in given.items() if value is not None}
    return from_values(cls, values)


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
