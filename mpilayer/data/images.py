"""Images of HDF5, .mat, .npy and image files: stacks of them, or whole samples."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import hdf5, memory
from mpilayer.arrays import AnyArray, Array32
from mpilayer.data.array_files import load_mat, load_numpy, shapes
from mpilayer.data.split import SPLITS
from mpilayer.data.table import check_finite, to_float32
from mpilayer.errors import DataError, reading

_NAME = "images"
# Of whole samples: a square of fewer values is a table's row more often.
_LEAST_SIZE = 6
_REMEDY = "Mend or leave out such images"
_PICTURES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".pgm", ".ppm", ".pnm"),
)


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images of one size."""

    x: Array32  # (n_images, height, width), finite; bytes have become 0 to 1
    name: str  # of the file or folder, without its ending
    origin: str  # what was read


def image_size(n_visible: int, columns: Sequence[str], origin: str) -> int:
    """Return height and width of the samples of a data set if they are images, else 0.

    What has names of columns, or comes from a ``.csv``, is a table; of the others
    square samples of at least 6 x 6 values count as images.
    """
    size = math.isqrt(n_visible)
    is_table = bool(columns) or ".csv (" in origin.lower()
    is_square = size * size == n_visible and size >= _LEAST_SIZE
    return size if is_square and not is_table else 0


def read_images(path: Path) -> Images:
    """Read any file or folder that images can come from; local.

    Which these are, and what becomes of their pixels, docs/formats.md says.
    Transparency is ignored.

    DataError: missing, damaged, of an unknown kind, not a stack of real numbers, images
    of different sizes, NaN or infinite pixels; or Pillow is not installed.
    """
    origin = path.resolve().name
    if path.is_dir():
        x, _ = _read_pictures(path, _pictures(path))
        return Images(x, origin, f"the folder {origin}")
    if not path.is_file():
        raise DataError(
            f"{path} must be a file or folder of images; found nothing there."
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} must end in {', '.join(_READERS)} or be a folder of image files; "
            f"found the ending {path.suffix!r}."
        )
    return Images(reader(path), Path(origin).stem, origin)


def is_image_folder(folder: Path, depth: int = 2) -> bool:
    """Tell whether a folder, or one that lies so deep in it, has image files. Local."""
    pictures, folders, _ = _look(folder)
    inner = folders if depth else []
    return bool(pictures) or any(is_image_folder(path, depth - 1) for path in inner)


def read_image_folder(folder: Path) -> dict[str, tuple[AnyArray, AnyArray | None]]:
    """Read pictures as rows, (n_samples, height · width), and their classes; local.

    The folder holds image files, or a folder of them for each class, or folders
    ``train`` and perhaps ``validation`` and ``test`` of either kind. Rows stand class
    after class and by the names of files.

    DataError: a folder of a class without pictures, pictures beside such folders, or
    what ``read_images`` refuses: other sizes, damage.
    """
    pictures, folders, _ = _look(folder)
    below, parts = {path.name: path for path in folders}, {"train": folder}
    if "train" in below and set(below) <= set(SPLITS) and not pictures:
        parts = {split: below[split] for split in SPLITS if split in below}
    files = [
        (split, name, path)
        for split, part in parts.items()
        for name, paths in _classes(part).items()
        for path in paths
    ]
    x, n_pages = _read_pictures(folder, [path for *_, path in files])
    rows = x.reshape(len(x), -1)
    splits = np.repeat([split for split, *_ in files], n_pages)
    names = np.repeat([name for _, name, _ in files], n_pages)
    found: dict[str, tuple[AnyArray, AnyArray | None]] = {}
    for split in parts:
        mine = splits == split
        labels = names[mine] if names[mine][0] else None
        found[split] = rows if len(parts) == 1 else rows[mine], labels
    return found


