"""Ranks that fall silent or die: the job ends, and says which. Others it lets live."""

import pytest

from tests.support import launch
from tests.support.breaks import KILL, STOP, acting
from tests.support.small import write_pixels

LAYERS = ("--layers", "8,6,4", "--minibatch", 50, "--epochs")
SPARSE = ("--hidden", 6, "--evaluations")
PRETRAIN = ("pretrain", "{data}", *LAYERS)
ENDLESS = 10**6
MODES = {
    "lockstep": (*PRETRAIN, ENDLESS, "--schedule", "lockstep"),
    "greedy": (*PRETRAIN, f"4,4,{ENDLESS}", "--schedule", "greedy"),
    "async": (*PRETRAIN, ENDLESS, "--schedule", "async"),
    "short": (*PRETRAIN, 2),
    "finetune": ("finetune", "{pretrained}", "--epochs", ENDLESS),
    "sparse": ("sparse", "{data}", *SPARSE, ENDLESS),
    "compare": ("compare", "{data}", *SPARSE, ENDLESS),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Give a small data set."""
    return write_pixels(tmp_path_factory.mktemp("data") / "tiny.h5")


@pytest.fixture
def begin(data, tmp_path):
    """Give a function that runs a mode, in which a rank acts at a place."""

    def start(mode, place, act, rank, ranks, *options):
        run = tmp_path / "run"
        if mode == "finetune":
            launch.run("pretrain", data, "--run", run, *LAYERS, 1, "--threads", 1).ok()
        known = {"{data}": data, "{pretrained}": run}
        line = [known.get(word, word) for word in MODES[mode]]
        line += ["--run", run] * (mode != "finetune")
        return launch.run(
            *line, *options, ranks=ranks, program=acting(place, act, rank)
        )

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "place", "rank", "ranks"),
    [
        ("lockstep", "training", 0, 2),
        # The others wait, or have ended, meanwhile.
        ("greedy", "training", 0, 3),
        ("greedy", "training", 1, 3),
        ("async", "training", 1, 2),
        ("finetune", "fine-tuning", 0, 2),
        ("compare", "sparse", 1, 2),
        ("short", "ended", 0, 2),
        ("short", "evaluation", 1, 2),
        ("short", "closing", 0, 2),
    ],
)
def test_a_silent_rank_is_named_wherever_it_is(begin, mode, place, rank, ranks):
    """Once; the end comes early, and the run can go on."""
    result = begin(mode, place, STOP, rank, ranks, "--peer-timeout", 3)
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
    epochs = ["--epochs", "1,1,20", "--schedule", schedule]
    options = [*epochs, "--peer-timeout", 2]
    result = begin("short", "training", slowly, ranks - 1, ranks, *options)
    assert result.ok().seconds > 5


def test_a_rank_that_computes_for_long_is_not_silent(begin):
    """One step of Python after the other, but nothing of MPI."""
    busy = "end = time.time() + 6\n        while time.time() < end: pass"
    result = begin("short", "evaluation", busy, 0, 2, "--peer-timeout", 2)
    assert result.ok().seconds > 6


def test_who_was_stopped_for_long_does_not_blame_others(begin):
    """Ctrl-Z and fg: all were stopped, and nobody was silent."""
    nap = "import subprocess; me = os.getpid(); "
    nap += "subprocess.Popen(['sh', '-c', f'sleep 3; kill -CONT {me}']); "
    nap += STOP
    result = begin("short", "training", nap, 1, 2, "--peer-timeout", 60)
    result.ok()


@pytest.mark.parametrize(
    ("mode", "place"), [("lockstep", "training"), ("sparse", "sparse")]
)
def test_a_dead_rank_ends_the_job(begin, mode, place):
    result = begin(mode, place, KILL, 1, 3)
    assert result.code not in (0, 2), str(result)
    assert result.seconds < 40
    # A launcher may end everything before it has passed the sentinel's words on.
    if "has died" in result.stderr:
        assert "mpilayer: rank 1 (process " in result.stderr, str(result)
