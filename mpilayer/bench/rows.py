"""Rows for the benchmarks: real ones, random images, random patches."""

from pathlib import Path

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError
from mpilayer.rng import stream

N_VISIBLE = 64  # pixels of a patch of 8 × 8
N_CAUSES = 16  # what a random patch consists of, besides noise
_DEVIATION = 0.3  # of a pixel, as in patches of whitened images


def patches(source: Path | None, n_rows: int) -> Array32:
    """Return the first training rows of a data set, or random ones without a source.

    ConfigError: the data set has fewer rows.
    """
    if source is None:
        return random_patches(n_rows)
    check_rows(source, n_rows)
    with Dataset.open(source) as dataset:
        return dataset.rows("train", 0, n_rows)


def random_patches(n_rows: int) -> Array32:
    """Return rows (n_rows, 64) of which a few causes explain nearly all.

    The first rows are the same for any number of them, to rounding.
    """
    mixing = stream(0, "bench", 0).standard_normal((N_CAUSES, N_VISIBLE))
    mixing *= _DEVIATION / np.sqrt(N_CAUSES)
    causes = stream(0, "bench", 1).standard_normal((n_rows, N_CAUSES), np.float32)
    noise = stream(0, "bench", 2).standard_normal((n_rows, N_VISIBLE), np.float32)
    rows: Array32 = causes @ mixing.astype(np.float32)
    rows += 0.1 * _DEVIATION * noise
    return rows


def write_patches(source: Path | None, n_rows: int, folder: Path) -> Path:
    """Write ``patches`` as a data set into a folder; return its path."""
    splits = {"train": Split(patches(source, n_rows))}
    return _write(folder / f"patches-{n_rows}.h5", splits, source)


def write_images(source: Path | None, n_rows: int, folder: Path) -> Path:
    """Write so many training rows, and a fifth as many for validation; return the path.

    Those of ``source``, or random 784-pixel images without one: for CD the time of a
    step does not depend on what the pixels show.
    """
    path = folder / "images.h5"
    if source is None:
        rng = stream(0, "bench")
        pixels = rng.integers(0, 256, (n_rows + n_rows // 5, 784), dtype=np.uint8)
        splits = {"train": Split(pixels[:n_rows]), "validation": Split(pixels[n_rows:])}
        return _write(path, splits, source, scale=1 / 255)
    splits = {"train": Split(patches(source, n_rows))}
    with Dataset.open(source) as dataset:
        if "validation" in dataset.splits:
            some = min(dataset.n_samples("validation"), n_rows // 5)
            splits["validation"] = Split(dataset.rows("validation", 0, some))
    return _write(path, splits, source)


def check_rows(source: Path, n_rows: int) -> None:
    """Check that a data set has enough training rows; else a ConfigError."""
    with Dataset.open(source) as dataset:
        found = dataset.n_samples("train")
    if n_rows > found:
        raise ConfigError(
            f"the data must have {n_rows} training rows; {source} has {found}. Ask for "
            "fewer rows, or give larger data."
        )


def _write(
    path: Path, splits: dict[str, Split], source: Path | None, scale: float = 1.0
) -> Path:
    origin = "random" if source is None else source.name
    write_dataset(path, splits, name="bench", origin=origin, scale=scale)
    return path
