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


def test_round_trip(tmp_path):
    path = write(tmp_path / "a.h5")
    with hdf5.open_read(path, kind=KIND, version=1) as file:
        assert file["layer/weights"][:].tolist() == [1, 2, 3]
        assert hdf5.text(file, "creator").startswith("mpilayer ")
        hdf5.verify_digest(file, path, DataError)
    assert names(tmp_path) == ["a.h5"]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write(tmp_path / "a.h5")
    before = path.read_bytes()

    def fail():
        with hdf5.create(path, kind=KIND, version=1) as file:
            file["half"] = np.zeros(5)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.h5"]


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_be_written(tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"must be writable.*Nothing was written"):
        write(tmp_path / folder / "a.h5")
    assert names(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "a.h5").mkdir()
    with pytest.raises(DataError, match="must be writable"):
        write(tmp_path / "a.h5")
    assert names(tmp_path) == ["a.h5"]


def read(path, **options):
    with hdf5.open_read(path, **{"kind": KIND, "version": 1, **options}) as file:
        return hdf5.text(file, "kind")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"found nothing there. Make one"):
        read(tmp_path / "a.h5", advise=lambda file: "Make one.")
    with pytest.raises(DataError, match="found a folder there"):
        read(tmp_path)


def test_not_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(DataError, match="a whole HDF5 file; it is not an HDF5 file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="must be a whole HDF5 file; it is empty"):
        read(path)


def test_truncated(tmp_path):
    path = write(tmp_path / "a.h5", np.zeros(5000))
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(
        CheckpointError, match=r"must be a whole HDF5 file; .*truncated"
    ):
        read(path, error=CheckpointError)


def test_another_kind_and_another_program(tmp_path):
    path = write(tmp_path / "a.h5")
    with pytest.raises(DataError, match="of kind 'other'; found 'mpilayer-test'"):
        read(path, kind="other")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="found 'a file of another program'"):
        read(tmp_path / "b.h5")
    with pytest.raises(DataError, match="Found x"):
        read(tmp_path / "b.h5", advise=lambda file: f"Found {', '.join(file)}.")


def test_a_newer_version(tmp_path):
    path = write(tmp_path / "a.h5", version=3)
    with pytest.raises(DataError, match=r"version 1 to 2; found 3. Use the mpilayer"):
        read(path, version=2)
    assert read(path, version=3) == KIND


def test_digest_sees_one_flipped_byte(tmp_path):
    path = write(tmp_path / "a.h5", np.full(100, 1.5))
    content = bytearray(path.read_bytes())
    place = content.index(np.full(100, 1.5, np.float32).tobytes())
    content[place + 40] ^= 1
    path.write_bytes(content)
    with (
        hdf5.open_read(path, kind=KIND, version=1) as file,
        pytest.raises(CheckpointError, match=r"digest is .* The file is damaged"),
    ):
        hdf5.verify_digest(file, path, CheckpointError)


def digest(path):
    with hdf5.open_read(path, kind=KIND, version=1) as file:
        return hdf5.text(file, "digest")


def test_digest_depends_on_content_only(tmp_path, monkeypatch):
    first = digest(write(tmp_path / "a.h5"))
    monkeypatch.setattr(hdf5, "__version__", "99")
    assert digest(write(tmp_path / "b.h5")) == first
    assert digest(write(tmp_path / "c.h5", (1, 2, 4))) != first


def test_older_libraries_can_read_the_file(tmp_path):
    content = write(tmp_path / "a.h5").read_bytes()
    assert content[:8] == b"\x89HDF\r\n\x1a\n"
    assert content[8] <= 3  # version of the superblock; HDF5 1.10 wrote 3
    with h5py.File(tmp_path / "a.h5", "r", libver=("earliest", "v110")) as file:
        assert file["layer"].attrs["epoch"] == 3


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
