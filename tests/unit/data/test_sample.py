"""The samples in the repository, and the full MNIST set beside the checkout."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpilayer import hdf5
from mpilayer.data.catalog import CATALOG
from mpilayer.data.dataset import Dataset
from mpilayer.data.images import read_images
from mpilayer.errors import DataError

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "data" / "mnist-sample.h5"


def test_sample():
    with Dataset.open(SAMPLE) as dataset:
        dataset.verify()
        facts = dataset.summary()["splits"]
        x = dataset.rows("train", 0, 100)
        assert dataset.digest in (SAMPLE.parent / "README.md").read_text()
    for split, n in {"train": 500, "validation": 100, "test": 100}.items():
        assert facts[split]["label_counts"] == {str(digit): n for digit in range(10)}
    assert (x.min(), x.max()) == (0, 1)
    assert SAMPLE.stat().st_size < 2_000_000


def test_sample_of_images():
    path = SAMPLE.with_name("natural-sample.h5")
    readme = (SAMPLE.parent / "README.md").read_text()
    with hdf5.open_foreign(path) as file:
        hdf5.verify_digest(file, path, DataError)
        assert file.attrs["licence"] == "CC0 1.0"
        facts = file["images"].attrs
        for words in (file.attrs["digest"], *facts["files"], *facts["authors"]):
            assert words in readme
        assert file["images"].dtype == np.uint8
    images = read_images(path).x
    assert images.shape == (5, 256, 256)
    # Each image has contrast, and none is dark or bright throughout.
    assert np.all(images.std((1, 2)) > 0.1)
    assert np.all(abs(images.mean((1, 2)) - 0.5) < 0.25)
    assert path.stat().st_size < 600_000


@pytest.mark.shared
def test_sample_is_made_again(shared_mnist, tmp_path):
    again, script = tmp_path / "again.h5", ROOT / "data" / "make_sample.py"
    command = [sys.executable, script, shared_mnist, again]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT)})
    with Dataset.open(again) as new, Dataset.open(SAMPLE) as old:
        assert new.digest == old.digest
    mnist = CATALOG["mnist"]
    assert len(mnist.files) == 4
    assert not any(mnist.fault(name, shared_mnist / name) for name in mnist.files)
