"""``mpilayer config``: write a commented file of settings to begin with."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import tomli_w

from mpilayer import files
from mpilayer.cli.arguments import require_one_process
from mpilayer.config import SECTIONS, FinetuneConfig, PretrainConfig, SparseConfig
from mpilayer.errors import ConfigError, unknown

KINDS: Mapping[str, Mapping[str, type[Any]]] = {
    "pretrain": {"pretrain": PretrainConfig},
    "finetune": {"finetune": FinetuneConfig},
    "sparse": {"sparse": SparseConfig},
    "experiment": SECTIONS,
}
"""What the file is for, and its sections."""

_WIDTH = 88
_NOUNS = {
    bool: ("true or false", ""),
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write a file with every setting, its meaning, range and default. All settings "
        "are commented out: remove the # before those that you change. The files of "
        "single commands are read by --config (compare reads [sparse], and [compare] "
        "over it), that of an experiment by 'mpilayer run'."
    )
    parser.add_argument(
        "kind",
        metavar="KIND",
        nargs="?",
        default="experiment",
        help=f"{', '.join(KINDS)} (default: experiment)",
    )
    parser.add_argument(
        "-o", dest="out", type=Path, metavar="FILE", help="the file (default: stdout)"
    )
    parser.add_argument("--replace", action="store_true", help="replace an older FILE")


def run(args: argparse.Namespace) -> None:
    """Write the file."""
    require_one_process("config")
    if args.kind not in KINDS:
        raise ConfigError(unknown("kind", args.kind, KINDS))
    text = template(args.kind)
    if args.out is None:
        print(text, end="")
        return
    if args.out.exists() and not args.replace:
        raise ConfigError(
            f"-o must name a new file; {args.out} exists. Choose another name, or "
            "replace it with --replace."
        )
    files.write(args.out, text)
    print(f"wrote {args.out}")


def template(kind: str) -> str:
    """Return a file of settings in which every setting is commented out."""
    reader = "--config" if kind != "experiment" else "'mpilayer run'"
    lines = [
        f"# Settings of mpilayer, read by {reader}. Without the # before its key a"
    ]
    lines.append("# line replaces the default, which it shows.")
    if kind == "experiment":
        lines.append("# A step is carried out if its section is here: remove the rest.")
    for section, cls in KINDS[kind].items():
        lines += ["", f"[{section}]"]
        if section == "compare":
            lines.append("# As [sparse], whose settings hold here, too.")
            continue
        types = get_type_hints(cls)
        for item in fields(cls):
            lines += ["", *_comment(item, types[item.name])]
            lines.append(f"#{_assignment(item)}")
    return "\n".join(lines) + "\n"


def _comment(item: Field[Any], type_: Any) -> Iterator[str]:
    """Yield the meaning and the range as lines of comment."""
    words = f"{item.metadata['help']} ({_range(item, type_)})".split()
    line = "#"
    for word in words:
        if len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = "#"
        line += f" {word}"
    yield line


def _range(item: Field[Any], type_: Any) -> str:
    is_list = get_origin(type_) is tuple
    one, many = _NOUNS[get_args(type_)[0] if is_list else type_]
    limits = item.metadata
    if limits["choices"]:
        noun = ", ".join(f'"{choice}"' for choice in limits["choices"])
        return f"list of {noun}" if is_list else noun
    bounds = {"at least": "least", "greater than": "above", "less than": "below"}
    rules = [
        f"{words} {limits[key]:g}"
        for words, key in bounds.items()
        if limits[key] is not None
    ]
    noun = f"list of {many}, each" if is_list else one
    return f"{noun} {' and '.join(rules)}".rstrip()


def _assignment(item: Field[Any]) -> str:
    value = list(item.default) if isinstance(item.default, tuple) else item.default
    text = tomli_w.dumps({item.name: value})
    if not isinstance(value, list):
        return text.rstrip("\n")
    # A list on one line: its comment sign is one character.
    entries = (tomli_w.dumps({"x": entry}).strip()[4:] for entry in value)
    return f"{item.name} = [{', '.join(entries)}]"
