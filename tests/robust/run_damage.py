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
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.traces import different, weights
from mpilayer.cli.main import main as mpilayer
from tests.e2e.conftest import write_pixels

LIMIT = 60
for _name in ("cli.training", "cli.use", "report.build"):
    import_module(f"mpilayer.{_name}")  # once, not in every child

COMMANDS = ("resume", "watch", "report", "evaluate", "again")
_SMALL = ("--minibatch", "50", "--threads", "1", "--checkpoint-every", "1")
_STACK = ("--layers", "8,6", *_SMALL)
_SPARSE = ("--hidden", "5", "--output", "linear", "--kl", "exact", *_SMALL)


class Runs:
    """Runs to damage, and what each of them becomes when nothing is wrong.

    Parameters
    ----------
    folder : Path
        For everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_pixels(folder / "data.h5", n_rows=120, n_columns=16)
        self.again = {
            "deep": ["pretrain", str(self.data), "--epochs", "3", *_STACK],
            "tuned": ["finetune", "--epochs", "3", *_SMALL],
            "sparse": ["sparse", str(self.data), "--evaluations", "12", *_SPARSE],
            "compare": ["compare", str(self.data), "--evaluations", "8", *_SPARSE],
        }
        self.made: dict[str, Path] = {}
        self.expected: dict[str, dict[str, Any]] = {}
        for name in self.again:
            run = folder / name
            if name == "tuned":
                shutil.copytree(folder / "deep", run)
            self._run(self._line(name, run))
            self.made[name] = run
            self.expected[name] = results(run)
            self._halve(name)

    def _halve(self, name: str) -> None:
        """Make a run that was interrupted: ended by the clock."""
        half = self.folder / f"{name}-half"
        if name == "tuned":
            shutil.copytree(self.folder / "deep", half)
        # Asked to end before the last of its epochs: no epoch is as short as that.
        code, text = child([*self._line(name, half), "--max-time", "0.001"])
        assert code == 75, text
        self.made[half.name] = half
        self.expected[half.name] = self.expected[name]

    def _line(self, name: str, run: Path) -> list[str]:
        words = self.again[name.partition("-")[0]]
        where = [str(run)] if words[0] == "finetune" else ["--run", str(run)]
        return [words[0], *words[1:], *where]

    def command(self, name: str, command: str, run: Path) -> list[str]:
        """Return a command line that uses a copy of a run."""
        if command == "again":
            return [*self._line(name, run), "--resume", "auto"]
        if command == "report":
            return ["report", str(run), "-o", str(run.parent / "r.html"), "--replace"]
        part = run / "exact" if (name, command) == ("compare", "evaluate") else run
        return [command, str(part)]

    def _run(self, line: list[str]) -> None:
        code, text = child(line)
        assert code == 0, text

    def try_one(self, way: str, rng: random.Random) -> tuple[str, str]:
        """Damage, use, and return the file, and what is wrong, if anything."""
        name = rng.choice(sorted(self.made))
        run = self.folder / "copy" / "run"
        shutil.rmtree(run.parent, ignore_errors=True)
        shutil.copytree(self.made[name], run)
        victim = rng.choice(sorted(p for p in run.rglob("*") if p.name != ".lock"))
        if not damaged(way, victim, rng):
            return "", ""
        command = rng.choice(COMMANDS)
        kind = victim.relative_to(run).as_posix()
        code, text = child(self.command(name, command, run))
        fault = self._fault(name, command, run, code, text)
        told = f"{name}: {command} after {way}: {fault}\n{text}" if fault else ""
        return kind, told

    def _fault(self, name: str, command: str, run: Path, code: int, text: str) -> str:
        if "Traceback" in text or "Warning:" in text:
            return f"traceback, or a warning of Python's, code {code}"
        if code == 2:
            return "" if text.count("mpilayer: error:") == 1 else "not one message"
        if code:
            return f"code {code}"
        found = results(run)
        finishes = command in ("resume", "again")
        if "half" in name and not finishes:
            return ""
        if not found.keys() >= self.expected[name].keys():
            return "not at the end" if "half" in name else ""
        both = {k: found[k] for k in self.expected[name]}
        wrong = different(both, self.expected[name])
        return f"silent difference: {wrong}" if wrong else ""


def results(run: Path) -> dict[str, Any]:
    """Return the arrays of checkpoints that can be read."""
    found: dict[str, Any] = {}
    for folder in (run, run / "average", run / "exact"):
        with suppress(Exception):
            own = weights(folder)
            where = folder.relative_to(run)
            found |= {f"{where}/{k}": v for k, v in own.items()}
    return {k: v for k, v in found.items() if ".e0" not in k}


def child(line: list[str]) -> tuple[int, str]:
    """Run a command line in a child; return its code and all it has written."""
    with tempfile.TemporaryFile("w+") as output:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                signal.alarm(LIMIT)
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
                # Under pytest they are others, and every warning is an error.
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
                warnings.resetwarnings()
                code = mpilayer(line)
            except BaseException:
                import traceback

                traceback.print_exc()
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
        status = os.waitpid(pid, 0)[1]
        output.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return code, output.read()


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 3, 20]) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _zeros(content: bytes, rng: random.Random) -> bytes:
    return _cut(content, rng).ljust(len(content), b"\0")


def _rubbish(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 100, 5000]))


def _other_type(content: bytes, rng: random.Random) -> bytes:
    """Give a value of a line of JSON, or of all lines, another type."""
    try:
        lines = [json.dumps(json.loads(content))]
    except json.JSONDecodeError:
        lines = content.decode().splitlines()
    number = rng.randrange(len(lines))
    values = json.loads(lines[number])
    _change(values, rng)
    lines[number] = json.dumps(values)
    return "\n".join([*lines, ""]).encode()


def _unsealed(content: bytes, rng: random.Random) -> bytes:
    """Likewise, in a file as an older version has written it."""
    values = json.loads(content)
    values.pop("seal", None)
    _change(values, rng)
    return json.dumps(values).encode()


_OTHERS = (None, True, -1, 10**30, 1e308, "x", [], {}, [1, "x"], float("nan"), -0.5)


def _change(values: Any, rng: random.Random) -> None:
    keys = list(range(len(values))) if isinstance(values, list) else list(values)
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(values[key], list | dict) and values[key] and rng.random() < 0.7:
        _change(values[key], rng)
    elif rng.random() < 0.2:
        del values[key]
    else:
        values[key] = rng.choice(_OTHERS)


def _torn(content: bytes, rng: random.Random) -> bytes:
    """Tear a line, and go on with the next one."""
    lines = content.split(b"\n")
    if len(lines) < 2:
        return content
    number = rng.randrange(len(lines) - 1)
    lines[number] = _cut(lines[number], rng)
    if rng.random() < 0.5:
        lines[number : number + 2] = [lines[number] + lines[number + 1]]
    return b"\n".join(lines)


CONTENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "zeros": _zeros,
    "rubbish": _rubbish,
    "other type": _other_type,
    "unsealed": _unsealed,
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


def damaged(way: str, path: Path, rng: random.Random) -> bool:
    """Damage a file, or put something else in its place; tell whether that was done."""
    if way in PLACES:
        if way == "file" and not path.is_dir():
            return False
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        PLACES[way](path)
        return True
    if not path.is_file() or not path.name.endswith(ENDINGS.get(way, "")):
        return False
    before = path.read_bytes()
    after = CONTENTS[way](before, rng) if before or way == "rubbish" else before
    path.write_bytes(after)
    return after != before


def campaign(folder: Path, tries: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage so many files; return how many of each kind, and all that is wrong."""
    runs, rng = Runs(folder), random.Random(seed)
    counts: Counter[str] = Counter()
    wrong = []
    for way in cycle(WAYS):
        if counts.total() >= tries:
            break
        file, told = runs.try_one(way, rng)
        counts[way] += bool(file)
        if told:
            wrong.append(f"{file}: {told}")
            print(f"--- {wrong[-1]}\n", flush=True)
    return counts, wrong


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = campaign(Path(folder).resolve(), args.tries, args.seed)
    for way, count in sorted(counts.items()):
        print(f"{way:12} {count}")
    print(f"wrong: {len(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
