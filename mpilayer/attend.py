"""Attends to a launch within a SLURM job; standard library only, one process.

Launchers and MPI may end with any exit status, so the mark counts that a command leaves
in its run directory when it has come to its end. See ``docs/cluster.md``.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from mpilayer.interrupt import EXIT_RESUME

_SECONDS = {"pretrain": "pretrain_seconds", "sparse": "seconds"}
"""What scaling reads in ``summary.json``."""

_KILLED = (128 + signal.SIGKILL, 128 + signal.SIGTERM)


class Attendant:
    """Starts commands, passes SLURM's warnings on, and says how the job is to end.

    SLURM tells this process alone that time runs short (USR1) or that the job must end
    (TERM). Both go to the ranks as USR1: save, and end. The ``mark`` is what the
    command leaves in ``complete`` of its run directory; ``requeues`` is how often the
    job may start again by itself.
    """

    def __init__(self, mark: str, requeues: int, say: Callable[[str], None]) -> None:
        self._mark, self._requeues, self._say = mark, requeues, say
        self._starts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self._heard: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._hear)

    def is_done(self, run: Path) -> bool:
        """Tell whether the mark is there."""
        try:
            marks = (run / "complete").read_text(errors="replace").splitlines()
        except OSError:
            return False
        return self._mark in marks

    def attend(self, command: Sequence[str], run: Path) -> None:
        """Run a command to its end, and end the job unless the mark is there then.

        With the status of the command, or 1 if that is 0: alone it is no proof. With
        ``EXIT_RESUME`` the command has saved, and the job is requeued.
        """
        status = self._status(command)
        if self.is_done(run):
            return
        if signal.SIGTERM in self._heard:
            self._say(f"{self._mark} was told to end: exit status {status}")
        elif status == EXIT_RESUME:
            self._requeue()
        else:
            self._say(
                f"{self._mark} has failed: exit status {status}, and no mark of its "
                f"end in {run}"
            )
        raise SystemExit(status or 1)

    def skip_steps(self, launches: int) -> None:
        """Use up the numbers of the steps that earlier starts of this job have had.

        Ranks that were killed leave shared memory behind. MPICH names it by the number
        of their step, and would wait in it for ever: a requeued job, whose steps count
        from 0 again, must use no number twice.
        """
        for _ in range(launches * self._starts):
            subprocess.run(["srun", "--nodes=1", "--ntasks=1", "true"])

    def _status(self, command: Sequence[str]) -> int:
        """Return the exit status of a command, as a shell has it."""
        if self._heard:
            return EXIT_RESUME
        try:
            self._child = subprocess.Popen(command)
        except OSError as error:
            self._say(f"{command[0]} does not start: {error.strerror}")
            return 127
        if self._heard:  # amid the start, when there was nobody to tell it to
            self._child.send_signal(signal.SIGUSR1)
        code = self._child.wait()
        self._child = None
        status = code if code >= 0 else 128 - code
        # The first rank that ends with 75 makes srun end the others, which have saved.
        if is_srun(command) and signal.SIGUSR1 in self._heard and status in _KILLED:
            return EXIT_RESUME
        return status

    def _hear(self, number: int, _: FrameType | None) -> None:
        self._heard.append(number)
        self._say(f"received {signal.Signals(number).name[3:]}")
        if self._child is not None:
            self._child.send_signal(signal.SIGUSR1)

    def _requeue(self) -> None:
        """Put the job back into the queue, where it goes on with what was saved."""
        if self._starts >= self._requeues:
            self._say(
                f"{self._mark} has saved, but not ended in {self._starts} requeues; "
                "submit it to go on"
            )
            return
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self._say(
            f"{self._mark} has saved; requeue {self._starts + 1} of {self._requeues}"
        )
        try:
            asked = ["scontrol", "requeue", os.environ.get("SLURM_JOB_ID", "")]
            subprocess.run(asked, check=True)
        except (OSError, subprocess.CalledProcessError):
            self._say("not requeued; submit it to go on")


def is_srun(command: Sequence[str]) -> bool:
    """Tell whether a command starts its ranks as a step of the job."""
    return Path(command[0]).name == "srun"


def on_ranks(command: Sequence[str], ranks: int, part: Path) -> list[str]:
    """Return a command with its ``%ranks``, ``%nodes`` and ``%run`` filled in.

    As few nodes as hold so many ranks: mpiexec fills them one after the other, too.
    """
    nodes, ntasks = (
        int(os.environ.get(f"SLURM_{name}") or 1) for name in ("NNODES", "NTASKS")
    )
    filled = {
        "%ranks": str(ranks),
        "%nodes": str((ranks * nodes - 1) // ntasks + 1),
        "%run": str(part),
    }
    names = "|".join(filled)
    return [re.sub(names, lambda found: filled[found[0]], word) for word in command]


def table(mark: str, parts: dict[int, Path]) -> str:
    """Return seconds and speed-up of runs on several numbers of ranks."""
    lines = ["ranks  seconds  speed-up"]
    first = 0.0
    for ranks, part in parts.items():
        summary = json.loads((part / "summary.json").read_text(encoding="utf-8"))
        seconds = float(summary[_SECONDS[mark]])
        first = first or seconds
        lines.append(f"{ranks:>5} {seconds:>8.2f} {first / seconds:>9.2f}")
    return "\n".join(lines)
