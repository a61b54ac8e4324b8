"""Lines for standard error, broken between words where they reach a terminal.

Standard library only: errors are printed before anything else is there.
"""

import os
import re
import sys
import textwrap

from mpilayer import environment

# What terminals obey rather than show, but for tabs and ends of lines; what turns the
# direction of writing.
_CONTROLS = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def to_stderr(text: str) -> None:
    """Print lines to standard error; long ones as several, but in logs as they are."""
    print(wrapped(shown(text), width()), file=sys.stderr, flush=True)


def shown(text: str) -> str:
    r"""Return text as a terminal may have it: names in files are a stranger's.

    Control characters are written as Python does, e.g. ``\x1b``.
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


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
