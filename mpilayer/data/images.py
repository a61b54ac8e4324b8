"""Stacks of images: HDF5, .mat, .npy, and image files."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray, Array32
from mpilayer.data.mat import load_mat
from mpilayer.data.npy import load_npy, shapes
from mpilayer.errors import DataError, reading

_NAME = "images"
_LEAST_SIZE = 6
"""Of whole samples: a square of fewer values is a table's row more often."""
_PICTURES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".pgm", ".ppm", ".pnm"),
)


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images of one size.

    Attributes
    ----------
    x : ndarray of float32, (n_images, height, width)
        All finite; what was bytes lies in 0 to 1.
    name : str
        The file's or folder's name, without its ending.
    origin : str
        What was read.
    """

    x: Array32
    name: str
    origin: str


def image_size(n_visible: int, columns: Sequence[str], origin: str) -> int:
    """Return height and width of the samples of a data set if they are images, else 0.

    No data set says so. What has names of columns, or comes from a ``.csv``, is a
    table; of the others square samples of at least 6 x 6 values count as images.

    Parameters
    ----------
    n_visible : int
        Values in a sample.
    columns : sequence of str
        Their names; empty if they have none.
    origin : str
        Where the data come from, as the data set says.
    """
    size = math.isqrt(n_visible)
    is_table = bool(columns) or ".csv (" in origin.lower()
    is_square = size * size == n_visible and size >= _LEAST_SIZE
    return size if is_square and not is_table else 0


def read_images(path: Path) -> Images:
    """Read any file or folder that images can come from; local.

    Parameters
    ----------
    path : Path
        A folder of image files, taken in the order of their names, or a file:
        ``.h5`` or ``.hdf5`` with a dataset ``images`` (n_images, height, width);
        ``.mat`` with a variable of any name (height, width, n_images), as MATLAB stacks
        images along the last dimension, or (height, width), which is what it makes of
        a single image; ``.npy`` (n_images, height, width) or (height, width); or one
        image file.

    Returns
    -------
    Images
        Bytes, and image files of 16 bits, become 0 to 1; other numbers stay as they
        are. Colours become grey, transparency is ignored, what a camera has turned is
        turned back, and each page of a file is an image. Hidden files are left out.

    Raises
    ------
    DataError
        Missing, damaged, of an unknown kind, not a stack of real numbers, images of
        different sizes, NaN or infinite pixels; or Pillow is not installed.
    """
    origin = path.resolve().name
    if path.is_dir():
        x, _ = read_pictures(path, pictures(path))
        return Images(x, origin, f"the folder {origin}")
    if not path.is_file():
        raise DataError(
            f"{path} must be a file or folder of images; found nothing there."
        )
    return Images(_reader(path)(path), Path(origin).stem, origin)


def _read_hdf5(path: Path) -> Array32:
    with hdf5.open_foreign(path) as file:
        stored = file.get(_NAME)
        if not isinstance(stored, hdf5.Dataset):
            raise DataError(
                f"{path} must have a dataset {_NAME!r} (n_images, height, width); "
                f"found {shapes(dict(file))}. Rename it."
            )
        return _checked(path, _stack(path, stored, "(n_images, height, width)", (3,)))


def _read_mat(path: Path) -> Array32:
    variables = load_mat(path)
    layout = "(height, width, n_images) or (height, width)"
    named = [name for name in variables if name.lower() == _NAME]
    names = named or [name for name, a in variables.items() if np.size(a) > 1]
    if len(names) != 1:
        raise DataError(
            f"{path} must hold one array, or one named {_NAME!r}, {layout}; "
            f"found {shapes(variables)}. Rename it."
        )
    stack = _stack(path, variables[names[0]], layout, (2, 3))
    # The last dimension counts the images; NumPy's way is to have that first.
    return _checked(path, stack[None] if stack.ndim == 2 else np.moveaxis(stack, 2, 0))


def _read_npy(path: Path) -> Array32:
    layout = "(n_images, height, width) or (height, width)"
    stack = _stack(path, load_npy(path), layout, (2, 3))
    return _checked(path, stack[None] if stack.ndim == 2 else stack)


def _read_picture(path: Path) -> Array32:
    return read_pictures(path.parent, [path])[0]


_READERS: dict[str, Callable[[Path], Array32]] = {
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".mat": _read_mat,
    ".npy": _read_npy,
    **dict.fromkeys(_PICTURES, _read_picture),
}


def _reader(path: Path) -> Callable[[Path], Array32]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} must end in {', '.join(_READERS)} or be a folder of image files; "
            f"found the ending {path.suffix!r}."
        )
    return reader


def pictures(folder: Path) -> list[Path]:
    """Return the image files of a folder by name, without hidden ones. Local.

    Raises
    ------
    DataError
        It cannot be read, or has none.
    """
    paths = entries(folder)
    found = [path for path in paths if _is_picture(path)]
    if not found:
        raise DataError(
            f"{folder} must hold image files, their names ending in "
            f"{', '.join(_PICTURES)}; found none among {len(paths)} files."
        )
    return found


def has_pictures(folder: Path) -> bool:
    """Tell whether image files lie in a folder itself. Local."""
    return any(map(_is_picture, entries(folder)))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _PICTURES and not (path.is_fifo() or path.is_dir())


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder by name, without what is hidden. Local.

    Raises
    ------
    DataError
        It cannot be read.
    """
    try:
        # Hidden files are none: macOS leaves "._NAME" beside NAME on foreign disks.
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} must be a folder that can be read; "
            f"{str(error.strerror).lower()}."
        ) from error


