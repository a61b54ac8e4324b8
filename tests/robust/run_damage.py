"""Damages the files of finished and interrupted runs, and uses the runs.

    python -m tests.robust.run_damage [--tries 3000] [--seed 0]

Every try damages one file of a run in one way (bytes changed, cut off, values of other
types, a folder or a pipe in its place, ...), then one command uses the run. It must end
well, or with one message and code 2; what was trained must be as before, to the bit, or
the message must say that it is not. Commands run in children of one process, which has
loaded everything.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.traces import different, weights
from mpilayer.cli.main import main as mpilayer
from tests.support.small import write_pixels

LIMIT = 60
for _name in ("cli.training", "cli.use", "cli.data", "report.build"):
    import_module(f"mpilayer.{_name}")  # once, not in every child


def child(line: list[object]) -> tuple[int, str]:
    """Run a command line in a child; return its code and what it has told."""
    with tempfile.TemporaryFile("w+", errors="replace") as told:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                # Who waits is ended by the alarm, who computes in C by the limit.
                resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
                signal.alarm(LIMIT)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(told.fileno(), 2)
                # Under pytest they are others, and every warning is an error.
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
                warnings.resetwarnings()
                code = mpilayer([str(word) for word in line])
            except BaseException:
                traceback.print_exc()
            with suppress(BaseException):
                sys.stderr.flush()
            os._exit(code)
        status = os.waitpid(pid, 0)[1]
        told.seek(0)
        return os.waitstatus_to_exitcode(status), told.read()


def fault(code: int, text: str) -> str:
    """Return what is wrong with the end of a command, if anything."""
    if "Traceback" in text or "Warning:" in text:
        return f"traceback, or a warning of Python's, code {code}"
    if code == 2:
        return "" if text.count("mpilayer: error:") == 1 else "not one message"
    return f"code {code}" if code else ""


# --- ways of damage

Rng = random.Random


def _reach(content: bytearray, rng: Rng) -> int:
    """Return a length; headers are short, and what is wrong in them leads astray."""
    return len(content) if rng.random() < 0.5 else min(len(content), 600)


def _flip(content: bytearray, rng: Rng) -> None:
    for _ in range(rng.choice([1, 1, 1, 3, 20])):
        content[rng.randrange(_reach(content, rng))] ^= 1 << rng.randrange(8)


def _extremes(content: bytearray, rng: Rng) -> None:
    reach = _reach(content, rng)
    for _ in range(rng.randint(1, 3)):
        content[rng.randrange(reach)] = rng.choice([0, 1, 0x7F, 0x80, 255])


def _stretch(content: bytearray, rng: Rng) -> None:
    begin, length = rng.randrange(_reach(content, rng)), rng.randint(1, 8)
    instead = rng.choice([rng.randbytes(length), b"\xff" * length])
    content[begin : begin + length] = instead


def _twice(content: bytearray, rng: Rng) -> None:
    begin = rng.randrange(_reach(content, rng))
    content[begin:begin] = content[begin : begin + rng.randint(1, 8)]


def _cut(content: bytearray, rng: Rng) -> None:
    del content[rng.randrange(_reach(content, rng)) :]


def _zeros(content: bytearray, rng: Rng) -> None:
    begin = rng.randrange(_reach(content, rng))
    content[begin:] = bytes(len(content) - begin)


def _rubbish(content: bytearray, rng: Rng) -> None:
    content[:] = rng.randbytes(rng.choice([0, 1, 100, 5000]))


def _other_type(content: bytearray, rng: Rng, seal: bool = True) -> None:
    """Give a value of a line of JSON, or of all lines, another type."""
    try:
        lines = [json.dumps(json.loads(content))]
    except json.JSONDecodeError:
        lines = content.decode().splitlines()
    number = rng.randrange(len(lines))
    values = json.loads(lines[number])
    if not seal:
        values.pop("seal", None)
    _change(values, rng)
    lines[number] = json.dumps(values)
    content[:] = "\n".join([*lines, ""]).encode()


_OTHERS = (None, True, -1, 10**30, 1e308, "x", [], {}, [1, "x"], float("nan"), -0.5)


def _change(values: Any, rng: Rng) -> None:
    keys: Any = range(len(values)) if isinstance(values, list) else list(values)
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(values[key], list | dict) and values[key] and rng.random() < 0.7:
        _change(values[key], rng)
    elif rng.random() < 0.2:
        del values[key]
    else:
        values[key] = rng.choice(_OTHERS)


def _torn(content: bytearray, rng: Rng) -> None:
    """Tear a line, and go on with the next one."""
    lines = content.split(b"\n")
    number = rng.randrange(max(1, len(lines) - 1))
    del lines[number][rng.randrange(len(lines[number]) + 1) :]
    if rng.random() < 0.5:
        lines[number : number + 2] = [b"".join(lines[number : number + 2])]
    content[:] = b"\n".join(lines)


BYTES: dict[str, Callable[[bytearray, Rng], None]] = {
    "flip": _flip,
    "extremes": _extremes,
    "stretch": _stretch,
    "twice": _twice,
    "cut": _cut,
    "zeros": _zeros,
    "rubbish": _rubbish,
}
CONTENTS = BYTES | {
    "other type": _other_type,
    # As an older version has written it.
    "unsealed": lambda content, rng: _other_type(content, rng, seal=False),
    "torn": _torn,
}
ENDINGS = {"other type": (".json", ".jsonl"), "unsealed": ".json", "torn": ".jsonl"}
PLACES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "file": lambda path: path.write_bytes(b"rubbish"),
    "gone": lambda path: None,
}
WAYS = (*CONTENTS, *PLACES)


def fits(way: str, path: Path) -> bool:
    """Tell whether something can be damaged in a way."""
    if way in PLACES:
        return way != "file" or path.is_dir()
    return path.is_file() and path.name.endswith(ENDINGS.get(way, ""))


def damage(way: str, path: Path, rng: Rng) -> None:
    """Damage a file, or put something else in its place."""
    if way in PLACES:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        PLACES[way](path)
    elif content := bytearray(path.read_bytes()):
        CONTENTS[way](content, rng)
        path.write_bytes(content)


# --- runs

COMMANDS = ("resume", "watch", "report", "evaluate", "again")
_SMALL = ("--minibatch", "50", "--threads", "1", "--checkpoint-every", "1")
_STACK = ("--layers", "8,6", *_SMALL)
_SPARSE = ("--hidden", "5", "--output", "linear", "--kl", "exact", *_SMALL)


class Runs:
    """Runs to damage, in a folder, and what becomes of each when nothing is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        data = write_pixels(folder / "data.h5", n_rows=120, n_columns=16)
        self._lines = {
            "deep": ["pretrain", data, "--epochs", "3", *_STACK, "--run"],
            "tuned": ["finetune", "--epochs", "3", *_SMALL],
            "sparse": ["sparse", data, "--evaluations", "12", *_SPARSE, "--run"],
            "compare": ["compare", data, "--evaluations", "8", *_SPARSE, "--run"],
        }
        self.expected: dict[str, dict[str, Any]] = {}
        for name, line in self._lines.items():
            # Asked to end before the last of its epochs: no epoch is as short as that.
            for run, options, expected in (
                (folder / name, [], 0),
                (folder / f"{name}-half", ["--max-time", "0.001"], 75),
            ):
                if name == "tuned":
                    shutil.copytree(folder / "deep", run)
                code, text = child([*line, run, *options])
                assert code == expected, text
                self.expected[run.name] = results(folder / name)

    def try_one(self, way: str, rng: Rng) -> str:
        """Damage, use, and return what is wrong, if anything."""
        files = (p for name in self.expected for p in (self.folder / name).rglob("*"))
        fitting = sorted(p for p in files if p.name != ".lock" and fits(way, p))
        original, command = rng.choice(fitting), rng.choice(COMMANDS)
        name, *inner = original.relative_to(self.folder).parts
        run = self.folder / "copy" / "run"
        shutil.rmtree(run.parent, ignore_errors=True)
        shutil.copytree(self.folder / name, run)
        victim = run.joinpath(*inner)
        damage(way, victim, rng)
        code, text = child(self._command(name, command, run))
        wrong = fault(code, text) or ("" if code else self._lost(name, command, run))
        where = f"{name}, {victim.relative_to(run)}"
        return f"{where}: {command} after {way}: {wrong}\n{text}" if wrong else ""

    def _command(self, name: str, command: str, run: Path) -> list[object]:
        """Return a command line that uses a copy of a run."""
        if command == "again":
            return [*self._lines[name.partition("-")[0]], run, "--resume", "auto"]
        if command == "report":
            return ["report", run, "-o", run.parent / "r.html", "--replace"]
        part = run / "exact" if (name, command) == ("compare", "evaluate") else run
        return [command, part]

    def _lost(self, name: str, command: str, run: Path) -> str:
        """Return what is not as it would be without damage."""
        found, expected, half = results(run), self.expected[name], "half" in name
        if half and command not in ("resume", "again"):
            return ""
        if not found.keys() >= expected.keys():
            return "not at the end" if half else ""
        wrong = different({k: found[k] for k in expected}, expected)
        return f"silent difference: {wrong}" if wrong else ""


def results(run: Path) -> dict[str, Any]:
    """Return the arrays of checkpoints that can be read."""
    found: dict[str, Any] = {}
    for folder in (run, run / "average", run / "exact"):
        with suppress(Exception):
            where = folder.relative_to(run)
            found |= {f"{where}/{k}": v for k, v in weights(folder).items()}
    return {k: v for k, v in found.items() if ".e0" not in k}


def campaign(folder: Path, tries: int, seed: int) -> list[str]:
    """Damage so many files, in all ways in turn; return all that is wrong."""
    runs, rng = Runs(folder), random.Random(seed)
    wrong = []
    for way in islice(cycle(WAYS), tries):
        if told := runs.try_one(way, rng):
            wrong.append(told)
            print(f"--- {told}\n", flush=True)
    return wrong


def main() -> int:
    """Say how many tries have gone wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = campaign(Path(folder).resolve(), args.tries, args.seed)
    print(f"{args.tries} files in {len(WAYS)} ways, wrong: {len(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
