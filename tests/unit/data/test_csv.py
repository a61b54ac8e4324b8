"""Tables that are written come back as they were."""

import numpy as np
import pytest

from mpilayer.data.csv import csv_text, read_csv
from mpilayer.data.split import Split

# Numbers of all magnitudes, and those that few digits cannot tell apart.
X = np.array(
    [
        [0, -0.0, 1, 1 / 3],
        [1e-45, 1.1754942e-38, 3.4028235e38, -7],
        np.nextafter(np.float32([1, 9e15, 0.1, 16777216]), np.float32(0)),
    ],
    np.float32,
)


@pytest.mark.parametrize("labels", [None, np.array([3, -1, 2**40])])
def test_round_trip(tmp_path, labels):
    path = tmp_path / "table.csv"
    path.write_text(csv_text(Split(X, labels)))
    found = read_csv(path)["train"]
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.labels, labels)


def test_the_header_names_units_and_labels():
    text = csv_text(Split(X, np.arange(3)))
    lines = text.splitlines()
    assert lines[0] == "unit_1,unit_2,unit_3,unit_4,label"
    assert lines[1] == "0,-0,1,0.333333343,0"
    assert (len(lines), text[-1]) == (4, "\n")


def test_one_column_without_labels(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(csv_text(Split(X[:, :1])))
    assert read_csv(path)["train"].x.shape == (3, 1)
