"""Lets the operating system refuse calls on files, and looks at what comes of it.

    python -m tests.robust.run_faults [--faults 500] [--seed 0] [--modes sparse,run]

Every launch has one fault of a file below its folder: the Kth call of one kind, on one
rank, fails, or it and all later ones. Then the launch must have ended with the right
result, to the bit; or with one message, without a traceback, and code 2, and what the
message says must bring the right result. See ``run_faults.c``.
"""

import argparse
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.traces import different, errors, weights
from tests.support import launch
from tests.support.small import write_pixels

KINDS = ("open", "read", "write", "rename", "fsync", "unlink")
ERRORS = ("EIO", "EMFILE", "ENFILE", "ENOSPC", "EROFS")
LIMIT = 120.0

_SMALL = "--minibatch 50 --threads 1 --checkpoint-every 1"
_SPARSE = "--hidden 5 --output linear --kl exact --sparsity-target 0.2 --evaluations 12"
_PLAN = """
[experiment]
name = "small"
[data]
path = "{data}"
[pretrain]
layers = [8, 6]
epochs = [2]
minibatch = 50
[finetune]
epochs = 2
minibatch = 50
[sparse]
hidden = 5
output = "linear"
evaluations = 6
"""
MODES = {
    "pretrain": f"pretrain DATA --run RUN --layers 8,6 --epochs 3 {_SMALL}",
    "teams": f"pretrain DATA --run RUN --layers 130,6 --slices 2,1 --epochs 3 {_SMALL}",
    "finetune": f"finetune RUN --epochs 3 --optimizer adam {_SMALL}",
    "sparse": f"sparse DATA --run RUN {_SPARSE} {_SMALL}",
    "compare": f"compare DATA --run RUN {_SPARSE} {_SMALL}",
    "run": "run PLAN --run RUN --threads 1 --checkpoint-every 1",
}


@dataclass(frozen=True)
class Fault:
    """The Nth call of a kind, or that and all later ones, fails on one of the ranks."""

    mode: str
    ranks: int
    rank: int
    kind: str
    error: str
    call: int
    lasting: bool = False


