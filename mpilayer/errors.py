"""Errors a user can mend: each says what must hold, what was found, what to do.

The command line prints such an error once, without a traceback, and exits with 2.
Anything else is a defect of mpilayer and aborts all ranks.
"""

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Self

_FEW = 8
# Characters of a library's own words, which may hold all of a damaged file's.
_MOST_WORDS = 200

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_UNWRITABLE = (*_FULL, errno.EROFS)
TOO_MANY = (errno.EMFILE, errno.ENFILE)
"""What says nothing about a file: the process, or the machine, has too many open."""


class MpilayerError(Exception):
    """A mistake in what was asked for, not in the program."""

    collective = False
    """Every rank raises this error, so one rank can print it and all end by themselves.
    An error that only one rank has must end the others."""

    def of_all_ranks(self) -> Self:
        """Return the error, known to be raised by every rank."""
        self.collective = True
        return self


class ConfigError(MpilayerError):
    """An option is unknown, out of range, or contradicts another one."""


class DataError(MpilayerError):
    """A data file is missing, damaged or of another kind."""


class FileError(DataError):
    """The operating system refuses a file: no room, right or disk, too many open."""

    go_on = ""
    """What goes on with the work once that is mended; empty if nothing was begun."""

    @classmethod
    def of(cls, error: OSError, path: object = None, told: str = "") -> Self:
        """Return what the operating system said in words.

        The ``path`` counts if the error does not know it, or by another name; ``told``
        is a sentence of what else is known.
        """
        file = path or error.filename or "a file"
        # Else nobody knows whether it was to be read or written.
        must = "writable" if told or error.errno in _UNWRITABLE else "usable"
        told = f" {told}" if told else ""
        return cls(
            f"{file} must be {must}; {reason(error)}.{told} {_remedy(error.errno)}."
        )

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} Then go on with {self.go_on}." if self.go_on else text


class CheckpointError(MpilayerError):
    """A run directory or checkpoint is missing, damaged or belongs to another run."""


class UnreadableError(CheckpointError, FileError):
    """A checkpoint that the disk does not give back: one before it may be used."""


class ScheduleError(MpilayerError):
    """A schedule table cannot be executed."""


class TrainingError(MpilayerError):
    """Training cannot go on with what it was given."""


class CommunicationError(MpilayerError):
    """The ranks do not fit the launcher, the machine or the job."""


class RunWarning(UserWarning):
    """Something about a run that its user should know; shown as one line."""


class DamageWarning(RunWarning):
    """A file is damaged, and an older one is used in its place."""


class UnfinishedWarning(RunWarning):
    """What is used has not been trained to the end."""


class FileWarning(RunWarning):
    """A file that no result depends on was left out; any rank may be the one to say."""


@contextmanager
def file_errors() -> Iterator[None]:
    """Let what the operating system refuses in the block be a ``FileError``."""
    try:
        yield
    except ConnectionError:
        raise  # a pipe or socket, whose other end has gone
    except OSError as error:
        raise FileError.of(error) from error


def reason(error: OSError) -> str:
    """Return what the operating system said in words, without HDF5's own details."""
    text = str(error).splitlines()[0].lower() if str(error) else "it cannot be used"
    if error.errno:
        return os.strerror(error.errno).lower()
    if "signature not found" in text:
        return "it is not an HDF5 file"
    return "it is truncated" if "truncated file" in text else text


def _remedy(number: int | None) -> str:
    if number in TOO_MANY:
        return "Allow more open files (ulimit -n)"
    if number == errno.ENAMETOOLONG:
        return "Choose a shorter name"
    what = "Mend its disk"
    if number in _FULL:
        what = "Make room"
    elif number in _CLOSED:
        what = "Mend its permissions"
    return f"{what}, or choose another place"


@contextmanager
def reading(
    path: object,
    what: str,
    advice: str = "The file is damaged: use a copy, or make it again.",
    error: type[MpilayerError] = DataError,
) -> Iterator[None]:
    """Let whatever libraries make of a user's file in the block be one ``error``.

    Damaged bytes lead them to exceptions of any type. Those of mpilayer itself pass.
    ``what`` the file must be is e.g. ``"a whole image file"``; ``advice`` is sentences.
    """
    try:
        yield
    except MpilayerError:
        raise
    except MemoryError as cause:
        raise error(
            f"{path} must fit into memory, and it does not. If it is no larger than "
            "you think, it is damaged; else use a larger machine, or fewer rows."
        ) from cause
    except Exception as cause:
        if isinstance(cause, OSError) and cause.errno in (*TOO_MANY, errno.EIO):
            raise FileError.of(cause, path) from cause
        raise error(
            f"{path} must be {what}; it cannot be read ({_words(cause)}). {advice}"
        ) from cause


def _words(error: Exception) -> str:
    """Return what a library said, in one short line."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _MOST_WORDS else f"{words[:_MOST_WORDS]}…"


def check_known(what: str, name: str, legal: Collection[str]) -> None:
    """Check that a name is a legal one. Raises ConfigError, see :func:`unknown`."""
    if name not in legal:
        raise ConfigError(unknown(what, name, legal))


def unknown(what: str, name: str, legal: Iterable[str]) -> str:
    """Return the message for a wrong name: with a guess, the legal ones, or both.

    Beside a guess a long list of legal names would hide it, and is left out.
    """
    names = list(legal)
    close = get_close_matches(name, names, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    if guess and len(names) > _FEW:
        return f"unknown {what} {name!r}.{guess}"
    return f"unknown {what} {name!r}; choose from {', '.join(names)}.{guess}"
