"""``mpilayer config``: write a commented file of settings to begin with."""

import argparse
from collections.abc import Mapping
from typing import Any

import tomli_w

from mpilayer import files
from mpilayer.cli.arguments import add
from mpilayer.cli.lines import filled
from mpilayer.config import NOUNS, SECTIONS, Option, options_of
from mpilayer.errors import check_known

KINDS: Mapping[str, Mapping[str, type[Any]]] = {
    **{name: {name: SECTIONS[name]} for name in ("pretrain", "finetune", "sparse")},
    "experiment": SECTIONS,
}
"""What the file is for, and its sections."""

_WIDTH = 88


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write a file with every setting, its meaning, range and default. All settings "
        "are commented out: remove the # before those that you change. The files of "
        "single commands are read by --config (compare reads [sparse], and [compare] "
        "over it), that of an experiment by 'mpilayer run'."
    )
    usual = "experiment"
    kinds = f"{', '.join(KINDS)} (default: {usual})"
    add(parser, "kind", kinds, metavar="KIND", nargs="?", default=usual)
    add(parser, "-o", "the file (default: stdout)", metavar="FILE")
    add(parser, "--replace", "replace an older FILE")


def run(args: argparse.Namespace) -> None:
    """Write the file."""
    check_known("kind", args.kind, KINDS)
    text = template(args.kind)
    if args.out is None:
        print(text, end="")
        return
    files.check_output(args.out, (), args.replace)
    files.write(args.out, text)
    print(f"wrote {args.out}")


def template(kind: str) -> str:
    """Return a file of settings in which every setting is commented out."""
    reader = "--config" if kind != "experiment" else "'mpilayer run'"
    lines = [
        f"# Settings of mpilayer, read by {reader}. Without the # before its key a",
        "# line replaces the default, which it shows.",
    ]
    if kind == "experiment":
        lines.append("# A step is carried out if its section is here: remove the rest.")
        lines.append(
            '# Many seeds or settings: [sweep], such as seeds = "0-9" below it.'
        )
    for section, cls in KINDS[kind].items():
        lines += ["", f"[{section}]"]
        if section == "compare":
            lines.append("# As [sparse], whose settings hold here, too.")
            continue
        for item in options_of(cls).values():
            comment = filled(f"# {item.help} ({_legal(item)})", _WIDTH, "# ")
            lines += ["", comment, f"#{item.name} = {_toml(item.default)}"]
    return "\n".join(lines) + "\n"


def _legal(item: Option) -> str:
    """Return the legal values in words."""
    one, many = NOUNS[item.type]
    if item.choices:
        nouns = ", ".join(f'"{choice}"' for choice in item.choices)
        return f"list of {nouns}" if item.is_list else nouns
    noun = f"list of {many}, each" if item.is_list else one.removeprefix("a ")
    return f"{noun} {item.range}".rstrip()


def _toml(value: Any) -> str:
    # A list on one line: its comment sign is one character.
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).strip().removeprefix("x = ")
