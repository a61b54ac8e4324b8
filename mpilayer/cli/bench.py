"""``mpilayer bench``: speed as ratios, in paired runs."""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table
from threadpoolctl import threadpool_limits

from mpilayer.bench import launches, step
from mpilayer.bench.modes import ONE_RANK, compare_modes
from mpilayer.bench.pairs import Comparison, take_turns
from mpilayer.bench.rows import write_images
from mpilayer.bench.scaling import Scaling, compare_scaling
from mpilayer.cli import show
from mpilayer.cli.arguments import add, numbers
from mpilayer.config import SparseConfig, flag
from mpilayer.errors import ConfigError
from mpilayer.papers import LAHIRI_EVALUATIONS, LAHIRI_SECONDS, QJAM

_KINDS = {
    "step": "one CD-1 step against its matrix products",
    "pretrain": "lockstep, and a team, of 2 ranks against greedy on 1; 2 threads",
    "finetune": "fine-tuning on 2 ranks against 1",
    "cost": "a sparse autoencoder's cost on ranks in each mode, and on 1 rank",
    "sparse": "runs of a sparse autoencoder for every number of rows and ranks",
}
_RIVALS = (
    "PyTorch, scikit-learn and plain NumPy beside them: python -m benchmarks.rivals,\n"
    "from a checkout."
)
_PIXELS = 784
_OPTIONS: tuple[tuple[str, Callable[[str], Any], Any, str], ...] = (
    ("rounds", int, None, "counted rounds (5; sparse: 3; cost: 20)"),
    ("layers", numbers, (1000, 500, 250, 30), "hidden units (1000,500,250,30)"),
    ("minibatch", int, 100, "rows (100)"),
    ("threads", int, 1, "step: threads (1)"),
    ("epochs", int, 20, "pretrain, finetune: epochs (20)"),
    ("rows", int, None, "pretrain, finetune: rows (10000); cost: rows (100000)"),
    ("lags", numbers, (0,), "pretrain: lags of lockstep to compare (0)"),
    ("optimizer", str, "sgd", "finetune: optimizer (sgd)"),
    ("ranks", numbers, None, "cost: one thread each (2); sparse: to compare (1,2)"),
    ("sizes", numbers, (1_000, 10_000, 100_000), "sparse: rows (1000,10000,100000)"),
    ("evaluations", int, 500, "sparse: of the cost (500)"),
    ("kl", str, "average", "sparse: its --kl (average)"),
)
"""Name, type, default and help."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = [f"  {name:10}{text}" for name, text in _KINDS.items()]
    parser.epilog = "\n".join([*kinds, "", _RIVALS])
    add(parser, "kind", "what is measured, see below", choices=_KINDS)
    add(parser, "--json")
    for name, type_, default, text in _OPTIONS:
        add(parser, flag(name), text, type=type_, default=default)
    add(parser, "--data", "real rows (default: random ones)")


def run(args: argparse.Namespace) -> None:
    """Measure and print ratios."""
    set_defaults(args)
    check(args)
    with tempfile.TemporaryDirectory() as folder:
        if args.kind == "sparse":
            SparseConfig(evaluations=args.evaluations, kl=args.kl)  # checks both
            options = ["--evaluations", str(args.evaluations), "--kl", args.kl]
            what = (args.data, args.sizes, args.ranks, options, args.rounds)
            print_scaling(compare_scaling(*what, Path(folder), show.say), args)
        else:
            print_comparison(*measure(args, Path(folder)), args)


def set_defaults(args: argparse.Namespace) -> None:
    """Give the options that were left out the value of their kind."""
    usual = {
        "rounds": {"sparse": 3, "cost": 20}.get(args.kind, 5),
        "rows": 100_000 if args.kind == "cost" else 10_000,
        "ranks": (1, 2) if args.kind == "sparse" else (2,),
    }
    for name, value in usual.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def check(args: argparse.Namespace) -> None:
    """Check the numbers."""
    for name, type_, *_ in _OPTIONS:
        found = getattr(args, name)
        counts = found if type_ is numbers else (found,)
        if type_ is not str and name != "lags" and min(counts) < 1:
            raise ConfigError(
                f"{flag(name)} must be at least 1; got {found}. Give a larger number."
            )
    if args.kind == "cost" and len(args.ranks) > 1:
        raise ConfigError(
            f"bench cost takes one number of ranks; got {args.ranks}. Change --ranks."
        )


def measure(args: argparse.Namespace, folder: Path) -> tuple[Comparison, str]:
    """Return the comparison of a kind, and the candidate that ratios are to."""
    rows, rounds = args.rows, args.rounds
    if args.kind == "cost":
        found = compare_modes(args.data, rows, args.ranks[0], rounds, folder)
        return found, "average"
    if args.kind == "step":
        with threadpool_limits(args.threads):
            candidates = step.steps(_PIXELS, args.layers[0], args.minibatch)
            return take_turns(candidates, rounds, say=show.say), "gemm"
    data = write_images(args.data, rows, folder)
    work = launches.Work(data, folder, args.layers, args.epochs, args.minibatch)
    if args.kind == "pretrain":
        candidates = launches.pretrainings(work, args.lags)
    else:
        candidates = launches.finetunings(work, args.optimizer)
    base = next(iter(candidates))
    return take_turns(candidates, rounds, warm_up=0, say=show.say), base


def print_comparison(
    comparison: Comparison, base: str, args: argparse.Namespace
) -> None:
    """Print a row a candidate."""
    names = list(comparison.seconds)
    medians = {name: comparison.median(name) for name in names}
    speed_ups = {name: comparison.ratio(base, name) for name in names}
    if args.json:
        result = {"kind": args.kind, "seconds": comparison.seconds}
        result |= {"median_seconds": medians, "speed_up": speed_ups, "base": base}
        print(json.dumps(result))
        return
    rows = []
    for name in names:
        ratios = comparison.ratios(name, base)
        times = (f"{medians[name]:.4g}", f"{comparison.ratio(name, base):.3f}")
        span = f"{min(ratios):.2f}-{max(ratios):.2f}"
        rows.append([name, *times, span, f"{speed_ups[name]:.2f}"])
    title = f"{_KINDS[args.kind]}\n{args.rounds} rounds; ratios to {base}"
    out = show.console()
    out.print(show.table(title, ("", "median s", "time", "min-max", "speed"), rows))
    if ONE_RANK in names:
        speed = comparison.ratio(ONE_RANK, base)
        out.print(f"{args.ranks[0]} ranks are {speed:.2f} times as fast as 1 ({base}).")


def print_scaling(scaling: Scaling, args: argparse.Namespace) -> None:
    """Print a row a size, the paper's seconds beside ours."""
    if args.json:
        print(json.dumps(scaling_record(scaling, args)))
        return
    out = show.console()
    out.print(scaling_table(scaling, args.evaluations))
    for line in scaling.faster_with_fewer() + scaling.stopped_early(args.evaluations):
        out.print(line, soft_wrap=True)
    if args.evaluations != LAHIRI_EVALUATIONS:
        out.print(f"The paper's seconds are for {LAHIRI_EVALUATIONS} evaluations.")


