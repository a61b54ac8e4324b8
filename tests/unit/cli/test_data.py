"""What ``data info`` says."""

from argparse import ArgumentParser

import numpy as np
import pytest

from mpilayer.cli import data
from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from tests.support.toys import rows


@pytest.mark.parametrize(
    ("n_labels", "short", "are_listed"),
    [(50, "50: 1 to 2 rows", True), (51, "51: -1 to 49", False)],
)
def test_many_labels_are_not_listed(tmp_path, capsys, n_labels, short, are_listed):
    path = tmp_path / "many.h5"
    split = Split(rows(60), np.arange(60) % n_labels - 1)
    write_dataset(path, {"train": split}, name="", origin="", scale=1.0)
    parser = ArgumentParser()
    data.configure(parser)
    data.run(parser.parse_args(["info", str(path)]))
    out = capsys.readouterr().out
    assert f"  {short}\n" in out
    assert ("rows of each label in train" in out) == are_listed
