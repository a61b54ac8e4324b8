"""Files of arrays: NumPy's, IDX, and MATLAB's, which a process of its own reads.

SciPy's reader crashes on damaged files.
"""

import gzip
import math
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpilayer import memory
from mpilayer.arrays import AnyArray
from mpilayer.data.split import Split
from mpilayer.data.table import FileRows
from mpilayer.errors import DataError, reading
from mpilayer.words import few

_LARGE = 64 << 20  # bytes of a file
_NUMPY = (
    "a whole NumPy file of plain numbers",
    "Save it again, without Python objects.",
)
_LISTED = 8
_MATLAB = ("a whole MATLAB file", "Save or copy it again.")


def load_npy(path: Path) -> AnyArray | FileRows:
    """Return the array of an ``.npy`` file; rows of a large one stay there.

    Unless it is stored by columns. DataError: as ``load_numpy``.
    """
    if path.stat().st_size > _LARGE:
        with reading(path, *_NUMPY):
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(mapped, np.memmap) and mapped.flags.c_contiguous:
                form = mapped.dtype, mapped.shape, mapped.offset
                return FileRows(path.open("rb"), *form)
    return load_numpy(path)["x"]


def load_numpy(path: Path) -> dict[str, AnyArray]:
    """Return the arrays of an ``.npz`` file, or the one of a ``.npy`` file as ``x``.

    DataError: damaged, Python objects, or one of them with the name of the other.
    """
    with (
        reading(path, *_NUMPY),
        # NumPy says more of old or damaged headers than a user can mend.
        warnings.catch_warnings(action="ignore"),
        path.open("rb") as file,
    ):
        memory.demand(path.stat().st_size, path)
        content = np.load(file, allow_pickle=False)
        is_npy = path.suffix.lower() == ".npy"
        if isinstance(content, np.ndarray) and is_npy:
            return {"x": content}
        if isinstance(content, np.ndarray):
            raise DataError(f"{path} must hold named arrays; found one. Name it .npy.")
        if is_npy:
            raise DataError(f"{path} must hold one array; found several. Name it .npz.")
        memory.demand(sum(part.file_size for part in content.zip.infolist()), path)
        return {name: content[name] for name in content.files}


def load_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a ``.mat`` file, in the types they have in MATLAB.

    DataError: damaged, of version 7.3, complex numbers, or too large for the memory.
    """
    command = (sys.executable, "-P", "-m", __name__, str(path))
    # The same modules as here, whatever led to them.
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with reading(path, *_MATLAB), child:
        assert child.stdout is not None
        try:
            answer: dict[str, Any] | str = pickle.load(child.stdout)
        except (EOFError, pickle.UnpicklingError):
            what, advice = _MATLAB
            answer = f"{path} must be {what}; SciPy fails on it. {advice}"
    if isinstance(answer, str):
        raise DataError(answer)
    return answer


def shapes(arrays: Mapping[str, object]) -> str:
    """Return names and shapes in words, for a message."""
    found = [f"{name} {getattr(a, 'shape', '')}".strip() for name, a in arrays.items()]
    return few(found, _LISTED)


def _variables(path: Path) -> dict[str, Any]:
    import scipy.io

    try:
        with reading(path, *_MATLAB):
            # SciPy would drop imaginary parts with no more than this warning.
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            # MATLAB saves doubles that happen to be whole as bytes, which would pass
            # for pixels; mat_dtype undoes that.
            content = scipy.io.loadmat(path, mat_dtype=True)
    except DataError as error:
        if isinstance(error.__cause__, NotImplementedError):
            must = "be a MATLAB file of version 7 or older; found version 7.3"
            advice = "Save it in MATLAB with save(..., '-v7')"
        elif isinstance(error.__cause__, np.exceptions.ComplexWarning):
            must = "hold real numbers; found complex ones"
            advice = "Save their real part"
        else:
            raise
        raise DataError(f"{path} must {must}. {advice}.") from error
    return {name: a for name, a in content.items() if not name.startswith("__")}


# --- IDX, the format MNIST is distributed in: files, plain or gzip, and their folder

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


if __name__ == "__main__":
    # What is in the file, or what is wrong with it. SciPy's own code is not limited.
    import scipy.io  # noqa: F401

    memory.limit_process()
    answer: dict[str, Any] | str
    try:
        answer = _variables(Path(sys.argv[1]))
    except DataError as error:
        answer = str(error)
    pickle.dump(answer, sys.stdout.buffer, protocol=5)
