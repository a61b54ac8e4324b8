"""Whole runs, each in a launch of its own, in turn: ranks, threads and rivals."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.bench import rivals
from mpilayer.bench.pairs import Comparison, Say, take_turns
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.errors import CommunicationError, ConfigError
from mpilayer.rng import stream


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes
    ----------
    data : Path
        A data set; see ``bench_data``.
    folder : Path
        Where runs may be made; they replace one another.
    layers : tuple of int
        Hidden units.
    epochs : int
        Epochs of each layer, or of fine-tuning.
    minibatch : int
        Rows.
    """

    data: Path
    folder: Path
    layers: tuple[int, ...]
    epochs: int
    minibatch: int


def bench_data(source: Path | None, n_rows: int, folder: Path) -> Path:
    """Return a data set of ``n_rows`` training rows in ``folder``.

    The first rows of ``source``, or random 784-pixel images without one: for CD the
    time of a step does not depend on what the pixels show.
    """
    path = folder / "bench.h5"
    if source is None:
        rng = stream(0, "bench")
        pixels = rng.integers(0, 256, (n_rows + n_rows // 5, 784), dtype=np.uint8)
        splits = {"train": Split(pixels[:n_rows]), "validation": Split(pixels[n_rows:])}
        write_dataset(path, splits, name="bench", origin="random", scale=1 / 255)
        return path
    with Dataset.open(source) as dataset:
        found = dataset.n_samples("train")
        if found < n_rows:
            raise ConfigError(
                f"--rows must not be more than the data have; got {n_rows}, {source} "
                f"has {found}. Give a smaller --rows."
            )
        splits = {"train": Split(dataset.rows("train", 0, n_rows))}
        if "validation" in dataset.splits:
            n_validation = min(dataset.n_samples("validation"), n_rows // 5)
            rows = dataset.rows("validation", 0, n_validation)
            splits["validation"] = Split(rows)
    write_dataset(path, splits, name="bench", origin=source.name, scale=1.0)
    return path


def compare_pretraining(
    work: Work, lags: Sequence[int], rounds: int, say: Say
) -> Comparison:
    """Time pre-training: seconds as each run measures them, start-up left out.

    Candidates: greedy on 1 rank × 1 thread (the base), lockstep on 2 ranks × 1 thread
    for each lag, greedy on 1 rank × 2 threads, PyTorch with 2 threads.
    """
    candidates = {"greedy 1x1": _pretraining(work, 1, 1, "--schedule", "greedy")}
    for lag in lags:
        candidates[f"lockstep 2x1 lag {lag}"] = _pretraining(
            work, 2, 1, "--schedule", "lockstep", "--lag", str(lag)
        )
    candidates["greedy 1x2"] = _pretraining(work, 1, 2, "--schedule", "greedy")
    if rivals.has("torch"):
        candidates["torch 1x2"] = _torch_pretraining(work, threads=2)
    return take_turns(candidates, rounds, warm_up=0, say=say)


def compare_finetuning(work: Work, optimizer: str, rounds: int, say: Say) -> Comparison:
    """Time fine-tuning on 1 and 2 ranks × 1 thread, and on 1 rank × 2 threads."""
    shape = Work(work.data, work.folder, work.layers, 1, work.minibatch)
    _pretraining(shape, 1, 1, "--schedule", "greedy")()
    candidates = {
        f"{optimizer} {ranks}x{threads}": _finetuning(work, optimizer, ranks, threads)
        for ranks, threads in ((1, 1), (2, 1), (1, 2))
    }
    return take_turns(candidates, rounds, warm_up=0, say=say)


def _pretraining(
    work: Work, ranks: int, threads: int, *options: str
) -> Callable[[], float]:
    arguments = [
        *("pretrain", str(work.data), "--run", str(work.folder / "run"), "--replace"),
        *("--layers", ",".join(map(str, work.layers)), "--epochs", str(work.epochs)),
        *("--minibatch", str(work.minibatch), "--monitor-rows", "200"),
        *("--threads", str(threads), *options),
    ]
    return lambda: _seconds(work, ranks, arguments, "pretrain_seconds")


def _finetuning(
    work: Work, optimizer: str, ranks: int, threads: int
) -> Callable[[], float]:
    arguments = [
        *("finetune", str(work.folder / "run"), "--replace", "--optimizer", optimizer),
        *("--epochs", str(work.epochs), "--minibatch", str(work.minibatch)),
        *("--threads", str(threads)),
    ]
    return lambda: _seconds(work, ranks, arguments, "finetune_seconds")


def _torch_pretraining(work: Work, threads: int) -> Callable[[], float]:
    command = [
        *(sys.executable, "-m", "mpilayer.bench.rivals", str(work.data)),
        *("--layers", ",".join(map(str, work.layers)), "--epochs", str(work.epochs)),
        *("--minibatch", str(work.minibatch), "--threads", str(threads)),
    ]
    return lambda: float(run_command(command))


def _seconds(work: Work, ranks: int, arguments: list[str], key: str) -> float:
    return float(launch(work.folder / "run", ranks, arguments)[key])


def launch(run: Path, ranks: int, arguments: Sequence[str]) -> dict[str, Any]:
    """Start mpilayer on ranks, wait for its end, and return the run's summary.

    Parameters
    ----------
    run : Path
        The run directory that the arguments name.
    ranks : int
        1: without launcher.
    arguments : sequence of str
        Of the command line.

    Raises
    ------
    CommunicationError
        It failed, or there is no launcher.
    """
    command = [sys.executable, "-m", "mpilayer", *arguments]
    if ranks > 1:
        command = [*mpiexec(), "-n", str(ranks), *command]
    run_command(command)
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text("utf-8"))
    return summary


def mpiexec() -> list[str]:
    """Return the launcher: the one beside this Python, else the one on the path.

    Raises
    ------
    CommunicationError
        There is none.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise CommunicationError(
            "comparing ranks needs mpiexec; found none. Install mpilayer[mpi]."
        )
    return [found]


def run_command(command: list[str]) -> str:
    """Run a program and return what it prints.

    Raises
    ------
    CommunicationError
        It failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommunicationError(
            f"'{' '.join(command)}' must end well; it ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    return done.stdout
