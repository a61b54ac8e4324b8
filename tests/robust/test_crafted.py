"""HDF5 files that somebody made by hand: to read what is not theirs, or for ever."""

import os

import h5py
import numpy as np
import pytest

from mpilayer import memory
from mpilayer.data import dataset
from mpilayer.data.dataset import Dataset
from mpilayer.data.images import read_images
from mpilayer.errors import DataError
from tests.support import launch
from tests.support.command import call, refuse, said

SECRET = b"TOP SECRET" * 60
ROWS = np.random.default_rng(0).random((20, 6)).astype(np.float32)
SCENES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


@pytest.fixture
def secret(tmp_path):
    """Give a file that no data set may show, outside of the folder of data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        rows(file)
        file["images"] = SCENES
    return tmp_path / "secret"


def craft(path, add, **attributes):
    """Write a file of the data sets' kind; add things to it."""
    with h5py.File(path, "w") as file:
        values = {"kind": dataset.KIND, "format_version": 1, **attributes}
        for name, value in values.items():
            file.attrs[name] = value
        add(file)
    return path


# --- what may be in a file: each adds it


def scaled(item):
    item.attrs["scale"] = 1.0


def rows(file, array=ROWS):
    scaled(file.create_dataset("train/x", data=array))


def values(array):
    return lambda file: rows(file, array)


def unwritten(shape, **options):
    return lambda file: scaled(file.create_dataset("train/x", shape, "u1", **options))


def put(**content):
    """Return what puts things of any kind into a file, ``/`` being ``_`` there."""

    def add(file):
        for name, value in content.items():
            file[name.replace("_", "/")] = value

    return add


def outer(name, target):
    def add(file, secret):
        file[name] = h5py.ExternalLink(f"{secret}.h5", target)

    return add


def linked_twice(file, secret):
    outer("other", "/")(file, secret)
    file["train"] = h5py.SoftLink("/other/train")


def external(file, name, shape, dtype, source):
    part = [(str(source), 0, h5py.h5f.UNLIMITED)]
    scaled(file.create_dataset(name, shape, dtype, external=part))


def beside(file, secret):
    rows(file)
    external(file, "notes/x", (10,), "u1", secret)


def virtual(file, source, part="x", mapped=20):
    layout = h5py.VirtualLayout((20, 6), "f4")
    layout[:mapped] = h5py.VirtualSource(str(source), part, (20, 6))[:mapped]
    scaled(file.create_virtual_dataset("train/x", layout))


def with_part(n, mapped=20):
    def add(file, secret):
        file["x"] = ROWS[:n]
        virtual(file, ".", mapped=mapped)

    return add


def of_no_use(file):
    rows(file)
    file.create_dataset("more", (2**40,), "u1", chunks=(2**16,))


def circle(file):
    file.create_group("train")
    file["train/x"] = file["/"]


NO_FILE = "which is not a file there"
TO_OTHERS = {
    "external storage": (
        lambda file, secret: external(file, "train/x", (10, 6), "u1", secret),
        "'train/x' in an external file",
    ),
    "external storage of no use": (beside, "'notes/x' in an external file"),
    "external link to rows": (
        outer("train/x", "train/x"), "the link 'train/x' to another file"),
    "external link to a group": (
        outer("train", "train"), "the link 'train' to another file"),
    "soft link to an external link": (
        linked_twice, "the link 'other' to another file"),
    "virtual, elsewhere": (
        lambda file, secret: virtual(file, f"{secret}.h5", part="train/x"),
        f"'train/x' made of .*secret.h5', {NO_FILE}"),
    "virtual, elsewhere by dots": (
        lambda file, _: virtual(file, "../secret.h5", part="train/x"),
        f"'train/x' made of '../secret.h5', {NO_FILE}"),
    "virtual, missing": (
        lambda file, _: virtual(file, "missing.h5"),
        f"'train/x' made of 'missing.h5', {NO_FILE}"),
    "virtual, missing part": (
        lambda file, _: virtual(file, "."), "made of 'x', which is missing"),
    "virtual, of itself": (
        lambda file, _: virtual(file, ".", part="train/x"),
        "made of 'train/x', which is missing or made of others"),
    "virtual, too few rows": (with_part(9), "made of 'x', which has fewer values"),
    "virtual, with a hole": (
        with_part(20, mapped=12), "made of parts that leave others out"),
}  # fmt: skip


