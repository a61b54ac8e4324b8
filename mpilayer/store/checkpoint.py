"""Checkpoints: named arrays and numbers in one HDF5 file that is whole or absent."""

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
    MpilayerError,
    UnreadableError,
)
from mpilayer.store import seal

KIND = "mpilayer-checkpoint"
FORMAT_VERSION = 1

_LIBVER = ("earliest", "v110")


def save(
    path: Path,
    arrays: Mapping[str, AnyArray],
    attributes: Mapping[str, Any],
    keep: bool = False,
) -> None:
    """Write a checkpoint: temporary file, fsync, verify, rename. Local.

    Parameters
    ----------
    path : Path
        The file; an older one is replaced in one step.
    arrays : mapping of str to ndarray
        Names may contain ``/`` for groups, e.g. ``parameters/weights``.
    attributes : mapping
        Numbers and texts.
    keep : bool
        The file that was there before stays, see ``load_newest``.

    Raises
    ------
    FileError
        The folder cannot be written, or the disk is full; the old file is untouched.
    """
    content = _image(arrays, attributes)

    def settle(temporary: Path) -> None:
        seal.check(temporary)
        if keep and path.exists():
            path.replace(_previous(path))

    with files.replacing(path, settle) as temporary:
        path.parent.mkdir(exist_ok=True)  # somebody may have removed it
        temporary.write_bytes(content + seal.of(content))


def load(path: Path) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Return the arrays and attributes of a checkpoint, after verifying its digest.

    Raises
    ------
    CheckpointError
        Missing, damaged, of another kind or a newer version.
    """
    arrays: dict[str, AnyArray] = {}

    def read(name: str, item: Any) -> None:
        if isinstance(item, hdf5.Dataset):
            arrays[name] = item[()]

    with _opened(path) as (file, verified):
        if not verified:
            hdf5.verify_digest(file, path, CheckpointError)
        file.visititems(read)
        return arrays, {name: _plain(value) for name, value in file.attrs.items()}


def load_newest(path: Path) -> tuple[dict[str, AnyArray], dict[str, Any], str]:
    """Return the newest whole checkpoint of a path, and a remark if it is not the last.

    Raises
    ------
    CheckpointError
        The file and the one before it are missing or damaged.
    """
    try:
        return *load(path), ""
    except CheckpointError as error:
        if not _previous(path).exists():
            raise
        remark = f"{error} The one before it is used."
        return *load(_previous(path)), remark


def load_for_use(path: Path) -> dict[str, AnyArray]:
    """Return the arrays of the newest whole checkpoint of a path. Local.

    Raises
    ------
    CheckpointError
        The file and the one before it are missing or damaged.

    Warns
    -----
    DamageWarning
        It is not the last one.
    """
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
    """Return the attributes of a checkpoint alone.

    Raises
    ------
    CheckpointError
        Missing, no HDF5, damaged, of another kind or a newer version.
    """
    with _opened(path) as (file, _):
        return {name: _plain(value) for name, value in file.attrs.items()}


def fill(
    target: AnyArray, arrays: Mapping[str, AnyArray], name: str, path: Path
) -> None:
    """Copy a checkpoint's array into ``target``.

    Raises
    ------
    CheckpointError
        There is no such array, it has another shape, or numbers in it are not finite;
        the message names it.
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


def _image(arrays: Mapping[str, AnyArray], attributes: Mapping[str, Any]) -> bytes:
    """Return the bytes of an HDF5 file.

    In memory, because HDF5 cannot fail on a full disk: it says so many times, and may
    end the process when that ends.
    """
    options = {"driver": "core", "backing_store": False, "libver": _LIBVER}
    with hdf5.File(KIND, "w", **options) as file:
        file.attrs["kind"] = KIND
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["creator"] = f"mpilayer {__version__}"
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        for name, value in attributes.items():
            file.attrs[name] = value
        file.attrs["digest"] = hdf5.content_digest(file)
        file.flush()
        return bytes(file.id.get_file_image())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """Open a checkpoint; say whether it is sure that all bytes are as written.

    Raises
    ------
    CheckpointError
        Also for whatever HDF5 makes of damage in a file without a seal.
    """
    try:
        verified = seal.check(path)
        with hdf5.open_read(
            path, kind=KIND, version=FORMAT_VERSION, error=CheckpointError
        ) as file:
            yield file, verified
    except MpilayerError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            kind = FileError if error.errno in TOO_MANY else UnreadableError
            raise kind.of(error, path) from error
        raise CheckpointError(
            f"{path} must be a whole checkpoint; it cannot be read: {error}. The file "
            "is damaged: use a copy, or make it again."
        ) from error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")
