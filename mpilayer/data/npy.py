"""Arrays in files of NumPy."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from mpilayer import memory
from mpilayer.arrays import AnyArray
from mpilayer.errors import DataError, reading


def load_npy(path: Path) -> AnyArray:
    """Return the array of a ``.npy`` file; DataError if it is damaged or an archive."""
    with _numpy_file(path) as file:
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} must hold one array; found several. Name it .npz.")
    return array


def load_npz(path: Path) -> dict[str, AnyArray]:
    """Return the arrays of an ``.npz`` file; DataError if it is damaged or none."""
    with _numpy_file(path) as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise DataError(f"{path} must hold named arrays; found one. Name it .npy.")
        memory.demand(sum(part.file_size for part in content.zip.infolist()), path)
        return {name: content[name] for name in content.files}


def shapes(arrays: Mapping[str, object]) -> str:
    """Return names and shapes in words, for a message."""
    found = [f"{name} {getattr(a, 'shape', '')}".strip() for name, a in arrays.items()]
    return ", ".join(found) or "nothing"


@contextmanager
def _numpy_file(path: Path) -> Iterator[IO[bytes]]:
    what = "a whole NumPy file of plain numbers"
    with (
        reading(path, what, "Save it again, without Python objects."),
        # NumPy says more of old or damaged headers than a user can mend.
        warnings.catch_warnings(action="ignore"),
        path.open("rb") as file,
    ):
        memory.demand(path.stat().st_size, path)
        yield file
