"""Checkpoints: the last two are kept, and damage is noticed."""

import errno
import os

import numpy as np
import pytest

from mpilayer import hdf5
from mpilayer.errors import CheckpointError, FileError
from mpilayer.store import checkpoint

ROWS = np.arange(600.0).reshape(20, 30)


def flip(path):
    """Change a byte in the middle of the data."""
    content = bytearray(path.read_bytes())
    middle = content.find(ROWS[10].tobytes()[:64])
    assert middle > 0
    content[middle + 3] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: 1 << 11]),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture
def path(tmp_path):
    """Give a checkpoint of which three versions were saved."""
    path = tmp_path / "sparse.h5"
    for number in (1, 2, 3):
        arrays = {"parameters/weights": ROWS, "number": np.array([number])}
        checkpoint.save(path, arrays, {"iteration": number}, keep=True)
    return path


def previous(path):
    return path.with_name("sparse.previous.h5")


def test_the_last_two_are_kept_if_so_wished(path):
    assert {p.name for p in path.parent.iterdir()} == {path.name, previous(path).name}
    for file, number in ((path, 3), (previous(path), 2)):
        arrays, attributes = checkpoint.load(file)
        np.testing.assert_array_equal(arrays["parameters/weights"], ROWS)
        assert arrays["number"] == [number]
        assert attributes["iteration"] == number
    assert checkpoint.load_newest(path)[1:] == (checkpoint.load(path)[1], "")
    path = path.with_name("layer-1.h5")
    for number in (1, 2):
        checkpoint.save(path, {}, {"epoch": number})
    assert len(list(path.parent.iterdir())) == 3
    assert checkpoint.attributes(path)["epoch"] == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_reported_and_the_one_before_is_used(path, damage):
    DAMAGES[damage](path)
    _, attributes, remark = checkpoint.load_newest(path)
    assert attributes["iteration"] == 2
    assert str(path) in remark
    assert remark.endswith("The one before it is used.")
    assert checkpoint.exists(path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("other", ["flipped", "emptied", "missing"])
def test_both_are_damaged(path, damage, other):
    DAMAGES[damage](path)
    DAMAGES[other](previous(path))
    name = r"sparse\.h5" if other == "missing" else r"sparse\.previous\.h5"
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load_newest(path)


def test_a_newer_version_is_refused(path):
    for file in (path, previous(path)):
        newer = checkpoint.FORMAT_VERSION + 1
        with hdf5.create(file, kind=checkpoint.KIND, version=newer):
            pass
    for read in (checkpoint.load_newest, checkpoint.load, checkpoint.attributes):
        with pytest.raises(CheckpointError, match="format version 1 to 1; found 2"):
            read(path)


def test_a_failed_save_leaves_both_as_they_were(path):
    before = [file.read_bytes() for file in (path, previous(path))]
    with pytest.raises(TypeError):
        checkpoint.save(path, {"bad": np.array([{}])}, {}, keep=True)
    assert [file.read_bytes() for file in (path, previous(path))] == before
    assert len(list(path.parent.iterdir())) == 2
    checkpoint.remove(path)
    assert not checkpoint.exists(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "is_damage", "words"),
    [
        (errno.EIO, True, "must be usable; input/output error"),
        # Else all checkpoints would be passed over, and the run begin anew.
        (errno.EMFILE, False, "too many open files"),
    ],
)
def test_a_file_that_cannot_be_read(path, monkeypatch, number, is_damage, words):
    def check(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(checkpoint, "check_seal", check)
    with pytest.raises(FileError, match=words) as caught:
        checkpoint.load_newest(path)
    assert isinstance(caught.value, CheckpointError) == is_damage
