"""What is tried in a folder, and that nothing of it stays."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from mpilayer import hdf5
from mpilayer.doctor import folder
from mpilayer.errors import DataError
from mpilayer.parallel.comm import SerialCommunicator

MOUNTS = """\
/dev/vda / ext4 rw 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/my\\040runs tmpfs rw 0 0
/dev/vdb /data ext4 rw 0 0
fs@tcp:/scratch /data lustre rw 0 0
short line
"""


@pytest.mark.parametrize(
    ("path", "mount", "kind"),
    [
        ("/work", "/", "ext4"),
        ("/home/me", "/home", "nfs4"),
        ("/homes/me", "/", "ext4"),
        ("/home/my runs/1", "/home/my runs", "tmpfs"),
        # The later mount hides the earlier one.
        ("/data/x", "/data", "lustre"),
    ],
)
def test_the_mount_of_a_path(path, mount, kind):
    assert folder.mount_of(Path(path), MOUNTS) == (mount, kind)
    assert folder.mount_of(Path(path), "") == ("", "")


def test_a_folder_that_is_none_and_one_whose_files_cannot_be_moved(
    tmp_path, monkeypatch
):
    found = folder.attempt(tmp_path / "none")
    assert (found.failure, found.space) == ("no such file or directory", None)

    def replace(self, target):
        raise OSError(95, "?")

    monkeypatch.setattr(Path, "replace", replace)
    assert folder.attempt(tmp_path).failure == "operation not supported"
    assert list(tmp_path.iterdir()) == []


def test_locks_that_do_not_work(tmp_path, monkeypatch):
    real = hdf5.File

    def open_file(path, mode, locking=None, **options):
        if locking:
            raise OSError("Unable to lock file\ndetails")
        return real(path, mode, **options)

    monkeypatch.setattr(hdf5, "File", open_file)
    found = folder.attempt(tmp_path)
    assert (found.failure, found.hdf5_failure) == ("", "")
    assert found.lock_failure == "unable to lock file"


def test_hdf5_that_does_not_work(tmp_path, monkeypatch):
    @contextmanager
    def create(path, **kinds):
        raise DataError("no") from OSError("what was read back differs")
        yield

    monkeypatch.setattr(hdf5, "create", create)
    found = folder.attempt(tmp_path)
    assert found.hdf5_failure == "what was read back differs"
    assert found.lock_failure == ""


class Two(SerialCommunicator):
    """Rank 0 of two, of which the other looks elsewhere."""

    size = 2

    def allgather(self, item):
        return [item, folder._look(Path("/none")), folder._look(Path(__file__))]


def test_a_folder_that_others_do_not_see(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_PATIENCE", 0.05)
    found = folder.examine(tmp_path, Two())
    assert found.seen[0] < 1
    assert found.seen[1:] == (None, None)
    assert list(tmp_path.iterdir()) == []
