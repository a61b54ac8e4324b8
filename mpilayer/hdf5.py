"""The door to h5py: files appear whole or not at all, and say what they are.

Every file carries ``kind``, ``format_version``, ``creator`` and a ``digest`` of its
content as attributes of the root.
"""

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpilayer import __version__, files
from mpilayer.errors import DataError, FileError, MpilayerError, reason

File = h5py.File
Group = h5py.Group
Dataset = h5py.Dataset

# Readable by HDF5 1.10 and later, whatever library wrote the file.
_LIBVER = ("earliest", "v110")
_DIGEST_ROWS = 4096
# What tells of the file's name or owner rather than of the machine.
_MISTAKES = (errno.ENOENT, errno.EACCES, errno.EPERM)
_NO_SPACE = os.strerror(errno.ENOSPC).lower()


@contextmanager
def create(path: Path, *, kind: str, version: int) -> Iterator[Any]:
    """Write an HDF5 file atomically: temporary file, fsync, verify, rename.

    Parameters
    ----------
    path : Path
        Where the finished file appears. An existing file is replaced in one step, only
        when the block ends without an error.
    kind : str
        What the file is, e.g. ``"mpilayer-dataset"``.
    version : int
        Version of that kind's layout.

    Yields
    ------
    h5py.File
        Open for writing.

    Raises
    ------
    FileError
        The folder does not exist or cannot be written, or the disk is full.

    Notes
    -----
    Local: one rank writes one file.
    """
    with files.replacing(path, lambda temporary: _verify(temporary, digest)) as name:
        try:
            with h5py.File(name, "w", libver=_LIBVER) as file:
                file.attrs["kind"] = kind
                file.attrs["format_version"] = version
                file.attrs["creator"] = f"mpilayer {__version__}"
                yield file
                digest = content_digest(file)
                file.attrs["digest"] = digest
        except RuntimeError as error:
            # On a full disk HDF5 may fail at the end only, with an error of its own.
            if _NO_SPACE not in str(error).lower():
                raise
            raise OSError(errno.ENOSPC, _NO_SPACE) from error


@contextmanager
def open_read(
    path: Path,
    *,
    kind: str,
    version: int,
    error: type[MpilayerError] = DataError,
    advice: str = "",
    advise: Callable[[Any], str] | None = None,
) -> Iterator[Any]:
    """Open an HDF5 file of one kind read-only.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        The kind it must be.
    version : int
        The newest layout version that the caller can read.
    error : type
        The exception to raise.
    advice : str
        What to do when the file is of another kind; one sentence.
    advise : callable, optional
        Returns that sentence for an HDF5 file of another kind, which is open.

    Yields
    ------
    h5py.File
        Open for reading.

    Raises
    ------
    MpilayerError
        Of type ``error``: missing, not HDF5, another kind, a newer version, truncated.
    """
    with _opened(path, error, advice) as file:
        found_kind = file.attrs.get("kind", "a file of another program")
        if found_kind != kind:
            words = advice if advise is None else advise(file)
            raise error(
                f"{path} must be of kind {kind!r}; found {found_kind!r}. "
                f"{words}".strip()
            )
        found_version = int(file.attrs.get("format_version", 0))
        if not 1 <= found_version <= version:
            raise error(
                f"{path} must have format version 1 to {version}; found "
                f"{found_version}. Use the mpilayer that wrote it, or a newer one."
            )
        try:
            yield file
        except (OSError, RuntimeError, KeyError) as cause:
            if refused := refusal(cause, path):
                raise refused from cause
            raise


@contextmanager
def open_foreign(path: Path) -> Iterator[Any]:
    """Open an HDF5 file of any program read-only.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    h5py.File
        Open for reading.

    Raises
    ------
    DataError
        Missing, not HDF5, truncated, or a part that is read in the block is damaged.
    """
    with _opened(path, DataError, "") as file:
        try:
            yield file
        except OSError as error:
            raise DataError(
                f"{path} must be whole, but a part of it cannot be read "
                f"({reason(error)}). Use a copy of the file."
            ) from error


def verify_digest(file: Any, path: Path, error: type[MpilayerError]) -> None:
    """Compare an open file's content with the digest it carries.

    Raises
    ------
    MpilayerError
        Of type ``error``, if they differ.
    """
    stored, found = str(file.attrs.get("digest", "")), content_digest(file)
    if stored != found:
        raise error(
            f"{path} must hold what was written; its digest is {found[:12]} instead of "
            f"{stored[:12]}. The file is damaged: use a copy, or make it again."
        )


def content_digest(group: Any) -> str:
    """Return the SHA-256 of all names, types, shapes, values and attributes.

    The attributes ``digest`` and ``creator`` do not count.
    """
    hasher = hashlib.sha256()

    def add_attributes(name: str, attributes: Any) -> None:
        for key in sorted(set(attributes) - {"digest", "creator"}):
            value = attributes[key]
            text = value if isinstance(value, str) else np.asarray(value).tolist()
            hasher.update(f"{name}@{key}={text!r};".encode())

    def add(name: str, item: Any) -> None:
        add_attributes(name, item.attrs)
        if isinstance(item, h5py.Dataset):
            hasher.update(f"{name}:{item.dtype.str}{item.shape};".encode())
            rows = item.shape[0] if item.shape else 0
            for start in range(0, rows, _DIGEST_ROWS):
                rows_read = item[start : start + _DIGEST_ROWS]
                hasher.update(np.ascontiguousarray(rows_read).data)
            if not item.shape:
                hasher.update(np.ascontiguousarray(item[()]).data)

    add_attributes("/", group.attrs)
    names: list[str] = []
    group.visit(names.append)
    for name in sorted(names):
        add(name, group[name])
    return hasher.hexdigest()


def refusal(error: Exception, path: Path) -> FileError | None:
    """Return what the operating system has refused to HDF5; None if it was not that.

    Whether HDF5 raises an ``OSError`` depends on what it was at.
    """
    found = re.search(r"errno = (\d+)", str(error))
    if found is None or int(found[1]) in _MISTAKES:
        return None
    number = int(found[1])
    return FileError.of(OSError(number, os.strerror(number)), path)


def _opened(path: Path, error: type[MpilayerError], advice: str) -> Any:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise error(
            f"{path} must be an HDF5 file; found {found} there. {advice}".strip()
        )
    try:
        # Inputs may lie on file systems where locks do not work; nobody writes them.
        return h5py.File(path, "r", locking=False)
    except OSError as cause:
        if refused := refusal(cause, path):
            raise refused from cause
        found = reason(cause) if path.stat().st_size else "it is empty"
        raise error(
            f"{path} must be a whole HDF5 file; {found}. {advice}".strip()
        ) from cause


def _verify(path: Path, digest: str) -> None:
    with h5py.File(path, "r", locking=False) as file:
        if content_digest(file) != digest:
            raise OSError("what was read back differs from what was written")