@pytest.mark.parametrize("case", TO_OTHERS)
def test_what_leads_to_other_files(secret, case):
    add, words = TO_OTHERS[case]
    path = craft(secret.parent / "data" / "a.h5", lambda file: add(file, secret))
    with pytest.raises(DataError, match=rf"a\.h5 must hold its data itself.*{words}"):
        Dataset.open(path)
    with pytest.raises(DataError, match=r"a\.h5 must hold its data itself"):
        read_images(path)


def test_a_virtual_data_set_in_its_folder(tmp_path):
    craft(tmp_path / "part.h5", put(x=ROWS))
    path = craft(tmp_path / "a.h5", lambda file: virtual(file, "part.h5"))
    with Dataset.open(path) as data:
        np.testing.assert_array_equal(data.rows("train"), ROWS)
    craft(tmp_path / "part.h5", lambda f: external(f, "x", (20, 6), "f4", __file__))
    with pytest.raises(DataError, match=r"part\.h5 must hold its data itself"):
        Dataset.open(path)


def test_a_link_in_the_folder_that_leads_out_of_it(secret):
    folder = secret.parent / "data"
    (folder / "part.h5").symlink_to(secret.with_suffix(".h5"))
    path = craft(folder / "a.h5", lambda file: virtual(file, "part.h5", part="train/x"))
    with pytest.raises(DataError, match=f"'part.h5', {NO_FILE}"):
        Dataset.open(path)


def test_nothing_of_a_secret_gets_into_a_data_set(secret):
    """As a user would see it; a pipe would be waited for."""
    folder = secret.parent / "data"
    os.mkfifo(secret.parent / "pipe")
    for source in (secret, secret.parent / "pipe"):
        with h5py.File(craft(folder / f"{source.name}.h5", lambda _: 0), "r+") as file:
            external(file, "train/x", (10, 6), "u1", source)
            external(file, "images", (1, 8, 8), "u1", source)
    for line in (
        "data info pipe.h5 --verify",
        "data patches secret.h5 -o out.h5 --size 3 --count 20",
        "pretrain secret.h5 --run run --layers 3",
        "sparse pipe.h5 --run run --hidden 3",
    ):
        refuse(folder, line, "must hold its data itself", limit=60)


# --- what is odd in other ways

LINK = h5py.SoftLink
CHUNKS = (2**16, 4)
SCALING = b'{"scaling": {"method": "m", "offset": [0, 0], "factor": [1, 1]}}'
LOOP = {"train_x": LINK("/train/y"), "train_y": LINK("/train/x")}
VERSION = "format version 1 to 3"
PREPARED = r"a\.h5 must say how \d columns were prepared"


def prepared(value):
    """Return what adds rows, and how they are said to have been prepared."""

    def add(file):
        rows(file)
        file["preparation"] = value

    return add


def prepared_group(file):
    rows(file)
    file.create_group("preparation/columns")


