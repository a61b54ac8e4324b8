"""Checkpoints: named arrays and numbers in one HDF5 file that is whole or absent.

HDF5 trusts its own structures: one wrong byte among them may end the whole process
instead of raising an error. So a checkpoint ends with a *seal*, the SHA-256 of all
bytes before in a line that HDF5 ignores, and who opens a damaged one learns it before
HDF5 does. Older files have none.
"""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import __version__, files, hdf5
from mpilayer.arrays import AnyArray
from mpilayer.errors import (
    TOO_MANY,
    CheckpointError,
    DamageWarning,
    FileError,
    UnreadableError,
)

KIND = "mpilayer-checkpoint"
FORMAT_VERSION = 1

_LIBVER = ("earliest", "v110")
_MARK = b"\nmpilayer sha256 "
_SEAL_LENGTH = len(_MARK) + 64 + 1


def save(
    path: Path,
    arrays: Mapping[str, AnyArray],
    attributes: Mapping[str, Any],
    keep: bool = False,
) -> None:
    """Write a checkpoint as ``files.replacing`` does, and verify it. Local.

    Names of arrays may contain ``/`` for groups, e.g. ``parameters/weights``;
    attributes are numbers and texts. If ``keep``, the file that was there before stays,
    see ``load_newest``.
    """
    content = _image(arrays, attributes)

    def settle(temporary: Path) -> None:
        check_seal(temporary)
        if keep and path.exists():
            path.replace(_previous(path))

    with files.replacing(path, settle) as temporary:
        path.parent.mkdir(exist_ok=True)  # somebody may have removed it
        digest = hashlib.sha256(content).hexdigest().encode()
        temporary.write_bytes(content + _MARK + digest + b"\n")


def load(path: Path) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Return the arrays and attributes of a checkpoint, after verifying its digest.

    CheckpointError: missing, damaged, of another kind or a newer version.
    """
    with _opened(path) as (file, verified):
        if not verified:
            hdf5.verify_digest(file, path, CheckpointError)
        arrays = {name: item[()] for name, item in hdf5.datasets(file).items()}
        return arrays, _numbers(file)


def load_newest(path: Path) -> tuple[dict[str, AnyArray], dict[str, Any], str]:
    """Return the newest whole checkpoint of a path, and a remark if it is not the last.

    CheckpointError: neither the file nor the one before it is whole.
    """
    try:
        return *load(path), ""
    except CheckpointError as error:
        if not _previous(path).exists():
            raise
        return *load(_previous(path)), f"{error} The one before it is used."


def load_for_use(path: Path) -> dict[str, AnyArray]:
    """Return the arrays as ``load_newest``, with a ``DamageWarning`` for its remark."""
    arrays, _, remark = load_newest(path)
    if remark:
        warnings.warn(remark, DamageWarning, stacklevel=2)
    return arrays


def forget_damaged(path: Path) -> None:
    """Put the checkpoint before in the place of a damaged one. Local.

    Else the next one would take the place of the one that is whole.
    """
    try:
        load(path)
    except CheckpointError:
        if _previous(path).exists():
            _previous(path).replace(path)


def exists(path: Path) -> bool:
    """Tell whether there is a checkpoint for ``load_newest``."""
    return path.exists() or _previous(path).exists()


def remove(path: Path) -> None:
    """Remove a checkpoint and the one before it, which must not come back."""
    _previous(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a checkpoint alone; raises as ``load``."""
    with _opened(path) as (file, _):
        return _numbers(file)


def fill(
    target: AnyArray, arrays: Mapping[str, AnyArray], name: str, path: Path
) -> None:
    """Copy a checkpoint's array into ``target``.

    CheckpointError: there is none, of another shape, or with numbers not finite.
    """
    found = arrays.get(name)
    if found is None or found.shape != target.shape:
        what = "nothing" if found is None else f"shape {found.shape}"
        raise CheckpointError(
            f"{path} must hold {name} of shape {target.shape}; found {what}. "
            "The checkpoint belongs to another configuration: train again."
        )
    if not np.isfinite(found).all():
        raise CheckpointError(
            f"{path} must hold finite numbers; {name} has others: training has "
            "diverged. Train again, with a smaller learning rate or scaled data."
        )
    target[...] = found


def check_seal(path: Path) -> bool:
    """Tell whether a file's bytes are sealed; CheckpointError if they have changed."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        content = memoryview(file.read())
    body, end = content[:-_SEAL_LENGTH], bytes(content[-_SEAL_LENGTH:])
    if not end.startswith(_MARK):
        return False
    stored = end[len(_MARK) :].strip().decode(errors="replace")
    files.check_digest(path, hashlib.sha256(body).hexdigest(), stored, CheckpointError)
    return True


def _image(arrays: Mapping[str, AnyArray], attributes: Mapping[str, Any]) -> bytes:
    """Return the bytes of an HDF5 file.

    In memory, because HDF5 cannot fail on a full disk: it says so many times, and may
    end the process when that ends.
    """
    options = {"driver": "core", "backing_store": False, "libver": _LIBVER}
    creator = f"mpilayer {__version__}"
    own = {"kind": KIND, "format_version": FORMAT_VERSION, "creator": creator}
    with hdf5.File(KIND, "w", **options) as file:
        file.update(arrays)
        file.attrs.update({**own, **attributes})
        file.attrs["digest"] = hdf5.content_digest(file)
        file.flush()
        return bytes(file.id.get_file_image())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """Open a checkpoint; say whether it is sure that all bytes are as written."""
    # Also for whatever HDF5 makes of damage in a file without a seal.
    with hdf5.reading(path, CheckpointError):
        try:
            verified = check_seal(path)
        except OSError as error:
            kind = FileError if error.errno in TOO_MANY else UnreadableError
            raise kind.of(error, path) from error
        with hdf5.open_read(
            path, kind=KIND, version=FORMAT_VERSION, error=CheckpointError
        ) as file:
            yield file, verified


def _numbers(file: Any) -> dict[str, Any]:
    """Return the attributes of an open checkpoint as plain numbers and texts."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in file.attrs.items()
    }


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")
