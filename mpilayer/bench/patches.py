"""Rows for the benchmarks of the sparse autoencoder: patches, or random ones."""

from pathlib import Path

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError
from mpilayer.rng import stream

N_VISIBLE = 64
"""Pixels of a patch of 8 × 8."""

N_CAUSES = 16
"""What a random patch consists of, besides noise."""

_DEVIATION = 0.3
"""Of a pixel, as in patches of whitened images."""


def patches(source: Path | None, n_rows: int) -> Array32:
    """Return the first training rows of a data set, or random ones without a source.

    Raises
    ------
    ConfigError
        The data set has fewer rows.
    """
    if source is None:
        return random_patches(n_rows)
    with Dataset.open(source) as dataset:
        check_rows(source, n_rows, dataset.n_samples("train"))
        return dataset.rows("train", 0, n_rows)


def write_patches(source: Path | None, n_rows: int, folder: Path) -> Path:
    """Write them as a data set into a folder; return its path.

    Raises
    ------
    ConfigError
        The source has fewer rows.
    """
    path = folder / f"patches-{n_rows}.h5"
    origin = "random" if source is None else source.name
    splits = {"train": Split(patches(source, n_rows))}
    write_dataset(path, splits, name="bench", origin=origin, scale=1.0)
    return path


def random_patches(n_rows: int) -> Array32:
    """Return rows of which a few causes explain nearly all.

    Returns
    -------
    ndarray (n_rows, 64)
        The first rows are the same for any number of them, to rounding.
    """
    mixing = stream(0, "bench", 0).standard_normal((N_CAUSES, N_VISIBLE))
    mixing *= _DEVIATION / np.sqrt(N_CAUSES)
    causes = stream(0, "bench", 1).standard_normal((n_rows, N_CAUSES), np.float32)
    noise = stream(0, "bench", 2).standard_normal((n_rows, N_VISIBLE), np.float32)
    rows: Array32 = causes @ mixing.astype(np.float32)
    rows += 0.1 * _DEVIATION * noise
    return rows


def check_rows(source: Path, n_rows: int, found: int) -> None:
    """Check that a data set has enough training rows.

    Raises
    ------
    ConfigError
        It has fewer.
    """
    if n_rows > found:
        raise ConfigError(
            f"the data must have {n_rows} training rows; {source} has {found}. Ask for "
            "fewer rows, or give larger data."
        )
