"""``mpilayer compare``: average against exact sparsity term, from one start."""

import argparse
import json
from typing import Any

from rich.table import Table

from mpilayer.cli import show
from mpilayer.cli.options import add_config, begin_training, config_from
from mpilayer.cli.sparse import add_run
from mpilayer.config import SparseConfig
from mpilayer.runs.compare import EXCHANGEABLE, run_compare


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Train a sparse autoencoder twice from one start, with the average and with "
        "the exact sparsity term (or --kl exact-fused), and compare."
    )
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config(parser, SparseConfig)


def run(args: argparse.Namespace) -> None:
    """Train twice, and print both side by side."""
    config = config_from(args, SparseConfig, "compare")
    session = begin_training(args, "compare", 1)
    result = run_compare(args.data, args.run, config, session, args.replace)
    if session.comm.rank > 0:
        return
    if args.json:
        print(json.dumps(result))
    else:
        with show.told_by(args.run):
            show_comparison(result)


def show_comparison(result: dict[str, Any]) -> None:
    """Print both runs side by side."""
    out = show.console()
    out.print(_runs_table(result))
    out.print(_shards_table(result))
    for line in _remarks(result):
        out.print(line)


def _runs_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"Two runs from one start, {_ranks(result)}")
    table.add_column("")
    runs = result["runs"]
    for name in runs:
        table.add_column(f"trained on\n{name}", justify="right")

    def row(words: str, *keys: str, form: str = ".6f") -> None:
        table.add_row(words, *(_shown(_at(runs[name], keys), form) for name in runs))

    row("average cost", "average_cost")
    row("exact cost", "exact_cost")
    if result["ranks"] > 1:
        row("gap, measured", "gap", "measured", form=".2e")
        row("gap, predicted to second order", "gap", "predicted", form=".2e")
        row("gap, 99 % bound", "gap", "bound", form=".2e")
    row("seconds", "seconds", form=".2f")
    row("milliseconds an evaluation", "seconds_per_evaluation", form="ms")
    row("share of Allreduce", "allreduce_share", form=".1%")
    return table


def _shards_table(result: dict[str, Any]) -> Table:
    table = Table(
        title="Gap at the exact solution, were the rows cut into so many shards"
    )
    for column in (
        "shards",
        "as they lie",
        "predicted",
        "99 % bound",
        "sorted by norm",
    ):
        table.add_column(column, justify="right")
    shards = result["shards"]
    for lying, ordered in zip(
        shards["as_they_lie"], shards["sorted_by_norm"], strict=True
    ):
        gaps = (lying["measured"], lying["predicted"], lying["bound"])
        cells = [_shown(gap, ".2e") for gap in (*gaps, ordered["measured"])]
        table.add_row(str(lying["shards"]), *cells)
    return table


def _remarks(result: dict[str, Any]) -> list[str]:
    lines = ["With one rank both are the same: start several with mpiexec."]
    if result["ranks"] > 1:
        lines = _differences(result)
    if not result["shards"]["exchangeable"]:
        excess = result["shards"]["variance_over_sampling"]
        lines.append(
            f"Warning: the shards differ {excess:.3g} times as much as sampling "
            f"explains (more than {EXCHANGEABLE:g}): the rows are sorted, and the "
            "average is another cost. Shuffle the rows, or use --kl exact."
        )
    return lines


def _differences(result: dict[str, Any]) -> list[str]:
    paper, exact = result["paper"], result["runs"]["exact"]
    slower, per_evaluation = result["exact_slower_by"], exact["seconds_per_evaluation"]
    low, high = paper["exact_slower_by_seconds"]
    return [
        f"Distance of the weights: {result['weights_distance']:.3g}, "
        f"{result['weights_distance_relative']:.1%} of their norm.",
        f"An evaluation took {per_evaluation * 1e3:.2f} ms with the exact term, "
        f"{slower:+.1%} against the average; {paper['source']} measured {low} to "
        f"{high} s more on {paper['of_seconds'][0]} to {paper['of_seconds'][1]} s.",
    ]


def _ranks(result: dict[str, Any]) -> str:
    return f"{result['ranks']} rank{'s' * (result['ranks'] > 1)}"


def _at(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        values = values[key]
    return values


def _shown(value: float | None, form: str) -> str:
    if value is None:
        return "infinite"
    return f"{value * 1e3:.2f}" if form == "ms" else format(value, form)
