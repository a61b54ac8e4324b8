"""Files of other programs: IDX folders, .npy, .npz, .mat and .csv."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from mpilayer import memory
from mpilayer.arrays import AnyArray
from mpilayer.data.csv import read_csv
from mpilayer.data.dataset import PIXEL_SCALE, SPLITS
from mpilayer.data.idx import read_idx_folder
from mpilayer.data.mat import load_mat
from mpilayer.data.split import Split, whole_numbers
from mpilayer.errors import DataError, reading

Splits = dict[str, Split]

Reader = Callable[[Path], tuple[Splits, str]]
"""Returns what a file holds, and what was taken for what if that is not plain."""

_NAMES = "x and labels, train_x and train_labels, or x_train and y_train"


@dataclass(frozen=True, eq=False)
class Source:
    """What a source holds.

    Attributes
    ----------
    splits : dict of str to Split
        ``train``, and ``validation`` and ``test`` if the source tells them apart.
    scale : float
        Value of a stored 1: 1/255 for bytes, which are taken for pixels, else 1.
    name : str
        The file's or folder's name, without its ending.
    origin : str
        What was read, and what was taken for what.
    """

    splits: Splits
    scale: float
    name: str
    origin: str


def read_source(path: Path) -> Source:
    """Read any file or folder that a data set can be made from; local.

    Parameters
    ----------
    path : Path
        A folder of IDX files with MNIST's names, or a file: ``.npy``, one array;
        ``.npz`` and ``.mat``, arrays named ``x`` and ``labels``, ``train_x`` and
        ``train_labels``, or ``x_train`` and ``y_train``, and likewise for
        ``validation`` and ``test``, or one array of any name; ``.csv``, numbers
        separated by commas, where a header may name a column ``label``.

    Returns
    -------
    Source
        An array of more than two dimensions has a row for each first index.

    Raises
    ------
    DataError
        Missing, damaged, of an unknown kind, or without a table of real numbers.
    """
    origin = path.resolve().name
    if path.is_dir():
        splits, origin = read_idx_folder(path), f"IDX files of the folder {origin}"
    elif path.is_file():
        splits, remark = _reader(path)(path)
        origin += f" ({remark})" if remark else ""
    else:
        raise DataError(
            f"{path} must be a file or folder of samples; found nothing there."
        )
    scale = PIXEL_SCALE if splits["train"].x.dtype == np.uint8 else 1.0
    return Source(splits, scale, path.resolve().stem, origin)


def load_npy(path: Path) -> AnyArray:
    """Return the array of a ``.npy`` file; DataError if it is damaged or an archive."""
    with _numpy_file(path) as file:
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} must hold one array; found several. Name it .npz.")
    return array


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


def _read_npy(path: Path) -> tuple[Splits, str]:
    return {"train": _split(path, "x", load_npy(path), None)}, ""


def _read_npz(path: Path) -> tuple[Splits, str]:
    with _numpy_file(path) as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise DataError(f"{path} must hold named arrays; found one. Name it .npy.")
        memory.demand(sum(part.file_size for part in content.zip.infolist()), path)
        arrays = {name: content[name] for name in content.files}
    return _named_splits(path, arrays), ""


def _read_mat(path: Path) -> tuple[Splits, str]:
    return _named_splits(path, load_mat(path)), ""


def _read_csv(path: Path) -> tuple[Splits, str]:
    train, remark = read_csv(path)
    return {"train": train}, remark


_READERS: dict[str, Reader] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
    ".csv": _read_csv,
}


def _reader(path: Path) -> Reader:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} must end in {', '.join(_READERS)} or be a folder of IDX files; "
            f"found the ending {path.suffix!r}."
        )
    return reader


def _named_splits(path: Path, arrays: Mapping[str, object]) -> Splits:
    """Return the splits among named arrays, or the only array as ``train``."""
    splits = {}
    for split in SPLITS:
        x = _pick(arrays, _x_names(split))
        labels = _pick(arrays, _label_names(split))
        if x is not None:
            label_array = None if labels is None else arrays[labels]
            splits[split] = _split(path, x, arrays[x], label_array)
        elif labels is not None and split != "train":
            raise DataError(
                f"{path} must have samples for the labels {labels!r}; "
                f"found {shapes(arrays)}. Call the array {_x_names(split)[0]!r}."
            )
    if "train" in splits:
        return splits
    tables = [name for name, a in arrays.items() if _is_table(a)]
    if len(tables) != 1 or splits:
        raise DataError(
            f"{path} must hold one array, or arrays named {_NAMES}, likewise for test "
            f"and validation; found {shapes(arrays)}. Rename them."
        )
    return {"train": _split(path, tables[0], arrays[tables[0]], None)}


def _x_names(split: str) -> tuple[str, ...]:
    return (f"{split}_x", f"x_{split}") + (("x",) if split == "train" else ())


def _label_names(split: str) -> tuple[str, ...]:
    names = (f"{split}_labels", f"y_{split}")
    return names + (("labels", "y") if split == "train" else ())


def _pick(arrays: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _is_table(array: object) -> bool:
    """Tell arrays from the numbers, texts and structures in a file."""
    return (
        isinstance(array, np.ndarray) and array.dtype.kind in "biufc" and array.size > 1
    )


def _split(path: Path, name: str, x: object, labels: object) -> Split:
    if not isinstance(x, np.ndarray) or x.ndim < 2 or 0 in x.shape:
        found = f"shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(
            f"{path} must hold samples as the rows of a full array of at least two "
            f"dimensions; found {found} in {name!r}."
        )
    try:
        return Split(
            x.reshape(len(x), -1), None if labels is None else _label_vector(labels)
        )
    except DataError as error:
        raise DataError(f"{path}, array {name!r}: {error}") from error


def _label_vector(labels: object) -> AnyArray:
    """Return labels as a vector of integers: MATLAB has only matrices of doubles."""
    array = np.asarray(labels)
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    return whole_numbers(array)


def shapes(arrays: Mapping[str, object]) -> str:
    """Return names and shapes in words, for a message."""
    found = [f"{name} {getattr(a, 'shape', '')}".strip() for name, a in arrays.items()]
    return ", ".join(found) or "nothing"
