"""More epochs for a run that has ended: the same weights, or a refusal."""

import pytest

from tests.e2e.conftest import digests
from tests.support import launch

SMALL = ("--layers", "8,4", "--minibatch", 50, "--threads", 1)


def test_more_epochs_are_those_of_a_longer_run(tiny, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ["pretrain", tiny, *SMALL, "--activations", "transformed"]
    launch.run(*arguments, "--run", whole, "--epochs", 4).ok()
    launch.run(*arguments, "--run", run, "--epochs", 2).ok()
    arguments += ["--run", run, "--epochs", 4, "--resume", "auto"]
    assert "going on after epochs 2, 2" in launch.run(*arguments).ok().stderr
    assert digests(run) == digests(whole)


@pytest.mark.parametrize(
    "options",
    [
        # With a lag the last epochs of a shorter run use what a longer one does not.
        "--activations transformed --lag 1 --extra-epochs 0,2",
        *("--schedule lockstep", "--schedule greedy", "--schedule async"),
    ],
)
def test_what_would_change_the_weights_is_refused(tiny, refused, tmp_path, options):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", *SMALL, *options.split()]
    launch.run(*arguments, "--epochs", 2).ok()
    refused("--epochs was 2, is 3", *arguments, "--epochs", 3, "--resume", "auto")
