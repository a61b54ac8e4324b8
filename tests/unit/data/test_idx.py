"""IDX files and folders."""

import gzip
import tracemalloc

import numpy as np
import pytest

from mpilayer import memory
from mpilayer.data.idx import read_idx, read_idx_folder
from mpilayer.errors import DataError
from tests.support.idx import digits, idx_bytes, write_idx, write_idx_folder


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
def test_round_trip(tmp_path, name):
    images, _ = digits(7)
    found = read_idx(write_idx(tmp_path / name, images))
    np.testing.assert_array_equal(found, images)
    assert found.dtype == np.uint8


def test_gzip_is_told_by_its_content(tmp_path):
    images, _ = digits(3)
    (tmp_path / "a").write_bytes(gzip.compress(idx_bytes(images)))
    (tmp_path / "b.gz").write_bytes(idx_bytes(images))
    for name in ("a", "b.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), images)


def content():
    return idx_bytes(digits(5)[0])


BAD = {
    "empty": (b"", "must be an IDX file, .* magic number"),
    "other magic": (b"\x89PNG" + content()[4:], "magic number .* found 0x89504e47"),
    "no dimensions": (b"\0\0\x08\0", "magic number"),
    "floats": (idx_bytes(np.zeros(3, ">f4"), 0x0D), "type 0x0d, float32"),
    "no type": (b"\0\0\x07\x01" + content()[4:], "type 0x07, not an IDX type"),
    "short header": (content()[:10], "header of 16 bytes; it ends after 10"),
    "truncated": (content()[:-3], r"hold 80 values.*\(5, 4, 4\).*found 77.*truncated"),
    "trailing": (content() + b"xx", "hold 80 values.*more follow"),
    "huge": (b"\0\0\x08\x03" + b"\xff" * 12 + b"ab", "found 2: it is truncated"),
    "cut gzip": (gzip.compress(content())[:-9], "whole gzip file of one; .* damaged"),
    "gzip sum": (gzip.compress(content())[:-8] + bytes(8), "whole gzip file"),
    "gzip body": (gzip.compress(content())[:60] + b"\xff" * 40, "whole gzip file"),
    "65 dimensions": (b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"a", "found 65"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    path = tmp_path / "images"
    path.write_bytes(BAD[case][0])
    with pytest.raises(DataError, match=BAD[case][1]):
        read_idx(path)


def test_a_small_gzip_file_that_goes_on(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content() + bytes(10**8), 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"hold 80 values.*more follow"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_more_values_than_memory(tmp_path, monkeypatch):
    write_idx(tmp_path / "a.gz", np.zeros((1000, 1000, 100), np.uint8))
    monkeypatch.setattr(memory, "available", lambda: 10**7)
    with pytest.raises(DataError, match=r"fit into memory; it needs 0.1 GB"):
        read_idx(tmp_path / "a.gz")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"images must be .*no such file"):
        read_idx(tmp_path / "images")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_folder(tmp_path, ending):
    splits = read_idx_folder(write_idx_folder(tmp_path, 30, 10, ending))
    images, labels = digits(30)
    assert list(splits) == ["train", "test"]
    np.testing.assert_array_equal(splits["train"].x, images.reshape(30, 16))
    np.testing.assert_array_equal(splits["train"].labels, labels)
    assert len(splits["test"]) == 10


def test_folder_with_dots_in_the_names_and_training_images_only(tmp_path):
    write_idx(tmp_path / "train-images.idx3-ubyte", digits(6)[0])
    splits = read_idx_folder(tmp_path)
    assert list(splits) == ["train"]
    assert splits["train"].labels is None


def test_missing_training_images(tmp_path):
    write_idx_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"must hold train-images.*found t10k-images"):
        read_idx_folder(tmp_path)


def test_labels_without_test_images(tmp_path):
    write_idx_folder(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="must hold t10k-images-idx3-ubyte"):
        read_idx_folder(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"train-images.*found nothing"):
        read_idx_folder(tmp_path)


def test_other_numbers_of_images_and_labels(tmp_path):
    write_idx_folder(tmp_path, 30)
    write_idx(tmp_path / "train-labels-idx1-ubyte", digits(29)[1])
    with pytest.raises(DataError, match=r"found 30 images and labels of shape \(29,\)"):
        read_idx_folder(tmp_path)


def test_labels_in_the_place_of_images(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", digits(9)[1])
    with pytest.raises(DataError, match="at least one image"):
        read_idx_folder(tmp_path)
