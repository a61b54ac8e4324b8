"""Files of other programs."""

import numpy as np
import pytest
import scipy.sparse

from mpilayer import memory
from mpilayer.data import array_files as mat
from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.preparation import Preparation, Scaling
from mpilayer.data.sources import Names, read_source
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError, DataError, RunWarning
from tests.support.arrays import save

X = np.random.default_rng(0).random((6, 4))
LABELS = np.arange(6) % 3
PIXELS = (X * 255).astype(np.uint8)


def assert_train(source, x, labels=None):
    train = source.splits["train"]
    np.testing.assert_array_equal(train.x, np.asarray(x).astype(train.x.dtype))
    assert (train.labels is None) == (labels is None)
    np.testing.assert_array_equal(train.labels, labels)


@pytest.mark.parametrize(
    ("name", "array", "scale"),
    [
        ("a.npy", X, 1.0),
        ("a.npy", PIXELS.reshape(6, 2, 2), PIXEL_SCALE),
        ("a.npy", PIXELS.astype(np.int32), 1.0),
        ("a.mat", PIXELS, PIXEL_SCALE),
    ],
)
def test_images_are_flattened_and_bytes_alone_are_pixels(tmp_path, name, array, scale):
    source = read_source(save(tmp_path / name, x=array))
    assert_train(source, array.reshape(6, 4))
    kind = np.float32 if scale == 1 else np.uint8
    assert source.splits["train"].x.dtype == kind
    assert (source.name, source.origin, source.unit.scale) == ("a", name, scale)


@pytest.mark.parametrize("given", [LABELS.astype(float), LABELS + 0.5])
@pytest.mark.parametrize(
    ("name", "x", "labels", "asked"),
    [
        # Reading a .mat file takes a process of its own; the names are all the same.
        ("a.mat", "x", "labels", ""),
        ("a.npz", "x", "y", ""),
        ("a.npz", "train_x", "train_labels", ""),
        ("a.h5", "x_train", "y_train", ""),
        ("a.h5", "data", "target", "target"),  # as scikit-learn calls them
        ("a.h5", "x", "target", "target"),
        ("a.h5", "x_train", "target_train", "target"),
        ("a.h5", "train_x", "train_target", "target"),
    ],
)
def test_names(tmp_path, name, x, labels, asked, given):
    path = save(tmp_path / name, **{x: X, labels: given})
    source = read_source(path, Names(asked))
    assert_train(source, X, given.astype("f"))
    assert source.splits["train"].labels.dtype.kind in "if"
    assert source.preparation.labels == asked


def test_all_splits(tmp_path):
    arrays = {"x_train": X, "y_train": LABELS, "x_test": X[:2], "y_test": LABELS[:2]}
    path = save(tmp_path / "a.mat", **arrays, validation_x=X[:3])
    splits = read_source(path).splits
    labels = {k: None if s.labels is None else len(s.labels) for k, s in splits.items()}
    assert labels == {"train": 6, "validation": None, "test": 2}
    assert len(splits["validation"]) == 3


def test_matlab_doubles_saved_as_bytes_are_no_pixels(tmp_path):
    # Numbers and texts beside the only matrix are no samples.
    path = save(tmp_path / "a.mat", faces=PIXELS, rate=0.5, comment="by a camera")
    content = bytearray(path.read_bytes())
    assert content[144] == 9  # class uint8 in the array's flags
    content[144] = 6  # class double, whose values MATLAB may save as bytes
    path.write_bytes(content)
    source = read_source(path)
    assert_train(source, PIXELS)
    assert source.unit.scale == 1.0


OBJECTS = np.array([[{}]])
BAD_ARRAYS = [
    ("npz mat", {"x": X * 1j}, "must (be|hold) real numbers; found complex"),
    ("npz", {"x": X / np.where(X[3, 1] == X, np.nan, 1)}, "row 3, column 1 is nan"),
    ("npz", {"x": X, "labels": LABELS[:5]}, "6 samples and 5 labels"),
    (
        "npz",
        {"x": X, "labels": np.where(LABELS == 1, np.nan, LABELS)},
        "labels must be finite.* that of row 1 is nan",
    ),
    ("npz", {"x": X, "labels": np.eye(6)}, r"int64 of shape \(6, 6\)"),
    (
        "npz",
        {"x": X, "labels": np.full(6, 2**63, np.uint64)},
        r"labels must lie below 2\*\*63; found 92233",
    ),
    ("npz", {"x": X, "test_labels": LABELS}, "samples for .* 'test_labels'"),
    ("npz", {"test_x": X}, "must hold one array, or arrays named x and labels"),
    ("npz", {"a": X, "b": X}, r"found a \(6, 4\), b \(6, 4\). Rename"),
    ("npz mat", {"a": 1.0}, "must hold one array"),
    *(
        ("npy", {"x": array}, "at least two dimensions; found shape")
        for array in (X[0], np.zeros((0, 4)), np.zeros((4, 0, 2)), np.float64(3))
    ),
    ("npy npz", {"x": OBJECTS}, r"plain numbers.*without Python objects"),
    ("mat", {"x": np.array([[1, "a"]], object)}, "real numbers; found object"),
    ("mat", {"x": scipy.sparse.csc_matrix(X)}, r"full array.*found csc_"),
]


