"""The door to h5py: files appear whole or not at all, and say what they are.

Every file carries ``kind``, ``format_version``, ``creator`` and a ``digest`` of its
content as attributes of the root.
"""

import errno
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr
from typing import Any

import h5py
import numpy as np

from mpilayer import __version__, errors, files
from mpilayer.errors import DataError, FileError, MpilayerError, reason

File = h5py.File
Group = h5py.Group
Dataset = h5py.Dataset

# Readable by HDF5 1.10 and later, whatever library wrote the file. From 1.8 on HDF5 has
# checksums for all its structures but the heap of texts of any length.
_LIBVER = ("v110", "v110")
_DIGEST_ROWS, _DIGEST_BYTES = 4096, 64 << 20  # read at a time
# What tells of the file's name or owner rather than of the machine.
_MISTAKES = (errno.ENOENT, errno.EACCES, errno.EPERM)
_NO_SPACE = os.strerror(errno.ENOSPC).lower()

Advise = Callable[[Any], str]
"""Returns what to do with a path, one sentence, given an open HDF5 file or None."""


@contextmanager
def create(
    path: Path,
    *,
    kind: str,
    version: int,
    checked: Callable[[int], object] = lambda _: None,
) -> Iterator[Any]:
    """Write an HDF5 file as ``files.replacing`` does, and verify it. Local.

    Yields the open file; ``version`` is that of the kind's layout. At the end all bytes
    are read twice, and ``checked`` is called with their numbers.
    """

    def verify(temporary: Path) -> None:
        with h5py.File(temporary, "r", locking=False) as found:
            if content_digest(found, checked) != digest:
                raise OSError("what was read back differs from what was written")

    with files.replacing(path, verify) as name:
        try:
            with h5py.File(name, "w", libver=_LIBVER) as file:
                set_text(file, "kind", kind)
                file.attrs["format_version"] = version
                set_text(file, "creator", f"mpilayer {__version__}")
                yield file
                digest = content_digest(file, checked)
                set_text(file, "digest", digest)
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
    advise: Advise = lambda _: "",
) -> Iterator[Any]:
    """Open an HDF5 file of one kind, of ``version`` at most, read-only.

    ``error``: missing, of another kind or a newer version, damaged as far as it is read
    in the block, with values that were never written, or leading to other files. Those
    may be part of a virtual data set if they lie in the file's folder.
    """
    with open_foreign(path, error, advise) as file:
        found_kind = text(file, "kind", "a file of another program")
        if found_kind != kind:
            raise error(
                f"{path} must be of kind {kind!r}; found {repr(found_kind)}. "
                f"{advise(file)}".strip()
            )
        found = file.attrs.get("format_version")
        if not isinstance(found, int | np.integer) or not 1 <= found <= version:
            raise error(
                f"{path} must have format version 1 to {version}; found {found}. Use "
                "the mpilayer that wrote it, or a newer one."
            )
        check_written(file, path, error)
        yield file


@contextmanager
def open_foreign(
    path: Path, error: type[MpilayerError] = DataError, advise: Advise = lambda _: ""
) -> Iterator[Any]:
    """Open an HDF5 file of any program read-only; raises as ``open_read``."""
    if not path.is_file():
        found = "no file" if path.exists() else "nothing"
        found = "a folder" if path.is_dir() else found
        raise error(
            f"{path} must be an HDF5 file; found {found} there. {advise(None)}".strip()
        )
    with reading(path, error):
        try:
            # Inputs may lie where locks do not work; nobody writes them.
            file = h5py.File(path, "r", locking=False)
        except OSError as cause:
            if _refusal(cause, path):
                raise
            found = reason(cause) if path.stat().st_size else "it is empty"
            raise error(
                f"{path} must be a whole HDF5 file; {found}. {advise(None)}".strip()
            ) from cause
        with file:
            _check_links(file, path, error)
            yield file


@contextmanager
def reading(path: Path, error: type[MpilayerError] = DataError) -> Iterator[None]:
    """Let whatever HDF5 makes of a file in the block be one message. Local."""
    with errors.reading(path, "a whole HDF5 file", error=error):
        try:
            yield
        except (OSError, RuntimeError, KeyError) as cause:
            if refused := _refusal(cause, path):
                raise refused from cause
            raise


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
    superblock, *_ = file.id.get_create_plist().get_version()
    return superblock > 1 and all(item.fletcher32 for item in datasets(file).values())


def datasets(file: Any) -> dict[str, Any]:
    """Return all data sets of an open file that hard links lead to, by path."""
    found: dict[str, Any] = {}
    file.visititems(found.__setitem__)
    return {k: item for k, item in found.items() if isinstance(item, h5py.Dataset)}


def verify_digest(file: Any, path: Path, error: type[MpilayerError]) -> None:
    """Compare an open file's content with the digest it carries."""
    files.check_digest(path, content_digest(file), text(file, "digest"), error)


