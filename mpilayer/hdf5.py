"""The door to h5py: files appear whole or not at all, and say what they are.

Every file carries ``kind``, ``format_version``, ``creator`` and a ``digest`` of its
content as attributes of the root.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpilayer import __version__
from mpilayer.errors import DataError, MpilayerError

File = h5py.File
Group = h5py.Group
Dataset = h5py.Dataset

# Readable by HDF5 1.10 and later, whatever library wrote the file. From 1.8 on HDF5 has
# checksums for all its structures but the heap of texts of any length.
_LIBVER = ("v110", "v110")
_DIGEST_ROWS = 4096
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
    DataError
        The folder does not exist or cannot be written, or the disk is full.

    Notes
    -----
    Local: one rank writes one file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w", libver=_LIBVER) as file:
            set_text(file, "kind", kind)
            file.attrs["format_version"] = version
            set_text(file, "creator", f"mpilayer {__version__}")
            yield file
            written = content_digest(file)
            set_text(file, "digest", written)
        _verify(temporary, written)
        temporary.replace(path)
        _fsync(path.parent)
    except (OSError, RuntimeError) as error:
        # On a full disk HDF5 may fail at the end only, with an error of its own.
        full = _NO_SPACE in str(error).lower()
        if not isinstance(error, OSError) and not full:
            raise
        reason = _reason(error) if isinstance(error, OSError) else _NO_SPACE
        raise DataError(
            f"{path} must be writable; {reason}. Nothing was written. "
            "Choose another place, or mend its permissions or free space."
        ) from error
    finally:
        # Where the folder is none there is nothing to remove either.
        with suppress(OSError):
            temporary.unlink()


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
        found_kind = text(file, "kind", "a file of another program")
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
        yield file


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
                f"({_reason(error)}). Use a copy of the file."
            ) from error


def set_text(item: Any, name: str, value: str) -> None:
    """Give an item an attribute of fixed length, for the sake of its checksum."""
    content = value.encode()
    kind = h5py.string_dtype("utf-8", max(1, len(content)))
    item.attrs.create(name, np.array(content, kind), dtype=kind)


def text(item: Any, name: str, default: str = "") -> str:
    """Return an attribute that is a text, of fixed length or any."""
    value = item.attrs.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def has_checksums(file: Any) -> bool:
    """Tell whether HDF5 notices every flipped bit of an open file by itself."""
    bare: list[str] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not item.fletcher32:
            bare.append(name)

    file.visititems(look)
    superblock, *_ = file.id.get_create_plist().get_version()
    return superblock > 1 and not bare


def verify_digest(file: Any, path: Path, error: type[MpilayerError]) -> None:
    """Compare an open file's content with the digest it carries.

    Raises
    ------
    MpilayerError
        Of type ``error``, if they differ.
    """
    stored, found = text(file, "digest"), content_digest(file)
    if stored != found:
        raise error(
            f"{path} must hold what was written; its digest is {found[:12]} instead of "
            f"{stored[:12]}. The file is damaged, or was changed: use a copy, or make "
            "it again."
        )


def content_digest(group: Any) -> str:
    """Return the SHA-256 of all names, types, shapes, values and attributes.

    The attributes ``digest`` and ``creator`` do not count.
    """
    hasher = hashlib.sha256()

    def add_attributes(name: str, attributes: Any) -> None:
        for key in sorted(set(attributes) - {"digest", "creator"}):
            value = attributes[key]
            if isinstance(value, bytes):
                value = value.decode()
            plain = value if isinstance(value, str) else np.asarray(value).tolist()
            hasher.update(f"{name}@{key}={plain!r};".encode())

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
        reason = _reason(cause) if path.stat().st_size else "it is empty"
        raise error(
            f"{path} must be a whole HDF5 file; {reason}. {advice}".strip()
        ) from cause


def _verify(path: Path, digest: str) -> None:
    _fsync(path)
    with h5py.File(path, "r", locking=False) as file:
        if content_digest(file) != digest:
            raise OSError("what was read back differs from what was written")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    """Return an operating system error in words, without HDF5's own details."""
    if error.errno:
        return os.strerror(error.errno).lower()
    text = str(error).splitlines()[0].lower()
    if "signature not found" in text:
        return "it is no HDF5 file"
    return "it is truncated" if "truncated file" in text else text
