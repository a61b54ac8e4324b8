"""Kills runs again and again, resumes them, and compares with runs left in peace.

    python benchmarks/torture.py [--kills 8] [--modes async] [--launcher srun]

Each mode is run once undisturbed. Then runs of it are killed and resumed until they are
done, as often as it takes to get all kills in. There are four kinds of kill, all by
SIGKILL, which no process can prepare for:

job     every process of the job, at a random moment
write   the same, as soon as a checkpoint under way is seen
rank    one rank, at a random moment; the job must end soon, and not with 0
step    one rank, before or amid a random one of all its steps on files: the beginning
        and end of writing, making, renaming, removing files, half a line of metrics

After every kill all files that are there must be whole; after the last launch weights,
optimizers and metrics must be those of the undisturbed run, to the bit. Needs Linux.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.bench.launches import mpiexec
from mpilayer.errors import CheckpointError
from mpilayer.store import checkpoint

ROOT = Path(__file__).parents[1]
LAUNCHERS = ("mpiexec", "srun", "none")
SOON = 10.0
"""Seconds within which a job must end after one of its ranks has died."""
LIMIT = 120.0
"""Seconds after which a launch hangs."""

_MARK = "TORTURE_LAUNCH"
_RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
# What a run says that may differ from another's.
_SECONDS = {"started", "training", "transform", "monitor", "waiting", "sending", "rank"}
_SECONDS |= {"seconds", "computing", "allreduce", "evaluating"}
# Of the whole stack, at moments that the clock chose.
_BY_THE_CLOCK = "stack"
_ERRORS = ("train_error", "validation_error", "test_error", "cost", "exact_cost")

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
class Mode:
    """A way of training.

    Attributes
    ----------
    name : str
        In the table.
    command : str
        Of mpilayer.
    arguments : tuple of str
        After the data set or run.
    amount : int
        Epochs, passes or evaluations.
    ranks : str
        ``same`` in all launches; ``any``, with the same bits; ``rounding``: any, and
        weights differ by rounding.
    recorded : bool
        The run itself is not repeatable, but its replay is.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    amount: int
    ranks: str = "same"
    recorded: bool = False

    def line(self, data: Path, run: Path, scale: float) -> list[str]:
        """Return the command line that begins a run."""
        where = [str(run)] if self.command == "finetune" else [str(data), "--run", run]
        count = "--evaluations" if self.command == "sparse" else "--epochs"
        amount = max(3, round(self.amount * scale))
        return [self.command, *map(str, where), *self.arguments, count, str(amount)]


def _modes() -> dict[str, Mode]:
    stack = ("--layers", "64,32,16")
    pre = ("--checkpoint-every", "1")
    slow = ("--checkpoint-every", "2")
    rows = ("--minibatch", "100")
    sgd = ("--optimizer", "sgd", "--measure-every", "0", "--minibatch", "100")
    found = [
        Mode("lockstep, lag 0", "pretrain", (*stack, *pre), 70),
        Mode("lockstep, lag 2", "pretrain", (*stack, *slow, "--lag", "2"), 70, "any"),
        Mode("greedy", "pretrain", (*stack, *pre, "--schedule", "greedy"), 60, "any"),
        Mode(
            "async, and its replay",
            "pretrain",
            (*stack, *pre, "--schedule", "async"),
            60,
            recorded=True,
        ),
        Mode("fine-tuning, adam", "finetune", (*pre, *rows, "--optimizer", "adam"), 18),
        Mode(
            "fine-tuning, momentum",
            "finetune",
            (*slow, *rows, "--optimizer", "momentum"),
            18,
        ),
        Mode("sparse, lbfgs, exact", "sparse", (*slow, "--kl", "exact"), 350),
        Mode("sparse, cg, average", "sparse", (*pre, "--optimizer", "cg"), 300),
        Mode("sparse, sgd", "sparse", (*pre, *sgd), 120),
        Mode(
            "fine-tuning, adam, other ranks",
            "finetune",
            (*pre, *rows, "--optimizer", "adam"),
            18,
            "rounding",
        ),
        Mode(
            "sparse, lbfgs, exact, other ranks",
            "sparse",
            (*slow, "--kl", "exact"),
            350,
            "rounding",
        ),
    ]
    return {mode.name: mode for mode in found}


MODES = _modes()