def content_digest(group: Any, read: Callable[[int], object] = lambda _: None) -> str:
    """Return the SHA-256 of all names, types, shapes, values and attributes but two."""
    hasher = hashlib.sha256()

    def add_attributes(name: str, attributes: Any) -> None:
        for key in sorted(set(attributes) - {"digest", "creator"}):
            value = attributes[key]
            if isinstance(value, bytes):
                value = value.decode()
            plain = value if isinstance(value, str) else np.asarray(value).tolist()
            hasher.update(f"{name}@{key}={plain!r};".encode())

    add_attributes("/", group.attrs)
    names: list[str] = []
    group.visit(names.append)
    for name in sorted(names):
        item = group[name]
        add_attributes(name, item.attrs)
        if isinstance(item, h5py.Dataset):
            hasher.update(f"{name}:{item.dtype.str}{item.shape};".encode())
            parts: list[Any] = [()]  # all of a scalar
            if item.shape:
                row_bytes = math.prod(item.shape[1:]) * item.dtype.itemsize
                step = max(1, min(_DIGEST_ROWS, _DIGEST_BYTES // max(1, row_bytes)))
                starts = range(0, item.shape[0], step)
                parts = [slice(start, start + step) for start in starts]
            for part in parts:
                values = np.ascontiguousarray(item[part])
                hasher.update(values.data)
                read(values.nbytes)
    return hasher.hexdigest()


def _refusal(error: Exception, path: Path) -> FileError | None:
    """Return what the operating system has refused to HDF5, of whatever type."""
    found = re.search(r"errno = (\d+)", str(error))
    if found is None or int(found[1]) in _MISTAKES:
        return None
    number = int(found[1])
    return FileError.of(OSError(number, os.strerror(number)), path)


def _check_links(
    file: Any, path: Path, error: type[MpilayerError], virtual: bool = True
) -> None:
    """Refuse a file that would have others read: a stranger may have named any.

    Its data sets may be parts of others, ``virtual`` ones, which lie in its folder.
    """
    faults: list[str] = []

    def note(name: bytes, link: Any) -> None:
        # HDF5 loses exceptions that are raised here.
        if link.type == h5py.h5l.TYPE_EXTERNAL:
            faults.append(f"the link {os.fsdecode(name)!r} to another file")

    file.id.links.visit(note, info=True)
    faults += _outer_parts(file, path, error, virtual)
    if faults:
        raise error(
            f"{path} must hold its data itself, or in its folder; found {faults[0]}. "
            "Make it one file of its own, e.g. with h5repack or h5copy."
        )


def _outer_parts(
    file: Any, path: Path, error: type[MpilayerError], virtual: bool
) -> Iterator[str]:
    """Yield what data sets have elsewhere, or lack; arguments of ``_check_links``."""
    for name, item in datasets(file).items():
        if item.external:
            yield f"{name!r} in an external file"
        if not item.is_virtual:
            continue
        if not virtual:
            yield f"{name!r} made of parts that are made of others"
            continue
        sources = item.virtual_sources()
        for source in sources:
            if fault := _source_fault(source, file, path, error):
                yield f"{name!r} made of {fault}"
        if sum(s.vspace.get_select_npoints() for s in sources) < item.size:
            yield f"{name!r} made of parts that leave others out"


def _source_fault(
    source: Any, file: Any, path: Path, error: type[MpilayerError]
) -> str:
    """Return what is wrong with a part of a virtual data set; empty if nothing is."""
    if source.file_name == ".":
        return _part_fault(source, file)
    other, folder = path.parent / source.file_name, path.resolve().parent
    if not other.resolve().is_relative_to(folder) or not other.is_file():
        return f"{source.file_name!r}, which is not a file there"
    with reading(other, error), h5py.File(other, "r", locking=False) as part:
        _check_links(part, other, error, virtual=False)
        return _part_fault(source, part)


def _part_fault(source: Any, file: Any) -> str:
    """Return what is wrong with a data set that is part of another."""
    item, name = file.get(source.dset_name), f"{source.dset_name!r}"
    if not isinstance(item, h5py.Dataset) or item.is_virtual:
        return f"{name}, which is missing or made of others"
    space = source.src_space
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        fits = item.size == source.vspace.get_select_npoints()
    else:
        _, last = space.get_select_bounds()
        fits = all(k < n for k, n in zip(last, item.shape, strict=True))
    return "" if fits else f"{name}, which has fewer values"


def check_written(file: Any, path: Path, error: type[MpilayerError]) -> None:
    """Refuse values that nobody wrote: HDF5 would make them up, in any number."""
    for name, item in datasets(file).items():
        if item.is_virtual or not item.size:
            continue
        stored, expected = item.id.get_storage_size(), 1
        if item.chunks:
            pairs = zip(item.shape, item.chunks, strict=True)
            stored = item.id.get_num_chunks()
            expected = math.prod(-(-n // c) for n, c in pairs)
        if stored < expected:
            raise error(
                f"{path} must be whole; found {name!r} of shape {item.shape}, parts of "
                "which were never written. Make it again."
            )
