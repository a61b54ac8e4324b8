"""Small data sets and runs for the tests that start mpilayer."""

import shutil
from pathlib import Path

import pytest

from tests.support.breaks import Trainings
from tests.support.command import said
from tests.support.small import write_patches, write_pixels

LAYERS = (14, 10, 8, 4)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """Give a data set of patches that tests only read."""
    return write_patches(tmp_path_factory.mktemp("data") / "toy.h5")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Give a small data set that tests only read."""
    return write_pixels(tmp_path_factory.mktemp("data") / "tiny.h5")


@pytest.fixture(scope="session")
def pretrained(tiny, tmp_path_factory):
    """Give a pre-trained run of four layers that tests only read."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    layers = ",".join(map(str, LAYERS))
    options = f"--layers {layers} --epochs 2 --minibatch 50 --threads 1"
    said(run.parent, f"pretrain {tiny} --run run {options}")
    return run


@pytest.fixture
def run_copy(pretrained, tmp_path):
    """Give a pre-trained run that the test may change."""
    return Path(shutil.copytree(pretrained, tmp_path / "run"))


@pytest.fixture(scope="session")
def trainings(tiny, toy, tmp_path_factory):
    """Give trainings of every kind that can be broken off."""
    return Trainings(tmp_path_factory.mktemp("whole"), tiny, toy)
