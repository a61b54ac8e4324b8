"""What the commands advise: the words, and that the advice is good."""

import re

import pytest

from tests.support import launch
from tests.support.small import read_summary

SAMPLE = launch.ROOT / "data" / "mnist-sample.h5"
ALWAYS = "from mpilayer.runs import advice\nadvice._COSTLY = -1.0"


def test_costly_allreduce_in_fine_tuning(run_copy):
    arguments = ["finetune", run_copy, "--epochs", 1]
    done = launch.run(*arguments, program=launch.driver(ALWAYS), ranks=2).ok()
    words = " ".join(done.stderr.split())
    assert (
        len(re.findall(r"warning: Allreduce took \d+% of the time: fewer", words)) == 1
    )
    assert "may be faster for minibatches of 20 rows" in words


@pytest.mark.slow
def test_the_next_command_ends_better_than_pca(tmp_path):
    """As printed, on the sample, where the pre-trained stack is worse."""
    # The usual stack, five times as large, takes a minute to say the same.
    small = ["--layers", "200,30", "--epochs", 4]
    run = tmp_path / "run"
    done = launch.run("pretrain", SAMPLE, "--run", run, *small, limit=900).ok()
    assert "warning: the pre-trained stack is worse than PCA" in done.stderr
    (command,) = re.findall(r"Next: mpilayer (.*)", done.stdout)
    done = launch.run(*command.split(), limit=900).ok()
    assert "worse than PCA" not in done.stderr
    summary = read_summary(run)
    assert summary["test_error"] < summary["pca"]["test"]
