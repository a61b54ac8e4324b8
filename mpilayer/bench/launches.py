"""Whole runs, each in a launch of its own, in turn: ranks, threads, schedules."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpilayer import environment
from mpilayer.bench.pairs import Candidates
from mpilayer.errors import CommunicationError


@dataclass(frozen=True)
class Work:
    """What is timed."""

    data: Path  # a data set; see rows.write_images
    folder: Path  # where runs may be made; they replace one another
    layers: tuple[int, ...]  # hidden units
    epochs: int  # of each layer, or of fine-tuning
    minibatch: int

    def pretraining(
        self, ranks: int, threads: int, *options: str
    ) -> Callable[[], float]:
        """Return a pre-training that returns its seconds, start-up left out."""
        layers = ",".join(map(str, self.layers))
        stack = ("--layers", layers, "--monitor-rows", "200")
        return self._timed("pretrain", self.data, ranks, threads, *stack, *options)

    def finetuning(
        self, ranks: int, threads: int, *options: str
    ) -> Callable[[], float]:
        """Return the fine-tuning of what was pre-trained last."""
        return self._timed("finetune", None, ranks, threads, *options)

    def _timed(
        self, command: str, data: Path | None, ranks: int, threads: int, *options: str
    ) -> Callable[[], float]:
        run = self.folder / "run"
        where = [str(run)] if data is None else [str(data), "--run", str(run)]
        length = ("--epochs", str(self.epochs), "--minibatch", str(self.minibatch))
        arguments = [command, *where, "--replace", "--threads", str(threads), *length]
        key = f"{command}_seconds"
        return lambda: float(launch(run, ranks, [*arguments, *options])[key])


def pretrainings(work: Work, lags: Sequence[int]) -> Candidates:
    """Return greedy on 1 rank × 1 thread (the base), lockstep, greedy with 2 threads.

    Lockstep is on 2 ranks × 1 thread, with each lag.
    """
    greedy = ("--schedule", "greedy")
    candidates = {"greedy 1x1": work.pretraining(1, 1, *greedy)}
    for lag in map(str, lags):
        lockstep = ("--schedule", "lockstep", "--lag", lag)
        candidates[f"lockstep 2x1 lag {lag}"] = work.pretraining(2, 1, *lockstep)
    return candidates | {"greedy 1x2": work.pretraining(1, 2, *greedy)}


def finetunings(work: Work, optimizer: str) -> Candidates:
    """Pre-train; return fine-tuning on 1 and 2 ranks × 1 thread, 1 rank × 2 threads."""
    replace(work, epochs=1).pretraining(1, 1, "--schedule", "greedy")()
    options = ("--optimizer", optimizer)
    return {
        f"{optimizer} {ranks}x{threads}": work.finetuning(ranks, threads, *options)
        for ranks, threads in ((1, 1), (2, 1), (1, 2))
    }


def launch(run: Path, ranks: int, arguments: Sequence[str]) -> dict[str, Any]:
    """Start mpilayer on ranks (1: without launcher); return the summary of its run.

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
    """Return the launcher's command.

    Raises
    ------
    CommunicationError
        There is none.
    """
    if found := environment.mpiexec():
        return [found]
    raise CommunicationError(
        "comparing ranks needs mpiexec; found none. Install mpilayer[mpi]."
    )


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
