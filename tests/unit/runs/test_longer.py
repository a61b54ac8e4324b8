"""More epochs for a training that has ended: those of a longer one, or refused."""

from dataclasses import replace

import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.errors import ConfigError
from mpilayer.optim.course import BY_THE_END
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.store import checkpoint
from tests.support.runs import pretrain, run_finetune
from tests.unit.runs.conftest import STACK, make_session, stopped


@pytest.fixture
def copies(copy):
    """Give two copies of a pre-trained run."""
    return copy("pretrained"), copy("pretrained", "whole")


def content(run):
    """Return all that a checkpoint holds, but for the time."""
    arrays, facts, _ = checkpoint.load_newest(RunDirectory(run).checkpoint("finetuned"))
    for key in ("seconds", "digest"):  # the digest is of all, the time included
        del facts[key]
    return {k: v.tobytes() for k, v in arrays.items()}, facts


def go_on(run, config):
    """Ask for a longer fine-tuning; return what was said."""
    session = make_session(resume=True)
    run_finetune(run, config, session)
    return session.said


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"learning_rate_decay": 0.7, "dropout": 0.2},
        {"warm_up": 2, "augment": "shift:1:3x4"},
    ],
    ids=str,
)
def test_it_is_the_longer_one_to_the_bit(copies, optimizer, more):
    run, whole = copies
    config = FinetuneConfig(epochs=3, minibatch=10, optimizer=optimizer, **more)
    longer = replace(config, epochs=7)
    run_finetune(run, config, make_session())
    stopped(1, run_finetune, run, longer, resume=True)
    resume(run, session := make_session())
    assert "going on after epoch 5" in session.said
    run_finetune(whole, longer, make_session())
    assert content(run) == content(whole)
    summaries = [RunDirectory(path).read_summary() for path in (run, whole)]
    for key in ("finetuned", "finetune_epochs", "finetune_best_epoch"):
        assert summaries[0][key] == summaries[1][key]


def test_who_is_out_of_patience_needs_more_of_it(copies):
    """A rate that only makes it worse: the best epoch is 0."""
    run, whole = copies
    config = FinetuneConfig(
        epochs=9, minibatch=10, optimizer="adam", learning_rate=0.9, patience=2
    )
    run_finetune(run, config, make_session())
    assert RunDirectory(run).read_summary()["finetune_epochs"] == 2
    before = content(run)
    (said,) = go_on(run, replace(config, epochs=20))
    assert said.endswith(
        "the last 2 of its 2 epochs have not made it better. Go on with a --patience "
        "of more than 2"
    )
    assert content(run) == before
    longer = replace(config, patience=4)
    assert "going on after epoch 2" in go_on(run, longer)
    run_finetune(whole, longer, make_session())
    assert content(run)[0] == content(whole)[0]


def test_what_would_change_the_weights_is_refused(copies):
    run, _ = copies
    config = FinetuneConfig(epochs=2, minibatch=10, optimizer="adam")
    run_finetune(run, config, make_session())
    before = content(run)
    with pytest.raises(ConfigError, match=r"--learning-rate-decay was 1\.0, is 0\.5"):
        go_on(run, replace(config, epochs=4, learning_rate_decay=0.5))
    words = "go on with more --epochs and --resume auto"
    with pytest.raises(ConfigError, match=words):
        run_finetune(run, replace(config, epochs=4), make_session())
    for epochs in (1, 2):
        said = go_on(run, replace(config, epochs=epochs))
        assert said[-1].endswith("there is nothing to do")
    assert content(run) == before


@pytest.mark.parametrize("schedule", BY_THE_END)
def test_where_the_end_decides_the_rates(copies, schedule):
    """Stopped on its way it goes on, to its end alone."""
    run, whole = copies
    more = {"learning_rate_schedule": schedule, "warm_up": 1}
    config = FinetuneConfig(epochs=5, minibatch=10, augment="shift:1:3x4", **more)
    run_finetune(whole, config, make_session())
    stopped(2, run_finetune, run, config)
    words = f"every rate of --learning-rate-schedule {schedule}; --epochs was 5, is 7"
    with pytest.raises(ConfigError, match=f"{words}.* with --replace"):
        go_on(run, replace(config, epochs=7))
    assert "going on after epoch 3" in go_on(run, replace(config, patience=9))
    assert content(run)[0] == content(whole)[0]


@pytest.mark.parametrize(
    "more",
    [
        # With a lag the last epochs of a shorter run use what a longer one does not.
        {"activations": "transformed", "lag": (1,), "extra_epochs": (0, 2)},
        *({"schedule": name} for name in ("lockstep", "greedy", "async")),
    ],
    ids=str,
)
def test_other_layers_would_come_of_it(small, tmp_path, more):
    """Where they would not is in ``test_killed``."""
    config, run = replace(STACK, **more), tmp_path / "run"
    pretrain(small, run, config, make_session())
    longer, session = replace(config, epochs=(3,)), make_session(resume=True)
    with pytest.raises(ConfigError, match="--epochs was 2, is 3"):
        pretrain(small, run, longer, session)
    assert RunDirectory(run).is_complete("pretrain")
