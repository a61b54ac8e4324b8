"""The HDF5 data set."""

import h5py
import numpy as np
import pytest

from mpilayer.data import dataset as module
from mpilayer.data import table
from mpilayer.data.dataset import FORMAT_VERSION, KIND, PIXEL_SCALE, Dataset
from mpilayer.data.dataset import write_dataset as write
from mpilayer.data.split import Split
from mpilayer.errors import DataError

RNG = np.random.default_rng(0)
FLOATS = RNG.random((70, 5)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (70, 5), dtype=np.uint8)
PIXELS[0, :2] = 0, 255
LABELS = np.arange(70) % 3


def write_dataset(path, splits, scale=1.0):
    write(path, splits, name="tiny", origin="made up", scale=scale)
    return path


@pytest.fixture
def floats(tmp_path):
    """Give a data set of floats, its test rows without labels."""
    splits = {"test": Split(FLOATS[:9]), "train": Split(FLOATS, LABELS)}
    return write_dataset(tmp_path / "floats.h5", splits)


@pytest.fixture
def pixels(tmp_path):
    """Give a data set of bytes."""
    train = Split(PIXELS, LABELS.astype(np.uint8))
    return write_dataset(tmp_path / "pixels.h5", {"train": train}, PIXEL_SCALE)


@pytest.fixture
def malformed(tmp_path):
    """Give a function that writes any groups into a file of the right kind."""

    def write_groups(groups, scale=1.0, **attributes):
        path, own = tmp_path / "a.h5", {"kind": KIND, "format_version": FORMAT_VERSION}
        with h5py.File(path, "w") as file:
            file.attrs.update({**own, **attributes})
            file.update(groups)
            for name in groups:
                if name.endswith("/x") and scale is not None:
                    file[name].attrs["scale"] = scale
        return path

    return write_groups


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_floats(floats):
    with Dataset.open(floats) as dataset:
        assert (dataset.name, dataset.origin) == ("tiny", "made up")
        assert dataset.path == floats
        assert dataset.splits == ("train", "test")
        assert dataset.n_visible == 5
        assert dataset.unit == (1, 0)
        assert [dataset.n_samples(name) for name in dataset.splits] == [70, 9]
        np.testing.assert_array_equal(dataset.rows("train"), FLOATS)
        np.testing.assert_array_equal(dataset.labels("train", 10, 20), LABELS[10:20])
        assert dataset.labels("test") is None
        assert len(dataset.digest) == 64
        dataset.verify()
    assert names(floats.parent) == ["floats.h5"]


def test_pixels(pixels):
    with Dataset.open(pixels) as dataset:
        x = dataset.rows("train")
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, PIXELS / 255, rtol=1e-7)
        assert (x.min(), x.max()) == (0, 1)
        assert dataset.labels("train").dtype == np.int64
    # A large matrix is cut into chunks of whole rows.
    large = Split(np.zeros((3000, 784), np.uint8))
    with h5py.File(write_dataset(pixels, {"train": large}, PIXEL_SCALE)) as file:
        x = file["train/x"]
        assert (x.dtype, x.compression, x.chunks[1]) == (np.uint8, "gzip", 784)
        assert 2**18 <= x.chunks[0] * 784 <= 2**20


@pytest.mark.parametrize(
    ("name", "source", "scale", "row"),
    [("floats", FLOATS, 1, 20), ("pixels", PIXELS, PIXEL_SCALE, 5)],
)
def test_slabs_equal_the_whole(request, monkeypatch, name, source, scale, row):
    path = request.getfixturevalue(name)
    with Dataset.open(path) as dataset:
        whole = dataset.rows("train")
    # Three rows a chunk.
    monkeypatch.setattr(module, "_CHUNK_BYTES", 3 * row)
    monkeypatch.setattr(table, "_SLAB_BYTES", 6 * row)
    write_dataset(path, {"train": Split(source)}, scale)
    with Dataset.open(path) as dataset:
        assert len(list(dataset._slabs("train", 0, 70))) == 12
        for start, stop in [(0, 70), (0, 1), (69, 70), (5, 13), (6, 12), (20, 20)]:
            rows = dataset.rows("train", start, stop)
            np.testing.assert_array_equal(rows, whole[start:stop])
        np.testing.assert_array_equal(dataset.rows("train", 33), whole[33:])


