"""IDX, the format MNIST is distributed in: files, plain or gzip, and their folder."""

import gzip
import math
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpilayer import memory
from mpilayer.data.split import Split
from mpilayer.errors import DataError, reading
from mpilayer.words import few

_GZIP_MAGIC = b"\x1f\x8b"
_MOST_PACKED = 1032  # what gzip can make of one byte
_UINT8 = 0x08
_TYPES = {9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}
_AGAIN = "Fetch or copy it again."

# Split of a data set to MNIST's name for it, and whether it must be there.
_PARTS = {"train": ("train", True), "test": ("t10k", False)}


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the bytes of an IDX file in the shape that its header states; local.

    Two zero bytes, type, number of dimensions, then each dimension as a big-endian
    32-bit integer, then the values in C order (Y. LeCun, C. Cortes, C. Burges, "The
    MNIST database of handwritten digits"). Gzip is recognized by its first bytes.

    DataError: another format or type of number, truncated, too long, damaged gzip.
    """
    damaged = f"It is truncated or damaged. {_AGAIN}"
    with reading(path, "a whole IDX file, or a whole gzip file of one", damaged):
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        with gzip.open(path) if packed else path.open("rb") as file:
            shape = _shape(path, file)
            expected = math.prod(shape)
            # No more is there; a gzip file may go on for gigabytes behind its values.
            stored = path.stat().st_size * (_MOST_PACKED if packed else 1)
            memory.demand(min(expected, stored), path)
            values = file.read(min(expected + 1, stored))
        n = len(values)
        if n != expected:
            found = f"found {n}: it is truncated" if n < expected else "more follow"
            raise DataError(
                f"{path} must hold {expected} values, as its header {shape} says; "
                f"{found}. {_AGAIN}"
            )
        return np.frombuffer(values, np.uint8).reshape(shape)


def read_idx_folder(folder: Path) -> dict[str, Split]:
    """Return ``train`` and perhaps ``test`` of a folder with MNIST's file names; local.

    Names such as ``t10k-labels-idx1-ubyte`` may have a dot before ``idx`` and end in
    ``.gz``; only ``train-images-idx3-ubyte`` must be there. An image is a row.

    DataError: a missing or damaged file, or other numbers of labels than of images.
    """
    splits = {}
    for split, (prefix, required) in _PARTS.items():
        images = _find(folder, f"{prefix}-images", "idx3-ubyte")
        labels = _find(folder, f"{prefix}-labels", "idx1-ubyte")
        if images is not None:
            splits[split] = _read_split(images, labels)
        elif required or labels is not None:
            raise DataError(
                f"{folder} must hold {prefix}-images-idx3-ubyte or "
                f"{prefix}-images-idx3-ubyte.gz, or image files; found "
                f"{few(sorted(path.name for path in folder.iterdir()), 6)}."
            )
    return splits


def _read_split(images_path: Path, labels_path: Path | None) -> Split:
    images = read_idx(images_path)
    if images.ndim < 2 or 0 in images.shape:
        raise DataError(
            f"{images_path} must hold at least one image of at least one pixel; found "
            f"shape {images.shape}."
        )
    labels = None
    if labels_path is not None:
        labels = read_idx(labels_path)
        if labels.shape != (len(images),):
            raise DataError(
                f"{labels_path} must hold one label an image; found {len(images)} "
                f"images and labels of shape {labels.shape}. The files belong to "
                "different sets."
            )
    return Split(images.reshape(len(images), -1), labels)


def _shape(path: Path, file: BufferedIOBase) -> tuple[int, ...]:
    """Return the shape that the header states, up to which the file is read."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
        raise DataError(
            f"{path} must be an IDX file, which starts with the magic number "
            f"0x000008.. for bytes; found 0x{magic.hex()}. {_AGAIN}"
        )
    kind, n_dimensions = magic[2], magic[3]
    if kind != _UINT8:
        raise DataError(
            f"{path} must hold unsigned bytes, IDX type 0x08; found type 0x{kind:02x}, "
            f"{_TYPES.get(kind, 'not an IDX type')}. Convert other numbers to .npy."
        )
    header = file.read(4 * n_dimensions)
    if len(header) < 4 * n_dimensions:
        raise DataError(
            f"{path} must have a header of {4 + 4 * n_dimensions} bytes; it ends after "
            f"{4 + len(header)}: it is truncated. {_AGAIN}"
        )
    return tuple(map(int, np.frombuffer(header, ">u4")))


def _find(folder: Path, stem: str, kind: str) -> Path | None:
    names = [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)
