"""The pages of docs/commands: ``python -m mpilayer.cli.pages [docs/commands]``.

A page holds what ``--help`` says in 80 columns; a test compares both.
"""

import io
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path

from mpilayer.cli.main import COMMANDS, main

PARTS: Mapping[str, tuple[str, ...]] = {
    "data": ("prepare", "patches", "fetch", "info"),
    "job": ("pretrain", "finetune", "sparse", "compare", "run", "scaling"),
}
"""Commands of commands: those with a --help of their own."""

_SEE = {
    "data": ["data", "formats", "../data/README"],
    "pretrain": ["tutorial-deep", "schedules", "choosing", "formats"],
    "finetune": ["tutorial-deep", "choosing", "formats"],
    "sparse": ["tutorial-sparse", "sparse", "choosing"],
    "compare": ["tutorial-sparse", "sparse"],
    "run": ["sweeps", "tutorial-deep", "tutorial-sparse"],
    "config": ["tutorial-deep"],
    "resume": ["reliability", "cluster"],
    "watch": ["tutorial-deep", "formats"],
    "trace": ["report", "formats"],
    "job": ["cluster"],
    "bench": ["results", "choosing"],
    "doctor": ["doctor"],
}


def write(folder: Path) -> None:
    """Write all pages, and remove those of commands that are no more."""
    os.environ["COLUMNS"] = "80"
    made = {"README.md": _index(), **{f"{name}.md": _page(name) for name in COMMANDS}}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


def _page(name: str) -> str:
    parts = [f"# mpilayer {name}", f"{COMMANDS[name].capitalize()}.", _block(name)]
    for part in PARTS.get(name, ()):
        parts += [f"## mpilayer {name} {part}", _block(name, part)]
    if name in _SEE:
        links = (f"[{Path(to).name}](../{to}.md)" for to in _SEE[name])
        parts.append(f"See also: {', '.join(links)}.")
    return "\n\n".join(parts) + "\n"


def _block(*words: str) -> str:
    """Return what the program prints for the words and ``--help``."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        main([*words, "--help"])
    return f"```\n{printed.getvalue().strip()}\n```"


def _index() -> str:
    rows = [f"| [{name}]({name}.md) | {text} |" for name, text in COMMANDS.items()]
    head = (
        "What `mpilayer COMMAND --help` says, made by `python -m mpilayer.cli.pages`."
    )
    return "\n".join(["# Commands", "", head, "", "| | |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/commands"))
