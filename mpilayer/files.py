"""Files that are whole or as they were, and what may be wrong with those that are read.

Whatever mpilayer writes at once goes through ``replacing``; lines that come one by one
are for :mod:`mpilayer.store.metrics`. Text is UTF-8, whatever the locale.
"""

import hashlib
import json
import math
import os
import stat
import tomllib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.errors import (
    CheckpointError,
    ConfigError,
    DamageWarning,
    FileError,
    FileWarning,
    MpilayerError,
    reason,
)

NAMES = "surrogateescape"  # for names of files, which may be in any encoding
SEAL = "seal"  # the key, or section, with the digest of all others
PAGES = (".html", ".htm")  # endings of reports


@contextmanager
def replacing(
    path: Path, settle: Callable[[Path], object] | None = None
) -> Iterator[Path]:
    """Write a file that is whole or as it was before. Local.

    Yields where to write it. It appears, in one step, when the block and ``settle``,
    called with the file as it is on the disk, end without an error. FileError: it
    cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()  # were it a link, writing would follow it
        yield temporary
        _sync(temporary)
        if settle is not None:
            settle(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise FileError.of(error, path, "Nothing was written.") from error
    finally:
        # Where the folder is none there is nothing to remove either.
        with suppress(OSError):
            temporary.unlink()


def write(path: Path, content: bytes | str) -> None:
    """Write a file as ``replacing`` does; text is UTF-8."""
    with replacing(path) as temporary:
        if isinstance(content, str):
            content = content.encode("utf-8", NAMES)
        temporary.write_bytes(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as sealed JSON, a key a line; see ``write``."""
    lines = [
        f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in sealed(content).items()
    ]
    write(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_text(
    path: Path, error: type[MpilayerError] = CheckpointError, names: bool = False
) -> str:
    """Return the text of a file, in which ``names`` of files may be. Local.

    ``error``: it is not a file, or not UTF-8. OSError: it is not there, or unreadable.
    """
    with _reading(path, error):
        return _content(path).decode("utf-8", NAMES if names else "strict")


def read_json(
    path: Path, error: type[MpilayerError] = CheckpointError
) -> dict[str, Any]:
    """Return the object of a JSON file, perhaps sealed; raises as ``read_text``."""
    # Python's reader takes numbers that JSON does not have.
    parse = partial(json.loads, parse_constant=_finite, parse_float=_finite)
    return _parsed(path, parse, error)[0]


def read_toml(path: Path, strict: bool) -> dict[str, Any]:
    """Return the sections of a TOML file, which may be sealed; see ``read_json``.

    People edit such files. Unless ``strict``, what differs from its seal is used with a
    DamageWarning. If ``strict``, one says that there is no seal: as in a file that was
    cut off between two lines.
    """
    content, is_sealed = _parsed(path, tomllib.loads, CheckpointError, strict)
    if strict and not is_sealed:
        warnings.warn(
            f"{path} has no seal: it was changed on purpose, cut off, or written by an "
            "older version. What it says counts.",
            DamageWarning,
            stacklevel=2,
        )
    return content


def write_array(path: Path, array: AnyArray) -> None:
    """Write an array as .npy; see ``write``."""
    content = BytesIO()
    np.save(content, array)
    write(path, content.getvalue())


def read_array(path: Path, error: type[MpilayerError] = CheckpointError) -> AnyArray:
    """Return the array of an ``.npy`` file; raises as ``read_text``."""
    with _reading(path, error):
        array = np.load(BytesIO(_content(path)), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds no array")
    return array


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the digest of all that is in it."""
    return {**content, SEAL: {"sha256": _digest(content)}}


def check_digest(
    path: Path, found: str, stored: str, error: type[MpilayerError]
) -> None:
    """Compare the digest of a file's content with the one it carries."""
    if found != stored:
        raise error(
            f"{path} must hold what was written; its digest is {found[:12]} instead of "
            f"{stored[:12]}. The file is damaged, or was changed: use a copy, or make "
            "it again."
        )


@contextmanager
def optional(path: Path, consequence: str) -> Iterator[None]:
    """Go on when a file cannot be used on which no result depends. Local.

    A FileWarning says so, with the ``consequence``, a clause.
    """
    try:
        yield
    except (OSError, MpilayerError) as error:
        cause = error.__cause__ or error
        told = "it is damaged" if isinstance(error, CheckpointError) else str(error)
        if isinstance(cause, OSError):
            told = reason(cause)
        warnings.warn(
            f"{path} can't be used ({told}): {consequence}", FileWarning, stacklevel=3
        )


def check_output(out: Path, endings: Collection[str], replace: bool) -> str:
    """Return the ending of a file that may be written, in small letters. Local.

    Without ``endings`` any will do.
    """
    ending = out.suffix.lower()
    if endings and ending not in endings:
        raise ConfigError(
            f"-o must end in {', '.join(endings)}; got {out}. The ending says the "
            "format: choose one of these."
        )
    if out.exists() and not replace:
        raise ConfigError(
            f"-o must name a new file; {out} exists. Choose another name, or give "
            "--replace."
        )
    return ending


def check_new(out: Path, usual: str, endings: Collection[str], replace: bool) -> None:
    """Check that a file can be written, whose ``usual`` name is told. Local."""
    if out.is_dir():
        raise ConfigError(
            f"-o must name a file; {out} is a folder. Give -o {out / usual}."
        )
    check_output(out, endings, replace)
    check_parent(out, "-o")


def check_parent(path: Path, option: str) -> None:
    """Check that a file or folder can be made where an option names it. Local."""
    parent, found = path.absolute().parent, ""
    if not parent.is_dir():
        found = f"exists; there is no {parent}. Make it, or choose another one."
    elif not os.access(parent, os.W_OK | os.X_OK):
        found = f"can be written; {parent} can't be. Choose another one, or mend its "
        found += "permissions."
    if found:
        raise ConfigError(f"{option} must lie in a folder that {found}")


def _parsed(
    path: Path,
    parse: Callable[[str], Any],
    error: type[MpilayerError],
    strict: bool = True,
) -> tuple[dict[str, Any], bool]:
    """Return the content, and whether it was sealed."""
    text = read_text(path, error, names=True)
    with _reading(path, error):
        content = parse(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        seal = content.pop(SEAL, None)
        # Files of older versions have none.
        if seal is not None and seal != {"sha256": _digest(content)}:
            found = "its content has another digest than its seal"
            if strict:
                raise ValueError(found)
            warnings.warn(f"{path} was changed: {found}", DamageWarning, stacklevel=4)
    return content, seal is not None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _content(path: Path) -> bytes:
    """Return the bytes of a regular file: a pipe would be waited for."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"it is {'a folder' if path.is_dir() else 'no regular file'}")
    return path.read_bytes()


@contextmanager
def _reading(path: Path, error: type[MpilayerError]) -> Iterator[None]:
    """Let what is wrong with a file be one message, and with its disk another."""
    try:
        yield
    except OSError:
        raise
    # A damaged header of an array gives rise to exceptions of many types.
    except Exception as cause:
        raise error(
            f"{path} must be as it was written; {cause}. Restore it, or train again."
        ) from cause


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(path: Path) -> None:
    """Let a file's content, or a folder's names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
