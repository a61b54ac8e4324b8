"""What nobody expects: the whole job ends soon, says where, and does not hang."""

import signal
import time

import pytest

from tests.support import launch
from tests.support.breaks import KILL, acting, assert_saved

SOON = 20.0
# Far more epochs than there is time for: who does not end at once is found out.
ENDLESS = ("--layers", "8,6,4", "--minibatch", "50", "--epochs", "1000000")

RAISE = 'raise RuntimeError("out of luck")'


def assert_ended(result, rank):
    """Demand a quick end that says which rank failed, and where."""
    assert result.code not in (0, 2), str(result)
    assert result.seconds < SOON
    told = result.stderr.count(f"rank {rank} failed; ending all ranks")
    assert told == 1, str(result)
    assert "RuntimeError: out of luck" in result.stderr
    assert "Traceback" in result.stderr
    assert "mpilayer: error" not in result.stderr


@pytest.mark.parametrize(("schedule", "rank"), [("lockstep", 0), ("async", 2)])
def test_a_rank_raises_in_pretraining(tiny, tmp_path, rank, schedule):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", *ENDLESS]
    failing = acting("training", RAISE, rank)
    options = ["--schedule", schedule]
    result = launch.run(*arguments, *options, ranks=3, program=failing, limit=30)
    assert_ended(result, rank)


def test_a_rank_raises_in_finetuning(run_copy):
    failing = acting("fine-tuning", RAISE, 1)
    arguments = ["finetune", run_copy, "--epochs", 1000000]
    result = launch.run(*arguments, ranks=2, program=failing, limit=30)
    assert_ended(result, 1)


def test_one_process_raises(tiny, tmp_path):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", *ENDLESS]
    failing = acting("training", RAISE, 0)
    result = launch.run(*arguments, program=failing, limit=30)
    assert result.code == 1
    assert "RuntimeError: out of luck" in result.stderr


def test_a_user_error_of_one_rank_in_training_ends_all(run_copy):
    """A checkpoint that only one rank cannot write: one message, everybody ends."""
    act = 'from mpilayer.errors import DataError; raise DataError("disk full")'
    failing = acting("fine-tuning", act, 1)
    arguments = ["finetune", run_copy, "--epochs", 1000000]
    result = launch.run(*arguments, ranks=2, program=failing, limit=30)
    assert result.code != 0
    assert result.seconds < SOON
    assert result.stderr.count("mpilayer: error: disk full") == 1
    assert "Traceback" not in result.stderr


def test_rank_0_is_killed(tiny, tmp_path):
    """Others that die are in ``tests/robust/test_silence.py``."""
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", *ENDLESS]
    killed = acting("training", KILL, 0)
    result = launch.run(*arguments, ranks=3, program=killed, limit=30)
    assert result.code != 0, str(result)
    # A launcher may end everything before it has passed the words on.
    told = f"with 'mpilayer resume {tmp_path / 'run'}'."
    assert told in result.stderr or "has died" not in result.stderr, str(result)
    assert result.seconds < SOON


@pytest.mark.parametrize("ranks", [0, 3])
def test_an_interrupt_by_the_terminal_saves_and_ends_the_job(tiny, tmp_path, ranks):
    """It goes to the launcher and to all ranks."""
    run = tmp_path / "run"
    arguments = ["pretrain", tiny, "--run", run, *ENDLESS]
    with launch.started(*arguments, ranks=ranks, limit=60) as job:
        job.wait_for(run / "metrics" / "layer-3.jsonl")
        began = time.monotonic()
        job.signal(signal.SIGINT, group=True)
        result = job.finish()
    assert time.monotonic() - began < SOON
    assert_saved(result, run, "SIGINT")
    for layer in (1, 2, 3):
        assert list((run / "checkpoints").glob(f"layer-{layer}.e*.h5"))


# --- two launches at a time


HASTY = """
from mpilayer.runs import session
session.PATIENCE = 0.2
"""


def test_a_second_launch_is_refused(tiny, tmp_path):
    run = tmp_path / "run"
    first = ["pretrain", tiny, "--run", run, *ENDLESS]
    with launch.started(*first, ranks=2, limit=120) as job:
        job.wait_for(run / "metrics" / "layer-3.jsonl")
        for ranks, other in ((2, ["resume", run]), (0, [*first, "--replace"])):
            options = {"ranks": ranks, "program": launch.driver(HASTY), "limit": 30}
            result = launch.run(*other, **options)
            words = ["only one launch at a time", f"works in {run}", "process "]
            launch.assert_user_error(result, *words)
        result = launch.run("evaluate", run)
        launch.assert_user_error(result, "(a launch is at work in it)", "watch")
        page = tmp_path / "page.html"
        for reader in (["report", run, "-o", page], ["watch", run, "--once"]):
            assert "interrupted" not in launch.run(*reader).ok().stdout
        assert "still running: epochs" in page.read_text()
        job.signal(signal.SIGINT)
        assert job.finish().code == 75
    shown = launch.run("watch", "run", "--once", cwd=tmp_path).ok().stdout
    assert "interrupted; go on with 'mpilayer resume run'" in shown
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("options", [["--replace"], []], ids=["replace", "new"])
def test_two_launches_at_once_make_one_run(tiny, tmp_path, options):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", *ENDLESS, *options]
    both = {"program": launch.driver(HASTY), "limit": 60}
    with (
        launch.started(*arguments, **both) as a,
        launch.started(*arguments, **both) as b,
    ):
        while a.lives and b.lives:
            time.sleep(0.05)
        winner = a if a.lives else b
        winner.wait_for(tmp_path / "run" / "metrics" / "layer-3.jsonl")
        winner.signal(signal.SIGINT)
        codes = {job.finish().code for job in (a, b)}
    assert codes == {2, 75}


def test_a_resume_right_after_the_launcher_has_gone(tiny, tmp_path):
    """Ranks that still live are waited for; then the run goes on."""
    run = tmp_path / "run"
    layers = ["--layers", "8,6", "--minibatch", 50, "--epochs", 2000]
    arguments = ["pretrain", tiny, "--run", run, *layers, "--checkpoint-every", 1]
    with launch.started(*arguments, ranks=2, limit=60) as job:
        job.wait_for(run / "metrics" / "layer-2.jsonl", 3)
        job.signal(signal.SIGKILL)
        result = launch.run("resume", run, "--max-time", 2, ranks=2, limit=60)
    assert result.code in (0, 75), str(result)
    assert "going on after epochs" in result.stderr


def test_weights_that_become_infinite(tiny, tmp_path):
    """One message, code 2, nothing complete; other cases are in ``tests/mpi``."""
    run = tmp_path / "run"
    options = ["--layers", "8,6,4", "--learning-rate", "0.1,1e30,0.1"]
    result = launch.run("pretrain", tiny, "--run", run, *options, ranks=3)
    launch.assert_user_error(result, "weights must stay finite; those of layer 2")
    assert "Warning" not in result.stderr, str(result)
    assert not (run / "complete").exists()
