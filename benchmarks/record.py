"""Digests of trained weights, before and after a change that must not alter them.

    python -m benchmarks.record -o before.json
    python -m benchmarks.record --compare before.json

Every way of training, on 1 and on 3 ranks, with one BLAS thread each, on a part of the
embedded digits. Digests are of one machine: other kernels of BLAS round otherwise. The
run directories stay with ``--runs DIR``: later versions must go on with them. What lies
in ``record.json`` was made with OpenBLAS 0.3.31 and its Haswell kernels.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.traces import weights
from mpilayer.bench.launches import mpiexec
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split

ROOT = Path(__file__).parents[1]
RANKS = (1, 3)

_STACK = "--layers 40,20,10 --epochs 3 --minibatch 50 --seed 3 --learning-rate 0.1"
_TUNE = "--epochs 2 --minibatch 50 --seed 3"
_SPARSE = "--hidden 20 --seed 3"
_LAYERS = {
    "greedy": "--schedule greedy",
    "lockstep": "--schedule lockstep --lag 0",
    "lag-2": "--schedule lockstep --lag 2",
    "simulate": "--schedule simulate --extra-epochs 0,1,2 --end first-layer",
    "replay": "--schedule replay:{table}",
    "autoencoder": "--method autoencoder",
    "linear-code": "--code linear --learning-rate 0.1,0.1,0.005 --momentum 0.5,0.9",
}
_TASKS = {
    "sgd": "--optimizer sgd",
    "momentum": "--optimizer momentum --weight-decay 0.001",
    "adam": "--optimizer adam --loss cross-entropy",
    "classify": "--task classify --optimizer adam --dropout 0.3",
    "regress": "--task regress --optimizer adam --learning-rate-decay 0.9",
}
_MODES = {
    f"{optimizer}-{kl}": f"--optimizer {optimizer} --kl {kl} {length}"
    for optimizer, length in {
        "lbfgs": "--evaluations 30",
        "cg": "--evaluations 30",
        "sgd": "--evaluations 4 --minibatch 50",
    }.items()
    for kl in ("average", "exact", "exact-fused")
}
# The output of the layer below that each epoch uses: uneven, as an asynchronous run's.
_TABLE = {
    "format_version": 1,
    "kind": "async",
    "stipulated": [3, 3, 3],
    "epochs": [3, 4, 5],
    "settings": {"activations": "transformed"},
    "used": [[0, 0, 0], [1, 1, 2, 3], [1, 1, 2, 3, 4]],
    "dropped": [],
    "virtual_end": [],
}


def launches(folder: Path) -> Iterator[tuple[str, Path, list[str], int]]:
    """Yield name, run directory, command and ranks of all launches, in order.

    Parameters
    ----------
    folder : Path
        Has ``data.h5`` and ``table.json``; gets the run directories.
    """
    data = str(folder / "data.h5")
    for ranks in RANKS:
        there = folder / f"ranks-{ranks}"
        for name, options in _LAYERS.items():
            run = there / name
            words = f"{_STACK} {options}".format(table=folder / "table.json").split()
            yield name, run, ["pretrain", data, "--run", str(run), *words], ranks
        for name, options in _TASKS.items():
            run = there / "linear-code"
            words = f"{_TUNE} {options} --replace".split()
            yield name, run, ["finetune", str(run), *words], ranks
        for name, options in _MODES.items():
            run = there / name
            words = f"{_SPARSE} {options}".split()
            yield name, run, ["sparse", data, "--run", str(run), *words], ranks


def record(folder: Path) -> dict[str, str]:
    """Return a digest of all checkpoints after each launch."""
    with Dataset.open(ROOT / "data" / "mnist-sample.h5") as sample:
        parts = {
            name: Split(
                np.ascontiguousarray(sample.rows(name)[::10, ::4]),
                sample.labels(name)[::10],
            )
            for name in ("train", "validation", "test")
        }
    path = folder / "data.h5"
    write_dataset(path, parts, name="part", origin="mnist-sample", scale=1.0)
    (folder / "table.json").write_text(json.dumps(_TABLE))
    found = {}
    for name, run, words, ranks in launches(folder):
        launcher = [] if ranks == 1 else [*mpiexec(), "-n", str(ranks)]
        command = [*launcher, sys.executable, "-m", "mpilayer", *words]
        ended = subprocess.run(
            [*command, "--threads", "1"], capture_output=True, text=True, cwd=ROOT
        )
        if ended.returncode:
            raise SystemExit(f"{' '.join(words)}\n{ended.stderr}")
        found[f"{name}, {ranks} ranks"] = digest(run)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def digest(run: Path) -> str:
    """Return a digest of every array of every checkpoint of a run."""
    whole = hashlib.sha256()
    for name, array in sorted(weights(run).items()):
        whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def main() -> int:
    """Record, or compare; the exit code says whether all are the same."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--runs", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.runs or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = record(folder)
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    if not args.compare:
        return 0
    expected = json.loads(args.compare.read_text())
    others = [name for name in expected if found.get(name) != expected[name]]
    print(
        f"{len(expected) - len(others)} of {len(expected)} the same", *others, sep="\n"
    )
    return bool(others)


if __name__ == "__main__":
    sys.exit(main())
