"""Rows in files: the same as in memory, whole, in part, and handed on."""

import pickle
import re
import resource
import shutil

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import Dataset
from mpilayer.data.far import DataRows
from mpilayer.errors import DataError, FileError
from mpilayer.far import Scratch
from tests.support.small import write_patches, write_pixels
from tests.support.toys import rows


@pytest.fixture(params=["bytes", "float32"])
def path(request, tmp_path):
    """Give a data set of either type."""
    write = write_pixels if request.param == "bytes" else write_patches
    return write(tmp_path / "data.h5")


def test_rows_of_a_data_set(path):
    with Dataset.open(path) as dataset:
        whole, held = dataset.rows("train"), dataset.compact_rows("train")
    far = pickle.loads(pickle.dumps(DataRows(path, "train")))
    assert (far.shape, len(far)) == (whole.shape, len(whole))
    assert far.row_bytes * len(far) == getattr(held, "values", held).nbytes
    np.testing.assert_array_equal(far[:], whole)
    least, most = far.limits()
    assert least <= whole.min() <= whole.max() <= most
    part = DataRows(path, "train", 20, 110)
    np.testing.assert_array_equal(part[5:40], whole[25:60])
    for chosen in ([], [0], [3, 4, 7, 89]):
        found = part[np.array(chosen, np.intp)]
        np.testing.assert_array_equal(found, whole[20:110][chosen])


def test_distant_rows_are_not_read_with_what_lies_between(tmp_path):
    path = write_pixels(tmp_path / "data.h5", n_columns=2, n_rows=9000)
    far, read = DataRows(path, "train"), []
    plain = far.read
    far.read = lambda start, stop: read.append(stop - start) or plain(start, stop)
    chosen = np.array([5, 7, 2500, 8999])
    with Dataset.open(path) as dataset:
        np.testing.assert_array_equal(far[chosen], dataset.rows("train")[chosen])
    assert sum(read) == 5


def test_outputs_go_from_hand_to_hand(tmp_path):
    scratch, output = Scratch(tmp_path / "scratch", 1000), rows(50, 3)
    scratch.make()
    sender, receiver = (scratch.rows(0, which, (50, 3)) for which in ("out", "in"))
    sender.write(20, output[20:])
    sender.write(0, output[:20])
    sender.hand_over(3)
    sender.write(0, 0 * output)
    receiver.take_over(3)
    np.testing.assert_array_equal(receiver[:], output)
    np.testing.assert_array_equal(receiver.read(7, 9), output[7:9])
    scratch.make()
    assert not list((tmp_path / "scratch").iterdir())
    scratch.clear()
    assert not (tmp_path / "scratch").exists()


def test_a_disk_without_room(tmp_path, monkeypatch):
    scratch = Scratch(tmp_path / "scratch", 1000)
    scratch.check_room(1000)
    usage = shutil.disk_usage(tmp_path)._replace(free=400)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DataError):
            scratch.check_room(900)
        # What is there goes, as after a launch that was killed.
        scratch.make()
        scratch.rows(0, "out", (50, 3)).write(0, rows(50, 3))
        scratch.check_room(900)
    with pytest.raises(DataError, match=r"must have room .* that is 1e\+09 GB"):
        scratch.check_room(10**18)


def test_an_output_that_cannot_be_written(tmp_path):
    scratch = Scratch(tmp_path / "scratch", 1000)
    scratch.make()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(FileError, match=r"layer-1\.out must be"):
            scratch.rows(0, "out", (50, 3)).write(0, rows(50, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_pieces_that_are_slow_to_read(tmp_path):
    path = write_pixels(tmp_path / "data.h5", n_columns=1000, n_rows=9000)
    assert not DataRows(path, "train").slow(100)
    with h5py.File(path, "r+") as file:
        x = file["train/x"][()]
        scale = file["train/x"].attrs["scale"]
        del file["train/x"]
        file["train"].create_dataset("x", data=x, chunks=x.shape, compression=1)
        file["train/x"].attrs["scale"] = scale
    far = DataRows(path, "train")
    words = r"in pieces of 9 MB, .* every 100 rows .* h5repack -l train/x:CHUNK=524x10"
    assert pytest.approx(x[8000:8001] / 255) == far[8000:8001]
    assert re.search(words, far.slow(100))
