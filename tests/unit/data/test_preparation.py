"""How columns are scaled, what a data set tells of its source, and how it is made."""

import numpy as np
import pytest

from mpilayer.config import DataConfig
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.preparation import Preparation, Scaling
from mpilayer.data.recipe import make_data
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError, DataError
from mpilayer.runs.rows import like_of

RNG = np.random.default_rng(0)
ROWS = (
    RNG.random((90, 6)) * [1, 1e-3, 1e6, 7, 1e30, 1] + [0, 9, -3e6, 0, 0, 5]
).astype(np.float32)
ROWS[:, 3] = 0.1
NEW = ROWS[:5] * np.float32(1.5)
METHODS = ["minmax", "standard"]
BARE = Preparation()


def scaled(scaling, rows):
    result = rows.copy()
    scaling.apply(result)
    return result


def prepared(method="minmax"):
    scaling = Scaling.fit(method, ROWS)[0]
    return Preparation(tuple("abcdef"), "kind", ("cat", "dog"), scaling)


def written(folder, splits, preparation=BARE):
    options = {"name": "a", "origin": "b", "scale": 1.0, "preparation": preparation}
    write_dataset(folder / "a.h5", splits, **options)
    return Dataset.open(folder / "a.h5")


def test_minmax_takes_training_rows_from_0_to_1_and_never_beyond():
    for seed in range(20):
        rows = np.random.default_rng(seed).normal(3, 2, (50, 40)).astype(np.float32)
        found = scaled(Scaling.fit("minmax", rows)[0], rows)
        np.testing.assert_array_equal(found.min(axis=0), 0)
        assert found.max() <= 1
        np.testing.assert_allclose(found.max(axis=0), 1, rtol=3e-7)


def test_standard_gives_mean_0_and_deviation_1():
    found = scaled(Scaling.fit("standard", ROWS)[0], ROWS)[:, [0, 2, 4, 5]]
    np.testing.assert_allclose(found.mean(axis=0, dtype=float), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0, dtype=float), 1, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_constant_columns_become_0_and_are_told(method):
    # The mean of equal numbers need not equal them; 1e-45 has no inverse.
    rows = np.zeros((77, 4), np.float32)
    rows[:, 0], rows[:, 1] = 0.1, 3e38
    rows[3, 2] = 1e-45
    rows[:, 3] = np.arange(77)
    with np.errstate(all="raise"):
        scaling, constant = Scaling.fit(method, rows)
    assert constant == [0, 1, 2]
    np.testing.assert_array_equal(scaled(scaling, rows)[:, :2], 0)
    undone = scaling.undo(scaled(scaling, rows))
    np.testing.assert_array_equal(undone[:, :3], rows[:, :3])


@pytest.mark.parametrize("method", METHODS)
def test_undoing_gives_what_was_before(method):
    scaling = Scaling.fit(method, ROWS)[0]
    for rows in (ROWS, NEW):
        span = np.ptp(ROWS, axis=0) + np.abs(ROWS).max(axis=0)
        back = scaling.undo(scaled(scaling, rows))
        assert (np.abs(back - rows) <= 1e-6 * span).all()
    with pytest.raises(DataError, match=r"column 1 go from -3e\+38 to 3e\+38"):
        Scaling.fit(method, np.float32([[0, -3e38], [1, 3e38]]))


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_a_data_set_are_scaled_when_they_are_read(tmp_path, method):
    splits = {"train": Split(ROWS, np.arange(90) % 2), "test": Split(NEW)}
    scaling = Scaling.fit(method, ROWS)[0]
    with written(tmp_path, splits, prepared(method)) as dataset:
        assert dataset.preparation == prepared(method)
        np.testing.assert_array_equal(dataset.rows("train"), scaled(scaling, ROWS))
        found = dataset.rows("test", 2, 4)
        np.testing.assert_array_equal(found, scaled(scaling, NEW)[2:4])
        np.testing.assert_array_equal(dataset.stored("test").x, NEW)
        facts = dataset.summary()
        train = facts["splits"]["train"]
        assert facts["format_version"] == 2
        assert train["minimum"] == dataset.rows("train").min()
        assert train["maximum"] == dataset.rows("train").max()
        assert train["label_counts"] == {"cat": 45, "dog": 45}
        dataset.verify()
        dataset.ensure()