class Place:
    """A folder in which runs of all modes can be made, and their results compared."""

    def __init__(self, folder):
        self.folder, self.here, self._base = folder, folder / "here", folder / "base"
        self._base.mkdir(parents=True)
        write_pixels(self._base / "data.h5", n_rows=120)
        plan = _PLAN.format(data=self.here / "data.h5")
        (self._base / "plan.toml").write_text(plan)
        self.shim, source = folder / "shim.so", Path(__file__).with_suffix(".c")
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or sys.platform != "linux":
            pytest.skip("needs a C compiler and Linux")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", self.shim, source]
        subprocess.run([*command, "-ldl"], check=True)
        self.counts = cache(self._counts)
        self.expected = cache(self._expected)

    def launch(self, mode, ranks, *more, **variables):
        """Start a mode, with the shim."""
        names = {"DATA": "data.h5", "RUN": "run", "PLAN": "plan.toml"}
        words = [self.here / names[w] if w in names else w for w in MODES[mode].split()]
        settings = {f"SHIM_{k}": str(v) for k, v in variables.items()}
        settings |= {"LD_PRELOAD": str(self.shim), "SHIM_FOLDER": str(self.here)}
        return launch.run(*words, *more, ranks=ranks, limit=LIMIT, variables=settings)

    def prepare(self, mode):
        """Put there what a mode begins with."""
        if mode == "finetune":
            self.expected("pretrain", 0)
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self._base, self.here)
        if mode == "finetune":
            shutil.copytree(self.folder / "pretrain-0", self.here / "run")

    def result(self):
        """Return the arrays that were trained, and texts: errors, not times."""
        arrays, texts = {}, {}
        for path in sorted((self.here / "run").rglob("summary.json")):
            run, where = path.parent, path.parent.relative_to(self.here)
            # What is of no use any more may be left.
            own = {k: v for k, v in weights(run).items() if ".e0" not in k}
            arrays |= {f"{where}/{k}": v for k, v in own.items()}
            texts[f"{where}/errors"] = json.dumps(errors(run))
            texts[f"{where}/complete"] = (run / "complete").read_text()
        return arrays, texts

    def differences(self, mode, ranks):
        """Return what is not as if nothing had happened."""
        (arrays, texts), (others, told) = self.result(), self.expected(mode, ranks)
        wrong = [k for k in texts | told if texts.get(k) != told.get(k)]
        return wrong + different(arrays, others)

    def try_one(self, fault):
        """Return ``right``, ``resumed``, or what is wrong."""
        self.prepare(fault.mode)
        number = getattr(errno, fault.error)
        what = {"KIND": fault.kind, "CALL": fault.call, "ERRNO": number}
        what |= {"RANK": fault.rank, "LASTING": int(fault.lasting)}
        result = self.launch(fault.mode, fault.ranks, **what)
        if "Traceback" in result.stderr:
            return f"traceback\n{result}"
        if result.code == 0:
            wrong = self.differences(fault.mode, fault.ranks)
            return f"silent difference {wrong}\n{result}" if wrong else "right"
        words = result.stderr.partition("mpilayer: error: ")[2]
        if result.code != 2 or result.stderr.count("mpilayer: error:") != 1:
            return f"no message, or several\n{result}"
        if os.strerror(number).lower() not in words.lower():
            return f"no reason\n{result}"
        begun = (self.here / "run" / "config.toml").exists()
        resumable = begun and fault.mode not in ("run", "finetune")
        if resumable and "mpilayer resume" not in words:
            return f"no way on\n{result}"
        again = self.launch(fault.mode, fault.ranks, "--resume", "auto")
        if again.code:
            return f"lost\n{result}\n{again}"
        wrong = self.differences(fault.mode, fault.ranks)
        return f"other result {wrong}\n{result}\n{again}" if wrong else "resumed"

    def _expected(self, mode, ranks):
        self._counts(mode, ranks)
        kept = self.folder / f"{mode}-{ranks}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.here / "run", kept)
        return self.result()

    def _counts(self, mode, ranks):
        """Return the calls of each rank and kind of an undisturbed launch."""
        self.prepare(mode)
        prefix = self.folder / f"count-{mode}-{ranks}"
        self.launch(mode, ranks, COUNTS=prefix).ok()
        found = {}
        for rank in range(max(1, ranks)):
            lines = Path(f"{prefix}-{rank}").read_text().split()
            found[rank] = dict(zip(lines[::2], map(int, lines[1::2]), strict=True))
        return found


def faults(place, rng, modes):
    """Yield faults without end: all modes, ranks, kinds and errors in turn."""
    while True:
        for mode in modes:
            for kind in rng.sample(KINDS, len(KINDS)):
                # Two of three are the team of one layer.
                ranks = rng.choice([0, 3 if mode == "teams" else 2])
                counts = place.counts(mode, ranks)
                rank = rng.randrange(len(counts))
                rank = rank if counts[rank][kind] else 0
                # The few calls of the beginning and end matter as much as all others.
                n = counts[rank][kind]
                spread = [rng.randint(1, n), rng.randint(1, min(n, 12))]
                spread.append(rng.randint(max(1, n - 12), n))
                lasting = rng.random() < 0.25
                error = rng.choice(ERRORS)
                yield Fault(mode, ranks, rank, kind, error, rng.choice(spread), lasting)


def main():
    """Try faults; print what is wrong, and a table of the outcomes of each mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", default=",".join(MODES))
    args = parser.parse_args()
    outcomes = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder).resolve() / "place")
        source = faults(place, random.Random(args.seed), args.modes.split(","))
        for number, fault in enumerate(islice(source, args.faults)):
            try:
                outcome = place.try_one(fault)
            except (pytest.fail.Exception, Exception) as error:
                outcome = f"hang, or files that cannot be read: {error!r}"
            short = outcome.splitlines()[0].split(" [")[0]
            outcomes[fault.mode, short] += 1
            if short not in ("right", "resumed"):
                print(f"--- {number}: {fault}\n{outcome}\n", flush=True)
    for (mode, outcome), count in sorted(outcomes.items()):
        print(f"{mode:10} {outcome:40} {count}")
    return int(any(outcome not in ("right", "resumed") for _, outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