def scaling_table(scaling: Scaling, evaluations: int) -> Table:
    """Return the table of Lahiri et al. 2010, with our columns before theirs."""
    (base, *others), paper = scaling.ranks, LAHIRI_SECONDS["desktop"]
    workers = list(next(iter(paper.values())))
    speed_ups = [f"speed {ranks}:{base}" for ranks in others]
    head = ["rows", *map(str, scaling.ranks), *speed_ups]
    rows = [
        [
            f"{size:,}",
            *(f"{scaling.seconds(size, ranks):.3g}" for ranks in scaling.ranks),
            *(f"{scaling.speed_up(size, ranks):.2f}" for ranks in others),
            *(str(paper.get(size, {}).get(n, "–")) for n in workers),
        ]
        for size in scaling.sizes
    ]
    title = (
        f"seconds of {evaluations} evaluations, L-BFGS, by ranks of 1 thread\n"
        "paper: Lahiri et al. 2010, desktop, by workers"
    )
    return show.table(title, [*head, *(f"paper {n}" for n in workers)], rows, left=0)


def scaling_record(scaling: Scaling, args: argparse.Namespace) -> dict[str, Any]:
    """Return what JSON says: numbers of rows, then of ranks, are the keys."""

    def by_size(value: Any) -> dict[int, dict[int, Any]]:
        ranks, sizes = scaling.ranks, scaling.sizes
        return {size: {n: value(size, n) for n in ranks} for size in sizes}

    return {
        "kind": args.kind,
        "evaluations": args.evaluations,
        "kl": args.kl,
        "seconds": scaling.comparison.seconds,
        "evaluations_done": scaling.evaluations,
        "median_seconds": by_size(scaling.seconds),
        "speed_up": by_size(scaling.speed_up),
        "faster_with_fewer": scaling.faster_with_fewer(),
        "paper": LAHIRI_SECONDS,
        "source of the cluster": QJAM,
    }
