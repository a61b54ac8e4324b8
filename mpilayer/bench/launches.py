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

    def timed(
        self, command: str, ranks: int, threads: int, *options: str
    ) -> Callable[[], float]:
        """Return a launch that returns its seconds, start-up left out.

        The command is ``pretrain``, or ``finetune`` of what was pre-trained last.
        """
        run = self.folder / "run"
        arguments = [command, str(run)]
        if command == "pretrain":
            layers = ",".join(map(str, self.layers))
            arguments = [command, str(self.data), "--run", str(run)]
            arguments += ["--layers", layers, "--monitor-rows", "200"]
        arguments += ["--replace", "--threads", str(threads)]
        arguments += ["--epochs", str(self.epochs), "--minibatch", str(self.minibatch)]
        key = f"{command}_seconds"
        return lambda: float(launch(run, ranks, [*arguments, *options])[key])


def pretrainings(work: Work, lags: Sequence[int]) -> Candidates:
    """Return greedy on 1 rank × 1 thread (the base), lockstep, a team, 2 threads.

    Lockstep is on 2 ranks × 1 thread, with each lag; the team's two ranks share all
    layers, one after the other.
    """
    greedy, lockstep = (("--schedule", name) for name in ("greedy", "lockstep"))
    candidates = {"greedy 1x1": work.timed("pretrain", 1, 1, *greedy)}
    for lag in map(str, lags):
        timed = work.timed("pretrain", 2, 1, *lockstep, "--lag", lag)
        candidates[f"lockstep 2x1 lag {lag}"] = timed
    layout = ("--layout", f"1-{len(work.layers)}:2")
    return candidates | {
        "team 2x1": work.timed("pretrain", 2, 1, *greedy, *layout),
        "greedy 1x2": work.timed("pretrain", 1, 2, *greedy),
    }


def finetunings(work: Work, optimizer: str) -> Candidates:
    """Pre-train; return fine-tuning on 1 and 2 ranks × 1 thread, 1 rank × 2 threads."""
    replace(work, epochs=1).timed("pretrain", 1, 1, "--schedule", "greedy")()
    return {
        f"{optimizer} {ranks}x{threads}": work.timed(
            "finetune", ranks, threads, "--optimizer", optimizer
        )
        for ranks, threads in ((1, 1), (2, 1), (1, 2))
    }


def launch(run: Path, ranks: int, arguments: Sequence[str]) -> dict[str, Any]:
    """Start mpilayer on ranks (1: without launcher); return the summary of its run.

    CommunicationError: it failed, or there is no launcher.
    """
    command = [sys.executable, "-m", "mpilayer", *arguments]
    if ranks > 1:
        command = [*mpiexec(), "-n", str(ranks), *command]
    run_command(command)
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text("utf-8"))
    return summary


def mpiexec() -> list[str]:
    """Return the launcher's command; a CommunicationError says that there is none."""
    if found := environment.mpiexec():
        return [found]
    raise CommunicationError(
        "comparing ranks needs mpiexec; found none. Install mpilayer[mpi]."
    )


def run_command(command: list[str]) -> str:
    """Run a program, return what it prints; a CommunicationError: it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommunicationError(
            f"'{' '.join(command)}' must end well; it ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    return done.stdout
