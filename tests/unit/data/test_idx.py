"""IDX files and folders."""

import gzip
import tracemalloc

import numpy as np
import pytest

from mpilayer import memory
from mpilayer.data.array_files import read_idx, read_idx_folder
from mpilayer.errors import DataError
from tests.support.idx import digits, idx_bytes, write_idx, write_idx_folder


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_gzip_is_told_by_its_content(tmp_path, name, pack):
    images, _ = digits(7)
    (tmp_path / name).write_bytes(pack(idx_bytes(images)))
    found = read_idx(tmp_path / name)
    np.testing.assert_array_equal(found, images)
    assert found.dtype == np.uint8


CONTENT = idx_bytes(digits(5)[0])
BAD = [
    (b"", "must be an IDX file, .* magic number"),
    (b"\x89PNG" + CONTENT[4:], "magic number .* found 0x89504e47"),
    (b"\0\0\x08\0", "magic number"),
    (idx_bytes(np.zeros(3, ">f4"), 0x0D), "type 0x0d, float32"),
    (b"\0\0\x07\x01" + CONTENT[4:], "type 0x07, not an IDX type"),
    (CONTENT[:10], "header of 16 bytes; it ends after 10"),
    (CONTENT[:-3], r"hold 80 values.*\(5, 4, 4\).*found 77.*truncated"),
    (CONTENT + b"xx", "hold 80 values.*more follow"),
    (b"\0\0\x08\x03" + b"\xff" * 12 + b"ab", "found 2: it is truncated"),
    (gzip.compress(CONTENT, mtime=0)[:-9], "whole gzip file of one; .* damaged"),
    (gzip.compress(CONTENT, mtime=0)[:-8] + bytes(8), "whole gzip file"),
    (gzip.compress(CONTENT, mtime=0)[:60] + b"\xff" * 40, "whole gzip file"),
    (b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"a", "found 65"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_a_small_gzip_file_that_goes_on(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(CONTENT + bytes(10**8), 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"hold 80 values.*more follow"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_more_values_than_memory(tmp_path, monkeypatch):
    write_idx(tmp_path / "a.gz", np.zeros((1000, 1000, 100), np.uint8))
    monkeypatch.setattr(memory, "available", lambda ranks: 10**7)
    with pytest.raises(DataError, match=r"fit into memory; it needs 0.1 GB"):
        read_idx(tmp_path / "a.gz")
    with pytest.raises(DataError, match=r"none must be .*no such file"):
        read_idx(tmp_path / "none")


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
    assert [s.labels for s in read_idx_folder(tmp_path).values()] == [None]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3", None, r"must hold train-images.*found t10k-images"),
        ("t10k-images-idx3", None, "must hold t10k-images-idx3-ubyte"),
        ("train-labels-idx1", digits(29)[1], r"found 30 .* of shape \(29,\)"),
        ("train-images-idx3", digits(9)[1], "at least one image"),
    ],
)
def test_refused_folders(tmp_path, name, array, message):
    with pytest.raises(DataError, match=r"train-images.*found nothing"):
        read_idx_folder(tmp_path)
    path = write_idx_folder(tmp_path, 30) / f"{name}-ubyte"
    path.unlink()
    if array is not None:
        write_idx(path, array)
    with pytest.raises(DataError, match=message):
        read_idx_folder(tmp_path)
