"""Files of other programs."""

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from mpilayer import memory
from mpilayer.data import array_files as mat
from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.preparation import Preparation, Scaling
from mpilayer.data.sources import LabelColumn, read_source
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError, DataError, RunWarning
from tests.support.idx import write_idx_folder

X = np.random.default_rng(0).random((6, 4))
LABELS = np.arange(6) % 3
PIXELS = (X * 255).astype(np.uint8)


def save(path, **arrays):
    savers = {".mat": scipy.io.savemat, ".npz": save_npz, ".h5": save_hdf5}
    savers[path.suffix](path, arrays)
    return path


def save_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        file.update(arrays)


def save_npz(path, arrays):
    np.savez(path, **arrays)


def assert_train(source, x, labels=None):
    train = source.splits["train"]
    np.testing.assert_array_equal(train.x, np.asarray(x).astype(train.x.dtype))
    if labels is None:
        assert train.labels is None
    else:
        np.testing.assert_array_equal(train.labels, labels)


def test_idx_folder(tmp_path):
    source = read_source(write_idx_folder(tmp_path / "digits"))
    assert source.scale == PIXEL_SCALE
    assert (source.name, source.origin) == ("digits", "IDX files of the folder digits")
    assert list(source.splits) == ["train", "test"]


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", X)
    source = read_source(tmp_path / "a.npy")
    assert_train(source, X)
    assert source.splits["train"].x.dtype == np.float32
    assert (source.name, source.origin, source.scale) == ("a", "a.npy", 1.0)


def test_images_are_flattened_and_bytes_are_pixels(tmp_path):
    np.save(tmp_path / "a.NPY".lower(), PIXELS.reshape(6, 2, 2))
    source = read_source(tmp_path / "a.npy")
    assert_train(source, PIXELS)
    assert source.scale == PIXEL_SCALE


def test_other_integers_are_no_pixels(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS.astype(np.int32))
    assert read_source(tmp_path / "a.npy").scale == 1.0


@pytest.mark.parametrize(
    ("name", "x", "labels"),
    [
        # Reading a .mat file takes a process of its own; the names are all the same.
        ("a.mat", "x", "labels"),
        ("a.npz", "x", "y"),
        ("a.npz", "train_x", "train_labels"),
        ("a.h5", "x_train", "y_train"),
    ],
)
def test_names(tmp_path, name, x, labels):
    path = save(tmp_path / name, **{x: X, labels: LABELS.astype(float)})
    assert_train(read_source(path), X, LABELS)


def test_all_splits(tmp_path):
    arrays = {"x_train": X, "y_train": LABELS, "x_test": X[:2], "y_test": LABELS[:2]}
    path = save(tmp_path / "a.mat", **arrays, validation_x=X[:3])
    splits = read_source(path).splits
    assert [(name, len(split)) for name, split in splits.items()] == [
        ("train", 6),
        ("validation", 3),
        ("test", 2),
    ]
    assert splits["validation"].labels is None
    assert splits["test"].labels.tolist() == [0, 1]


def test_numbers_and_texts_beside_the_only_matrix(tmp_path):
    path = save(tmp_path / "a.mat", faces=X, rate=0.5, comment="from the camera")
    assert_train(read_source(path), X)


def test_matlab_doubles_saved_as_bytes_are_no_pixels(tmp_path):
    path = save(tmp_path / "a.mat", x=PIXELS)
    content = bytearray(path.read_bytes())
    assert content[144] == 9  # class uint8 in the array's flags
    content[144] = 6  # class double, whose values MATLAB may save as bytes
    path.write_bytes(content)
    source = read_source(path)
    assert_train(source, PIXELS)
    assert source.scale == 1.0


def test_matlab_bytes_are_pixels(tmp_path):
    assert read_source(save(tmp_path / "a.mat", x=PIXELS)).scale == PIXEL_SCALE


CSV = {
    "plain": ("1.0,2.0\n3,4\n", None),
    "no newline, spaces, blank line": ("1, 2\n\n3 ,4", None),
    "header": ("width,height\n1,2\n3,4\n", None),
    "byte order mark, quotes": ('\ufeff"width","height"\r\n1,2\r\n3,4\r\n', None),
    "label first": ("label,a,b\n5,1,2\n6,3,4\n", [5, 6]),
    "label last, numbered": ("0,1,Label\n1,2,5\n3,4,6\n", [5, 6]),
}


@pytest.mark.parametrize("case", CSV)
def test_csv(tmp_path, case):
    text, labels = CSV[case]
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    source = read_source(tmp_path / "a.csv")
    assert_train(source, [[1, 2], [3, 4]], labels)
    assert source.scale == 1.0


