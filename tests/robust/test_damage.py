"""Whatever is wrong with a file, of a run or of a user's: a message and code 2.

A sample of what ``run_damage`` tries; ``ROBUST_TRIES``: how many files of each source.
"""

import os
import random

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.split import Split
from tests.conftest import MNIST
from tests.robust.run_damage import BYTES, WAYS, campaign, child, damage, fault
from tests.support.command import refuse
from tests.support.idx import write_idx_folder

TRIES = int(os.environ.get("ROBUST_TRIES", "8"))
DAMAGED = MNIST.with_name("damaged")


def test_damaged_files_of_runs(tmp_path):
    wrong = campaign(tmp_path, 4 * len(WAYS), seed=0)
    assert not wrong, "\n".join(wrong)


# --- sources

PREPARE = "data prepare {} -o {}.out.h5"
PATCHES = "data patches {} -o {}.out.h5 --size 4 --count 9"
INFO = "data info {}"
VERIFY = "data info {} --verify"

_RNG = np.random.default_rng(10)
FLOATS = _RNG.random((12, 6)).astype(np.float32)
PIXELS = _RNG.integers(0, 256, (12, 9), dtype=np.uint8)
LABELS = np.arange(12) % 3
SCENES = _RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
ARRAYS = {"x": FLOATS, "labels": LABELS}
# Of MATLAB, too.
THINGS = {"x": PIXELS / 3, "y": LABELS, "made": "by hand", "rate": 0.5}
THINGS["parts"] = {"a": [1, 2], "b": np.array([1, "x"], object)}


def table(path):
    rows = np.column_stack([FLOATS, LABELS])
    np.savetxt(path, rows, "%.6g", ",", header="a,b,c,d,e,f,label", comments="")


def data_set(x, scale):
    splits = {"train": Split(x, LABELS), "test": Split(x[:4])}
    options = {"name": "toy", "origin": "made up", "scale": scale}
    return lambda path: write_dataset(path, splits, **options)


def images(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=SCENES, compression="gzip")
        file["more"] = h5py.SoftLink("/images")


def picture(path):
    first, *others = (Image.fromarray(scene) for scene in SCENES)
    several = path.suffix in (".tif", ".gif")
    more = {"save_all": True, "append_images": others} if several else {}
    if path.suffix == ".jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        more = {"exif": exif}
    first.save(path, **more)


# Name to the file, what makes it, and the commands that read it.
SOURCES = {
    "npy": ("a.npy", lambda path: np.save(path, FLOATS), PREPARE),
    "npz": ("a.npz", lambda path: np.savez_compressed(path, **ARRAYS), PREPARE),
    "csv": ("a.csv", table, PREPARE),
    "mat": ("a.mat", lambda path: scipy.io.savemat(path, THINGS), PREPARE),
    "mat-packed": (
        *("a.mat", lambda p: scipy.io.savemat(p, THINGS, do_compression=True), PREPARE),
    ),
    "mat-4": (*("a.mat", lambda p: scipy.io.savemat(p, ARRAYS, format="4"), PREPARE),),
    "idx": ("digits", write_idx_folder, PREPARE),
    "images": ("a.h5", images, PATCHES),
    "floats": ("a.h5", data_set(FLOATS, 1.0), VERIFY, INFO),
    "pixels": ("a.h5", data_set(PIXELS, PIXEL_SCALE), VERIFY, INFO),
    **{e: (f"a.{e}", picture, PATCHES) for e in ("png", "jpg", "tif", "gif")},
    "stack": ("a.npy", lambda path: np.save(path, SCENES), PATCHES),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_damaged_sources(kind, tmp_path):
    name, make, *lines = SOURCES[kind]
    wrong = []
    for number in range(TRIES):
        source = tmp_path / str(number) / name
        source.parent.mkdir()
        make(source)
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        way = list(BYTES)[number % len(BYTES)]
        damage(way, files[number % len(files)], random.Random(f"{kind} {number}"))
        for line in lines:
            code, text = child(line.format(source, source).split())
            if found := fault(code, text) or ("" if code else text):
                wrong.append(f"{line} after {way}: {found}\n{text}")
    assert not wrong, "\n".join(wrong)


PRETRAIN = "pretrain {} --run run --layers 3"
SPARSE = "sparse {} --run run --hidden 3"
SAMPLES = {
    "segfault.mat": (PREPARE, PATCHES),
    "header.npy": (PREPARE, PATCHES),
    "layout.h5": (PATCHES, VERIFY),
    "btree.h5": (PATCHES, VERIFY),
    "dataset-header.h5": (VERIFY, PRETRAIN, SPARSE),
    "dataset-group.h5": (VERIFY, PRETRAIN, SPARSE),
}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_damage(tmp_path, name):
    for line in SAMPLES[name]:
        refuse(tmp_path, line.format(DAMAGED / name, name), f"{name} must be a whole ")
