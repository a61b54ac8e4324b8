"""``mpilayer bench``: speed as ratios, in paired runs."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from mpilayer import environment
from mpilayer.bench.evaluations import ONE_RANK, compare_costs, compare_ranks
from mpilayer.bench.launches import (
    Work,
    bench_data,
    compare_finetuning,
    compare_pretraining,
)
from mpilayer.bench.pairs import Comparison
from mpilayer.bench.patches import patches
from mpilayer.bench.scaling import Scaling, compare_scaling
from mpilayer.bench.step import compare_steps
from mpilayer.cli import show
from mpilayer.config import SparseConfig, flag
from mpilayer.errors import ConfigError
from mpilayer.papers import LAHIRI_EVALUATIONS, LAHIRI_SECONDS, QJAM

_KINDS = {
    "step": "one CD-1 step against its matrix products, PyTorch and scikit-learn",
    "pretrain": "lockstep on 2 ranks against greedy on 1 rank, 2 threads, and PyTorch",
    "finetune": "fine-tuning on 2 ranks against 1",
    "cost": "a sparse autoencoder's cost and gradient: rivals, or modes on ranks",
    "sparse": "runs of a sparse autoencoder for every number of rows and ranks",
}

_DEFAULTS: dict[str, dict[str, Any]] = {
    "rounds": {"": 5, "sparse": 3},
    "rows": {"": 10_000, "cost": 100_000},
    "ranks": {"": "1", "sparse": "1,2"},
}
"""Option to kind to value; "" for all other kinds."""

_ROUNDS_OF_RANKS = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(f"  {name:10}{text}" for name, text in _KINDS.items())
    parser.add_argument("kind", choices=_KINDS, help="what is measured, see below")
    parser.add_argument(
        "--rounds",
        type=int,
        help="counted rounds (5; sparse: 3; cost on several ranks: 20)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--layers", default="1000,500,250,30", help="hidden units (1000,500,250,30)"
    )
    parser.add_argument("--minibatch", type=int, default=100, help="rows (100)")
    parser.add_argument(
        "--threads", type=int, default=1, help="step, cost: threads (1)"
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="pretrain, finetune: epochs (20)"
    )
    parser.add_argument(
        "--rows", type=int, help="pretrain, finetune: rows (10000); cost: rows (100000)"
    )
    parser.add_argument(
        "--lags", default="0", help="pretrain: lags of lockstep to compare (0)"
    )
    parser.add_argument("--optimizer", default="sgd", help="finetune: optimizer (sgd)")
    add_sparse(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DATA.h5", help="real rows (default: random ones)"
    )


def add_sparse(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the sparse autoencoder's kinds."""
    parser.add_argument(
        "--ranks", help="cost: ranks, one thread each (1); sparse: to compare (1,2)"
    )
    parser.add_argument(
        "--sizes", default="1000,10000,100000", help="sparse: rows (1000,10000,100000)"
    )
    parser.add_argument(
        "--evaluations", type=int, default=500, help="sparse: of the cost (500)"
    )
    parser.add_argument("--kl", default="average", help="sparse: its --kl (average)")


def run(args: argparse.Namespace) -> None:
    """Measure and print ratios."""
    set_defaults(args)
    check(args)
    if args.kind == "sparse":
        print_scaling(measure_scaling(args), args)
        return
    print_comparison(*measure(args), args)


def set_defaults(args: argparse.Namespace) -> None:
    """Give the options that were left out the value of their kind."""
    for name, values in _DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, values.get(args.kind, values[""]))
            if (args.kind, name) == ("cost", "rounds") and args.ranks not in (
                None,
                "1",
            ):
                args.rounds = _ROUNDS_OF_RANKS


def check(args: argparse.Namespace) -> None:
    """Check the numbers.

    Raises
    ------
    ConfigError
        One is out of range, or this is one of several ranks.
    """
    for name in ("rounds", "minibatch", "threads", "epochs", "rows", "evaluations"):
        if getattr(args, name) < 1:
            found = getattr(args, name)
            raise ConfigError(
                f"{name} must be at least 1; got {found}. Change {flag(name)}."
            )
    if environment.launched_size() > 1:
        raise ConfigError("bench starts its ranks itself. Start it without mpiexec.")


def measure(args: argparse.Namespace) -> tuple[Comparison, str]:
    """Return the comparison of a kind, and the candidate that ratios are to."""
    with tempfile.TemporaryDirectory() as folder:
        if args.kind == "step":
            return measure_step(args)
        if args.kind == "cost":
            return measure_cost(args, Path(folder))
        return measure_training(args, Path(folder))


def measure_step(args: argparse.Namespace) -> tuple[Comparison, str]:
    """Time steps of contrastive divergence."""
    n_hidden = _numbers("layers", args.layers)[0]
    comparison = compare_steps(784, n_hidden, args.minibatch, args.threads, args.rounds)
    return comparison, "gemm"


def measure_training(args: argparse.Namespace, folder: Path) -> tuple[Comparison, str]:
    """Time pre-training or fine-tuning."""
    layers = _numbers("layers", args.layers)
    data = bench_data(args.data, args.rows, folder)
    work = Work(data, folder, layers, args.epochs, args.minibatch)
    if args.kind == "pretrain":
        lags = _numbers("lags", args.lags)
        comparison = compare_pretraining(work, lags, args.rounds, show.say)
        return comparison, "greedy 1x1"
    comparison = compare_finetuning(work, args.optimizer, args.rounds, show.say)
    return comparison, f"{args.optimizer} 1x1"


