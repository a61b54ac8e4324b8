"""Trainings of every kind that are broken off, and what they come to in the end."""

import json
import operator
import shutil
import signal
from functools import cache
from pathlib import Path

from benchmarks import traces
from mpilayer.interrupt import EXIT_RESUME
from tests.support import launch
from tests.support.command import said

# Every epoch, step or evaluation takes long enough for a signal to come in between.
SLOW = """
from mpilayer.train.layer import LayerState
from mpilayer.train.backpropagation import Backpropagation
from mpilayer.train.sparse.cost import ShardedCost

def slow(cls, name):
    original = getattr(cls, name)

    def slowly(self, *arguments):
        time.sleep({seconds})
        return original(self, *arguments)

    setattr(cls, name, slowly)

for cls, name in ((LayerState, "train_epoch"), (Backpropagation, "step")):
    slow(cls, name)
slow(ShardedCost, "__call__")
"""
# Does something before the Nth call of a function on one rank.
BEFORE = """
from {module} import {owner}
original, calls = {owner}.{name}, 0

def call(*arguments, **options):
    global calls
    calls += 1
    if rank == {rank} and calls == {number}:
        {act}
    return original(*arguments, **options)

{owner}.{name} = call
"""
PLACES = {
    "training": ("mpilayer.train.layer", "LayerState", "train_epoch", 3),
    "minibatch": ("mpilayer.models.rbm", "_RBMSlice", "rise", 20),
    "fine-tuning": ("mpilayer.train.backpropagation", "Backpropagation", "step", 7),
    "sparse": ("mpilayer.models.sparse", "SparseAutoencoder", "fire", 20),
    "ended": ("mpilayer.parallel.notice", "Notice", "close", 1),
    "evaluation": ("mpilayer.train.evaluate", "PCA", "error", 1),
    "closing": ("mpilayer.parallel.watchdog", "Pulse", "close", 1),
}
KILL = "os.kill(os.getpid(), 9)"
STOP = "os.kill(os.getpid(), 19)"
OPTIONS = {
    "pretrain": "--layers 14,10,8 --minibatch 50 --epochs 12 --threads 1",
    "finetune": "--epochs 8 --minibatch 50 --threads 1 --optimizer adam",
    "sparse": "--hidden 5 --output linear --sparsity-weight 0.5 --sparsity-target 0.1 "
    "--minibatch 50 --kl exact --dtype float64 --evaluations 30 --measure-every 0",
}
# Whose lines tell how far a training is.
METRICS = {"pretrain": "layer-3", "finetune": "finetune", "sparse": "sparse"}
OFTEN = "--checkpoint-every 1"


class Trainings:
    """Trainings of every kind on two data sets, the same ones again and again.

    ``folder`` is for runs that nobody breaks off.
    """

    def __init__(self, folder, dense, patches):
        self.folder, self.data = folder, {"pretrain": dense, "sparse": patches}
        self.whole = cache(self._whole)

    def line(self, kind, run, options=""):
        """Return the command line; fine-tuning gets a stack to begin with."""
        if kind == "finetune" and not run.exists():
            shutil.copytree(self.whole("pretrain"), run)
        where = run if kind == "finetune" else f"{self.data[kind]} --run {run}"
        return f"{kind} {where} {OPTIONS[kind]} {options}"

    def _whole(self, kind, ranks=0, options=""):
        run = self.folder / f"{len(list(self.folder.iterdir()))}"
        said(self.folder, self.line(kind, run, options), ranks=ranks)
        return run

    def started(self, kind, run, options="", **how):
        """Start a training; see ``launch.started``."""
        words = self.line(kind, run, options).split()
        return launch.started(*words, **{"limit": 60, **how})

    def broken(self, kind, run, options="", **how):
        """Break a new training off, and return its run."""
        interrupt(self.line(kind, run, options), run, METRICS[kind], **how)
        return run

    def assert_whole(self, run, kind="pretrain", ranks=0):
        """Demand all that an unbroken run on so many ranks has, to the bit."""
        assert_same(run, self.whole(kind, ranks))


def acting(place: str, act: str, rank: int) -> tuple[str, ...]:
    """Return the program in which a rank does something at a place, once."""
    module, owner, name, number = PLACES[place]
    where = {"module": module, "owner": owner, "name": name, "number": number}
    return launch.driver(BEFORE.format(**where, rank=rank, act=act))


def slowly(seconds: float = 0.03) -> tuple[str, ...]:
    """Return the program with slow epochs, steps and evaluations."""
    return launch.driver(SLOW.format(seconds=seconds))


def interrupt(line, run, metrics, lines=3, number=signal.SIGTERM, ranks=0):
    """Start, send a signal when there are so many lines, and demand a good end."""
    options = {"ranks": ranks, "program": slowly(), "limit": 60}
    with launch.started(*line.split(), **options) as job:
        job.wait_for(run / "metrics" / f"{metrics}.jsonl", lines)
        job.signal(number)
        result = job.finish()
    assert_saved(result, run, number.name)


def assert_saved(result: launch.Result, run: Path, reason: str) -> None:
    """Demand the exit code, and one line that says how to go on."""
    assert result.code == EXIT_RESUME, str(result)
    line = f"mpilayer: saved and stopped because of {reason}; go on with"
    assert result.stderr.count(line) == 1, str(result)
    assert result.stderr.count(f"'mpilayer resume {run}'") == 1
    assert "Traceback" not in result.stderr
    assert not [line for line in result.stdout.splitlines() if "mpiexec" not in line]


def assert_same(run: Path, expected: Path, bits: bool = True) -> None:
    """Demand the files, records and weights of another run.

    Without ``bits`` weights may be rounded otherwise, as sums over other ranks are.
    """
    runs = (run, expected)
    # Who has saved more often has the last checkpoint but one.
    files = ({f for f in traces.files(r) if "previous" not in f} for r in runs)
    assert operator.eq(*files)
    metrics, weights = map(traces.metrics, runs), map(traces.weights, runs)
    if bits:
        assert operator.eq(*metrics)
        assert not traces.different(*weights)
    else:
        found, other = ({k: len(v) for k, v in m.items()} for m in metrics)
        assert found == other
        assert traces.distance(*weights) < 1e-4
    assert operator.eq(*((r / "complete").read_text() for r in runs))
    summaries = [json.loads((r / "summary.json").read_text()) for r in runs]
    for key in ("epochs", "finetune_best_epoch", "iterations", "stopped_by"):
        assert operator.eq(*(summary.get(key) for summary in summaries))
