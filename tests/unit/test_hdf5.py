"""Files appear whole or not at all, and say what they are."""

import h5py
import numpy as np
import pytest

from mpilayer import hdf5
from mpilayer.errors import CheckpointError, DataError

KIND = "mpilayer-test"


def write(path, values=(1.0, 2.0, 3.0), version=1):
    with hdf5.create(path, kind=KIND, version=version) as file:
        group = file.create_group("layer")
        group.attrs["epoch"] = 3
        group["weights"] = np.asarray(values, np.float32)
        group["scalar"] = 7
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["missing/a.h5", "file/a.h5", "folder"])
def test_what_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"must be writable.*Nothing was written"):
        write(tmp_path / name)
    assert names(tmp_path) == ["file", "folder"]


def read(path, **options):
    with hdf5.open_read(path, **{"kind": KIND, "version": 1, **options}) as file:
        return hdf5.text(file, "kind")


def found(file):
    return f"Found {', '.join(file)}."


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("none", {"advise": lambda file: "Make one."}, "nothing there. Make one"),
        (".", {}, "found a folder there"),
        ("text", {}, "a whole HDF5 file; it is not an HDF5 file"),
        ("empty", {}, "must be a whole HDF5 file; it is empty"),
        ("cut", {}, r"must be a whole HDF5 file; .*truncated"),
        ("whole", {"kind": "other"}, "of kind 'other'; found 'mpilayer-test'"),
        ("foreign", {}, "found 'a file of another program'"),
        ("foreign", {"advise": found}, "Found x"),
        ("whole", {"version": 2}, r"version 1 to 2; found 3. Use the mpilayer"),
    ],
)
@pytest.mark.parametrize("error", [DataError, CheckpointError])
def test_other_files(tmp_path, name, options, words, error):
    whole = write(tmp_path / "whole", np.zeros(5000), version=3)
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-4096])
    (tmp_path / "text").write_bytes(b"something else" * 100)
    (tmp_path / "empty").write_bytes(b"")
    with h5py.File(tmp_path / "foreign", "w") as file:
        file["x"] = 1
    with pytest.raises(error, match=words):
        read(tmp_path / name, error=error, **options)
    assert read(whole, version=3) == KIND


def digest(path):
    with hdf5.open_read(path, kind=KIND, version=1) as file:
        hdf5.verify_digest(file, path, CheckpointError)
        return hdf5.text(file, "digest")


def test_digest_depends_on_content_only_and_sees_one_flipped_byte(
    tmp_path, monkeypatch
):
    path = write(tmp_path / "a.h5")
    first = digest(path)
    monkeypatch.setattr(hdf5, "__version__", "99")
    assert digest(write(path)) == first
    assert digest(write(path, (1, 2, 4))) != first
    content = bytearray(path.read_bytes())
    content[content.index(np.float32([1, 2, 4]).tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"digest is .* The file is damaged"):
        digest(path)


def test_older_libraries_can_read_the_file(tmp_path):
    content = write(tmp_path / "a.h5").read_bytes()
    assert names(tmp_path) == ["a.h5"]
    assert content[:8] == b"\x89HDF\r\n\x1a\n"
    assert content[8] <= 3  # version of the superblock; HDF5 1.10 wrote 3
    with h5py.File(tmp_path / "a.h5", "r", libver=("earliest", "v110")) as file:
        assert file["layer"].attrs["epoch"] == 3
        assert file["layer/weights"][:].tolist() == [1, 2, 3]
        assert hdf5.text(file, "creator").startswith("mpilayer ")


def test_a_disk_that_is_full_when_the_file_is_closed(tmp_path):
    """HDF5 writes late, and its error is none of the operating system then."""
    path = tmp_path / "data.h5"
    words = "Can't decrement id ref count (file write failed: errno = 28, "
    words += "error message = 'No space left on device')"

    def write(text):
        with hdf5.create(path, kind="toy", version=1):
            raise RuntimeError(text)

    with pytest.raises(DataError, match=r"data\.h5 must be .* no space left on device"):
        write(words)
    with pytest.raises(RuntimeError, match="a defect"):
        write("a defect")
    assert list(tmp_path.iterdir()) == []