@dataclass
class Row:
    """A line of the table."""

    mode: str
    launches: int = 0
    kills: int = 0
    in_a_write: int = 0
    of_one_rank: int = 0
    told: int = 0
    at_a_step: int = 0
    runs: int = 0
    lost_runs: int = 0
    differences: int = 0
    hangs: int = 0
    late_ends: int = 0
    seconds: float = 0.0
    slowest_end: float = 0.0
    unfinished_files: int = 0
    most_lost: int = 0
    rounding: float = 0.0
    remarks: list[str] = field(default_factory=list)

    def is_clean(self) -> bool:
        """Tell whether nothing was wrong."""
        return not (self.lost_runs or self.differences or self.hangs or self.late_ends)


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
            _quiet([sys.executable, "-m", "mpilayer", *map(str, line), "--whiten"])
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
                _quiet([sys.executable, "-m", "mpilayer", *map(str, line)])
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
            _kill(self.process.pid, group=True)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            others = self._processes() - {self.process.pid}
            for pid in others:
                _kill(pid)
            if not others and self.wait(0.05) is not None:
                return
        _kill(self.process.pid, group=True)
        self.process.wait()

    def rank_pids(self) -> dict[int, int]:
        """Return the process of each rank, not those that ranks have started."""
        ours = {pid: _environ(pid) for pid in self._processes()}
        found = {}
        for pid, values in ours.items():
            rank = next((values[name] for name in _RANKS if name in values), None)
            if self.process.pid == pid:
                rank = "0" if self.ranks == 1 and not self._is_srun else None
            parent = ours.get(_parent(pid), {})
            from_rank = any(name in parent for name in _RANKS)
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


@dataclass
class Reference:
    """A run left in peace."""

    seconds: float
    steps: list[int]
    weights: dict[str, Any]
    metrics: dict[str, list[dict[str, Any]]]
    errors: dict[str, Any]
    files: set[str]


def reference(place: Place, mode: Mode) -> Reference:
    """Run a mode undisturbed, and count its steps on files."""
    run = place.folder / "reference"
    place.prepare(mode, run)
    counts = place.folder / "counts"
    shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir()
    line = mode.line(place.data(mode), run, place.scale)
    launch = Launch(place, line, place.ranks, counts=counts)
    try:
        code = launch.wait(LIMIT)
        if code != 0:
            raise RuntimeError(f"{mode.name}, undisturbed: {code}\n{launch.errors()}")
    finally:
        launch.close()
    seconds = time.monotonic() - launch.began
    numbers = [int((counts / str(r)).read_text()) for r in range(place.ranks)]
    return Reference(
        seconds, numbers, weights(run), metrics(run), errors(run), files(run)
    )