def read_pictures(folder: Path, paths: list[Path]) -> tuple[Array32, list[int]]:
    """Read image files in or below a folder. Local.

    Returns
    -------
    x : ndarray of float32, (n_images, height, width)
    n_pages : list of int
        How many images each file has.

    Raises
    ------
    DataError
        As for ``read_images``.
    """
    files = [_read_pages(path) for path in paths]
    n_pages = [len(pages) for pages in files]
    pages = [page for some in files for page in some]
    names = np.repeat([str(path.relative_to(folder)) for path in paths], n_pages)
    for name, page in zip(names, pages, strict=True):
        if page.shape != pages[0].shape:
            raise DataError(
                f"all images of {folder} must have one size; found "
                f"{_size(pages[0])} (height x width) in {names[0]} and "
                f"{_size(page)} in {name}. Crop or scale them."
            )
    with reading(folder, "a folder of images"):
        return np.stack(pages), n_pages


def _read_pages(path: Path) -> list[Array32]:
    """Return the pixels of all pages of an image file, (height, width) each."""
    try:
        # An extra, which other sources do not need.
        from PIL import Image, ImageOps, ImageSequence
    except ImportError as error:
        raise DataError(
            f"reading {path} needs Pillow, which is not installed. "
            "Install it with: pip install 'mpilayer[images]'"
        ) from error
    with (
        reading(path, "a whole image file", "Save or copy it again."),
        # Pillow warns of damaged or large parts; what counts is whether it can read.
        warnings.catch_warnings(action="ignore"),
        # By its name, Pillow would map a TIFF file, and garble it where it is turned.
        path.open("rb") as file,
        Image.open(file) as image,
    ):
        # A camera's second picture is a preview of the first.
        several = image.format != "MPO"
        frames = ImageSequence.Iterator(image) if several else (image,)
        pages = [_grey(ImageOps.exif_transpose(frame)) for frame in frames]
    for page in pages:
        _check_finite(page, str(path))
    return pages


def _grey(image: Any) -> Array32:
    if image.mode == "F":
        return np.asarray(image, np.float32)
    if image.mode.startswith("I"):
        return np.asarray(image, np.float32) / np.float32(65535)
    if image.mode == "P":
        # Straight to grey, Pillow would warn of a palette's transparency.
        image = image.convert("RGBA")
    return _unit(np.asarray(image.convert("L")))


def _stack(path: Path, stored: Any, layout: str, n_dims: tuple[int, ...]) -> AnyArray:
    """Return an array, or what an open file holds, if it can be a stack of images."""
    full = isinstance(stored, np.ndarray | hdf5.Dataset)
    shape = stored.shape if full else None
    if shape is None or len(shape) not in n_dims or 0 in shape:
        found = type(stored).__name__ if shape is None else f"shape {shape}"
        raise DataError(
            f"{path} must hold grey images {layout}; found {found}. Rearrange them."
        )
    if stored.dtype.kind not in "biuf":
        raise DataError(
            f"{path} must hold real numbers; found {stored.dtype}. Convert them."
        )
    if isinstance(stored, hdf5.Dataset):
        # What is read, and what becomes of it.
        memory.demand(math.prod(shape) * (stored.dtype.itemsize + 4), path)
    array: AnyArray = stored[()]
    return array


def _checked(path: Path, stack: AnyArray) -> Array32:
    images = _unit(stack)
    for i, image in enumerate(images):
        _check_finite(image, f"{path}, image {i}")
    return images


def _unit(x: AnyArray) -> Array32:
    """Return float32 in C order: bytes as 0 to 1, other numbers as they are."""
    if x.dtype == np.uint8:
        return np.multiply(x, np.float32(1 / 255), dtype=np.float32, order="C")
    # What float32 cannot hold becomes infinite here and is refused afterwards.
    with np.errstate(over="ignore"):
        return x.astype(np.float32, order="C", copy=False)


def _check_finite(image: Array32, where: str) -> None:
    finite = np.isfinite(image)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            f"{where} must hold finite float32 numbers; row {row}, column {column} is "
            f"{image[row, column]}. Mend or leave out such images."
        )


def _size(image: Array32) -> str:
    return " x ".join(map(str, image.shape))
