"""Kills runs again and again, resumes them, and compares with runs left in peace.

    python -m benchmarks.torture [--kills 8] [--modes async] [--launcher srun]

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
import json
import random
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.launches import Launch, Place, kill, launcher
from benchmarks.modes import MODES, Mode, Row, show
from benchmarks.traces import (
    broken_files,
    broken_metrics,
    different,
    distance,
    errors,
    files,
    is_complete,
    lost_work,
    metrics,
    under_way,
    weights,
)

LAUNCHERS = ("mpiexec", "srun", "none")
SOON = 10.0
"""Seconds within which a job must end after one of its ranks has died."""
LIMIT = 120.0
"""Seconds after which a launch hangs."""


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
        ranks = max(place.ranks, mode.least) if place.launcher else place.ranks
        place = replace(place, ranks=ranks)
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
        self._unfinished = under_way(self.run)
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
            while not under_way(self.run) - self._unfinished:
                pids = pids or launch.rank_pids()
                if launch.process.poll() is not None:
                    return None
            for pid in pids.values():
                kill(pid)
            return 0
        if not pids:
            return None
        victim = self.rng.choice(sorted(pids))
        now = time.time()
        if not kill(pids[victim]):
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
        complete = is_complete(self.run, self.mode.command)
        died = victim is not None or self.place.death.exists()
        if died:
            row.kills += 1
            self._left.pop(0)
            row.of_one_rank += kind in ("rank", "step")
            row.told += kind in ("rank", "step") and " has died" in text
            row.at_a_step += kind == "step"
            unfinished = under_way(self.run)
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


def mixture(n_kills: int, rng: random.Random) -> list[str]:
    """Return kinds of kill in random order, about as many of each."""
    kinds = ["job", "write", "rank", "step"]
    found = (kinds * (n_kills // len(kinds) + 1))[:n_kills]
    rng.shuffle(found)
    return found


def _every(mode: Mode) -> int:
    return mode.arguments.index("--checkpoint-every")


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
