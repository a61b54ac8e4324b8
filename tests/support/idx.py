"""Tiny IDX files."""

import gzip
from pathlib import Path

import numpy as np


def idx_bytes(array, kind=0x08):
    """Return an array as an IDX file's content."""
    shape = np.asarray(array.shape, ">u4").tobytes()
    return bytes([0, 0, kind, array.ndim]) + shape + array.tobytes()


def write_idx(path: Path, array) -> Path:
    """Write an IDX file, compressed if its name says so."""
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def digits(n, seed=0):
    """Return n random images of 4 x 4 and their labels, which go round."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 4, 4), dtype=np.uint8)
    images[0, 0, :2] = 0, 255
    return images, (np.arange(n) % 10).astype(np.uint8)


def write_idx_folder(folder: Path, n_train=60, n_test=20, ending="") -> Path:
    """Write a folder like MNIST's with a few random images."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (prefix, n) in enumerate({"train": n_train, "t10k": n_test}.items()):
        images, labels = digits(n, seed=seed)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", labels)
    return folder
