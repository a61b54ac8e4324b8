"""Small data sets, and what runs have left."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np

from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.split import Split
from tests.support import sparse


def pixels(n_rows: int, n_columns: int = 20, seed: int = 0) -> np.ndarray:
    """Return bytes that a few hidden causes explain: there is something to learn."""
    rng = np.random.default_rng(seed)
    causes = rng.random((n_rows, 4)) < 0.5
    patterns = np.random.default_rng(99).random((4, n_columns)) < 0.4
    bright = causes.astype(int) @ patterns.astype(int) > 0
    noise = rng.random((n_rows, n_columns))
    return np.where(bright, 255 - 60 * noise, 60 * noise).astype(np.uint8)


def write_pixels(path: Path, n_columns=20, n_rows=230, more=(70, 60), labels=None):
    """Write a small data set; training rows are not a whole number of minibatches.

    Labels are a function of split and rows; otherwise they go round from 0 to 9.
    """
    splits = {}
    sizes = zip(("train", "validation", "test"), (n_rows, *more), strict=True)
    for seed, (name, n) in enumerate(sizes):
        x = pixels(n, n_columns, seed)
        splits[name] = Split(x, labels(name, x) if labels else np.arange(n) % 10)
    write_dataset(path, splits, name="tiny", origin="made up", scale=PIXEL_SCALE)
    return path


def write_patches(path: Path, n_train: int = 300, change=lambda x: None) -> Path:
    """Write a data set of 4 x 4 patches, then change its rows behind its back."""
    sizes = {"train": n_train, "test": 60}
    splits = {
        name: Split(sparse.patches(n, 16, seed).astype(np.float32))
        for seed, (name, n) in enumerate(sizes.items())
    }
    write_dataset(path, splits, name="patches", origin="made up", scale=1.0)
    with h5py.File(path, "r+") as file:
        change(file["train/x"])
    return path


def contents(folder: Path) -> dict[str, str]:
    """Return all paths below a folder, with the digests of files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def read_summary(run: Path) -> dict:
    """Return a run's summary."""
    return json.loads((run / "summary.json").read_text())


def digests(run: Path) -> list[str]:
    """Return the digests of all layers' parameters."""
    return [layer["digest"] for layer in read_summary(run)["layers"]]


def records(run: Path, name: str = "sparse") -> list[dict]:
    """Return the lines of a file of metrics, none before the first one is written."""
    path = run / "metrics" / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def flip(path: Path, group: str = "parameters/weights") -> None:
    """Change a bit of the weights in a checkpoint."""
    with h5py.File(path) as file:
        where = file[group].id.get_offset()
    content = bytearray(path.read_bytes())
    content[where + 5] ^= 1
    path.write_bytes(content)
