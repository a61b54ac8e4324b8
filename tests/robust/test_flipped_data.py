"""Single bits that flip in a data set after a run began: seen, or without effect."""

import os
import shutil
import signal
from contextlib import contextmanager
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
from mpilayer.runs.tasks import data_of_run
from mpilayer.runs.use import evaluate
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
    rng = np.random.default_rng(0)
    pixels = {n: rng.integers(0, 256, (n, 12), np.uint8) for n in (90, 30)}
    return {
        name: Split(
            pixels[n] if kind == np.uint8 else (pixels[n] / 9 - 11).astype(kind),
            np.arange(n) % 7,
        )
        for name, n in (("train", 90), ("validation", 30))
    }


def write(path, kind, packed, checksums):
    """Write a data set, as now or, without checksums, as older versions did."""
    scale = 1 / 255 if kind == np.uint8 else 1.0
    if checksums and packed == (kind == np.uint8):
        write_dataset(path, splits(kind), name="small", origin="", scale=scale)
        return
    packing = {"compression": "gzip"} if packed else {}
    with h5py.File(
        path, "w", libver=("v110" if checksums else "earliest", "v110")
    ) as f:
        texts = {"kind": KIND, "creator": "mpilayer 0", "name": "small", "origin": ""}
        for name, text in texts.items():
            if checksums:
                hdf5.set_text(f, name, text)
            else:
                f.attrs[name] = text
        f.attrs["format_version"] = 1
        for name, split in splits(kind).items():
            group = f.create_group(name)
            options = {"chunks": (25, 12), "fletcher32": checksums, **packing}
            group.create_dataset("x", data=split.x, **options).attrs["scale"] = scale
            chunks = (len(split),) if checksums else None
            group.create_dataset(
                "labels", data=split.labels, chunks=chunks, fletcher32=checksums
            )
        digest = hdf5.content_digest(f)
        if checksums:
            hdf5.set_text(f, "digest", digest)
        else:
            f.attrs["digest"] = digest


def content(path):
    """Return all that training takes from a data set."""
    with Dataset.open(path) as dataset:
        return [
            (split, dataset.rows(split).tobytes(), dataset.labels(split).tobytes())
            for split in dataset.splits
        ]


@contextmanager
def limited():
    """End this process loudly if HDF5 never comes back: no signal handler runs then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)


def heap(path):
    """Return where a file keeps texts of any length: HDF5 may loop for ever there."""
    data = path.read_bytes()
    start = data.find(b"GCOL")
    if start < 0:
        return range(0)
    return range(start, start + int.from_bytes(data[start + 8 : start + 16], "little"))


@pytest.mark.parametrize("checksums", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32], ids=["uint8", "float32"])
def test_flips(tmp_path, kind, packed, checksums):
    path, run = tmp_path / "data.h5", tmp_path / "run"
    write(path, kind, packed, checksums)
    pretrain(path, run, CONFIG, make_session())
    directory, expected, whole = RunDirectory(run), content(path), path.read_bytes()
    texts = heap(path)
    assert not (checksums and texts)
    rng, refused, harmless = np.random.default_rng(3), 0, 0
    stamp = path.stat()
    while refused + harmless < FLIPS:
        where, bit = divmod(int(rng.integers(len(whole) * 8)), 8)
        if where in texts:
            continue
        with path.open("r+b") as file:
            file.seek(where)
            file.write(bytes([whole[where] ^ 1 << bit]))
        assert path.stat().st_ino == stamp.st_ino
        try:
            with limited():
                found = content(data_of_run(directory, None))
        except DataError:
            refused += 1
        else:
            assert found == expected, f"bit {bit} of byte {where}"
            harmless += 1
        path.write_bytes(whole)
    assert refused > FLIPS / 5
    assert content(data_of_run(directory, None)) == expected


@pytest.mark.parametrize("kind", [np.uint8, np.float32], ids=["uint8", "float32"])
def test_flips_that_leave_the_stamp(tmp_path, kind):
    """What a disk does: nobody has written the file, so only its checksums tell."""
    path = tmp_path / "data.h5"
    write(path, kind, kind == np.uint8, True)
    expected, whole = content(path), path.read_bytes()
    rng, refused = np.random.default_rng(4), 0
    for _ in range(FLIPS):
        where, bit = divmod(int(rng.integers(len(whole) * 8)), 8)
        damaged = bytearray(whole)
        damaged[where] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            with limited():
                found = content(path)
        except DataError:
            refused += 1
        else:
            assert found == expected, f"bit {bit} of byte {where}"
    assert refused > FLIPS / 5


def test_rows_that_a_program_changes(tmp_path):
    """In place, with right checksums, the digest and the time of writing as before."""
    path, run = tmp_path / "data.h5", tmp_path / "run"
    write(path, np.float32, False, True)
    pretrain(path, run, CONFIG, make_session())
    before = path.stat()
    with h5py.File(path, "r+") as file:
        file["train/x"][7, 3] += 1
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_size == before.st_size
    message = "data.h5 must hold what was written; .* damaged, or was changed"
    for use in (
        lambda: resume(run, make_session()),
        lambda: run_finetune(run, FinetuneConfig(minibatch=10), make_session()),
        lambda: evaluate(run, "train", make_session()),
    ):
        with pytest.raises(DataError, match=message):
            use()


def test_a_copy_is_as_good(tmp_path):
    path, run = tmp_path / "data.h5", tmp_path / "run"
    write(path, np.float32, False, True)
    pretrain(path, run, CONFIG, make_session())
    copy = Path(shutil.copy(path, tmp_path / "copy.h5"))
    path.unlink()
    assert data_of_run(RunDirectory(run), copy) == copy


@pytest.mark.parametrize("checksums", [True, False], ids=["new", "old"])
def test_damage_is_found_before_a_run_is_made(tmp_path, checksums):
    path, run = tmp_path / "data.h5", tmp_path / "run"
    write(path, np.float32, False, checksums)
    with h5py.File(path) as file:
        where = file["train/x"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(where + 40)
        (value,) = file.read(1)
        file.seek(where + 40)
        file.write(bytes([value ^ 1]))
    with pytest.raises(DataError, match="damaged"):
        pretrain(path, run, CONFIG, make_session())
    assert not run.exists()


def test_what_is_whole_is_not_read_twice(tmp_path, monkeypatch):
    path, run = tmp_path / "data.h5", tmp_path / "run"
    write(path, np.float32, False, True)
    pretrain(path, run, CONFIG, make_session())
    monkeypatch.setattr(Dataset, "verify", lambda _: pytest.fail("read as a whole"))
    assert data_of_run(RunDirectory(run), None) == path
