"""Several sources, and files that are read block by block."""

import errno
import os
import resource
import signal
import tracemalloc
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from mpilayer.cli import data as command
from mpilayer.config import DataConfig
from mpilayer.data import array_files, sources, table
from mpilayer.data.dataset import PIXEL_SCALE, Dataset
from mpilayer.data.recipe import make_data
from mpilayer.errors import DataError, FileError
from mpilayer.runs.rows import like_of
from tests.support.arrays import save
from tests.support.command import call, refuse
from tests.support.small import contents

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
LABELS = np.arange(90) % 3
INTEGERS = np.round(X * 1000).astype(np.int16)


def made(folder, *paths, **options):
    """Make a data set of several sources; return it as a dictionary of what it has."""
    first, *others = (folder / path for path in paths)
    config = DataConfig(source=str(first), **options)
    make_data(config, folder / "out.h5", like_of(config.like), others)
    with Dataset.open(folder / "out.h5") as dataset:
        dataset.verify()
        found = {s: (dataset.rows(s), dataset.labels(s)) for s in dataset.splits}
        return {**found, "preparation": dataset.preparation, "unit": dataset.unit}


def chunked(path, x, labels, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=x, **options)
        file["labels"] = labels
    return path


@pytest.fixture
def blocks(monkeypatch):
    """Let little be read at a time, and small files count as large."""
    monkeypatch.setattr(table, "_SLAB_BYTES", 7 * 24)
    monkeypatch.setattr(array_files, "_LARGE", 0)
    monkeypatch.setattr(sources, "_LARGE", 0)


# What makes a file of rows and labels, by its name.
KINDS = {
    "chunks.h5": lambda p, x, k: chunked(p, x, k, chunks=(5, 4), compression="gzip"),
    "rows.h5": chunked,
    "large.h5": lambda p, x, k: chunked(p, x, k, chunks=(50, 6), maxshape=(None, 6)),
    "images.h5": lambda p, x, k: chunked(p, x.reshape(-1, 2, 3), k),
    "swapped.h5": lambda p, x, k: chunked(p, x.astype(">f8"), k.astype(np.uint8)),
    "a.npz": lambda p, x, k: save(p, x=x, labels=k),
    "by columns.npz": lambda p, x, k: save(p, x=np.asfortranarray(x), labels=k + 0.0),
    "a.csv": lambda p, x, k: np.savetxt(
        p, np.c_[x, k], "%.9g", ",", comments="", header="a,b,c,d,e,f,label"
    ),
}


@pytest.mark.parametrize("scale", ["none", "minmax", "standard"])
@pytest.mark.parametrize("names", [list(KINDS), ["rows.h5"], ["chunks.h5", "a.npz"]])
def test_files_in_order_are_as_one_array(tmp_path, blocks, names, scale):
    save(tmp_path / "whole.npz", x=X, labels=LABELS)
    cuts = np.array_split(np.arange(90), len(names))
    for name, rows in zip(names, cuts, strict=True):
        KINDS[name](tmp_path / name, X[rows], LABELS[rows])
    options = {"scale": scale, "validation": 12, "test": 9, "seed": 3}
    expected = made(tmp_path, "whole.npz", **options)
    found = made(tmp_path, *names, **options)
    assert found["preparation"].scaling == expected["preparation"].scaling
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(found[split][0], expected[split][0])
        np.testing.assert_array_equal(found[split][1], expected[split][1])
    assert found["train"][1].dtype == np.int64


def test_npy_files_and_splits_follow_one_another(tmp_path, blocks):
    for name, x in (("a.npy", X[:50]), ("b.npy", np.asfortranarray(X[50:]))):
        np.save(tmp_path / name, x)
    np.testing.assert_array_equal(made(tmp_path, "a.npy", "b.npy")["train"][0], X)
    texts = np.array(["ash", "elm", "fir"])[LABELS]
    save(tmp_path / "a.npz", x_train=X[:9], y_train=texts[:9], x_test=X[9:14])
    save(tmp_path / "b.npz", x_train=X[14:20], y_train=texts[14:20], x_test=X[20:30])
    found = made(tmp_path, "a.npz", "b.npz")
    rows = [*range(9), *range(14, 20)]
    np.testing.assert_array_equal(found["train"][0], X[rows])
    np.testing.assert_array_equal(found["train"][1], LABELS[rows])
    np.testing.assert_array_equal(found["test"][0], X[[*range(9, 14), *range(20, 30)]])
    assert found["preparation"].classes == ("ash", "elm", "fir")


