"""What the commands advise: the words, and that the advice is good."""

import re

import pytest

from tests.e2e.conftest import read_summary
from tests.support import launch

SAMPLE = launch.ROOT / "data" / "mnist-sample.h5"
ALWAYS = "from mpilayer.runs import advice\nadvice._COSTLY = -1.0"


@pytest.mark.parametrize("task", ["autoencode", "classify"])
@pytest.mark.parametrize("ranks", [0, 2])
def test_costly_allreduce_in_fine_tuning(run_copy, task, ranks):
    arguments = ["finetune", run_copy, "--epochs", 1, "--task", task]
    done = launch.run(*arguments, program=launch.driver(ALWAYS), ranks=ranks).ok()
    words = " ".join(done.stderr.split())
    found = re.findall(r"warning: Allreduce took \d+% of the time: fewer", words)
    assert len(found) == bool(ranks)  # alone there are no fewer
    assert ("may be faster for minibatches of 20 rows" in words) == bool(ranks)


@pytest.mark.slow
def test_the_next_command_ends_better_than_pca(tmp_path):
    """As printed, on the sample, where the pre-trained stack is worse."""
    done = launch.run("pretrain", SAMPLE, "--run", tmp_path / "run", limit=900).ok()
    assert "warning: the pre-trained stack is worse than PCA" in done.stderr
    (command,) = re.findall(r"Next: mpilayer (.*)", done.stdout)
    done = launch.run(*command.split(), limit=1800).ok()
    assert "worse than PCA" not in done.stderr
    summary = read_summary(tmp_path / "run")
    assert summary["test_error"] < summary["pca"]["test"]
