"""What a rank takes: next to no time while it waits, a bounded amount of memory."""

import re
import sys

import numpy as np
import pytest

from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from tests.support import launch
from tests.support.command import refuse, said, told
from tests.support.small import write_pixels

PAUSE = 2.0

# Rank 0 rests before a call; what rank 1 uses from a mark to a line is told.
REST = f"""
from mpilayer.train.backpropagation import Backpropagation
from mpilayer.train.layer import LayerState
from mpilayer.train.pretrain import Pipeline

def now():
    return time.process_time(), time.perf_counter()

def tell(began):
    used, passed = (b - a for a, b in zip(began, now()))
    print(f"used {{used:.4f}} of {{passed:.4f}}", file=sys.stderr)

make, train, step = Pipeline.__init__, LayerState.train_epoch, Backpropagation.step
steps = 0

def init(self, *arguments):
    global began
    make(self, *arguments)
    began = now()

def train_epoch(self, *arguments):
    if self.epoch == 0:
        time.sleep({PAUSE}) if rank == 0 else tell(began)
    train(self, *arguments)

def second_step(self, *minibatch):
    global steps
    steps += 1
    if rank == 0 and steps == 2:
        time.sleep({PAUSE})
    start = now()
    result = step(self, *minibatch)
    if rank == 1 and steps == 2:
        tell(start)
    return result

Pipeline.__init__, LayerState.train_epoch = init, train_epoch
Backpropagation.step = second_step
"""

MEMORY = """
import atexit, resource

def tell():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.write(2, f"rank {rank} peak {peak}\\n".encode())

atexit.register(tell)
"""


def test_a_waiting_rank_leaves_its_core(tiny, tmp_path):
    """In pre-training, and for the gradients of a minibatch."""
    layers = "--schedule greedy --layers 8,4 --epochs 2 --minibatch 50"
    for line in (f"pretrain {tiny} --run run {layers}", "finetune run --epochs 1"):
        text = told(tmp_path, line, ranks=2, program=launch.driver(REST))
        used, passed = map(float, re.search(r"used (\S+) of (\S+)", text).groups())
        assert passed > 0.9 * PAUSE
        assert used < 0.05 * passed


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


def peaks(folder, line):
    """Carry a line out on two ranks; return the peak memory of each, in bytes."""
    text = told(folder, line, ranks=2, program=launch.driver(MEMORY))
    unit = 1 if sys.platform == "darwin" else 1024
    found = re.findall(r"rank (\d+) peak (\d+)", text)
    return {int(rank): unit * int(peak) for rank, peak in found}


@pytest.mark.parametrize("schedule", ["lockstep", "async"])
def test_memory_of_every_rank(big, tmp_path, schedule):
    layers = f"--layers 200,100 --epochs 1 --threads 1 --schedule {schedule}"
    found = peaks(tmp_path, f"pretrain {big} --run run {layers}")
    rows, columns = 20_000 + 2_000, (784, 200, 100)
    for rank in range(2):
        data, outputs = (4 * rows * n for n in columns[rank : rank + 2])
        assert 20e6 < found[rank] < 2 * data + 2 * outputs + 200e6, found
    if schedule == "async":
        return
    found = peaks(tmp_path, "finetune run --epochs 1 --optimizer adam --minibatch 500")
    # A rank has its share of the rows only; it keeps no outputs of them.
    for peak in found.values():
        assert peak < 2 * 4 * rows * 784 / 2 + 200e6


# Of the address space, whatever the program has taken of it until it trains.
ROOM = 40 << 20
LIMIT = f"""
import resource, threading
import numpy as np
import mpilayer.cli.training, mpilayer.cli.use, mpilayer.runs.finetune
import mpilayer.runs.pretrain
from mpilayer import memory

np.ones((500, 500), "f") @ np.ones((500, 500), "f")
threading.stack_size(1 << 18)  # of several threads, each has 8 MB of addresses
most = memory._own_size() + {ROOM}
resource.setrlimit(resource.RLIMIT_AS, (most, most))
"""


def test_data_four_times_as_large_as_memory(tmp_path):
    x = np.random.default_rng(1).random((420_000, 100), dtype=np.float32)
    assert x.nbytes > 4 * ROOM
    splits = {"train": Split(x), "validation": Split(x[:1000])}
    write_dataset(tmp_path / "x.h5", splits, name="x", origin="made up", scale=1.0)
    # Else every thread would have 64 MB of addresses, which it does not use.
    options = {
        "program": launch.driver(LIMIT),
        "variables": {"MALLOC_ARENA_MAX": "1"},
    }
    pretrain = "pretrain x.h5 --run run --layers 8,4 --epochs 1 --minibatch 1000"
    refuse(tmp_path, f"{pretrain} --memory all", "must fit into memory", **options)
    refuse(tmp_path, f"{pretrain} --memory 60M", "--memory must leave", **options)
    for line in (
        f"{pretrain} --memory 16M",
        "finetune run --epochs 1 --minibatch 1000 --memory 16M",
        "evaluate run --split train",
        "encode run x.h5 -o codes.h5",
    ):
        said(tmp_path, line, **options)
    with Dataset.open(tmp_path / "codes.h5") as codes:
        assert codes.n_samples("train") == len(x)
    assert not (tmp_path / "run" / "scratch").exists()


@pytest.fixture(scope="module")
def million(shared_images, tmp_path_factory):
    """Give a million patches."""
    path = tmp_path_factory.mktemp("million") / "patches.h5"
    said(path.parent, f"data patches {shared_images} -o {path} --count 1000000")
    return path


def test_memory_of_a_million_patches(million, tmp_path):
    found = peaks(tmp_path, f"sparse {million} --run run --evaluations 2")
    for peak in found.values():
        assert 20e6 < peak < 500e6  # of them 128 MB of rows, 60 MB of activations


SMALL_SHM = """
real = os.statvfs

def statvfs(path):
    found = list(real(path))
    found[4] = 100_000 // found[1]  # blocks that users may have
    return os.statvfs_result(found) if str(path) == "/dev/shm" else real(path)

os.statvfs = statvfs
"""


def test_ranks_that_would_share_more_than_there_is(tmp_path):
    """Found while they write, it would end them without a word."""
    write_pixels(tmp_path / "data.h5")
    program = launch.driver(SMALL_SHM)
    words = ("/dev/shm must hold", "MB, and 0.0983 MB are free", "at most 1 rank")
    line = "pretrain data.h5 --run run --layers 128 --epochs 1"
    refuse(tmp_path, line, *words, ranks=2, program=program)
    # With a layer for itself a rank shares nothing.
    said(tmp_path, f"{line} --layers 128,9", ranks=2, program=program)
