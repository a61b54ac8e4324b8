"""Ranks that raise, die or fall silent: the job ends soon, and says which.

Others it lets live.
"""

import pytest

from benchmarks import traces
from tests.support import launch
from tests.support.breaks import KILL, STOP, acting
from tests.support.command import call, said
from tests.support.small import write_pixels

LAYERS = "--layers 8,6,4 --minibatch 50 --epochs"
PRETRAIN = f"pretrain tiny.h5 --run run {LAYERS}"
# Far longer than there is time for: who does not end at once is found out.
ENDLESS = 10**6
MODES = {
    "lockstep": f"{PRETRAIN} {ENDLESS} --schedule lockstep",
    "greedy": f"{PRETRAIN} 4,4,{ENDLESS} --schedule greedy",
    "async": f"{PRETRAIN} {ENDLESS} --schedule async",
    # Ranks 0 and 1 have layer 1, rank 2 has the others.
    "teams": f"{PRETRAIN} {ENDLESS} --layers 130,130,4 --layout '1:2 2-3:1'",
    "one team": f"{PRETRAIN} {ENDLESS} --layers 130,130,4 --layout '1-3:2'",
    "short": f"{PRETRAIN} 2",
    "finetune": f"finetune run --epochs {ENDLESS}",
    "sparse": f"sparse tiny.h5 --run run --hidden 6 --evaluations {ENDLESS}",
    "compare": f"compare tiny.h5 --run run --hidden 6 --evaluations {ENDLESS}",
}
SOON = 20.0
RAISE = 'raise RuntimeError("out of luck")'
USER_ERROR = 'from mpilayer.errors import DataError; raise DataError("disk full")'


@pytest.fixture
def begin(tmp_path):
    """Give a function that runs a mode, in which a rank acts at a place."""
    write_pixels(tmp_path / "tiny.h5")

    def start(mode, place, act, rank, ranks, options=""):
        if mode == "finetune":
            said(tmp_path, f"{PRETRAIN} 1 --threads 1")
        line, program = f"{MODES[mode]} {options}", acting(place, act, rank)
        return call(tmp_path, line, ranks=ranks, program=program)

    return start


# --- raised


@pytest.mark.parametrize(
    ("mode", "place", "rank", "ranks"),
    [
        ("lockstep", "training", 0, 3),
        ("async", "training", 2, 3),
        ("one team", "minibatch", 1, 2),
        ("finetune", "fine-tuning", 1, 2),
        ("lockstep", "training", 0, 0),
    ],
)
def test_what_nobody_expects_ends_all(begin, mode, place, rank, ranks):
    """Soon, and where it was is told once."""
    result = begin(mode, place, RAISE, rank, ranks)
    assert result.code == 1 if ranks == 0 else result.code not in (0, 2), str(result)
    assert result.seconds < SOON
    failed = result.stderr.count(f"rank {rank} failed; ending all ranks")
    assert failed == (ranks > 0), str(result)
    assert "RuntimeError: out of luck" in result.stderr
    assert "Traceback" in result.stderr
    assert "mpilayer: error" not in result.stderr


def test_a_user_error_of_one_rank_in_training_ends_all(begin):
    """A checkpoint that only one rank cannot write: one message, everybody ends."""
    result = begin("finetune", "fine-tuning", USER_ERROR, 1, 2)
    assert result.code != 0
    assert result.seconds < SOON
    assert result.stderr.count("mpilayer: error: disk full") == 1
    assert "Traceback" not in result.stderr


# --- dead


@pytest.mark.parametrize(
    ("mode", "place", "rank"),
    [
        ("lockstep", "training", 0),
        ("lockstep", "training", 1),
        ("teams", "minibatch", 1),
        ("sparse", "sparse", 1),
    ],
)
def test_a_dead_rank_ends_the_job_and_it_goes_on(begin, tmp_path, mode, place, rank):
    result = begin(mode, place, KILL, rank, 3, "--checkpoint-every 1")
    assert result.code not in (0, 2), str(result)
    assert result.seconds < 40
    # A launcher may end everything before it has passed the sentinel's words on.
    if "has died" in result.stderr:
        assert f"mpilayer: rank {rank} (process " in result.stderr, str(result)
        assert "with 'mpilayer resume run'." in result.stderr, str(result)
    assert not list(traces.broken_files(tmp_path / "run"))
    done = call(tmp_path, "mpiexec -n 2 resume run --max-time 0.5")
    assert done.code in (0, 75), str(done)
    assert "going on after" in done.stderr
    assert not list(traces.broken_metrics(tmp_path / "run"))


# --- silent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "place", "rank", "ranks"),
    [
        ("lockstep", "training", 0, 2),
        # The others wait, or have ended, meanwhile.
        ("greedy", "training", 0, 3),
        ("greedy", "training", 1, 3),
        ("async", "training", 1, 2),
        ("one team", "minibatch", 0, 2),
        ("finetune", "fine-tuning", 0, 2),
        ("compare", "sparse", 1, 2),
        ("short", "ended", 0, 2),
        ("short", "evaluation", 1, 2),
        ("short", "closing", 0, 2),
    ],
)
def test_a_silent_rank_is_named_wherever_it_is(begin, mode, place, rank, ranks):
    """Once; the end comes early, and the run can go on."""
    result = begin(mode, place, STOP, rank, ranks, "--peer-timeout 3")
    assert result.stderr.count("has sent nothing for") == 1, str(result)
    assert f"mpilayer: rank {rank} has sent nothing for" in result.stderr, str(result)
    assert "mpilayer resume" in result.stderr
    assert "Traceback" not in result.stderr
    if not launch.is_open_mpi():
        assert result.code == 75, str(result)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "ranks"), [("lockstep", 2), ("greedy", 3), ("async", 3)]
)
def test_a_rank_that_has_ended_its_layers_is_not_silent(begin, schedule, ranks):
    """The topmost layer goes on for longer than silence is borne."""
    slowly = "calls = 2; time.sleep(0.25)"
    options = f"--epochs 1,1,20 --schedule {schedule} --peer-timeout 2"
    result = begin("short", "training", slowly, ranks - 1, ranks, options)
    assert result.ok().seconds > 5


# One step of Python after the other, but nothing of MPI.
BUSY = "end = time.time() + 6\n        while time.time() < end: pass"
# Ctrl-Z and fg: all were stopped, and nobody was silent.
NAP = "import subprocess; me = os.getpid(); "
NAP += "subprocess.Popen(['sh', '-c', f'sleep 3; kill -CONT {me}']); "
NAP += STOP


@pytest.mark.parametrize(
    ("place", "act", "rank", "patience", "least"),
    [("evaluation", BUSY, 0, 2, 6), ("training", NAP, 1, 60, 3)],
    ids=["computes for long", "was stopped for long"],
)
def test_who_is_not_silent(begin, place, act, rank, patience, least):
    result = begin("short", place, act, rank, 2, f"--peer-timeout {patience}")
    assert result.ok().seconds > least
