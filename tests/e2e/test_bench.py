"""Benchmarks of the sparse autoencoder: each kind once, with tiny sizes."""

import json

import pytest

from mpilayer.bench.modes import MODES, ONE_RANK
from mpilayer.bench.rows import write_patches
from mpilayer.bench.scaling import label
from tests.support import launch


@pytest.fixture(scope="module")
def few_patches(tmp_path_factory):
    """Give a data set of patches that tests only read."""
    return write_patches(None, 120, tmp_path_factory.mktemp("patches"))


def read(result):
    """Return what was printed as JSON."""
    return json.loads(result.ok().stdout)


def test_the_cost_beside_rivals(few_patches):
    options = ("--rows", 100, "--rounds", 1, "--data", few_patches)
    program = ("-m", "benchmarks.rivals")
    result = launch.run("cost", *options, program=program).ok()
    for name in ("gemm", "mpilayer average", "mpilayer float64", "numpy float64"):
        assert name in result.stdout, result


def test_cost_on_ranks():
    launch.require_mpi()
    options = ("--rows", 100, "--ranks", 2, "--rounds", 3)
    result = read(launch.run("bench", "cost", *options, "--json"))
    assert list(result["seconds"]) == [*MODES, ONE_RANK]
    assert result["base"] == "average"
    assert all(len(s) == 3 and min(s) > 0 for s in result["seconds"].values())


def test_sparse(few_patches):
    launch.require_mpi()
    options = ("--sizes", "40", "--evaluations", 5, "--rounds", 1)
    arguments = ("bench", "sparse", "--data", few_patches, *options)
    result = read(launch.run(*arguments, "--json"))
    assert list(result["seconds"]) == [label(40, ranks) for ranks in (1, 2)]
    assert set(result["evaluations_done"].values()) == {5}
    assert list(result["median_seconds"]) == ["40"]
    assert result["speed_up"]["40"]["1"] == 1
    assert result["paper"]["desktop"]["1000"]["8"] == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cost", "--rows", 0), ("rows must be at least 1", "--rows")),
        (("cost", "--ranks", "1,2"), ("one number of ranks", "--ranks")),
        (("cost", "--rows", 121, "--ranks", 2), ("121 training rows", "has 120")),
        (("sparse", "--sizes", "10,121"), ("121 training rows", "has 120")),
        (("sparse", "--sizes", "0"), ("sizes must be at least 1", "--sizes")),
        (("sparse", "--ranks", "1,x"), ("must be a list of numbers", "--ranks")),
        (("sparse", "--kl", "median"), ("unknown kl 'median'", "exact-fused")),
        (("sparse", "--evaluations", 0), ("evaluations must be", "--evaluations")),
    ],
)
def test_mistakes(few_patches, arguments, words):
    result = launch.run("bench", *arguments, "--data", few_patches)
    launch.assert_user_error(result, *words)
