"""What a rank takes: next to no time while it waits, a bounded amount of memory."""

import re
import sys

import numpy as np
import pytest

from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from tests.support import launch

PAUSE = 2.0

# Rank 0 rests in the middle of its work; the others tell what they used meanwhile.
GREEDY = f"""
from mpilayer.train.layer import LayerState
from mpilayer.train.pretrain import Pipeline

def clocks():
    return time.process_time(), time.perf_counter()

make, train = Pipeline.__init__, LayerState.train_epoch

def init(self, *arguments):
    global began
    make(self, *arguments)
    began = clocks()

def train_epoch(self, *arguments):
    if rank == 0 and self.epoch == 0:
        time.sleep({PAUSE})
    if rank == 1 and self.epoch == 0:
        cpu, wall = (b - a for a, b in zip(began, clocks()))
        print(f"used {{cpu:.4f}} of {{wall:.4f}}", file=sys.stderr)
    train(self, *arguments)

Pipeline.__init__, LayerState.train_epoch = init, train_epoch
"""

# One rank is late for the gradients of a minibatch.
FINETUNE = f"""
from mpilayer.train.finetune import FinetuneState
original = FinetuneState.step
steps = 0

def step(self, *minibatch):
    global steps
    steps += 1
    if rank == 0 and steps == 2:
        time.sleep({PAUSE})
    began = time.process_time(), time.perf_counter()
    result = original(self, *minibatch)
    if rank == 1 and steps == 2:
        cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
        print(f"used {{cpu:.4f}} of {{wall:.4f}}", file=sys.stderr)
    return result

FinetuneState.step = step
"""

MEMORY = """
import atexit, resource

def tell():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.write(2, f"rank {rank} peak {peak}\\n".encode())

atexit.register(tell)
"""


def assert_idle(result):
    """Demand that a rank waited, with less than 5 % of a core."""
    used, passed = map(float, re.search(r"used (\S+) of (\S+)", result.stderr).groups())
    assert passed > 0.9 * PAUSE
    assert used < 0.05 * passed


def test_a_waiting_rank_leaves_its_core_in_pretraining(tiny, tmp_path):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", "--schedule", "greedy"]
    options = ["--layers", "8,4", "--epochs", 2, "--minibatch", 50]
    program = launch.driver(GREEDY)
    assert_idle(launch.run(*arguments, *options, ranks=2, program=program).ok())


def test_a_waiting_rank_leaves_its_core_in_finetuning(run_copy):
    program = launch.driver(FINETUNE)
    arguments = ["finetune", run_copy, "--epochs", 1]
    assert_idle(launch.run(*arguments, ranks=2, program=program).ok())


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Give a data set that matters for memory: 63 MB of training rows."""
    rng = np.random.default_rng(1)
    sizes = {"train": 20_000, "validation": 2_000, "test": 2_000}
    splits = {
        name: Split(rng.random((n, 784), dtype=np.float32)) for name, n in sizes.items()
    }
    path = tmp_path_factory.mktemp("big") / "big.h5"
    write_dataset(path, splits, name="big", origin="made up", scale=1.0)
    return path


def peaks(result):
    """Return the peak memory of each rank, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = re.findall(r"rank (\d+) peak (\d+)", result.stderr)
    return {int(rank): unit * int(peak) for rank, peak in found}


@pytest.mark.parametrize("schedule", ["lockstep", "async"])
def test_memory_of_every_rank(big, tmp_path, schedule):
    run = tmp_path / "run"
    arguments = ["pretrain", big, "--run", run, "--schedule", schedule]
    options = ["--layers", "200,100", "--epochs", 1, "--threads", 1]
    program = launch.driver(MEMORY)
    result = launch.run(*arguments, *options, ranks=2, program=program).ok()
    found = peaks(result)
    rows, columns = 20_000 + 2_000, (784, 200, 100)
    for rank in range(2):
        data, outputs = (4 * rows * n for n in columns[rank : rank + 2])
        assert 20e6 < found[rank] < 2 * data + 2 * outputs + 200e6, found
    if schedule == "async":
        return
    options = ["--epochs", 1, "--optimizer", "adam", "--minibatch", 500]
    result = launch.run("finetune", run, *options, ranks=2, program=program).ok()
    # A rank has its share of the rows only; it keeps no outputs of them.
    for peak in peaks(result).values():
        assert peak < 2 * 4 * rows * 784 / 2 + 200e6


@pytest.fixture(scope="module")
def million(shared_images, tmp_path_factory):
    """Give a million patches."""
    path = tmp_path_factory.mktemp("million") / "patches.h5"
    launch.run("data", "patches", shared_images, "-o", path, "--count", 1_000_000).ok()
    return path


@pytest.mark.parametrize("kl", ["average", "exact"])
def test_memory_of_a_million_patches(million, tmp_path, kl):
    arguments = ["sparse", million, "--run", tmp_path / "run", "--kl", kl]
    options = {"ranks": 2, "program": launch.driver(MEMORY)}
    result = launch.run(*arguments, "--evaluations", 2, **options).ok()
    for peak in peaks(result).values():
        assert 20e6 < peak < 500e6  # of them 128 MB of rows, 60 MB of activations