def measure_cost(args: argparse.Namespace, folder: Path) -> tuple[Comparison, str]:
    """Time evaluations of the sparse cost, in one process or on ranks."""
    ranks, *more = _counts("ranks", args.ranks)
    if more:
        raise ConfigError(
            f"bench cost takes one number of ranks; got {args.ranks}. Change --ranks."
        )
    if ranks == 1:
        rows = patches(args.data, args.rows)
        return compare_costs(rows, args.threads, args.rounds, show.say), "gemm"
    comparison = compare_ranks(args.data, args.rows, ranks, args.rounds, folder)
    return comparison, "average"


def measure_scaling(args: argparse.Namespace) -> Scaling:
    """Time whole runs of the sparse autoencoder."""
    sizes, ranks = _counts("sizes", args.sizes), _counts("ranks", args.ranks)
    config = SparseConfig(evaluations=args.evaluations, kl=args.kl)
    options = ["--evaluations", str(config.evaluations), "--kl", config.kl]
    with tempfile.TemporaryDirectory() as folder:
        return compare_scaling(
            args.data, sizes, ranks, options, args.rounds, Path(folder), show.say
        )


def print_comparison(
    comparison: Comparison, base: str, args: argparse.Namespace
) -> None:
    """Print a row a candidate."""
    names = list(comparison.seconds)
    if args.json:
        result = {
            "kind": args.kind,
            "seconds": comparison.seconds,
            "median_seconds": {name: comparison.median(name) for name in names},
            "speed_up": {name: comparison.ratio(base, name) for name in names},
            "base": base,
        }
        print(json.dumps(result))
        return
    table = Table(title=f"{_KINDS[args.kind]}\n{args.rounds} rounds; ratios to {base}")
    table.add_column("", no_wrap=True)
    for column in ("median s", "time", "min-max", "speed"):
        table.add_column(column, justify="right")
    for name in names:
        low, high = comparison.spread(name, base)
        table.add_row(
            name,
            f"{comparison.median(name):.4g}",
            f"{comparison.ratio(name, base):.3f}",
            f"{low:.2f}-{high:.2f}",
            f"{comparison.ratio(base, name):.2f}",
        )
    out = show.console()
    out.print(table)
    if ONE_RANK in names:
        out.print(
            f"{args.ranks} ranks are {comparison.ratio(ONE_RANK, base):.2f} times as "
            f"fast as 1 ({base})."
        )


def print_scaling(scaling: Scaling, args: argparse.Namespace) -> None:
    """Print a row a size, the paper's seconds beside ours."""
    if args.json:
        print(json.dumps(scaling_record(scaling, args)))
        return
    out = show.console()
    out.print(scaling_table(scaling, args.evaluations))
    lines = [*scaling.faster_with_fewer(), *scaling.stopped_early(args.evaluations)]
    for line in lines:
        out.print(line, soft_wrap=True)
    if args.evaluations != LAHIRI_EVALUATIONS:
        out.print(f"The paper's seconds are for {LAHIRI_EVALUATIONS} evaluations.")


def scaling_table(scaling: Scaling, evaluations: int) -> Table:
    """Return the table of Lahiri et al. 2010, with our columns before theirs."""
    table = Table(
        title=f"seconds of {evaluations} evaluations, L-BFGS, by ranks of 1 thread\n"
        "paper: Lahiri et al. 2010, desktop, by workers"
    )
    base, paper = scaling.ranks[0], LAHIRI_SECONDS["desktop"]
    workers = list(next(iter(paper.values())))
    speed_ups = [f"speed {ranks}:{base}" for ranks in scaling.ranks[1:]]
    ours = [str(ranks) for ranks in scaling.ranks]
    for column in ("rows", *ours, *speed_ups, *(f"paper {n}" for n in workers)):
        table.add_column(column, justify="right", no_wrap=True)
    for size in scaling.sizes:
        theirs = paper.get(size, {})
        table.add_row(
            f"{size:,}",
            *(f"{scaling.seconds(size, ranks):.3g}" for ranks in scaling.ranks),
            *(f"{scaling.speed_up(size, ranks):.2f}" for ranks in scaling.ranks[1:]),
            *(str(theirs.get(n, "–")) for n in workers),
        )
    return table


def scaling_record(scaling: Scaling, args: argparse.Namespace) -> dict[str, Any]:
    """Return what JSON says: numbers of rows, then of ranks, are the keys."""

    def by_size(value: Any) -> dict[int, dict[int, Any]]:
        return {
            size: {ranks: value(size, ranks) for ranks in scaling.ranks}
            for size in scaling.sizes
        }

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


def _counts(name: str, text: str) -> tuple[int, ...]:
    """Return numbers of 1 or more, at least one of them."""
    numbers = _numbers(name, text)
    if not numbers or min(numbers) < 1:
        raise ConfigError(
            f"{name} must be at least 1; got {text}. Change {flag(name)}."
        )
    return numbers


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{name} must be numbers with commas; got {text!r}. Change {flag(name)}."
        ) from None
    return numbers
