"""Pre-training with several ranks to a layer, with the real command line."""

import shlex
import shutil
import signal
from pathlib import Path

import pytest

from mpilayer.runs.directory import RunDirectory
from tests.support import launch
from tests.support.breaks import OFTEN, acting, assert_same, assert_saved, slowly
from tests.support.command import call, refuse, said, told

OPTIONS = "--layers 195,130,70 --slices 3,2,1 --minibatch 50 --epochs 8 --threads 1"
MANY = "--layers 195,195,195,195 --slices 3 --minibatch 50 --epochs 2 --threads 1"


@pytest.fixture(scope="module")
def line(tiny):
    """Give a command that trains the run ``run`` of the folder."""
    return f"pretrain {tiny} --run run {OPTIONS}"


@pytest.fixture(scope="module")
def whole(line, tmp_path_factory):
    """Give the run of one rank, which all others must be like."""
    folder = tmp_path_factory.mktemp("whole")
    said(folder, line)
    return folder / "run"


def test_four_teams_of_three(tiny, tmp_path):
    """On fewer cores than ranks, too."""
    line, layout = f"pretrain {tiny} {MANY} --run", "--layout '1:3 2:3 3:3 4:3'"
    said(tmp_path, f"{line} one")
    said(tmp_path, f"{line} teams {layout}", ranks=12)
    assert_same(tmp_path / "teams", tmp_path / "one")


# --- broken off


@pytest.mark.parametrize(
    ("number", "rank", "ranks", "then"),
    [
        (signal.SIGTERM, None, 4, 6),
        (signal.SIGUSR1, 1, 6, 2),
        (None, None, 4, 0),
    ],
)
def test_interrupted(line, whole, tmp_path, number, rank, ranks, then):
    """By a signal to the launcher or to one follower; or by the clock."""
    run, program, more = tmp_path / "run", slowly(0.2), ""
    reason = "the time limit" if number is None else number.name
    if rank is not None:
        program = acting("training", f"os.kill(os.getpid(), {int(number)})", rank)
    if number is None:
        more = "--max-time 1.5"
    words = f"{line.replace('run run', f'run {run}')} {more}"
    with launch.started(*shlex.split(words), ranks=ranks, program=program) as job:
        if number and rank is None:
            job.wait_for(run / "metrics" / "layer-3.jsonl", 2)
            job.signal(number)
        assert_saved(job.finish(), run, reason)
    assert "going on after" in told(tmp_path, "resume run", ranks=then)
    assert_same(run, whole)


@pytest.fixture
def half(line, tmp_path):
    """Give a run that another launch has left, with a layout of its own."""
    act = "os.kill(os.getpid(), 15)"
    result = call(
        tmp_path,
        f"{line} {OFTEN} --layout '1:2 2-3:1'",
        ranks=3,
        program=acting("training", act, 1),
    )
    assert_saved(result, Path("run"), "SIGTERM")
    return tmp_path / "run"


def test_how_a_run_goes_on(line, whole, half, tmp_path):
    """With the slices that it has, on ranks that can have one, in any layout."""
    for wrong, words in {
        "mpiexec -n 7 resume run": ("7 ranks for 6 slices", "at most 6 ranks"),
        f"{line} --resume auto --layout 1:2": ("every layer from 1 to 3 once",),
        f"{line} --resume auto --slices 2": ("--slices was 3,2,1, is 2,2,2",),
    }.items():
        refuse(tmp_path, wrong, *words)
    for number, going_on in enumerate(
        [
            "resume run",
            "mpiexec -n 2 resume run",
            f"mpiexec -n 4 {line} --resume auto --slices 0,2,0 --layout '1:2 2-3:2'",
        ]
    ):
        copy = shutil.copytree(half, tmp_path / f"{number}" / "run")
        assert "going on after" in told(copy.parent, going_on)
        assert_same(copy, whole)


def test_a_run_from_before_there_were_slices(tiny, tmp_path):
    line = f"pretrain {tiny} --layers 130,70 --minibatch 50 --epochs 4 --threads 1"
    said(tmp_path, f"{line} --run whole")
    act = "os.kill(os.getpid(), 15)"
    call(tmp_path, f"{line} --run run", ranks=1, program=acting("training", act, 0))
    directory = RunDirectory(tmp_path / "run")
    settings = directory.read_config()["pretrain"]
    old = {k: v for k, v in settings.items() if k not in ("slices", "layout")}
    assert len(old) == len(settings) - 2
    directory.write_config({"pretrain": old})
    refuse(tmp_path, "mpiexec -n 3 resume run", "3 ranks for 2 slices of 2 layers")
    said(tmp_path, "mpiexec -n 2 resume run")
    assert_same(tmp_path / "run", tmp_path / "whole")