@pytest.mark.parametrize(
    ("labels", "version", "extent"),
    [(np.arange(90), 1, None), (np.linspace(-1, 2.5, 90), 2, [-1, 2.5])],
)
def test_only_real_labels_need_version_2(tmp_path, labels, version, extent):
    with written(tmp_path, {"train": Split(ROWS[:, :3], labels)}) as dataset:
        np.testing.assert_array_equal(dataset.labels("train"), labels.astype("f"))
        facts = dataset.summary()
        assert not dataset.preparation
    train = facts["splits"]["train"]
    assert (facts["format_version"], train.get("label_range")) == (version, extent)
    assert (train["label_counts"] is None) == (version == 2)


def factors(offset, factor):
    return {"scaling": {"method": "m", "offset": offset, "factor": factor}}


MALFORMED = [
    None,
    [],
    {"columns": ["a"]},
    {"columns": [1, 2, 3, 4, 5, 6]},
    {"classes": "cat"},
    {"labels": 3},
    {"scaling": "minmax"},
    {"scaling": {"method": "minmax", "offset": [0] * 6}},
    *(factors([0] * 6, factor) for factor in ([1], [0] * 6, [1e300] * 6, ["a"] * 6)),
    factors([[0] * 6], {}),
]


@pytest.mark.parametrize("value", MALFORMED)
def test_malformed(value):
    with pytest.raises(DataError, match="it must say how 6 columns were prepared"):
        Preparation.from_json(value, 6, "it")


def test_labels_without_a_name_are_numbers():
    named = Preparation(classes=("cat", "dog"))
    assert named.names(np.array([1, 0, 2, -1])) == ["dog", "cat", 2, -1]
    assert Preparation.from_json(named.to_json(), 6, "it") == named


BYTES = np.random.default_rng(0).integers(20, 230, (40, 5), dtype=np.uint8)


def made_rows(folder, **options):
    """Make a data set; return its training rows."""
    config = DataConfig(**options)
    make_data(config, folder / "out.h5", like_of(config.like))
    with Dataset.open(folder / "out.h5") as dataset:
        return dataset.rows("train")


@pytest.mark.parametrize("scale", METHODS)
def test_equal_values_are_scaled_alike_be_they_bytes_or_not(tmp_path, scale):
    np.save(tmp_path / "bytes.npy", BYTES)
    np.savetxt(tmp_path / "table.csv", BYTES, "%d", ",")
    files = [str(tmp_path / name) for name in ("bytes.npy", "table.csv")]
    for first, then in (files, files[::-1]):
        expected = made_rows(tmp_path, source=first, scale=scale)
        (tmp_path / "out.h5").rename(tmp_path / "first.h5")
        found = made_rows(tmp_path, source=then, like=str(tmp_path / "first.h5"))
        np.testing.assert_array_equal(found, expected)
        assert np.ptp(found) > 0.99
        # A data set that is a source keeps both.
        again = made_rows(tmp_path, source=str(tmp_path / "first.h5"))
        np.testing.assert_array_equal(again, expected)


def test_scaling_is_that_of_the_rows_that_stay_for_training(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(60.0).reshape(30, 2))
    source = str(tmp_path / "a.npy")
    found = made_rows(tmp_path, source=source, scale="minmax", validation=8, test=8)
    assert (len(found), found.min(), found.max()) == (14, 0, 1)


def test_rows_must_be_left_for_training(tmp_path):
    np.save(tmp_path / "a.npy", BYTES)
    source = str(tmp_path / "a.npy")
    for validation, test in ((20, 20), (39, 1), (60, 1)):
        message = f"leave rows for training; asked for {validation} and {test} of 40"
        with pytest.raises(ConfigError, match=message):
            made_rows(tmp_path, source=source, validation=validation, test=test)
    assert len(made_rows(tmp_path, source=source, validation=20, test=19)) == 1
