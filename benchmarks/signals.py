"""Sends signals at random moments to runs, which are then to end as if undisturbed.

    python -m benchmarks.signals [--signals 500] [--modes async] [--ranks 3]

A third each comes within the first 300 ms of a rank, in the middle, and within 300 ms
of the end of training: SIGINT, SIGTERM, SIGUSR1, to one rank, to all, or to the
launcher and all, as a terminal does. Either the job is ended soon, or it obeys, or it
was too late; no traceback, no hang, no run lost, and once resumed the same bits. Needs
Linux.
"""

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.launches import Launch, Place, launcher
from benchmarks.modes import MODES, Mode, show
from benchmarks.torture import LIMIT, SOON, Torture
from benchmarks.traces import broken_files, is_complete

MOMENTS = ("first", "middle", "last")
EDGE = 0.3
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# A shell that becomes the rank, and has sent it a signal by then.
_EARLY = """
rank=$PMI_RANK$OMPI_COMM_WORLD_RANK
case %(ranks)s in *"$rank"*) (sleep %(delay).4f; kill -%(number)d $$) 2>/dev/null & esac
exec "$@"
"""


class Signals(Torture):
    """One mode, and the signals that it gets."""

    def __init__(self, place: Place, mode: Mode, rng: random.Random) -> None:
        super().__init__(place, mode, rng)
        self._quiet_place = place
        self._number, self._victims = signal.SIGINT, [0]
        self._delay = self._sent = 0.0
        self.codes: Counter[tuple[str, int]] = Counter()
        self.early = 0

    def _one_launch(self, number: int) -> str:
        # A run that was interrupted as it tidied up is left in peace to do so.
        complete = is_complete(self.run, self.mode.command)
        later, self._left = self._left, [] if complete else self._left
        self._prepare()
        try:
            return super()._one_launch(number)
        finally:
            self.place = self._quiet_place
            self._left = later if complete else self._left

    def _prepare(self) -> None:
        """Choose a signal; a shell that becomes the rank sends the earliest ones."""
        place, rng = self.place, self.rng
        everybody = list(range(place.ranks))
        self._number = rng.choice(SIGNALS)
        self._victims = rng.choice([everybody, *[[rank] for rank in everybody]])
        self._delay = rng.uniform(0.0, EDGE)
        if place.ranks > 1 and self._left[:1] == ["first"]:
            script = _EARLY % {
                "ranks": "".join(map(str, self._victims)),
                "delay": self._delay,
                "number": self._number,
            }
            prefix = [*place.launcher, "sh", "-c", script, "sh"]
            self.place = replace(place, launcher=prefix)

    def _attack(self, launch: Launch, kind: str) -> int | None:
        if not kind:
            return None
        if kind == "middle":
            whole = max(2 * EDGE, self.reference.seconds * self._part_left())
            self._delay = self.rng.uniform(EDGE, whole)
        if kind == "last":
            while not is_complete(self.run, self.mode.command):
                if launch.wait(0.01) is not None:
                    return None
        gone = launch.wait(self._delay) is not None
        self._sent = time.monotonic()
        if kind == "first" and self.place.ranks > 1:
            return self._victims[0]
        if gone:
            return None
        if self._number == signal.SIGINT and self.rng.random() < 0.3:
            os.killpg(launch.process.pid, self._number)
            return 0
        pids = launch.rank_pids()
        reached = [pids[rank] for rank in self._victims if rank in pids]
        for pid in reached:
            try:
                os.kill(pid, self._number)
            except ProcessLookupError:
                continue
        return self._victims[0] if reached else None

    def _end_of_rank(self, launch: Launch) -> int | None:
        code = launch.wait(LIMIT)
        took = time.monotonic() - self._sent if code else 0.0  # 0: it was too late
        self.row.slowest_end = max(self.row.slowest_end, took)
        if took > SOON + 2 * self.reference.seconds:
            self.row.late_ends += 1
            self.row.remarks.append(f"ended {took:.0f} s after {self._number.name}")
        return code

    def _judge(
        self, launch: Launch, kind: str, victim: int | None, code: int, line: str
    ) -> str:
        if victim is None:
            return super()._judge(launch, "", None, code, line)
        row, text = self.row, launch.errors()
        row.kills += 1
        self._left.pop(0)
        self.codes[kind, code] += 1
        self.early += python_starts(text)
        what = f"{self._number.name} to {self._victims}, {kind} +{self._delay:.3f} s"
        faults = list(broken_files(self.run)) if self.run.exists() else []
        if "mpilayer: error" in text:
            faults.append("an error")
        if "Traceback" in text and not python_starts(text):
            faults.append("a traceback")
        complete = is_complete(self.run, self.mode.command)
        if code == 0 and not complete:
            faults.append("code 0, and not complete")
        row.differences += len(faults)
        row.remarks += [f"{fault} after {what}: {line}\n{text}" for fault in faults]
        return "done" if code == 0 and complete else "killed"


def python_starts(text: str) -> bool:
    """Tell whether Python was interrupted before it had loaded anything of ours.

    Then it says so itself, with a traceback.
    """
    ours = set(re.findall(r'/mpilayer/(\S+)\.py"', text))
    loading = "KeyboardInterrupt" in text and ours <= {"__init__", "__main__"}
    return "Fatal Python error: init_" in text or loading


def moments(n_signals: int, rng: random.Random) -> list[str]:
    """Return moments in random order, about as many of each kind."""
    found = (list(MOMENTS) * (n_signals // len(MOMENTS) + 1))[:n_signals]
    rng.shuffle(found)
    return found


def suffer(
    folder: Path, mode: Mode, launcher: Sequence[str], ranks: int, n: int, seed: int
) -> Signals:
    """Let runs of a mode suffer so many signals; return what came of it."""
    rng = random.Random(f"{seed} {mode.name} {ranks}")
    place = Place(folder, launcher, ranks, scale=0.15)
    victim = Signals(place, mode, rng)
    victim.suffer(moments(n, rng))
    return victim


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signals", type=int, default=500, help="in all (500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", default="", help="parts of names, with ; between")
    parser.add_argument("--ranks", default="1,2,3", help="numbers of ranks (1,2,3)")
    args = parser.parse_args()
    wanted = [part.strip() for part in args.modes.split(";")]
    modes = [mode for mode in MODES.values() if mode.ranks != "rounding"]
    modes = [mode for mode in modes if any(part in mode.name for part in wanted)]
    numbers = [int(number) for number in args.ranks.split(",")]
    each = -(-args.signals // (len(modes) * len(numbers)))
    rows, codes, early = [], Counter[tuple[str, int]](), 0
    with tempfile.TemporaryDirectory() as temporary:
        for mode in modes:
            for ranks in numbers:
                command = launcher("none" if ranks == 1 else "mpiexec")
                found = suffer(Path(temporary), mode, command, ranks, each, args.seed)
                found.row.mode += f", {ranks} ranks"
                rows.append(found.row)
                codes += found.codes
                early += found.early
                print(found.row, file=sys.stderr, flush=True)
    print(show(rows))
    print(f"slowest end {max(row.slowest_end for row in rows):.1f} s after the signal")
    print(f"while Python itself starts: {early}; codes: {dict(codes)}")
    return 0 if all(row.is_clean() for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
