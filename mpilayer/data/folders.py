"""Folders of image files whose pictures are whole samples, perhaps in class folders."""

from pathlib import Path

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.data.images import entries, has_pictures, pictures, read_pictures
from mpilayer.data.layout import SPLITS
from mpilayer.errors import DataError


def is_image_folder(folder: Path, depth: int = 2) -> bool:
    """Tell whether a folder, or one that lies so deep in it, has image files. Local."""
    return has_pictures(folder) or (
        depth > 0
        and any(
            is_image_folder(path, depth - 1)
            for path in entries(folder)
            if path.is_dir()
        )
    )


def read_image_folder(folder: Path) -> dict[str, tuple[AnyArray, AnyArray | None]]:
    """Read pictures as rows; local.

    Parameters
    ----------
    folder : Path
        Holds image files, or a folder of them for each class, or folders ``train`` and
        perhaps ``validation`` and ``test`` of either kind. What is hidden is left out.

    Returns
    -------
    dict of str to (ndarray of float32, ndarray of str or None)
        Of each split the rows, (n_samples, height · width), class after class and by
        the names of files; and the names of their classes.

    Raises
    ------
    DataError
        A folder of a class without pictures, pictures beside such folders, or what
        :func:`~mpilayer.data.images.read_pictures` refuses: other sizes, damage.
    """
    below = {path.name: path for path in entries(folder) if path.is_dir()}
    parts = {"train": folder}
    if "train" in below and set(below) <= set(SPLITS) and not has_pictures(folder):
        parts = {split: below[split] for split in SPLITS if split in below}
    files: list[tuple[str, str, Path]] = [
        (split, name, path)
        for split, part in parts.items()
        for name, some in _classes(part).items()
        for path in some
    ]
    x, n_pages = read_pictures(folder, [path for *_, path in files])
    rows = x.reshape(len(x), -1)
    splits, names = (np.repeat(t, n_pages) for t in list(zip(*files, strict=True))[:2])
    found: dict[str, tuple[AnyArray, AnyArray | None]] = {}
    for split in parts:
        mine = splits == split
        labels = names[mine] if names[mine][0] else None
        found[split] = rows if len(parts) == 1 else rows[mine], labels
    return found


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class, of the class "" without class folders."""
    classes = [path for path in entries(folder) if path.is_dir()]
    if not classes:
        return {"": pictures(folder)}
    if has_pictures(folder):
        raise DataError(
            f"{folder} must hold image files, or a folder of them for each class; "
            f"found both, such as the folder {classes[0].name}. Move the files into "
            "folders."
        )
    empty = [path.name for path in classes if not has_pictures(path)]
    if empty:
        raise DataError(
            f"the folder of each class in {folder} must hold image files; "
            f"found none in {', '.join(empty)}. Remove such folders, or fill them."
        )
    return {path.name: pictures(path) for path in classes}