class Torture:
    """One mode under torture.

    Parameters
    ----------
    place : Place
        Where.
    mode : Mode
        What.
    rng : random.Random
        Decides about kinds and moments.
    """

    def __init__(self, place: Place, mode: Mode, rng: random.Random) -> None:
        self.place, self.mode, self.rng = place, mode, rng
        self.reference = reference(place, mode)
        self.row = Row(mode.name)
        self.run = place.folder / "run"
        self._left: list[str] = []
        self._changing = False
        self._unfinished: set[str] = set()

    def suffer(self, kinds: Sequence[str]) -> Row:
        """Kill as often as there are kinds; every run comes to its end."""
        began = time.monotonic()
        self._left = list(kinds)
        while self._left:
            self._one_run()
        self.row.seconds = time.monotonic() - began
        return self.row

    def _one_run(self) -> None:
        self.place.prepare(self.mode, self.run)
        self._changing = self.mode.ranks == "rounding" or (
            self.mode.ranks == "any" and self.rng.random() < 0.5
        )
        self.row.runs += 1
        for number in range(1000):
            outcome = self._one_launch(number)
            if outcome == "lost":
                self.row.lost_runs += 1
                return
            if outcome == "done":
                self._compare()
                return

    def _one_launch(self, number: int) -> str:
        """Return ``done``, ``killed`` or ``lost``."""
        place, row = self.place, self.row
        ranks = place.ranks
        if self._changing and number:
            ranks = self.rng.choice([1, place.ranks, 3])
        # "step:RANK:N" is a step that was chosen before.
        kind, _, step = (self._left[0] if self._left else "").partition(":")
        if kind == "step" and not step:
            victim = self.rng.randrange(ranks)
            most = self.reference.steps[victim % place.ranks] * self._part_left()
            # The few steps at the beginning matter as much as all others.
            some = self.rng.choice([12, round(most)])
            step = f"{victim}:{self.rng.randint(1, max(1, some))}"
        line = self._line(number)
        self._unfinished = _under_way(self.run)
        before = metrics(self.run) if self._begun() else {}
        place.death.unlink(missing_ok=True)
        launch = Launch(place, line, ranks, step)
        row.launches += 1
        try:
            victim = self._attack(launch, kind)
            if victim is None and kind != "step":
                code = launch.wait(LIMIT)
            elif kind in ("job", "write"):
                launch.kill()
                code = -9
            else:
                code = self._end_of_rank(launch)
            if code is None:
                row.hangs += 1
                row.remarks.append(f"hangs: {line}, {ranks} ranks, {kind} {step}")
                return "lost"
            lost = lost_work(before, launch.errors())
            row.most_lost = max(row.most_lost, lost)
            return self._judge(launch, kind, victim, code, f"{line} {ranks} {step}")
        finally:
            launch.close()

    def _line(self, number: int) -> list[str]:
        mode, run = self.mode, self.run
        line = mode.line(self.place.data(mode), run, self.place.scale)
        if not number:
            return line
        if self._begun() and self.rng.random() < 0.7:
            # Other checkpoints than --checkpoint-every asks for must do as well.
            return ["resume", str(run), *mode.arguments[_every(mode) :][:2]]
        return [*line, "--resume", "auto"]

    def _begun(self) -> bool:
        """Tell whether the run knows its command; else there is nothing to resume."""
        path = self.run / "config.toml"
        return path.exists() and self.mode.command in tomllib.loads(path.read_text())

    def _part_left(self) -> float:
        """Estimate the part of an undisturbed run's time that a launch will take."""
        done = sum(map(len, metrics(self.run).values())) if self._begun() else 0
        whole = sum(map(len, self.reference.metrics.values()))
        return 1.0 - 0.8 * min(1.0, done / whole)

    def _attack(self, launch: Launch, kind: str) -> int | None:
        """Wait for the moment and kill; return who was hit, None if it was too late."""
        if not kind or kind == "step":
            return None
        moment = self.rng.uniform(0.0, self.reference.seconds * self._part_left())
        if launch.wait(moment) is not None:
            return None
        if kind == "job":
            return 0
        pids = launch.rank_pids()
        if kind == "write":
            while not _under_way(self.run) - self._unfinished:
                pids = pids or launch.rank_pids()
                if launch.process.poll() is not None:
                    return None
            for pid in pids.values():
                _kill(pid)
            return 0
        if not pids:
            return None
        victim = self.rng.choice(sorted(pids))
        now = time.time()
        if not _kill(pids[victim]):
            return None
        self.place.death.write_text(str(now))
        return victim

    def _end_of_rank(self, launch: Launch) -> int | None:
        """Wait for the end of a job that loses a rank, or never does."""
        code = launch.wait(LIMIT)
        if self.place.death.exists():
            took = time.time() - float(self.place.death.read_text())
            self.row.slowest_end = max(self.row.slowest_end, took)
            if took > SOON:
                self.row.late_ends += 1
                self.row.remarks.append(f"ended {took:.0f} s after a rank had died")
        return code

    def _judge(
        self, launch: Launch, kind: str, victim: int | None, code: int, line: str
    ) -> str:
        row, text = self.row, launch.errors()
        complete = _is_complete(self.run, self.mode)
        died = victim is not None or self.place.death.exists()
        if died:
            row.kills += 1
            self._left.pop(0)
            row.of_one_rank += kind in ("rank", "step")
            row.told += kind in ("rank", "step") and " has died" in text
            row.at_a_step += kind == "step"
            unfinished = _under_way(self.run)
            row.in_a_write += bool(unfinished - self._unfinished)
            row.unfinished_files = max(row.unfinished_files, len(unfinished))
            if code == 0 and not complete:
                row.remarks.append(f"code 0 after a kill: {line}")
                row.lost_runs += 1
            for fault in broken_files(self.run):
                row.differences += 1
                row.remarks.append(f"{fault} after {kind}: {line}")
            return "killed"
        if code != 0 or not complete:
            row.remarks.append(
                f"code {code}, complete: {complete}: {line}\n{text[-800:]}"
            )
            return "lost"
        return "done"

    def _compare(self) -> None:
        """Compare a run that is done with the undisturbed one."""
        run, mode, same = self.run, self.mode, self.reference
        faults = [*broken_files(run), *broken_metrics(run)]
        expected_weights = same.weights
        if mode.recorded:
            expected_weights, found = self._replayed(run)
            faults += found
        else:
            if mode.ranks != "rounding" and metrics(run) != same.metrics:
                faults.append("other metrics")
            if not self._changing and errors(run) != same.errors:
                faults.append(f"other errors: {errors(run)}, not {same.errors}")
        found_weights = weights(run)
        if mode.ranks == "rounding":
            apart = distance(found_weights, expected_weights)
            self.row.rounding = max(self.row.rounding, apart)
        else:
            faults += different(found_weights, expected_weights)
        extra = files(run) ^ same.files
        if extra:
            faults.append(f"other files: {sorted(extra)}")
        self.row.differences += len(faults)
        self.row.remarks += faults

    def _replayed(self, run: Path) -> tuple[dict[str, Any], list[str]]:
        """Return the weights of a replay, and what the record contradicts."""
        table = json.loads((run / "schedule.json").read_text())["used"]
        rows = [[line["used"] for line in lines] for lines in metrics(run).values()]
        faults = [] if rows == table else ["schedule.json is not what was done"]
        again = self.place.folder / "replay"
        shutil.rmtree(again, ignore_errors=True)
        mode = replace(
            self.mode,
            arguments=(
                *self.mode.arguments[:-1],
                f"replay:{run / 'schedule.json'}",
            ),
        )
        line = mode.line(self.place.data(mode), again, self.place.scale)
        launch = Launch(self.place, line, self.place.ranks)
        self.row.launches += 1
        try:
            if launch.wait(LIMIT) != 0:
                return {}, [*faults, f"no replay: {launch.errors()[-500:]}"]
        finally:
            launch.close()
        return weights(again), faults


