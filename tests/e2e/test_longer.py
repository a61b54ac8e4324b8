"""More epochs for a run that has ended: the same weights, or a refusal."""

import pytest

from tests.e2e.conftest import contents, digests
from tests.support import launch

SMALL = ("--layers", "8,4", "--minibatch", 50, "--threads", 1)


def pretrain(data, run, *options):
    return launch.run("pretrain", data, "--run", run, *SMALL, *options)


@pytest.mark.parametrize(
    "options",
    [
        ("--activations", "transformed"),
        ("--activations", "transformed", "--lag", 1, "--extra-epochs", "0,2"),
    ],
    ids=["lag 0", "lag 1"],
)
def test_more_epochs_are_those_of_a_longer_run(tiny, tmp_path, options):
    whole, run = tmp_path / "whole", tmp_path / "run"
    if "--lag" in options:
        # With a lag the last epochs of a shorter run use what a longer one does not.
        pretrain(tiny, run, *options, "--epochs", 2).ok()
        result = pretrain(tiny, run, *options, "--epochs", 4, "--resume", "auto")
        launch.assert_user_error(result, "--epochs was 2, is 4", "layer 2")
        return
    pretrain(tiny, whole, *options, "--epochs", 4).ok()
    pretrain(tiny, run, *options, "--epochs", 2).ok()
    result = pretrain(tiny, run, *options, "--epochs", 4, "--resume", "auto").ok()
    assert "going on after epochs 2, 2" in result.stderr
    assert digests(run) == digests(whole)


@pytest.mark.parametrize("schedule", ["lockstep", "greedy", "async"])
def test_what_would_change_the_weights_is_refused(tiny, tmp_path, schedule):
    run = tmp_path / "run"
    pretrain(tiny, run, "--schedule", schedule, "--epochs", 2).ok()
    before = contents(run)
    longer = ("--schedule", schedule, "--epochs", 3, "--resume", "auto")
    launch.assert_user_error(pretrain(tiny, run, *longer), "--epochs was 2, is 3")
    assert contents(run) == before
