"""What all tests share: one BLAS thread, and skips that say their reason."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

# Before NumPy loads: sums in the same order everywhere, and no crowd of threads.
for _name in ("OMP", "OPENBLAS", "MKL", "BLIS"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"
IMAGES = MNIST.with_name("olshausen_images.h5")


def pytest_configure(config):
    """Make the marker known where pytest-mpi is not installed."""
    config.addinivalue_line("markers", "mpi: runs on several ranks, with --with-mpi")


def pytest_collection_modifyitems(items):
    """Begin with the files of slow tests: side by side, none is left for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item):
    """Skip what this machine lacks."""
    if item.get_closest_marker("shared") and not MNIST.is_dir():
        pytest.skip("needs the MNIST files in ../shared/data/mnist")
    if item.get_closest_marker("slurm") and not _slurm_answers():
        pytest.skip("needs a live SLURM controller: scontrol ping finds none")


@pytest.fixture(scope="session")
def shared_mnist():
    """Give the folder of the full MNIST set."""
    if not MNIST.is_dir():
        pytest.skip("needs the MNIST files in ../shared/data/mnist")
    return MNIST


@pytest.fixture(scope="session")
def shared_images():
    """Give the file of Olshausen's whitened images."""
    if not IMAGES.is_file():
        pytest.skip("needs ../shared/data/olshausen_images.h5")
    return IMAGES


@cache
def _slurm_answers() -> bool:
    if shutil.which("scontrol") is None:
        return False
    command = ["scontrol", "ping"]
    try:
        ping = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return False
    return ping.returncode == 0 and "UP" in ping.stdout