def weights(run: Path) -> dict[str, Any]:
    """Return every array of every checkpoint that trained for the whole run."""
    found = {}
    for path in sorted((run / "checkpoints").glob("*.h5")):
        if "previous" in path.name:
            continue
        arrays, _ = checkpoint.load(path)
        # Outputs that could not leave in time changed nothing.
        found |= {f"{path.stem}/{k}": v for k, v in arrays.items() if k != "dropped"}
    return found


def different(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of arrays that differ in any bit."""
    names = found.keys() | expected.keys()
    return [
        f"other bits: {name}"
        for name in sorted(names)
        if name not in found
        or name not in expected
        or _digest(found[name]) != _digest(expected[name])
    ]


def distance(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return the largest difference of trained weights, relative to the largest one."""
    apart = 0.0
    for name, wanted in expected.items():
        if name.split("/")[1] in ("best", "parameters") and wanted.size:
            scale = float(np.abs(wanted).max()) or 1.0
            apart = max(apart, float(np.abs(found[name] - wanted).max()) / scale)
    return apart


def metrics(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all whole lines that do not depend on the clock, without seconds."""
    return {
        path.stem: [
            {k: v for k, v in json.loads(line).items() if k not in _SECONDS}
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        for path in sorted((run / "metrics").glob("*.jsonl"))
        if path.stem != _BY_THE_CLOCK
    }


def lost_work(before: dict[str, list[Any]], text: str) -> int:
    """Return how many epochs or evaluations of any layer are done once more.

    Parameters
    ----------
    before : dict
        The metrics when all had ended.
    text : str
        What the launch that went on has said.
    """
    said = re.search(r"going on after (?:epochs? )?([\d, ]*\d)", text)
    if said is None:
        return 0
    reached = [int(number) for number in said[1].split(",")]
    done = [len(lines) for name, lines in before.items() if name != "finetune"]
    if "finetune" in before:
        done = [len(before["finetune"])]
    return max((a - b for a, b in zip(done, reached, strict=False)), default=0)


def errors(run: Path) -> dict[str, Any]:
    """Return what the summary says about the result."""
    summary = json.loads((run / "summary.json").read_text())
    return {name: summary[name] for name in _ERRORS if name in summary}


def files(run: Path) -> set[str]:
    """Return the names of all files, but for those a killed process left unfinished.

    Pictures are drawn when all is complete, again by ``resume``.
    """
    paths = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return {str(p) for p in paths if p.suffix not in (".tmp", ".png")}


def broken_files(run: Path) -> Iterator[str]:
    """Yield what is wrong with files that have their final name."""
    for path in sorted((run / "checkpoints").glob("*.h5")):
        try:
            checkpoint.load(path)
        except CheckpointError as error:
            yield str(error)
    for path in (*run.glob("*.json"), *run.glob("*.toml")):
        try:
            (json if path.suffix == ".json" else tomllib).loads(path.read_text())
        except ValueError as error:
            yield f"{path}: {error}"


def broken_metrics(run: Path) -> Iterator[str]:
    """Yield the files that do not have every epoch or evaluation once, in order."""
    for path in (run / "metrics").glob("*.jsonl"):
        if path.read_text()[-1:] not in ("", "\n"):
            yield f"{path.name} ends with half a line"
        elif path.stem == _BY_THE_CLOCK:
            lines = map(json.loads, path.read_text().splitlines())
            epochs = [line["epochs"] for line in lines]
            if epochs != sorted(epochs) or len(epochs) != len(set(map(tuple, epochs))):
                yield f"{path.name} is not in order, or says something twice"
    for name, lines in metrics(run).items():
        key = "evaluation" if name == "sparse" else "epoch"
        if [line[key] for line in lines] != list(range(1, len(lines) + 1)):
            yield f"{name}.jsonl has not every {key} once, in order"


def mixture(n_kills: int, rng: random.Random) -> list[str]:
    """Return kinds of kill in random order, about as many of each."""
    kinds = ["job", "write", "rank", "step"]
    found = (kinds * (n_kills // len(kinds) + 1))[:n_kills]
    rng.shuffle(found)
    return found


def launcher(name: str) -> list[str]:
    """Return a launcher's command with ``{ranks}`` in it."""
    if name == "srun":
        return ["srun", "--mpi=pmi2", "--kill-on-bad-exit=1", "-n", "{ranks}"]
    return [] if name == "none" else [*mpiexec(), "-n", "{ranks}"]


def _every(mode: Mode) -> int:
    return mode.arguments.index("--checkpoint-every")


def _is_complete(run: Path, mode: Mode) -> bool:
    path = run / "complete"
    return path.exists() and mode.command in path.read_text().split()


def _under_way(run: Path) -> set[str]:
    """Return the checkpoints that are being written, or were when all ended."""
    try:
        with os.scandir(run / "checkpoints") as entries:
            return {entry.name for entry in entries if entry.name.endswith(".tmp")}
    except FileNotFoundError:
        return set()


def _environment() -> dict[str, str]:
    """Return the environment without that of a launcher around this program."""
    foreign = ("PMI_", "PMIX_", "OMPI_COMM_", "MPI_LOCAL", "HYDI_", "SLURM_STEP")
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and name not in (*_RANKS, *threads)
    }
    if os.geteuid() == 0:
        # Open MPI refuses root without these.
        kept |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return kept


def _kill(pid: int, group: bool = False) -> bool:
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


def _digest(array: Any) -> str:
    kind = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(kind + np.ascontiguousarray(array).tobytes()).hexdigest()


def _quiet(command: list[str]) -> None:
    variables = {**_environment(), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=variables)


_COLUMNS = {
    "mode": "mode",
    "runs": "runs",
    "launches": "launches",
    "kills": "kills",
    "in_a_write": "left half a checkpoint",
    "of_one_rank": "of one rank",
    "lost_runs": "lost runs",
    "differences": "differences",
    "most_lost": "most done again",
    "hangs": "hangs",
    "seconds": "seconds",
}


def show(rows: Sequence[Row]) -> str:
    """Return the table, in Markdown, with the sums."""
    total = Row("all")
    for name in list(_COLUMNS)[1:]:
        combine = max if name == "most_lost" else sum
        setattr(total, name, combine(getattr(row, name) for row in rows))
    lines = [f"| {' | '.join(_COLUMNS.values())} |", "|---" * len(_COLUMNS) + "|"]
    for row in (*rows, total):
        cells = [getattr(row, name) for name in _COLUMNS]
        texts = [f"{c:.0f}" if isinstance(c, float) else str(c) for c in cells]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=8, help="of each mode (8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", default="", help="parts of names, with ; between")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--launcher", choices=LAUNCHERS, default="mpiexec")
    parser.add_argument("--kinds", default="", help="job, write, rank, step")
    parser.add_argument("--folder", type=Path, help="for data and runs, kept")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    args = parser.parse_args()
    ranks = 1 if args.launcher == "none" else args.ranks
    wanted = [part.strip() for part in args.modes.split(";")]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        place = Place(folder, launcher(args.launcher), ranks)
        for mode in MODES.values():
            if not any(part in mode.name for part in wanted):
                continue
            rng = random.Random(f"{args.seed} {mode.name}")
            kinds = mixture(args.kills, rng)
            if args.kinds:
                kinds = [rng.choice(args.kinds.split(",")) for _ in kinds]
            rows.append(Torture(place, mode, rng).suffer(kinds))
            print(f"{mode.name}: {asdict(rows[-1])}", file=sys.stderr, flush=True)
    print(show(rows))
    if args.output:
        facts = {"seed": args.seed, "ranks": ranks, "launcher": args.launcher}
        modes = [asdict(row) for row in rows]
        args.output.write_text(json.dumps({**facts, "modes": modes}, indent=2) + "\n")
    return 0 if all(row.is_clean() for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
