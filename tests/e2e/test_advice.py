"""What the commands advise is good."""

import re

import pytest

from tests.support import launch
from tests.support.command import call
from tests.support.small import read_summary

SAMPLE = launch.ROOT / "data" / "mnist-sample.h5"


@pytest.mark.slow
def test_the_next_command_ends_better_than_pca(tmp_path):
    """As printed, on the sample, where the pre-trained stack is worse."""
    # The usual stack, five times as large, takes a minute to say the same.
    line = f"pretrain {SAMPLE} --run run --layers 200,30 --epochs 4"
    done = call(tmp_path, line, limit=900).ok()
    assert "warning: the pre-trained stack is worse than PCA" in done.stderr
    (command,) = re.findall(r"Next: (mpilayer .*)", done.stdout)
    assert "worse than PCA" not in call(tmp_path, command, limit=900).ok().stderr
    summary = read_summary(tmp_path / "run")
    assert summary["test_error"] < summary["pca"]["test"]
