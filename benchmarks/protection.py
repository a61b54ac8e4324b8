"""What saving after every epoch adds to the time of pre-training.

    python benchmarks/protection.py mnist.h5 --runs runs/protection [--rounds 5]

Paired: runs that save at the end only and runs that save every epoch of every layer
take turns, on 2 ranks × 1 thread. The seconds are those of training, start-up left out.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from mpilayer.bench.launches import launch
from mpilayer.bench.pairs import take_turns

NEVER = str(10**9)
WAYS = {
    "at the end": ("--checkpoint-seconds", NEVER),
    "every epoch": ("--checkpoint-every", "1", "--checkpoint-seconds", NEVER),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    args = parser.parse_args()
    runs = {name: pretraining(args, *options) for name, options in WAYS.items()}
    found = take_turns(runs, args.rounds, say=lambda line: print(line, flush=True))
    ratio, (least, most) = (
        of("every epoch", "at the end") for of in (found.ratio, found.spread)
    )
    print(f"every epoch adds {ratio - 1:.1%} ({least - 1:.1%} to {most - 1:.1%})")


def pretraining(args: argparse.Namespace, *options: str) -> Callable[[], float]:
    run = args.runs / "run"
    arguments = [
        *("pretrain", str(args.data), "--run", str(run), "--replace"),
        *("--threads", "1", "--epochs", str(args.epochs), *options),
    ]
    return lambda: float(launch(run, args.ranks, arguments)["pretrain_seconds"])


if __name__ == "__main__":
    main()