def test_named_arrays_within_groups(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/counts"], file["entry/other"] = INTEGERS, X
        file["entry/kinds"] = LABELS
    options = {"dataset": "/entry/counts", "labels": "entry/kinds"}
    found = made(tmp_path, "a.h5", "a.h5", **options)["train"]
    np.testing.assert_array_equal(found[0], np.r_[INTEGERS, INTEGERS])
    np.testing.assert_array_equal(found[1], np.r_[LABELS, LABELS])


NARROW = [
    (INTEGERS, {"stored_scale": 1e-3}, {}, (1e-3, 0)),
    (INTEGERS.astype(">i2"), {}, {"scale_factor": 1e-3}, (1e-3, 0)),
    (INTEGERS, {}, {"scale_factor": [0.5], "add_offset": np.float32(-2)}, (0.5, -2)),
    (INTEGERS, {"stored_scale": 2.0}, {"scale_factor": 1e-3}, (2, 0)),
    (np.abs(INTEGERS).astype("u2") * 15, {"stored_scale": 1e-4}, {}, (1e-4, 0)),
    ((INTEGERS % 100).astype("i1"), {"stored_scale": 0.01}, {}, (0.01, 0)),
    (X.astype("f2"), {"stored_scale": 1.0}, {}, (1, 0)),
    ((INTEGERS % 200).astype("u1"), {"stored_scale": 1.0}, {}, (1, 0)),
    ((INTEGERS % 200).astype("u1"), {}, {}, (PIXEL_SCALE, 0)),
    (X, {"stored_scale": 3.0, "stored_offset": 1.0}, {}, (3, 1)),
]


@pytest.mark.parametrize(
    ("x", "options", "attributes", "unit"), NARROW, ids=map(str, range(len(NARROW)))
)
def test_numbers_keep_their_type_and_say_what_they_are(
    tmp_path, x, options, attributes, unit
):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = x
        file["x"].attrs.update(attributes)
    found, expected = made(tmp_path, "a.h5", **options), x.astype(np.float64)
    expected = expected * unit[0] + unit[1]
    assert found["unit"] == unit
    np.testing.assert_allclose(found["train"][0], expected, 1e-6, 1e-6)
    with Dataset.open(tmp_path / "out.h5") as dataset:
        facts, compact = dataset.summary(), dataset.compact_rows("train", 5, 80)
        assert facts["splits"]["train"]["dtype"] == str(x.dtype.newbyteorder("="))
        is_old = x.dtype in (np.uint8, np.float32) and not unit[1]
        assert facts["format_version"] == (1 if is_old else 3)
        assert facts["splits"]["train"]["offset"] == unit[1]
        values = getattr(compact, "values", compact)
        assert values.itemsize == (4 if unit[1] else x.dtype.itemsize)
        np.testing.assert_array_equal(compact[:], found["train"][0][5:80])
    # A data set is a source that says what its numbers are.
    (tmp_path / "out.h5").rename(tmp_path / "first.h5")
    again = made(tmp_path, "first.h5", "first.h5")
    assert again["unit"] == unit
    np.testing.assert_array_equal(again["train"][0], np.tile(found["train"][0], (2, 1)))


def test_values_are_scaled_whatever_they_are_stored_as(tmp_path):
    np.save(tmp_path / "values.npy", INTEGERS * np.float32(1e-3))
    np.save(tmp_path / "stored.npy", INTEGERS)
    told = {"stored_scale": 1e-3}
    expected = made(tmp_path, "values.npy", scale="minmax")["train"][0]
    for options in ({"scale": "minmax"}, {"like": str(tmp_path / "first.h5")}):
        found = made(tmp_path, "stored.npy", **told, **options)
        np.testing.assert_allclose(found["train"][0], expected, atol=1e-6)
        (tmp_path / "out.h5").rename(tmp_path / "first.h5")


@pytest.fixture
def folder(tmp_path):
    """Give a folder of files that do not go together, or of which one is bad."""
    arrays = {
        "a": {"x": X, "labels": LABELS},
        "bare": {"x": X},
        "wide": {"x": np.c_[X, X]},
        "bytes": {"x": INTEGERS.astype("u1")},
        "two": {"first": X, "second": X},
        "groups": {"entry/x": X, "entry/names": np.full((9, 2), b"a")},
        "vector": {"x": X[:, 0]},
        "short": {"x": X, "labels": LABELS[1:]},
        "none": {"x": X[:0]},
        "nan": {"x": np.where(np.arange(540).reshape(90, 6) == 421, np.nan, X)},
        "half nan": {
            "x": np.where(np.arange(540).reshape(90, 6) == 421, np.nan, X).astype("f2")
        },
        "texts": {"x": X, "labels": np.full(90, b"a")},
    }
    for name, content in arrays.items():
        save(tmp_path / f"{name}.h5", **content)
    told = {"told": 0.1, "else": 0.2, "badly": "much", "negative": -2.0}
    for name, factor in told.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = INTEGERS
            file["x"].attrs["scale_factor"] = factor
    with h5py.File(tmp_path / "hollow.h5", "w") as file:
        file.create_dataset("x", (10**6, 300), "f4", chunks=(1000, 300))
    for name in ("empty.h5", "empty.csv", "empty.npy"):
        (tmp_path / name).write_text("")
    (tmp_path / "ab.csv").write_text("a,b\n1,2\n")
    (tmp_path / "ba.csv").write_text("b,a\n1,2\n")
    np.save(tmp_path / "a.npy", X)
    return tmp_path


WRONG = [
    ("a.h5 wide.h5", "found 6 of float32 in a.h5 and 12 of float32 in wide.h5"),
    ("bare.h5 a.npy bytes.h5", "6 of float32 in bare.h5 and 6 of uint8 in bytes.h5"),
    ("bare.h5 told.h5", "6 of int16 in told.h5"),
    ("told.h5 else.h5", "(0.1, 0.0) in told.h5, array 'x', and (0.2, 0.0) in else.h5"),
    ("badly.h5", "badly.h5, array 'x': scale_factor must be a number of 1e-12 to"),
    ("negative.h5", "found -2.0 and 0.0. Mend them, or give --stored-scale."),
    ("a.h5 bare.h5", "labels of the train rows, or none; bare.h5, array 'x' has none"),
    ("a.h5 texts.h5", "found int64 in train of a.h5 and <U1 in train of texts.h5"),
    (
        "a.h5 short.h5",
        "short.h5, array 'x': every sample must have one label; found 90",
    ),
    ("two.h5", "found first (90, 6), second (90, 6). Rename them, or name the samples"),
    ("two.h5 --dataset third", "--dataset: unknown array 'third'; choose from first,"),
    ("groups.h5 --dataset entry", "choose from entry/names, entry/x"),
    ("groups.h5 --dataset entry/names", "samples must be real numbers; found |S1"),
    ("vector.h5", "of at least two dimensions; found shape (90,) in 'x'"),
    ("a.h5 none.h5", "none.h5 must hold samples as the rows of a full array"),
    ("bare.h5 nan.h5", "nan.h5, array 'x': x must hold finite float32 numbers; row 70"),
    ("'half nan.h5' --stored-scale 1", "row 70, column 1 is nan"),
    ("a.h5 empty.h5", "empty.h5 must be a whole HDF5 file; it is empty"),
    ("empty.csv", "must hold at least one row"),
    ("empty.npy", "empty.npy must be a whole NumPy file"),
    ("a.h5 gone.h5", "gone.h5 must be a file or folder"),
    ("ab.csv ba.csv", "ba.csv must have the columns of ab.csv in the same order"),
    (
        "hollow.h5",
        "found 'x' of shape (1000000, 300), parts of which were never written",
    ),
    ("a.h5 a.npy --dataset x", "--dataset names a column or array; a.npy holds one"),
    ("a.h5 --stored-offset 3", "--stored-offset needs --stored-scale; got 3 alone"),
    ("a.h5 --stored-scale 1e-20", "found 1e-20 and 0.0. Change --stored-scale."),
    ("a.h5 bare.h5 ./a.h5", "each SOURCE must be another one; a.h5 and a.h5 are"),
    ("bare.h5 a.h5 -o a.h5 --replace", "another file than SOURCE; got a.h5 for both"),
]


@pytest.mark.parametrize(("line", "words"), WRONG)
def test_what_does_not_go_together_is_refused(folder, blocks, line, words):
    output = "" if "-o" in line.split() else "-o out.h5"
    refuse(folder, f"data prepare {line} {output}", words)


def test_rows_wait_in_a_file_only_if_they_can(tmp_path):
    with pytest.raises(DataError, match="must be real numbers; found object"):
        table.spooled(np.array([["a", 1]], object), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (X.nbytes // 2, hard))
    try:
        with pytest.raises(FileError) as caught:
            table.spooled(X, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.strerror(errno.EFBIG).lower() in str(caught.value)


def test_data_sets_that_are_scaled_otherwise_do_not_go_together(folder):
    made(folder, "a.h5", scale="minmax")
    (folder / "out.h5").rename(folder / "scaled.h5")
    made(folder, "a.h5")
    (folder / "out.h5").rename(folder / "plain.h5")
    words = "scaled alike, or not at all; scaled.h5 and plain.h5 differ"
    refuse(folder, "data prepare plain.h5 scaled.h5 -o out.h5", words)


def test_little_is_in_memory_at_a_time(tmp_path):
    x = np.arange(250, dtype=np.float32) + np.arange(20_000, dtype="f")[:, np.newaxis]
    for name in ("a", "b", "c"):
        chunked(tmp_path / f"{name}.h5", x, np.arange(20_000) % 2, chunks=(999, 250))
    del x
    first, *others = (tmp_path / f"{name}.h5" for name in ("a", "b", "c"))
    options = {"validation": 1000, "scale": "standard"}
    config, told = DataConfig(source=str(first), **options), []
    tracemalloc.start()
    try:
        progress = lambda *what: told.append(what)  # noqa: E731
        make_data(config, tmp_path / "out.h5", None, others, progress)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6  # of 60 MB
    for what in ("measuring", "writing and checking"):
        *_, (_, done, all_of_it) = (line for line in told if line[0] == what)
        assert all_of_it <= done < 1.02 * all_of_it  # labels are checked, too


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_nothing_is_left(folder, monkeypatch, number):
    @contextmanager
    def interrupting(quiet):
        assert quiet

        def progress(what, done, expected):
            if what.startswith("writing"):
                os.kill(os.getpid(), number)

        yield progress

    monkeypatch.setattr(command, "_progress", interrupting)
    (folder / "out.h5").write_bytes(b"as it was")
    before = contents(folder)
    result = call(folder, "data prepare a.h5 -o out.h5 --replace")
    assert (result.code, result.stdout) == (130, "")
    assert contents(folder) == before
