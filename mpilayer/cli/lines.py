"""What all output goes through, and lines for standard error.

Output never decides whether training lives: what nobody reads is dropped, and what an
encoding lacks is replaced. Standard library only: errors are printed before anything
else is there.
"""

import codecs
import errno
import io
import os
import re
import select
import sys
import textwrap
from typing import Any

from mpilayer import environment

_USUAL_WIDTH = 80
# The reader of a pipe, or the terminal, has gone; or there was none from the start.
_NOBODY_LISTENS = (errno.EPIPE, errno.EIO, errno.EBADF)
_IN_ASCII = {"–": "-", "·": "."}


def prepare() -> None:
    """Let all output of this process go through ``Outlet``; local.

    Streams that somebody else has put in the place of the process's own stay.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It would become a file's, which then gets what libraries print.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error("mpilayer", _replaced)
    for number, name in ((1, "stdout"), (2, "stderr")):
        own = getattr(sys, f"__{name}__")
        if getattr(sys, name) is own:
            setattr(sys, name, _stream(number, own.encoding if own else "utf-8"))


def lost() -> str:
    """Return why standard output has not taken everything, if somebody listens."""
    outlet = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return outlet.lost if isinstance(outlet, Outlet) else ""


class Outlet(io.FileIO):
    """A file to write to, which says nothing where nobody listens."""

    lost = ""
    """Why something was not written, if a reader will miss it."""

    def write(self, content: Any) -> int:
        """Write; wait for room in a pipe that other programs have set not to wait."""
        try:
            while (written := super().write(content)) is None:
                select.select((), (self,), ())
        except OSError as error:
            if error.errno not in _NOBODY_LISTENS:
                self.lost = os.strerror(error.errno or 0)
            return memoryview(content).nbytes
        return written


def _stream(number: int, encoding: str) -> io.TextIOWrapper:
    outlet = io.BufferedWriter(Outlet(number, "w", closefd=False))
    return io.TextIOWrapper(outlet, encoding, "mpilayer", line_buffering=True)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what to write instead of a character; file names as they are."""
    assert isinstance(error, UnicodeEncodeError)
    char, following = error.object[error.start], error.start + 1
    if "\udc80" <= char <= "\udcff":
        return char.encode("utf-8", "surrogateescape"), following
    return _IN_ASCII.get(char, "?"), following


# What terminals obey rather than show, but for tabs and ends of lines; what turns the
# direction of writing.
_CONTROLS = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def to_stderr(text: str) -> None:
    """Print lines to standard error; long ones as several, but in logs as they are."""
    print(wrapped(shown(text), width()), file=sys.stderr, flush=True)


def shown(text: str) -> str:
    r"""Return text without control characters, but e.g. ``\x1b``: names are foreign."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def wrapped(text: str, columns: int) -> str:
    """Return lines that fit into columns (0: any number); those that do stay."""
    shown = text.split("\n")
    for number, line in enumerate(shown):
        if columns and len(line) > columns:
            indent = line[: len(line) - len(line.lstrip())]
            shown[number] = filled(line, columns, indent)
    return "\n".join(shown)


def filled(text: str, columns: int, indent: str) -> str:
    """Return text in lines, all but the first indented; no word or path is broken."""
    return textwrap.fill(
        text,
        columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def width() -> int:
    """Return the columns of the terminal that shows standard error, 0 without one.

    Behind a launcher that is the launcher's, if this process may open it.
    """
    try:
        if os.isatty(sys.stderr.fileno()):
            return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_WIDTH
        terminal = environment.terminal()
        if terminal is None:
            return 0
        # A terminal must not become ours, and a line without carrier not be waited for.
        file = os.open(terminal, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            return os.get_terminal_size(file).columns or _USUAL_WIDTH
        finally:
            os.close(file)
    except (OSError, ValueError):
        return 0
