"""Two launches at a time, and one that ends while another begins."""

import signal
import time
from contextlib import ExitStack

import pytest

from tests.support import launch
from tests.support.breaks import assert_saved
from tests.support.command import call, refuse, said

SOON = 20.0
HASTY = launch.driver(
    """
from mpilayer.runs import session
session.PATIENCE = 0.2
"""
)


@pytest.fixture
def endless(tiny, tmp_path):
    """Give the words that begin a run that never ends by itself."""
    options = "--layers 8,6,4 --minibatch 50 --epochs 1000000"
    return f"pretrain {tiny} --run {tmp_path / 'run'} {options}".split()


@pytest.mark.parametrize("ranks", [0, 3])
def test_an_interrupt_by_the_terminal_saves_and_ends_the_job(endless, tmp_path, ranks):
    """It goes to the launcher and to all ranks."""
    run = tmp_path / "run"
    with launch.started(*endless, ranks=ranks, limit=60) as job:
        job.wait_for(run / "metrics" / "layer-3.jsonl")
        began = time.monotonic()
        job.signal(signal.SIGINT, group=True)
        result = job.finish()
    assert time.monotonic() - began < SOON
    assert_saved(result, run, "SIGINT")
    for layer in (1, 2, 3):
        assert list((run / "checkpoints").glob(f"layer-{layer}.e*.h5"))


def test_a_second_launch_is_refused(endless, tmp_path):
    run = tmp_path / "run"
    with launch.started(*endless, ranks=2, limit=120) as job:
        job.wait_for(run / "metrics" / "layer-3.jsonl")
        for ranks, words in ((2, ["resume", run]), (0, [*endless, "--replace"])):
            result = launch.run(*words, ranks=ranks, program=HASTY, limit=30)
            told = ["only one launch at a time", f"works in {run}", "process "]
            launch.assert_user_error(result, *told)
        result = call(tmp_path, "evaluate run")
        launch.assert_user_error(result, "(a launch is at work in it)", "watch")
        for line in ("report run", "watch run --once"):
            assert "interrupted" not in said(tmp_path, line)
        assert "still running: epochs" in (tmp_path / "report.html").read_text()
        job.signal(signal.SIGINT)
        assert job.finish().code == 75
    shown = said(tmp_path, "watch run --once")
    assert "interrupted; go on with 'mpilayer resume run'" in shown
    assert not (run / ".lock").exists()
    refuse(tmp_path, "evaluate run", "mpilayer resume run")


@pytest.mark.parametrize("options", [["--replace"], []], ids=["replace", "new"])
def test_two_launches_at_once_make_one_run(endless, tmp_path, options):
    with ExitStack() as both:
        a, b = (
            both.enter_context(launch.started(*endless, *options, program=HASTY))
            for _ in range(2)
        )
        while a.lives and b.lives:
            time.sleep(0.05)
        winner = a if a.lives else b
        winner.wait_for(tmp_path / "run" / "metrics" / "layer-3.jsonl")
        winner.signal(signal.SIGINT)
        codes = {job.finish().code for job in (a, b)}
    assert codes == {2, 75}


def test_a_resume_right_after_the_launcher_has_gone(endless, tmp_path):
    """Ranks that still live are waited for; then the run goes on."""
    often = ("--checkpoint-every", 1)
    with launch.started(*endless, *often, ranks=2, limit=60) as job:
        job.wait_for(tmp_path / "run" / "metrics" / "layer-2.jsonl", 3)
        job.signal(signal.SIGKILL)
        result = call(tmp_path, "mpiexec -n 2 resume run --max-time 2")
    assert result.code == 75, str(result)
    assert "going on after epochs" in result.stderr


def test_weights_that_become_infinite(tiny, tmp_path):
    """One message, code 2, nothing complete; other cases are in ``tests/mpi``."""
    rates = "--layers 8,6,4 --learning-rate 0.1,1e30,0.1"
    result = call(tmp_path, f"mpiexec -n 3 pretrain {tiny} --run run {rates}")
    launch.assert_user_error(result, "weights must stay finite; those of layer 2")
    assert "Warning" not in result.stderr, str(result)
    assert not (tmp_path / "run" / "complete").exists()
