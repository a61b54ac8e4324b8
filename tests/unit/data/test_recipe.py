"""Data sets that are made from sources."""

import numpy as np
import pytest

from mpilayer.config import DataConfig
from mpilayer.data.dataset import Dataset
from mpilayer.data.recipe import make_data
from mpilayer.errors import ConfigError
from mpilayer.runs.rows import like_of

BYTES = np.random.default_rng(0).integers(20, 230, (40, 5), dtype=np.uint8)


def rows(folder, **options):
    """Make a data set; return its training rows."""
    config = DataConfig(**options)
    make_data(config, folder / "out.h5", like_of(config.like))
    with Dataset.open(folder / "out.h5") as dataset:
        return dataset.rows("train")


@pytest.mark.parametrize("scale", ["minmax", "standard"])
def test_equal_values_are_scaled_alike_be_they_bytes_or_not(tmp_path, scale):
    np.save(tmp_path / "bytes.npy", BYTES)
    np.savetxt(tmp_path / "table.csv", BYTES, "%d", ",")
    files = [str(tmp_path / name) for name in ("bytes.npy", "table.csv")]
    for first, then in (files, files[::-1]):
        expected = rows(tmp_path, source=first, scale=scale)
        (tmp_path / "out.h5").rename(tmp_path / "first.h5")
        found = rows(tmp_path, source=then, like=str(tmp_path / "first.h5"))
        np.testing.assert_array_equal(found, expected)
        assert np.ptp(found) > 0.99
        # A data set that is a source keeps both.
        again = rows(tmp_path, source=str(tmp_path / "first.h5"))
        np.testing.assert_array_equal(again, expected)


def test_scaling_is_that_of_the_rows_that_stay_for_training(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(60.0).reshape(30, 2))
    source = str(tmp_path / "a.npy")
    found = rows(tmp_path, source=source, scale="minmax", validation=8, test=8)
    assert (len(found), found.min(), found.max()) == (14, 0, 1)
    with Dataset.open(tmp_path / "out.h5") as dataset:
        stored = dataset.stored("train").x
        scaling = dataset.preparation.scaling
        np.testing.assert_array_equal(scaling.offset, stored.min(axis=0))
        outside = [dataset.rows(split) for split in ("validation", "test")]
    assert max(r.max() for r in outside) > 1 or min(r.min() for r in outside) < 0


def test_rows_must_be_left_for_training(tmp_path):
    np.save(tmp_path / "a.npy", BYTES)
    source = str(tmp_path / "a.npy")
    for validation, test in ((20, 20), (39, 1), (60, 1)):
        message = f"leave rows for training; asked for {validation} and {test} of 40"
        with pytest.raises(ConfigError, match=message):
            rows(tmp_path, source=source, validation=validation, test=test)
    assert len(rows(tmp_path, source=source, validation=20, test=19)) == 1
