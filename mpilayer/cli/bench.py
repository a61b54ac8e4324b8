"""``mpilayer bench``: speed as ratios, in paired runs."""

import argparse
import json
import tempfile
from pathlib import Path

from rich.table import Table

from mpilayer import environment
from mpilayer.bench.launches import (
    Work,
    bench_data,
    compare_finetuning,
    compare_pretraining,
)
from mpilayer.bench.pairs import Comparison
from mpilayer.bench.step import compare_steps
from mpilayer.cli import show
from mpilayer.config import flag, value_from_text
from mpilayer.errors import ConfigError

_KINDS = {
    "step": "one CD-1 step against its matrix products, PyTorch and scikit-learn",
    "pretrain": "lockstep on 2 ranks against greedy on 1 rank, 2 threads, and PyTorch",
    "finetune": "fine-tuning on 2 ranks against 1",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(f"  {name:10}{text}" for name, text in _KINDS.items())
    parser.add_argument("kind", choices=_KINDS, help="what is measured, see below")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--layers", default="1000,500,250,30", help="hidden units (1000,500,250,30)"
    )
    parser.add_argument("--minibatch", type=int, default=100, help="rows (100)")
    parser.add_argument("--threads", type=int, default=1, help="step: threads (1)")
    parser.add_argument(
        "--epochs", type=int, default=20, help="pretrain, finetune: epochs (20)"
    )
    parser.add_argument(
        "--rows", type=int, default=10000, help="pretrain, finetune: rows (10000)"
    )
    parser.add_argument(
        "--lags", default="0", help="pretrain: lags of lockstep to compare (0)"
    )
    parser.add_argument("--optimizer", default="sgd", help="finetune: optimizer (sgd)")
    parser.add_argument(
        "--data", type=Path, metavar="DATA.h5", help="real rows (default: random ones)"
    )


def run(args: argparse.Namespace) -> None:
    """Measure and print ratios."""
    for name in ("rounds", "minibatch", "threads", "epochs", "rows"):
        if getattr(args, name) < 1:
            found = getattr(args, name)
            raise ConfigError(
                f"{name} must be at least 1; got {found}. Change {flag(name)}."
            )
    if environment.launched_size() > 1:
        raise ConfigError("bench starts its ranks itself. Start it without mpiexec.")
    comparison, base = _measure(args)
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
    show.console().print(table)


def _measure(args: argparse.Namespace) -> tuple[Comparison, str]:
    layers = _numbers("layers", args.layers)
    if args.kind == "step":
        comparison = compare_steps(
            784, layers[0], args.minibatch, args.threads, args.rounds
        )
        return comparison, "gemm"
    with tempfile.TemporaryDirectory() as folder:
        data = bench_data(args.data, args.rows, Path(folder))
        work = Work(data, Path(folder), layers, args.epochs, args.minibatch)
        if args.kind == "pretrain":
            lags = _numbers("lags", args.lags)
            comparison = compare_pretraining(work, lags, args.rounds, show.say)
            return comparison, "greedy 1x1"
        comparison = compare_finetuning(work, args.optimizer, args.rounds, show.say)
        return comparison, f"{args.optimizer} 1x1"


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        numbers: tuple[int, ...] = value_from_text(tuple[int, ...], text)
    except ValueError:
        raise ConfigError(
            f"{name} must be numbers with commas; got {text!r}. Change {flag(name)}."
        ) from None
    return numbers
