"""What ``mpilayer plan`` predicts, and what runs then take, in pairs.

    python -m benchmarks.plan [--only sparse]

Each training is planned immediately before it is run on 1 and 2 ranks, in every layout
that the plan names; seconds are those that the run itself reports.
"""

import argparse
import json
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import NamedTuple

from mpilayer.bench.launches import launch, run_command
from mpilayer.bench.rows import write_patches

DATA = Path(__file__).parent.parent / "data" / "mnist-sample.h5"
_CLOSE = 0.05  # runs that differ by less have no order


class Case(NamedTuple):
    """A training: its command, and options; of sparse the rows come first."""

    command: str
    options: str
    rows: int = 0


CASES = (
    Case("pretrain", "--schedule greedy --epochs 3"),
    Case("pretrain", "--schedule lockstep --epochs 3"),
    Case("pretrain", "--schedule simulate --epochs 2"),
    Case("pretrain", "--method autoencoder --schedule greedy --epochs 3"),
    Case("pretrain", "--layers 500,500 --minibatch 20 --epochs 2"),
    Case("finetune", "--optimizer sgd --minibatch 100 --epochs 3"),
    Case("finetune", "--optimizer adam --minibatch 20 --epochs 1"),
    Case("finetune", "--optimizer adam --minibatch 1000 --epochs 4"),
    Case("sparse", "--kl average --evaluations 1000", 1_000),
    Case("sparse", "--kl exact --optimizer cg --evaluations 400", 10_000),
    Case("sparse", "--kl exact --optimizer sgd --evaluations 20", 10_000),
    Case("sparse", "--kl average --evaluations 100", 100_000),
)


class Pair(NamedTuple):
    """Seconds of a run."""

    name: str
    ranks: int
    layout: str
    predicted: float
    low: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        """Relative, of what was measured."""
        return self.predicted / self.measured - 1


def pairs_of(case: Case, folder: Path) -> list[Pair]:
    """Plan, then run what was planned."""
    run, options = folder / "run", case.options.split()
    what = [str(write_patches(None, case.rows, folder) if case.rows else DATA)]
    if case.command == "finetune":
        greedy = ["--schedule", "greedy", "--epochs", "1", "--replace"]
        launch(run, 1, ["pretrain", what[0], "--run", str(run), *greedy])
        what = [str(run)]
    planner = [sys.executable, "-m", "mpilayer", "plan", case.command, *what]
    told = json.loads(run_command([*planner, "--ranks", "1,2", "--json", *options]))
    line = [case.command, *what, "--replace", *options]
    if case.command != "finetune":
        line += ["--run", str(run)]
    key = "seconds" if case.command == "sparse" else f"{case.command}_seconds"
    rows = f", {case.rows:,} rows" if case.rows else ""
    name = f"{case.command}{rows} {case.options}"
    found = []
    for plan in told["plans"]:
        summary = launch(run, plan["ranks"], [*line, *plan["option"].split()])
        own = (plan["ranks"], plan["layout"], plan["seconds"], plan["low"])
        pair = Pair(name, *own, plan["high"], float(summary[key]))
        print(
            f"{pair.name}, {pair.ranks} ranks, {pair.layout}: predicted "
            f"{pair.predicted:.3g} s, measured {pair.measured:.3g} s",
            file=sys.stderr,
            flush=True,
        )
        found.append(pair)
    return found


def show(groups: list[list[Pair]]) -> None:
    """Print the table of ``docs/plan.md``, and how far predictions are off."""
    print("| training | ranks | layout | predicted, s | measured, s | error |")
    print("|---|---|---|---|---|---|")
    for pair in (pair for group in groups for pair in group):
        cells = [f"`{pair.name}`", str(pair.ranks), pair.layout]
        cells += [f"{pair.predicted:.3g} ({pair.low:.3g}-{pair.high:.3g})"]
        cells += [f"{pair.measured:.3g}", f"{pair.error:+.0%}"]
        print(f"| {' | '.join(cells)} |")
    errors = [abs(pair.error) for group in groups for pair in group]
    ordered = [
        (a.predicted < b.predicted) == (a.measured < b.measured)
        for group in groups
        for a, b in combinations(group, 2)
        if abs(a.measured / b.measured - 1) > _CLOSE
    ]
    inside = [p.low <= p.measured <= p.high for group in groups for p in group]
    share = sum(error <= 0.2 for error in errors) / len(errors)
    print(
        f"\n{len(errors)} runs: median error {median(errors):.1%}, {share:.0%} within "
        f"20 %, {sum(inside)} inside the interval; {sum(ordered)} of {len(ordered)} "
        "pairs of layouts in the right order."
    )


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases that contain this")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [case for case in CASES if args.only in " ".join(map(str, case))]
        show([pairs_of(case, Path(folder)) for case in chosen])


if __name__ == "__main__":
    main()