@pytest.mark.parametrize(("endings", "arrays", "message"), BAD_ARRAYS)
def test_bad_arrays(tmp_path, endings, arrays, message):
    for ending in endings.split():
        with pytest.raises(DataError, match=message):
            read_source(save(tmp_path / f"a.{ending}", **arrays))


def test_matlab_7_3(tmp_path):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(header.ljust(512, b"\0"))
    with pytest.raises(DataError, match=r"found version 7.3. Save it .* '-v7'"):
        read_source(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("npz", "npy", r"Name it \.npz"),
        ("npy", "npz", r"Name it \.npy"),
        ("npy", "mat", "must be a whole MATLAB file"),
        ("mat", "npy", "must be a whole NumPy file"),
        ("npy", "png", r"\.csv, \.h5, \.hdf5 or be a folder"),
    ],
)
def test_files_with_the_ending_of_others(tmp_path, right, wrong, words):
    path = save(tmp_path / f"a.{right}", x=X).rename(tmp_path / f"b.{wrong}")
    with pytest.raises(DataError, match=words):
        read_source(path)
    with pytest.raises(DataError, match="found nothing there"):
        read_source(tmp_path / f"a.{right}")


def test_a_small_archive_of_a_large_array(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((10**5, 1000), np.uint8))
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(memory, "available", lambda ranks: 10**7)
    with pytest.raises(DataError, match=r"a\.npz must fit .* it needs 0.1 GB"):
        read_source(path)


def test_a_matlab_reader_that_crashes(tmp_path, monkeypatch):
    """Whatever ends it: its process is another one."""
    path = save(tmp_path / "a.mat", x=X)
    monkeypatch.setattr(mat.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match=r"a\.mat must be a whole .*SciPy fails on it"):
        read_source(path)


def test_a_matlab_file_that_the_process_cannot_hold(tmp_path, monkeypatch):
    path = save(tmp_path / "a.mat", x=np.zeros((1000, 10_000)))
    monkeypatch.setenv("PYTHONPATH", "")
    limited = mat.memory.__name__  # what the child asks
    (tmp_path / "sitecustomize.py").write_text(
        f"import {limited} as m\nm.available = lambda: 60_000_000\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=r"a\.mat must fit into memory, and it"):
        read_source(path)


@pytest.mark.parametrize("ending", [".npz", ".mat"])
def test_texts_are_classes_of_all_splits(tmp_path, ending):
    texts = np.array(["dog", "cat", "cat", "dog", "cat", "dog"])
    if ending == ".mat":
        texts = texts.astype(object)[:, np.newaxis]  # cells
    path = save(tmp_path / f"a{ending}", x=X, y=texts, x_test=X[:1], y_test=["ant"])
    source = read_source(path)
    assert_train(source, X, [2, 1, 1, 2, 1, 2])
    assert source.splits["test"].labels.tolist() == [0]
    assert source.preparation.classes == ("ant", "cat", "dog")


def test_an_array_that_is_not_there(tmp_path):
    path = save(tmp_path / "a.npz", x=X, kinds=LABELS)
    message = r"a\.npz: --labels: unknown array 'kind'; .* mean 'kinds'"
    with pytest.raises(DataError, match=message):
        read_source(path, Names("kind"))
    assert_train(read_source(path, Names("kind", needed=False)), X)


def test_labels_that_are_not_named_or_have_no_name(tmp_path):
    path = save(tmp_path / "a.npz", x=X, target=LABELS)
    with pytest.warns(RunWarning, match=r"array 'target' is not used.*--labels target"):
        assert_train(read_source(path), X)
    path = save(tmp_path / "a.npy", x=X)
    with pytest.raises(ConfigError, match=r"a\.npy holds one array\. Save .* as \.npz"):
        read_source(path, Names("target"))


def test_a_data_set_is_a_source(tmp_path):
    """What it says comes along: names, classes, scaling; pixels stay bytes."""
    scaling = Scaling.fit("minmax", X.astype(np.float32))[0]
    before = Preparation(tuple("abcd"), "kind", ("cat", "dog", "fox"), scaling)
    for x, scale in ((X, 1.0), (PIXELS, PIXEL_SCALE)):
        write_dataset(
            tmp_path / "a.h5",
            {"train": Split(x, LABELS), "test": Split(x[:2])},
            name="a",
            origin="b",
            scale=scale,
            preparation=before,
        )
        source = read_source(tmp_path / "a.h5")
        assert_train(source, np.asarray(x, source.splits["train"].x.dtype), LABELS)
        assert source.splits["train"].x.dtype == (np.uint8 if scale < 1 else np.float32)
        assert (source.unit.scale, source.preparation) == (scale, before)
        assert source.splits["test"].labels is None
        assert source.origin.startswith("the data set a.h5 (")
