"""Test error and seconds of every schedule: the tables of docs/results.md.

    python benchmarks/schedules.py mnist.h5 --runs runs/schedules [--seeds 0,1,2]

Every run goes through the command line, on 2 ranks × 1 thread. A run whose summary is
there already is not repeated, so that the script can be stopped and started again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from mpilayer.bench.launches import mpiexec

PAPER = ("--cores", "4", "--extra-epochs", "0,5,20,40", "--end", "first-layer")
SCHEDULES = {
    "greedy": ("greedy",),
    "lockstep, lag 0": ("lockstep", "--lag", "0"),
    "lockstep, lag 2": ("lockstep", "--lag", "2"),
    "lockstep, lag 5": ("lockstep", "--lag", "5"),
    "lockstep, lag 10": ("lockstep", "--lag", "10"),
    "lockstep, lag 0, transformed": ("lockstep", "--activations", "transformed"),
    "async": ("async",),
    "the experiment of the paper, simulated on 4 cores": ("simulate", *PAPER),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", default="", help="part of a schedule's name")
    parser.add_argument("--optimizer", default="sgd")
    args = parser.parse_args()
    print(
        "| schedule | test error | seeds | train | pre-training, s | layer a core, s |"
    )
    print("|---|---|---|---|---|---|")
    for name, options in SCHEDULES.items():
        if args.only in name:
            seeds = [int(seed) for seed in args.seeds.split(",")]
            done = [one_run(args, name, options, seed) for seed in seeds]
            print(row(name, done), flush=True)


def one_run(
    args: argparse.Namespace, name: str, options: tuple[str, ...], seed: int
) -> dict:
    label = "".join(
        c if c.isalnum() else "-" for c in f"{name} {args.optimizer} {seed}"
    )
    run = args.runs / label
    summary = run / "summary.json"
    done = json.loads(summary.read_text()) if summary.exists() else {}
    if not done.get("finetune_seconds"):
        ranks = [*mpiexec(), "-n", "2", sys.executable, "-m", "mpilayer"]
        common = ["--seed", str(seed), "--threads", "1", "--replace"]
        pretrain = ["pretrain", str(args.data), "--run", str(run), "--schedule"]
        launch([*ranks, *pretrain, *options, *common])
        tune = ["--optimizer", args.optimizer, "--epochs", "10", "--minibatch", "100"]
        launch([*ranks, "finetune", str(run), *tune, *common])
    return json.loads(summary.read_text())


def launch(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def row(name: str, runs: list[dict]) -> str:
    each = ", ".join(f"{run['test_error']:.2f}" for run in runs)
    alone = runs[0]["simulated_seconds"]
    return (
        f"| {name} | {mean(run['test_error'] for run in runs):.2f} | {each} | "
        f"{mean(run['train_error'] for run in runs):.2f} | "
        f"{runs[0]['pretrain_seconds']:.0f} | {alone:.0f} |"
    )


if __name__ == "__main__":
    main()
