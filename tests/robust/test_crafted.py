"""HDF5 files that somebody made by hand: to read what is not theirs, or for ever."""

import os

import h5py
import numpy as np
import pytest

from mpilayer.data import dataset
from mpilayer.data.dataset import Dataset
from mpilayer.data.images import read_images
from mpilayer.errors import DataError
from tests.support import launch

SECRET = b"TOP SECRET" * 60
ROWS = np.random.default_rng(0).random((20, 6)).astype(np.float32)
SCENES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


@pytest.fixture
def secret(tmp_path):
    """Give a file that no data set may show, outside of the folder of data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["train/x"] = ROWS
        file["train/x"].attrs["scale"] = 1.0
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


def scaled(item):
    item.attrs["scale"] = 1.0
    return item


def external(file, name, shape, dtype, source):
    part = [(str(source), 0, h5py.h5f.UNLIMITED)]
    scaled(file.create_dataset(name, shape, dtype, external=part))


def virtual(file, source, part="x", mapped=20):
    layout = h5py.VirtualLayout((20, 6), "f4")
    layout[:mapped] = h5py.VirtualSource(str(source), part, (20, 6))[:mapped]
    scaled(file.create_virtual_dataset("train/x", layout))


def link(file, name, target):
    file[name] = target


def outer(file, name, secret, target):
    file[name] = h5py.ExternalLink(f"{secret}.h5", target)


def linked_twice(file, secret):
    outer(file, "other", secret, "/")
    file["train"] = h5py.SoftLink("/other/train")


def beside(file, secret):
    rows(file)
    external(file, "notes/x", (10,), "u1", secret)


def with_part(file, n, mapped=20):
    file["x"] = ROWS[:n]
    virtual(file, ".", mapped=mapped)


def rows(file):
    scaled(file.create_dataset("train/x", data=ROWS))


TO_OTHERS = {
    "external storage": (
        lambda file, secret: external(file, "train/x", (10, 6), "u1", secret),
        "'train/x' in an external file",
    ),
    "external storage of no use": (beside, "'notes/x' in an external file"),
    "external link to rows": (
        lambda file, secret: outer(file, "train/x", secret, "train/x"),
        "the link 'train/x' to another file",
    ),
    "external link to a group": (
        lambda file, secret: outer(file, "train", secret, "train"),
        "the link 'train' to another file",
    ),
    "soft link to an external link": (
        linked_twice,
        "the link 'other' to another file",
    ),
    "virtual, elsewhere": (
        lambda file, secret: virtual(file, f"{secret}.h5", part="train/x"),
        "'train/x' made of .*secret.h5', which is not a file there",
    ),
    "virtual, elsewhere by dots": (
        lambda file, secret: virtual(file, "../secret.h5", part="train/x"),
        "'train/x' made of '../secret.h5', which is not a file there",
    ),
    "virtual, missing": (
        lambda file, secret: virtual(file, "missing.h5"),
        "'train/x' made of 'missing.h5', which is not a file there",
    ),
    "virtual, missing part": (
        lambda file, secret: virtual(file, "."),
        "made of 'x', which is missing",
    ),
    "virtual, of itself": (
        lambda file, secret: virtual(file, ".", part="train/x"),
        "made of 'train/x', which is missing or made of others",
    ),
    "virtual, too few rows": (
        lambda file, secret: with_part(file, 9),
        "made of 'x', which has fewer values",
    ),
    "virtual, with a hole": (
        lambda file, secret: with_part(file, 20, mapped=12),
        "made of parts that leave others out",
    ),
}


@pytest.mark.parametrize("case", TO_OTHERS)
def test_what_leads_to_other_files(secret, case):
    add, words = TO_OTHERS[case]
    path = craft(secret.parent / "data" / "a.h5", lambda file: add(file, secret))
    with pytest.raises(DataError, match=rf"a\.h5 must hold its data itself.*{words}"):
        Dataset.open(path)
    with pytest.raises(DataError, match=r"a\.h5 must hold its data itself"):
        read_images(path)


def test_a_virtual_data_set_in_its_folder(tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["x"] = ROWS
    path = craft(tmp_path / "a.h5", lambda file: virtual(file, "part.h5"))
    with Dataset.open(path) as data:
        np.testing.assert_array_equal(data.rows("train"), ROWS)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        external(file, "x", (20, 6), "f4", __file__)
    with pytest.raises(DataError, match=r"part\.h5 must hold its data itself"):
        Dataset.open(path)


def test_a_link_in_the_folder_that_leads_out_of_it(secret):
    folder = secret.parent / "data"
    (folder / "part.h5").symlink_to(secret.with_suffix(".h5"))
    path = craft(folder / "a.h5", lambda file: virtual(file, "part.h5", part="train/x"))
    with pytest.raises(DataError, match=r"'part.h5', which is not a file there"):
        Dataset.open(path)


def test_nothing_of_a_secret_gets_into_a_data_set(secret):
    """As a user would see it; a pipe would be waited for."""
    folder = secret.parent / "data"
    os.mkfifo(folder / "pipe")
    for name, source in (("secret.h5", secret), ("pipe.h5", folder / "pipe")):
        craft(
            folder / name,
            lambda file, source=source: (
                external(file, "train/x", (10, 6), "u1", source),
                external(file, "images", (1, 8, 8), "u1", source),
            ),
        )
    before = set(folder.iterdir())
    for command in (
        ("data", "info", "pipe.h5", "--verify"),
        ("data", "patches", "secret.h5", "-o", "out.h5", "--size", 3, "--count", 20),
        ("pretrain", "secret.h5", "--run", "run", "--layers", 3),
        ("sparse", "pipe.h5", "--run", "run", "--hidden", 3),
    ):
        result = launch.run(*command, cwd=folder, limit=60)
        launch.assert_user_error(result, "must hold its data itself")
    assert set(folder.iterdir()) == before


def unwritten(shape, **options):
    return lambda file: scaled(file.create_dataset("train/x", shape, "u1", **options))


def put(**content):
    """Return what puts things of any kind into a file, ``/`` being ``_`` there."""

    def add(file):
        for name, value in content.items():
            link(file, name.replace("_", "/"), value)

    return add


def of_no_use(file):
    rows(file)
    file.create_dataset("more", (2**40,), "u1", chunks=(2**16,))


def circle(file):
    file.create_group("train")
    file["train/x"] = file["/"]


def values(array):
    return lambda file: scaled(file.create_dataset("train/x", data=array))


LINK = h5py.SoftLink
CHUNKS = (2**16, 4)
ODD = {
    "dangling": (put(train=LINK("/x")), "cannot be read"),
    "dangling rows": (put(train_x=LINK("/x")), "cannot be read"),
    "looping": (put(train=LINK("/train")), "cannot be read"),
    "looping rows": (
        put(train_x=LINK("/train/y"), train_y=LINK("/train/x")),
        "cannot be read",
    ),
    "a circle of groups": (circle, "must have 'x' of shape"),
    "a type": (put(train_x=np.dtype("u1")), "must have 'x'"),
    "texts": (values(np.array([["a"]], "S1")), "must be uint8 or float32"),
    "a structure": (values(np.zeros((3, 2), "u1,f4")), "must be uint8 or float32"),
    "no space": (put(train_x=h5py.Empty("f4")), "must have 'x' of shape"),
    "2**40 rows": (unwritten((2**40, 4)), "never written"),
    "2**40 rows, packed": (
        unwritten((2**40, 4), chunks=CHUNKS, compression="gzip"),
        "never written",
    ),
    "2**60 rows": (unwritten((2**60, 4), chunks=CHUNKS), "never written"),
    "2**40 values of no use": (of_no_use, "'more'.*never written"),
    "a missing part": (unwritten((100, 4), chunks=(10, 4)), "never written"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_data_sets(tmp_path, case):
    add, words = ODD[case]
    with pytest.raises(DataError, match=words):
        Dataset.open(craft(tmp_path / "a.h5", add))


ATTRIBUTES = {
    "a number": ({"kind": 3}, "must be of kind"),
    "numbers": ({"kind": np.arange(3)}, "must be of kind"),
    "nothing": ({"kind": h5py.Empty("f4")}, "must be of kind"),
    "long": ({"kind": "x" * 60_000}, r"found 'x+\.\.\.x+'"),
    "version text": ({"format_version": "one"}, "format version 1 to 2; found one"),
    "version nan": ({"format_version": np.nan}, "format version 1 to 2; found nan"),
    "versions": ({"format_version": [1, 1]}, r"format version 1 to 2; found \[1 1\]"),
    "version huge": ({"format_version": 2**62}, "format version 1 to 2"),
    "no version": ({"format_version": h5py.Empty("i4")}, "format version 1 to 2"),
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_odd_attributes(tmp_path, case):
    attributes, words = ATTRIBUTES[case]
    with pytest.raises(DataError, match=words):
        Dataset.open(craft(tmp_path / "a.h5", rows, **attributes))


def test_labels_that_no_class_can_have(tmp_path):
    path = craft(tmp_path / "a.h5", rows)
    with h5py.File(path, "r+") as file:
        file["train/labels"] = np.full(20, 2**63, np.uint64)
    with Dataset.open(path) as data, pytest.raises(DataError, match="below 2"):
        data.labels("train")


def test_more_rows_than_memory(tmp_path, monkeypatch):
    """Written ones, in a small file, for all that read rows."""
    from mpilayer import memory

    n = 2**24

    def add(file):
        scaled(
            file.create_dataset(
                "train/x", data=np.zeros((n, 4), "u1"), compression="gzip"
            )
        )
        file.create_dataset("train/labels", data=np.zeros(n, "u1"), compression="gzip")

    path = craft(tmp_path / "a.h5", add)
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(memory, "available", lambda: 10**8)
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
    result = launch.run("data", "info", "a.h5", cwd=tmp_path).ok()
    assert r"name\x1b]0;owned\x07\x9b31m\u202e" in result.stdout
    craft(tmp_path / "b.h5", rows, kind=f"kind{escape}")
    bad = launch.run("data", "info", "b.h5", cwd=tmp_path)
    launch.assert_user_error(bad, "found 'kind")
    for text in (result.stdout, bad.stderr):
        assert not set(escape) & set("\x1b\x07\x9b\u202e") & set(text)


SCALING = '{"scaling": {"method": "m", "offset": [0, 0], "factor": [1, 1]}}'
PREPARATIONS = {
    "numbers": [1, 2],
    "two texts": [b"{}", b"{}"],
    "any length": ["{}"],
    "no JSON": np.array([b"{"]),
    "no text": np.array([b"\xff"]),
    "a nest": np.array([b"[" * 100_000]),
    "of other columns": np.array([SCALING.encode()]),
    "a group": None,
}


@pytest.mark.parametrize("case", PREPARATIONS)
def test_odd_preparations(tmp_path, case):
    def add(file):
        rows(file)
        if PREPARATIONS[case] is None:
            file.create_group("preparation/columns")
        else:
            file.create_dataset("preparation", data=PREPARATIONS[case])

    path = craft(tmp_path / "a.h5", add, format_version=2)
    with pytest.raises(DataError, match=r"a\.h5 must say how \d columns were prepared"):
        Dataset.open(path)