def _read_hdf5(path: Path) -> Array32:
    with hdf5.open_foreign(path) as file:
        stored = file.get(_NAME)
        if not isinstance(stored, hdf5.Dataset):
            raise DataError(
                f"{path} must have a dataset {_NAME!r} (n_images, height, width); "
                f"found {shapes(dict(file))}. Rename it."
            )
        return _stack(path, stored, "(n_images, height, width)", (3,))


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
    # The last dimension counts the images; NumPy's way is to have that first.
    return _stack(path, variables[names[0]], layout, (2, 3), count=2)


def _read_npy(path: Path) -> Array32:
    layout = "(n_images, height, width) or (height, width)"
    return _stack(path, load_numpy(path)["x"], layout, (2, 3))


_READERS: dict[str, Callable[[Path], Array32]] = {
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".mat": _read_mat,
    ".npy": _read_npy,
    **dict.fromkeys(_PICTURES, lambda path: _read_pictures(path.parent, [path])[0]),
}


def _stack(
    path: Path, stored: Any, layout: str, n_dims: tuple[int, ...], count: int = 0
) -> Array32:
    """Return the images of an array; ``count`` is their dimension, if it has three."""
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
    array = stored[()]
    stack = array[None] if array.ndim == 2 else np.moveaxis(array, count, 0)
    images = _unit(stack)
    for i, image in enumerate(images):
        check_finite(image, 0, f"{path}, image {i}", remedy=_REMEDY)
    return images


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class, of the class "" without class folders."""
    pictures, folders, _ = _look(folder)
    if not folders:
        return {"": _pictures(folder)}
    if pictures:
        raise DataError(
            f"{folder} must hold image files, or a folder of them for each class; "
            f"found both, such as the folder {folders[0].name}. Move the files into "
            "folders."
        )
    classes = {path.name: _look(path)[0] for path in folders}
    if empty := [name for name, paths in classes.items() if not paths]:
        raise DataError(
            f"the folder of each class in {folder} must hold image files; "
            f"found none in {', '.join(empty)}. Remove such folders, or fill them."
        )
    return classes


def _pictures(folder: Path) -> list[Path]:
    """Return the image files of a folder by name; DataError if there are none."""
    pictures, _, n_entries = _look(folder)
    if not pictures:
        raise DataError(
            f"{folder} must hold image files, their names ending in "
            f"{', '.join(_PICTURES)}; found none among {n_entries} files."
        )
    return pictures


def _look(folder: Path) -> tuple[list[Path], list[Path], int]:
    """Return the image files in a folder, the folders, and how much else is there."""
    try:
        # Hidden files are none: macOS leaves "._NAME" beside NAME on foreign disks.
        entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        folders = [path for path in entries if path.is_dir()]
        named = [path for path in entries if path.suffix.lower() in _PICTURES]
        pictures = [p for p in named if not (p.is_dir() or p.is_fifo())]
        return pictures, folders, len(entries) - len(pictures)
    except OSError as error:
        raise DataError(
            f"{folder} must be a folder that can be read; "
            f"{str(error.strerror).lower()}."
        ) from error


def _read_pictures(folder: Path, paths: list[Path]) -> tuple[Array32, list[int]]:
    """Return the images of files in or below a folder, and how many each file has."""
    files = [_read_pages(path) for path in paths]
    n_pages = [len(pages) for pages in files]
    pages = [page for some in files for page in some]
    names = np.repeat([str(path.relative_to(folder)) for path in paths], n_pages)
    for name, page in zip(names, pages, strict=True):
        if page.shape != pages[0].shape:
            raise DataError(
                f"all images of {folder} must have one size; found "
                f"{' x '.join(map(str, pages[0].shape))} (height x width) in "
                f"{names[0]} and {' x '.join(map(str, page.shape))} in {name}. Crop or "
                "scale them."
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
        check_finite(page, 0, str(path), remedy=_REMEDY)
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


def _unit(x: AnyArray) -> Array32:
    """Return float32 in C order: bytes as 0 to 1, other numbers as they are."""
    if x.dtype == np.uint8:
        return np.multiply(x, np.float32(1 / 255), dtype=np.float32, order="C")
    return to_float32(x)
