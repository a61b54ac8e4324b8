"""Launches of mpilayer whose processes are all found in /proc, and can be killed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.modes import Mode
from mpilayer.bench.launches import mpiexec

ROOT = Path(__file__).parents[1]
_MARK = "TORTURE_LAUNCH"
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")

# mpilayer's command line, in which a rank ends before the Nth of its steps on files.
PROGRAM = """
import os, pathlib, sys, time
from mpilayer import environment

environment.prepare()
rank = environment.launched_rank()
victim, last = map(int, os.environ["TORTURE_STEP"].split(":"))
steps = 0

def step():
    global steps
    steps += 1
    return rank == victim and steps == last

def die():
    with open(os.environ["TORTURE_DEATH"], "w") as file:
        file.write(str(time.time()))
    os.kill(os.getpid(), 9)

def counted(function):
    def call(*arguments, **options):
        if step():
            die()
        return function(*arguments, **options)
    return call

for name in ("replace", "unlink", "mkdir", "write_text"):
    setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
os.fsync = counted(os.fsync)

from mpilayer.store.metrics import MetricsWriter
write = MetricsWriter.write

def write_half(self, values):
    if step():
        self._append(b'{"epoch": ')
        die()
    write(self, values)

MetricsWriter.write = write_half
from mpilayer.__main__ import main

code = main()
sys.stdout.flush()
if folder := os.environ.get("TORTURE_COUNTS"):
    pathlib.Path(folder, f"{rank}").write_bytes(str(steps).encode())
raise SystemExit(code)
"""


@dataclass(frozen=True)
class Place:
    """Where the torture takes place.

    Attributes
    ----------
    folder : Path
        For data and runs.
    launcher : sequence of str
        Its command, ``{ranks}`` in the place of their number; empty: no launcher.
    ranks : int
        As a rule.
    scale : float
        Of the length of runs.
    """

    folder: Path
    launcher: Sequence[str]
    ranks: int
    scale: float = 1.0

    @property
    def death(self) -> Path:
        """Where a rank that ends itself writes down when."""
        return self.folder / "death"

    def data(self, mode: Mode) -> Path:
        """Return the data set of a mode, made if need be."""
        if mode.command != "sparse":
            return ROOT / "data" / "mnist-sample.h5"
        path = self.folder / "patches.h5"
        if not path.exists():
            source = ROOT / "data" / "natural-sample.h5"
            line = ["data", "patches", source, "-o", path, "--count", "5000"]
            run_quietly([sys.executable, "-m", "mpilayer", *map(str, line), "--whiten"])
        return path

    def prepare(self, mode: Mode, run: Path) -> None:
        """Put what a mode starts from where its run will be."""
        if run.exists():
            shutil.rmtree(run)
        if mode.command == "finetune":
            base = self.folder / "base"
            if not base.exists():
                line = ["pretrain", self.data(mode), "--run", base, "--threads", "1"]
                line += ["--layers", "64,32,16", "--epochs", "3"]
                run_quietly([sys.executable, "-m", "mpilayer", *map(str, line)])
            shutil.copytree(base, run)


class Launch:
    """A launch of mpilayer, all of whose processes are known by a mark.

    Parameters
    ----------
    place : Place
        Where.
    arguments : sequence
        mpilayer's.
    ranks : int
        1: without launcher, unless that is srun.
    step : str
        ``RANK:N``; see ``PROGRAM``.
    counts : Path, optional
        Folder for the numbers of steps.
    """

    def __init__(
        self,
        place: Place,
        arguments: Sequence[object],
        ranks: int,
        step: str = "",
        counts: Path | None = None,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.ranks = ranks
        self._is_srun = "srun" in place.launcher[:1]
        use = place.launcher if ranks > 1 or self._is_srun else ()
        program = ("-c", PROGRAM) if step or counts else ("-m", "mpilayer")
        command = [word.format(ranks=ranks) for word in use]
        command += [sys.executable, *program, *map(str, arguments), "--threads", "1"]
        variables = {
            **_environment(),
            _MARK: self.mark,
            "TORTURE_STEP": step or "-1:0",
            "TORTURE_DEATH": str(place.death),
            "PYTHONPATH": str(ROOT),
        }
        if counts:
            variables["TORTURE_COUNTS"] = str(counts)
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._output,
            start_new_session=True,
        )

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, None if it has not ended after so many seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kill every process at once, and wait until all are gone."""
        if not self._is_srun:
            # srun is the launcher's voice on this host: it reports, and frees nodes.
            kill(self.process.pid, group=True)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            others = self._processes() - {self.process.pid}
            for pid in others:
                kill(pid)
            if not others and self.wait(0.05) is not None:
                return
        kill(self.process.pid, group=True)
        self.process.wait()

    def rank_pids(self) -> dict[int, int]:
        """Return the process of each rank, not those that ranks have started."""
        ours = {pid: _environ(pid) for pid in self._processes()}
        found = {}
        for pid, values in ours.items():
            rank = next((values[name] for name in RANKS if name in values), None)
            if self.process.pid == pid:
                rank = "0" if self.ranks == 1 and not self._is_srun else None
            parent = ours.get(_parent(pid), {})
            from_rank = any(name in parent for name in RANKS)
            if rank is not None and not from_rank and "python" in _program(pid):
                found[int(rank)] = pid
        return found

    def errors(self) -> str:
        """Return what was written to standard error."""
        self._output.seek(0)
        return self._output.read()

    def close(self) -> None:
        """End what is left."""
        if self.process.poll() is None or self._processes():
            self.kill()
        self._output.close()

    def _processes(self) -> set[int]:
        return {pid for pid in _all_pids() if _environ(pid).get(_MARK) == self.mark}


def launcher(name: str) -> list[str]:
    """Return a launcher's command with ``{ranks}`` in it."""
    if name == "srun":
        return ["srun", "--mpi=pmi2", "--kill-on-bad-exit=1", "-n", "{ranks}"]
    return [] if name == "none" else [*mpiexec(), "-n", "{ranks}"]


def run_quietly(command: list[str]) -> None:
    variables = {**_environment(), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=variables)


def _environment() -> dict[str, str]:
    """Return the environment without that of a launcher around this program."""
    foreign = ("PMI_", "PMIX_", "OMPI_COMM_", "MPI_LOCAL", "HYDI_", "SLURM_STEP")
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and name not in (*RANKS, *threads)
    }
    if os.geteuid() == 0:
        # Open MPI refuses root without these.
        kept |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return kept


def kill(pid: int, group: bool = False) -> bool:
    """Kill a process, or its group; tell whether it was there."""
    try:
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _all_pids() -> list[int]:
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def _environ(pid: int) -> dict[str, str]:
    """Return the variables of a process that is alive; else none."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in content.split("\0") if "=" in entry)
    return {name: value for name, _, value in pairs}


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""
