"""Single bits that flip in a data set after a run began: seen, or without effect."""

import os
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpilayer import hdf5
from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.data.dataset import KIND, Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import DataError
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.runs.evaluate import evaluate
from mpilayer.runs.rows import data_of_run
from tests.support.runs import pretrain, run_finetune
from tests.unit.runs.conftest import make_session

FLIPS = 300
LIMIT = 60
"""Seconds for HDF5 to read a small file, on a busy machine."""
CONFIG = PretrainConfig(
    layers=(3,), epochs=(1,), minibatch=10, visible="linear", learning_rate=(0.001,)
)


def splits(kind):
    """Return small splits of that type of values."""
    rng, found = np.random.default_rng(0), {}
    for name, n in (("train", 90), ("validation", 30)):
        x = rng.integers(0, 256, (n, 12), np.uint8)
        x = x if kind == np.uint8 else (x / 9 - 11).astype(kind)
        found[name] = Split(x, np.arange(n) % 7)
    return found


def write(path, kind=np.float32, packed=False, checksums=True):
    """Write a data set, as now or, without checksums, as older versions did."""
    scale = 1 / 255 if kind == np.uint8 else 1.0
    if checksums and packed == (kind == np.uint8):
        write_dataset(path, splits(kind), name="small", origin="", scale=scale)
        return
    oldest = "v110" if checksums else "earliest"
    with h5py.File(path, "w", libver=(oldest, "v110")) as f:
        tell = hdf5.set_text if checksums else lambda f, *fact: f.attrs.create(*fact)
        texts = {"kind": KIND, "creator": "mpilayer 0", "name": "small", "origin": ""}
        for name, text in texts.items():
            tell(f, name, text)
        f.attrs["format_version"] = 1
        checked = {"fletcher32": checksums}
        for name, split in splits(kind).items():
            options = {"chunks": (25, 12), "compression": "gzip" if packed else None}
            x = f.create_dataset(f"{name}/x", data=split.x, **options, **checked)
            x.attrs["scale"] = scale
            chunks = (len(split),) if checksums else None
            labels = {"data": split.labels, "chunks": chunks}
            f.create_dataset(f"{name}/labels", **labels, **checked)
        tell(f, "digest", hdf5.content_digest(f))


def content(path):
    """Return all that training takes from a data set."""
    # HDF5 may never come back, and no signal handler runs then: this process ends.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT)
    try:
        with Dataset.open(path) as dataset:
            return [
                (split, dataset.rows(split).tobytes(), dataset.labels(split).tobytes())
                for split in dataset.splits
            ]
    finally:
        signal.alarm(0)


def heap(path):
    """Return where a file keeps texts of any length: HDF5 may loop for ever there."""
    data = path.read_bytes()
    start = data.find(b"GCOL")
    if start < 0:
        return range(0)
    return range(start, start + int.from_bytes(data[start + 8 : start + 16], "little"))


def assert_flips_are_seen(path, look, avoid=()):
    """Flip bits one after the other, in place: data are refused, or as they were."""
    rng, refused, harmless = np.random.default_rng(3), 0, 0
    whole, expected, stamp = path.read_bytes(), look(), path.stat()
    while refused + harmless < FLIPS:
        where, bit = divmod(int(rng.integers(len(whole) * 8)), 8)
        if where in avoid:
            continue
        with path.open("r+b") as file:
            file.seek(where)
            file.write(bytes([whole[where] ^ 1 << bit]))
        assert path.stat().st_ino == stamp.st_ino
        try:
            found = look()
        except DataError:
            refused += 1
        else:
            assert found == expected, f"bit {bit} of byte {where}"
            harmless += 1
        path.write_bytes(whole)
    assert refused > FLIPS / 5
    assert look() == expected


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.h5"


@pytest.fixture
def trained(path, tmp_path):
    """Give a function that trains on the data; it returns the run."""

    def train():
        pretrain(path, tmp_path / "run", CONFIG, make_session())
        return tmp_path / "run"

    return train


@pytest.mark.parametrize("checksums", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32], ids=["uint8", "float32"])
def test_flips(path, trained, kind, packed, checksums):
    write(path, kind, packed, checksums)
    directory, texts = RunDirectory(trained()), heap(path)
    assert not (checksums and texts)
    assert_flips_are_seen(path, lambda: content(data_of_run(directory, None)), texts)


@pytest.mark.parametrize("kind", [np.uint8, np.float32], ids=["uint8", "float32"])
def test_flips_that_leave_the_stamp(path, kind):
    """What a disk does: nobody has written the file, so only its checksums tell."""
    write(path, kind, kind == np.uint8)
    assert_flips_are_seen(path, lambda: content(path))


def test_rows_that_a_program_changes(path, trained):
    """In place, with right checksums, the digest and the time of writing as before."""
    write(path)
    run, before = trained(), path.stat()
    with h5py.File(path, "r+") as file:
        file["train/x"][7, 3] += 1
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    message = "data.h5 must hold what was written; .* damaged, or was changed"
    for use in (
        lambda: resume(run, make_session()),
        lambda: run_finetune(run, FinetuneConfig(minibatch=10), make_session()),
        lambda: evaluate(run, "train", make_session()),
    ):
        with pytest.raises(DataError, match=message):
            use()


def test_a_copy_is_as_good_and_what_is_whole_is_not_read_twice(
    path, trained, tmp_path, monkeypatch
):
    write(path)
    directory = RunDirectory(trained())
    copy = Path(shutil.copy(path, tmp_path / "copy.h5"))
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "verify", lambda _: pytest.fail("read as a whole"))
        assert data_of_run(directory, None) == path
    path.unlink()
    assert data_of_run(directory, copy) == copy


@pytest.mark.parametrize("checksums", [True, False], ids=["new", "old"])
def test_damage_is_found_before_a_run_is_made(path, trained, tmp_path, checksums):
    write(path, checksums=checksums)
    with h5py.File(path) as file:
        where = file["train/x"].id.get_chunk_info(0).byte_offset + 40
    whole = bytearray(path.read_bytes())
    whole[where] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="damaged"):
        trained()
    assert not (tmp_path / "run").exists()
