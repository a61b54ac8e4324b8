"""Lines for standard error, broken between words where they reach a terminal.

Standard library only: errors are printed before anything else is there.
"""

import os
import sys
import textwrap

from mpilayer import environment


def to_stderr(text: str) -> None:
    """Print lines to standard error; long ones as several, but in logs as they are."""
    print(wrapped(text, width()), file=sys.stderr, flush=True)


def wrapped(text: str, columns: int) -> str:
    """Return text whose lines are broken between words; a word, or a path, never is.

    Parameters
    ----------
    text : str
        Lines; those that fit stay as they are.
    columns : int
        Characters that fit into a line; 0: any number.
    """
    if not columns:
        return text
    return "\n".join(
        line if len(line) <= columns else _filled(line, columns)
        for line in text.split("\n")
    )


def width() -> int:
    """Return the columns of the terminal that shows standard error, 0 without one.

    Behind a launcher that is the launcher's.
    """
    try:
        if os.isatty(sys.stderr.fileno()):
            return os.get_terminal_size(sys.stderr.fileno()).columns
        terminal = environment.terminal()
        if terminal is None:
            return 0
        with terminal.open() as file:
            return os.get_terminal_size(file.fileno()).columns
    except (OSError, ValueError):
        # Standard error may be closed, or no file.
        return 0


def _filled(line: str, columns: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
