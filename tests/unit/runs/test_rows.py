"""Whether the rows of a data set fit the settings."""

import numpy as np
import pytest

from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split
from mpilayer.errors import DataError
from mpilayer.runs.rows import check_images

TABLE = "table.csv (36 columns)"
NAMED = Preparation(columns=tuple(f"c{i}" for i in range(36)))


@pytest.mark.parametrize(
    ("n_visible", "origin", "shift", "words"),
    [
        (36, "digits.npy", (1,), ""),
        (36, "digits.npy", (5,), ""),
        (36, "digits.npy", (6,), "got --augment shift:6, and .* are 6 x 6 pixels"),
        (36, TABLE, (1,), "square images; .* has 36 columns, a table's"),
        (36, TABLE, (1, 4, 9), ""),
        (36, "named", (1,), "columns, a table's"),
        (36, "named", (4, 4, 9), "out of sight; got --augment shift:4.* 4 x 9"),
        (30, "digits.npy", (1,), "with --augment shift:1:HEIGHTxWIDTH"),
        (30, "digits.npy", (1, 5, 6), ""),
        (30, "digits.npy", (1, 6, 6), "of 6 x 6 pixels; .* has 30 columns. Say"),
        # A row of a table more often.
        (16, "digits.npy", (1,), "16 columns, a table's"),
        (16, "digits.npy", (1, 4, 4), ""),
    ],
)
def test_images(tmp_path, n_visible, origin, shift, words):
    path, rows = tmp_path / "data.h5", np.zeros((9, n_visible), np.float32)
    more = {"preparation": NAMED} if origin == "named" else {}
    splits = {"train": Split(rows)}
    write_dataset(path, splits, name="x", origin=origin, scale=1.0, **more)
    with Dataset.open(path) as dataset:
        if not words:
            check_images(dataset, *shift)
            return
        with pytest.raises(DataError, match=words):
            check_images(dataset, *shift)
