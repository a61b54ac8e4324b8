"""The groups of a data set's file: written, checked, and advice where they are none."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import hdf5
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
ADVICE = "Make a data set with 'mpilayer data prepare'."
_SAMPLES = (".npy", ".npz", ".mat", ".csv")
_CHUNK_BYTES = 512 * 1024
_LEAST_SCALE = 1e-12  # and its inverse the most


@dataclass(frozen=True)
class Stored:
    """A split in an open file: samples, perhaps labels, and the value of a stored 1."""

    x: Any
    labels: Any
    scale: float


def advice(path: Path, like: Path | None, file: Any) -> str:
    """Return what to do with a path that is no data set, perhaps an open HDF5 ``file``.

    Where a run is known, the data set is to be ``like`` its data.
    """
    if file is not None:
        if not isinstance(file.get("images"), hdf5.Dataset):
            return ADVICE
        command = ("mpilayer", "data", "patches", str(path), "-o", "patches.h5")
        return f"Make a data set of its images: {shlex.join(command)}"
    if (path / "config.toml").is_file():
        run = shlex.quote(str(path))
        return (
            f"It is a run: look at it with 'mpilayer evaluate {run}' or 'mpilayer "
            f"report {run}'."
        )
    samples = path.suffix.lower() in _SAMPLES and path.is_file()
    if not (samples or path.is_dir()) or not path.name:
        return ADVICE
    out = str(path.with_name(f"{path.stem if samples else path.name}.h5"))
    alike = () if like is None else ("--like", str(like))
    command = ("mpilayer", "data", "prepare", str(path), *alike, "-o", out)
    return f"Make a data set of it: {shlex.join(command)}"


def checked_split(path: Path, name: str, group: Any) -> Stored:
    """Return what a group of an open file holds; DataError if it is not well formed."""
    items = dict(group) if isinstance(group, hdf5.Group) else {}
    x, labels = items.get("x"), items.get("labels")
    shape = getattr(x, "shape", None)
    where = f"{path}, group {name!r}"
    if x is None or shape is None or len(shape) != 2 or 0 in shape:
        found = "none" if shape is None else f"shape {shape}"
        raise DataError(
            f"{where} must have 'x' of shape (n_samples, n_visible); found {found}. "
            f"{ADVICE}"
        )
    if x.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"{where}: x must be uint8 or float32; found {x.dtype}. {ADVICE}"
        )
    scale = x.attrs.get("scale")
    if not isinstance(scale, float) or not _LEAST_SCALE <= scale <= 1 / _LEAST_SCALE:
        raise DataError(
            f"{where}: x must have an attribute 'scale', a float64 of {_LEAST_SCALE:g} "
            f"to {1 / _LEAST_SCALE:g}; found {scale}. {ADVICE}"
        )
    if labels is not None:
        fits = getattr(labels, "shape", None) == shape[:1]
        if not fits or (labels.dtype.kind not in "iu" and labels.dtype != np.float32):
            found = f"labels of shape {getattr(labels, 'shape', None)}"
            raise DataError(
                f"{where} must have {shape[0]} integer labels or float32 ones, one a "
                f"row of x; found {labels.dtype if fits else found}. {ADVICE}"
            )
    return Stored(x, labels, float(scale))


def check_splits(splits: Mapping[str, Split]) -> None:
    """Check that splits make a data set, see ``write_dataset``."""
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise ConfigError(
            "a data set must have a split 'train', may have 'validation' and 'test'; "
            f"found {listed(splits)}."
        )
    train = splits["train"].x
    for name, split in splits.items():
        if (split.x.shape[1], split.x.dtype) != (train.shape[1], train.dtype):
            raise DataError(
                "all splits must have the same number of columns and type; found "
                f"{train.shape[1]} of {train.dtype} in train and "
                f"{split.x.shape[1]} of {split.x.dtype} in {name}."
            )


def write_split(group: Any, split: Split, scale: float) -> None:
    """Write a split into its group of an open file."""
    n, n_visible = split.x.shape
    row_bytes = n_visible * split.x.dtype.itemsize
    chunk = (min(n, max(1, _CHUNK_BYTES // row_bytes)), n_visible)
    # Floats hardly shrink, and would take longer to read.
    pixels = split.x.dtype == np.uint8
    packing = {"compression": "gzip", "compression_opts": 4} if pixels else {}
    x = group.create_dataset(
        "x", data=split.x, chunks=chunk, fletcher32=True, **packing
    )
    x.attrs["scale"] = float(scale)
    if split.labels is not None:
        n = min(n, _CHUNK_BYTES // split.labels.itemsize)
        group.create_dataset("labels", data=split.labels, chunks=(n,), fletcher32=True)


def listed(names: Any) -> str:
    """Return names in words."""
    return ", ".join(sorted(names)) or "nothing"