BAD_CSV = {
    "empty": ("", "at least one row of numbers; found none"),
    "header only": ("a,b\n\n", "at least one row"),
    "word": ("1,2\n3,4\n5,six\n", "line 3 has 'six'"),
    "word under a header": ("a,b\n1,2\n\n3,\n", "line 4 has ''"),
    "short line": ("1,2\n3\n", "line 2 has 1 cells, those before 2"),
    "nan": ("1,2\n3,nan\n", "row 1, column 1 is nan"),
    "endless label": ("a,label\n1,0.5\n2,inf\n", "finite.* that of row 1 is inf"),
    "label only": ("label\n1\n", "at least one row and column"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv(tmp_path, case):
    text, message = BAD_CSV[case]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_source(tmp_path / "a.csv")


def test_csv_of_bytes(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="must be a text file"):
        read_source(tmp_path / "a.csv")


BAD_ARRAYS = {
    "complex": (
        {"x": X * 1j},
        "must (be|hold) real numbers; found complex",
    ),
    "nan": ({"x": X / np.where(X[3, 1] == X, np.nan, 1)}, "row 3, column 1 is nan"),
    "labels too few": ({"x": X, "labels": LABELS[:5]}, "6 samples and 5 labels"),
    "labels that are missing": (
        {"x": X, "labels": np.where(LABELS == 1, np.nan, LABELS)},
        "labels must be finite.* that of row 1 is nan",
    ),
    "one-hot labels": ({"x": X, "labels": np.eye(6)}, r"int64 of shape \(6, 6\)"),
    "labels alone": ({"x": X, "test_labels": LABELS}, "samples for .* 'test_labels'"),
    "test alone": ({"test_x": X}, "must hold one array, or arrays named x and labels"),
    "two arrays": ({"a": X, "b": X}, r"found a \(6, 4\), b \(6, 4\). Rename"),
    "nothing": ({"a": 1.0}, "must hold one array"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path, case):
    arrays, message = BAD_ARRAYS[case]
    endings = [".npz", ".mat"] if case in ("complex", "nothing") else [".npz"]
    for ending in endings:
        with pytest.raises(DataError, match=message):
            read_source(save(tmp_path / f"a{ending}", **arrays))


def test_vectors_and_empty_arrays(tmp_path):
    for array in (X[0], np.zeros((0, 4)), np.zeros((4, 0, 2)), np.float64(3)):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(DataError, match="at least two dimensions; found shape"):
            read_source(tmp_path / "a.npy")


def test_python_objects_are_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([[{}]]))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=r"plain numbers.*without Python objects"):
            read_source(tmp_path / name)


def test_cell_arrays_and_sparse_matrices(tmp_path):
    cells = np.array([[1, "a"], [2, "b"]], object)
    with pytest.raises(DataError, match="real numbers; found object"):
        read_source(save(tmp_path / "a.mat", x=cells))
    sparse = scipy.sparse.csc_matrix(X)
    with pytest.raises(DataError, match=r"full array.*found csc_"):
        read_source(save(tmp_path / "a.mat", x=sparse))


def test_matlab_7_3(tmp_path):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(header.ljust(512, b"\0"))
    with pytest.raises(DataError, match=r"found version 7.3. Save it .* '-v7'"):
        read_source(tmp_path / "a.mat")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".mat"])
@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_damaged_files(tmp_path, ending, damage):
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, X)
    else:
        save(path, x=X)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-40], "other": b"text " * 99, "empty": b""}[damage])
    with pytest.raises(DataError, match="must be a whole"):
        read_source(path)


def test_npy_and_npz_mistaken_for_each_other(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"Name it .npz"):
        read_source(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", X)
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"Name it .npy"):
        read_source(tmp_path / "b.npz")


def test_unknown_ending_and_missing_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.csv, \.h5, \.hdf5 or be a folder"):
        read_source(tmp_path / "a.png")
    with pytest.raises(DataError, match="found nothing there"):
        read_source(tmp_path / "none.npy")


def test_unknown_compression(tmp_path):
    path = save(tmp_path / "a.npz", x=X)
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        begin = content.index(mark) + place
        content[begin : begin + 2] = (99).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"whole NumPy file.*compression method"):
        read_source(path)


def test_a_small_archive_of_a_large_array(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((10**5, 1000), np.uint8))
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(memory, "available", lambda: 10**7)
    with pytest.raises(DataError, match=r"a\.npz must fit .* it needs 0.1 GB"):
        read_source(path)


def test_labels_that_no_class_can_have(tmp_path):
    path = save(tmp_path / "a.npz", x=X, labels=np.full(6, 2**63, np.uint64))
    with pytest.raises(DataError, match=r"labels must lie below 2\*\*63; found 92233"):
        read_source(path)


def test_what_a_table_was_taken_for_is_its_origin(tmp_path):
    (tmp_path / "a.csv").write_text(",a,label\n0,1.5,3\n")
    assert read_source(tmp_path / "a.csv").origin == (
        "a.csv (header: line 1; index: column 1, left out; labels: column 3)"
    )


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


@pytest.mark.parametrize(
    "names",
    [
        ("data", "target"),  # as scikit-learn calls them
        ("x", "target"),
        ("x_train", "target_train"),
        ("train_x", "train_target"),
    ],
)
def test_labels_of_any_name(tmp_path, names):
    path = save(tmp_path / "a.h5", **dict(zip(names, (X, LABELS), strict=True)))
    source = read_source(path, LabelColumn("target"))
    assert_train(source, X, LABELS)
    assert source.preparation.labels == "target"


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


def test_real_numbers_are_labels(tmp_path):
    path = save(tmp_path / "a.npz", x=X, y=LABELS + 0.5)
    assert_train(read_source(path), X, np.float32(LABELS + 0.5))


def test_an_array_that_is_not_there(tmp_path):
    path = save(tmp_path / "a.npz", x=X, kinds=LABELS)
    message = r"a\.npz: --labels: unknown array 'kind'; .* mean 'kinds'"
    with pytest.raises(DataError, match=message):
        read_source(path, LabelColumn("kind"))
    assert_train(read_source(path, LabelColumn("kind", needed=False)), X)


def test_an_array_that_is_likely_to_hold_labels(tmp_path):
    path = save(tmp_path / "a.npz", x=X, target=LABELS)
    with pytest.warns(RunWarning, match=r"array 'target' is not used.*--labels target"):
        assert_train(read_source(path), X)


def test_a_source_whose_labels_have_no_name(tmp_path):
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(ConfigError, match=r"a\.npy holds one array\. Save .* as \.npz"):
        read_source(tmp_path / "a.npy", LabelColumn("target"))


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
        assert (source.scale, source.preparation) == (scale, before)
        assert source.splits["test"].labels is None
        assert source.origin.startswith("the data set a.h5 (")
