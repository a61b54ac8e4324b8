"""Benchmarks of the sparse autoencoder: each kind once, with tiny sizes."""

import pytest

from mpilayer.bench.modes import MODES, ONE_RANK
from mpilayer.bench.rows import write_patches
from mpilayer.bench.scaling import label
from tests.support import launch
from tests.support.command import found, refuse, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder with few patches that tests only read."""
    folder = tmp_path_factory.mktemp("bench")
    write_patches(None, 120, folder).rename(folder / "few.h5")
    return folder


def test_the_cost_beside_rivals(folder):
    line = "cost --rows 100 --rounds 1 --data few.h5"
    text = said(folder, line, program=("-m", "benchmarks.rivals"))
    for name in ("gemm", "mpilayer average", "mpilayer float64", "numpy float64"):
        assert name in text


def test_cost_on_ranks(folder):
    launch.require_mpi()
    result = found(folder, "bench cost --rows 100 --ranks 2 --rounds 3")
    assert list(result["seconds"]) == [*MODES, ONE_RANK]
    assert result["base"] == "average"
    assert all(len(s) == 3 and min(s) > 0 for s in result["seconds"].values())


def test_sparse(folder):
    launch.require_mpi()
    options = "--data few.h5 --sizes 40 --evaluations 5 --rounds 1"
    result = found(folder, f"bench sparse {options}")
    assert list(result["seconds"]) == [label(40, ranks) for ranks in (1, 2)]
    assert set(result["evaluations_done"].values()) == {5}
    assert list(result["median_seconds"]) == ["40"]
    assert result["speed_up"]["40"]["1"] == 1
    assert result["paper"]["desktop"]["1000"]["8"] == 16


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cost --rows 0", ("--rows must be at least 1", "got 0. Give")),
        ("cost --ranks 1,2", ("one number of ranks", "--ranks")),
        ("cost --rows 121 --ranks 2", ("121 training rows", "has 120")),
        ("sparse --sizes 10,121", ("121 training rows", "has 120")),
        ("sparse --sizes 0", ("--sizes must be at least 1", "got (0,)")),
        ("sparse --ranks 1,x", ("must be a list of numbers", "--ranks")),
        ("sparse --evaluations 0", ("evaluations must be", "--evaluations")),
    ],
)
def test_mistakes(folder, line, words):
    refuse(folder, f"bench {line} --data few.h5", *words)