def test_summary(floats, pixels):
    with Dataset.open(floats) as dataset:
        summary = dataset.summary()
        assert summary["digest"] == dataset.digest
    assert summary["splits"]["train"] == {
        "n_samples": 70,
        "dtype": "float32",
        "scale": 1.0,
        "offset": 0.0,
        "minimum": FLOATS.min(),
        "maximum": FLOATS.max(),
        "label_counts": {"0": 24, "1": 23, "2": 23},
    }
    assert summary["splits"]["test"]["label_counts"] is None
    assert (summary["format_version"], summary["n_visible"]) == (1, 5)
    with Dataset.open(pixels) as dataset:
        facts = dataset.summary()["splits"]["train"]
    assert (facts["minimum"], facts["maximum"], facts["dtype"]) == (0, 1, "uint8")


def test_missing_split_and_rows_outside(floats):
    with Dataset.open(floats) as dataset:
        words = r"no split 'validation'; it has train, test\..*--split"
        with pytest.raises(DataError, match=words):
            dataset.rows("validation")
        for start, stop in [(0, 71), (-1, 5), (6, 5)]:
            for read in (dataset.rows, dataset.labels):
                with pytest.raises(DataError, match=f"70; asked for {start} to {stop}"):
                    read("train", start, stop)


@pytest.mark.parametrize("test", [FLOATS[:, :4], PIXELS])
def test_other_splits_are_not_written(tmp_path, test):
    splits = {"train": Split(FLOATS), "test": Split(test)}
    with pytest.raises(DataError, match=r"same number .*; found 5 of"):
        write_dataset(tmp_path / "a.h5", splits)
    assert names(tmp_path) == []


# Groups, attributes of the file, and words.
MALFORMED = [
    ({"test/x": FLOATS}, {}, "must have a group 'train'; found test"),
    ({"train": FLOATS}, {}, "group 'train' must have 'x'"),
    ({"train/x/a": FLOATS}, {}, "must have 'x' .* found none"),
    ({"train/x": FLOATS[0]}, {}, r"\(n_samples, n_visible\); found shape \(5,\)"),
    ({"train/x": FLOATS[:0]}, {}, r"found shape \(0, 5\)"),
    (
        {"train/x": FLOATS.astype(float)},
        {},
        "uint8, .* or float32; found float64",
    ),
    ({"train/x": FLOATS, "test/x": FLOATS[:, 1:]}, {}, "5 in train and 4 in test"),
    ({"train/x": FLOATS, "train/labels": LABELS[1:]}, {}, r"70 int.*shape \(69,\)"),
    ({"train/x": FLOATS, "train/labels": LABELS / 2}, {}, "70 int.* found float64"),
    ({"train/x": FLOATS}, {"kind": "x"}, r"'mpilayer-dataset'; found 'x'.*prepare"),
    ({"train/x": FLOATS}, {"format_version": 4}, "format version 1 to 3; found 4"),
]


@pytest.mark.parametrize(("groups", "attributes", "message"), MALFORMED)
def test_malformed_files(malformed, groups, attributes, message):
    with pytest.raises(DataError, match=message):
        Dataset.open(malformed(groups, **attributes))


@pytest.mark.parametrize(
    "scale", [None, 0.0, -1.0, np.inf, np.nan, 1e-300, 1e30, 1e300, "one"]
)
def test_malformed_scale(malformed, scale):
    path = malformed({"train/x": FLOATS}, scale)
    with pytest.raises(DataError, match=r"attribute 'scale', a float64 of 1e-12 to"):
        Dataset.open(path)


@pytest.mark.parametrize(
    ("scale", "value"),
    # The squares of finite ones leave float32.
    [(1.0, np.nan), (1.0, np.inf), (1.0, 1e19), (1e12, -1e4), (1e12, 3e38)],
)
def test_endless_values_are_found_when_read(malformed, monkeypatch, scale, value):
    monkeypatch.setattr(table, "_SLAB_BYTES", 200)
    x = FLOATS.copy()
    x[41, 3] = value
    with Dataset.open(malformed({"train/x": x}, scale)) as dataset:
        dataset.rows("train", 0, 41)
        with pytest.raises(DataError, match=r"at most 1e\+15; row 41, column 3 is"):
            dataset.rows("train", 20)
        if not np.isfinite(value):
            with pytest.raises(DataError, match=f"row 41, column 3 is {value}"):
                dataset.summary()


def test_closed_after_the_block_and_after_an_error(pixels, malformed):
    with Dataset.open(pixels):
        pass
    with pytest.raises(DataError):
        Dataset.open(malformed({"test/x": FLOATS}))
    for path in pixels.parent.iterdir():
        h5py.File(path, "r+").close()  # refused while it is open for reading
