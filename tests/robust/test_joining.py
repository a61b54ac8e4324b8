"""Ranks that end before MPI has joined them: all end soon, and somebody says why."""

import random
import sys
from pathlib import Path

import pytest

from benchmarks import signals
from tests.support import launch
from tests.support.small import write_pixels

SOON = 15.0
MPILAYER = (sys.executable, "-m", "mpilayer")


@pytest.fixture
def line(tmp_path):
    """Give a function that makes a command line with a file of settings."""
    data = write_pixels(tmp_path / "tiny.h5")
    settings = tmp_path / "ok.toml"
    settings.write_text("[pretrain]\nlayers = [8, 6]\nepochs = 1\n")

    def make(name="ok.toml"):
        options = ["--run", tmp_path / "run", "--config", tmp_path / name]
        return [*MPILAYER, "pretrain", data, *options]

    return make


def together(*commands):
    """Launch one process of each command, and demand that all end soon."""
    result = launch.run(ranks=commands, limit=60)
    assert result.seconds < SOON, str(result)
    return result


def test_what_is_launched_in_two_parts_is_one_job(line):
    together(line(), line()).ok()


@pytest.mark.parametrize("bad", [(1,), (0, 1)])
def test_a_mistake_on_some_ranks_is_told_once(line, bad):
    names = ["missing.toml" if rank in bad else "ok.toml" for rank in (0, 1)]
    result = together(*map(line, names))
    launch.assert_user_error(result, "missing.toml must be a readable file")


def test_of_different_mistakes_the_first_one_is_told(line):
    result = together(line("missing.toml"), [*line(), "--layer", 3])
    launch.assert_user_error(result, "missing.toml must be a readable file")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_broken_installation_of_one_rank(line, tmp_path, rank):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "numpy.py").write_text("raise ImportError('broken for a test')")
    paths = f"PYTHONPATH={broken}:{launch.ROOT}"
    lines = [line(), line()]
    lines[rank] = ["env", paths, *lines[rank]]
    result = together(*lines)
    assert result.code not in (0, 2), str(result)
    assert f"rank {rank} failed; ending all ranks" in result.stderr
    assert "ImportError: broken for a test" in result.stderr


@pytest.mark.parametrize(("program", "rank"), [("true", 0), ("false", 1)])
def test_a_process_that_ends_early(line, program, rank):
    if program == "true" and launch.is_open_mpi():
        pytest.skip("Open MPI lets a process that ends well keep the others waiting")
    lines = [line(), line()]
    lines[rank] = [program]
    result = together(*lines)
    assert result.code != 0, str(result)
    if not launch.is_open_mpi():  # whose launcher says so itself
        said = "1 of 2 processes of this host ended before MPI joined the ranks"
        assert result.stderr.count(said) == 1, str(result)


def interrupted(line, seconds):
    """Return a command that gets SIGINT so soon after its start."""
    signal = f"(sleep {seconds:.3f}; kill -INT $$ 2>/dev/null) &"
    return ["sh", "-c", f'{signal} exec "$@"', "sh", *line]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", range(4))
def test_an_interrupt_of_one_rank_in_its_first_moments(line, number):
    rng = random.Random(number)
    lines, rank = [line(), line()], rng.randrange(2)
    lines[rank] = interrupted(lines[rank], rng.uniform(0, 0.1))
    result = together(*lines)
    assert result.code != 0, str(result)
    quiet = "Traceback" not in result.stderr
    assert quiet or signals.python_starts(result.stderr), str(result)