ODD = {
    "dangling": (put(train=LINK("/x")), "cannot be read"),
    "dangling rows": (put(train_x=LINK("/x")), "cannot be read"),
    "looping": (put(train=LINK("/train")), "cannot be read"),
    "looping rows": (put(**LOOP), "cannot be read"),
    "a circle of groups": (circle, "must have 'x' of shape"),
    "a type": (put(train_x=np.dtype("u1")), "must have 'x'"),
    "texts": (values(np.array([["a"]], "S1")), "must be uint8, .* or float32"),
    "a structure": (values(np.zeros((3, 2), "u1,f4")), "must be uint8, .* or float32"),
    "no space": (put(train_x=h5py.Empty("f4")), "must have 'x' of shape"),
    "2**40 rows": (unwritten((2**40, 4)), "never written"),
    "2**40 rows, packed": (
        unwritten((2**40, 4), chunks=CHUNKS, compression="gzip"), "never written"),
    "2**60 rows": (unwritten((2**60, 4), chunks=CHUNKS), "never written"),
    "2**40 values of no use": (of_no_use, "'more'.*never written"),
    "a missing part": (unwritten((100, 4), chunks=(10, 4)), "never written"),
    "kind, a number": (rows, "must be of kind", {"kind": 3}),
    "kind, numbers": (rows, "must be of kind", {"kind": np.arange(3)}),
    "kind, nothing": (rows, "must be of kind", {"kind": h5py.Empty("f4")}),
    "kind, long": (rows, r"found 'x+\.\.\.x+'", {"kind": "x" * 60_000}),
    "version, a text": (rows, f"{VERSION}; found one", {"format_version": "one"}),
    "version, nan": (rows, f"{VERSION}; found nan", {"format_version": np.nan}),
    "version, two": (rows, rf"{VERSION}; found \[1 1\]", {"format_version": [1, 1]}),
    "version, large": (rows, VERSION, {"format_version": 2**62}),
    "version, nothing": (rows, VERSION, {"format_version": h5py.Empty("i4")}),
    **{f"preparation, {name}": (add, PREPARED, {"format_version": 2}) for name, add in {
        "numbers": prepared([1, 2]),
        "two texts": prepared([b"{}", b"{}"]),
        "any length": prepared(["{}"]),
        "no JSON": prepared(np.array([b"{"])),
        "no text": prepared(np.array([b"\xff"])),
        "a nest": prepared(np.array([b"[" * 100_000])),
        "of other columns": prepared(np.array([SCALING])),
        "a group": prepared_group,
    }.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_data_sets(tmp_path, case):
    add, words, *attributes = ODD[case]
    path = craft(tmp_path / "a.h5", add, **(attributes or [{}])[0])
    with pytest.raises(DataError, match=words):
        Dataset.open(path)


def test_labels_that_no_class_can_have(tmp_path):
    path = craft(tmp_path / "a.h5", rows)
    with h5py.File(path, "r+") as file:
        file["train/labels"] = np.full(20, 2**63, np.uint64)
    with Dataset.open(path) as data, pytest.raises(DataError, match="below 2"):
        data.labels("train")


def test_more_rows_than_memory(tmp_path, monkeypatch):
    """Written ones, in a small file, for all that read rows."""
    path, n = craft(tmp_path / "a.h5", lambda _: 0), 2**24
    with h5py.File(path, "r+") as file:
        packed = {"compression": "gzip", "dtype": "u1"}
        scaled(file.create_dataset("train/x", data=np.zeros((n, 4)), **packed))
        file.create_dataset("train/labels", data=np.zeros(n), **packed)
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(memory, "available", lambda ranks: 10**8)
    with Dataset.open(path) as data:
        with pytest.raises(DataError, match=r"fit into memory; it needs 0.268 GB, and"):
            data.rows("train")
        with pytest.raises(DataError, match="fit into memory"):
            data.labels("train")
        assert data.rows("train", 0, 1000).shape == (1000, 4)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("images", (2**24, 4, 4), "u1", chunks=(2**10, 4, 4))
    with pytest.raises(DataError, match="fit into memory"):
        read_images(tmp_path / "b.h5")


def test_names_with_commands_for_the_terminal(tmp_path):
    escape = "\x1b]0;owned\x07\x9b31m\u202e"
    craft(tmp_path / "a.h5", rows, name=f"name{escape}", origin=escape, digest=escape)
    text = said(tmp_path, "data info a.h5")
    assert r"name\x1b]0;owned\x07\x9b31m\u202e" in text
    craft(tmp_path / "b.h5", rows, kind=f"kind{escape}")
    bad = call(tmp_path, "data info b.h5")
    launch.assert_user_error(bad, "found 'kind")
    assert not set("\x1b\x07\x9b\u202e") & set(text + bad.stderr)
