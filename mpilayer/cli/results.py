"""What is shown at the end of a training, by the command that it was."""

from pathlib import Path
from typing import Any

from rich.table import Table

from mpilayer import files
from mpilayer.cli import show
from mpilayer.report import figures
from mpilayer.runs.compare import EXCHANGEABLE
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.tasks import COMPARE, PRETRAIN, SPARSE, TASKS
from mpilayer.words import count


def show_result(
    command: str, run: Path, summary: dict[str, Any], alone: bool = True
) -> None:
    """Print what a training has reached: errors or cost, and times.

    If it stands ``alone``, also what may follow.
    """
    out = show.console()
    if command == COMPARE:
        show_comparison(summary)
    elif command == SPARSE:
        out.print(show.cost_table(summary))
        out.print(
            f"{count(summary['evaluations'], 'evaluation')}, "
            f"{count(summary['iterations'], 'iteration')} in "
            f"{summary['seconds']:.1f} s, {summary['allreduce_seconds']:.1f} s of them "
            f"in Allreduce; stopped by {summary['stopped_by']}.",
            soft_wrap=True,
        )
        out.print(_draw_filters(RunDirectory(run), summary), soft_wrap=True)
    elif command == PRETRAIN:
        out.print(show.time_table(summary))
        out.print(show.error_table(summary))
        following = f" Next: mpilayer finetune {run}" if alone else ""
        out.print(
            f"Pre-training took {summary['pretrain_seconds']:.1f} s.{following}",
            soft_wrap=True,
        )
    else:
        if command == TASKS["autoencode"].name:
            out.print(show.error_table(summary))
        else:
            out.print(show.prediction_table(summary[f"{command}_error"], command))
        out.print(
            f"Fine-tuning took {summary[f'{command}_seconds']:.1f} s, "
            f"{summary[f'{command}_allreduce']:.1f} s of them in Allreduce; the best "
            f"weights are those after epoch {summary[f'{command}_best_epoch']}.",
            soft_wrap=True,
        )


def _draw_filters(directory: RunDirectory, summary: dict[str, Any]) -> str:
    """Draw the filters of square patches; return a line that says where they are."""
    filters, source = None, directory.filters
    picture = source.with_suffix(".png")
    with files.optional(source, "there is no picture of the filters"):
        filters = files.read_array(source)
    if filters is None or filters.ndim != 3:
        return f"Filters: {source}"
    if not figures.available():
        return f"Filters: {source}. For a picture of them install mpilayer[plot]."
    n_visible, n_hidden = summary["n_visible"], summary["n_hidden"]
    title = (
        f"{n_visible}-{n_hidden}-{n_visible}, {summary['optimizer']}, "
        f"cost {show.number(summary['cost'])}"
    )
    with files.optional(picture, "there is no picture of the filters"):
        figures.draw_filters(filters, picture, title)
    return f"Filters: {picture if picture.exists() else source}"


# --- a comparison


def show_comparison(result: dict[str, Any]) -> None:
    """Print both runs side by side."""
    out = show.console()
    out.print(_runs_table(result))
    out.print(_shards_table(result))
    for line in _remarks(result):
        out.print(line)


def _runs_table(result: dict[str, Any]) -> Table:
    runs, ranks = result["runs"], count(result["ranks"], "rank")
    table = Table(title=f"Two runs from one start, {ranks}")
    table.add_column("")
    for name in runs:
        table.add_column(f"trained on\n{name}", justify="right")

    def row(words: str, key: str, form: str, unit: float = 1.0) -> None:
        values = [run[key] for run in runs.values()]
        table.add_row(words, *(_shown(value, form, unit) for value in values))

    row("average cost", "average_cost", ".6f")
    row("exact cost", "exact_cost", ".6f")
    if result["ranks"] > 1:
        for key, words in (
            ("measured", "gap, measured"),
            ("predicted", "gap, predicted to second order"),
            ("bound", "gap, 99 % bound"),
        ):
            gaps = [run["gap"][key] for run in runs.values()]
            table.add_row(words, *(_shown(gap, ".2e") for gap in gaps))
    row("seconds", "seconds", ".2f")
    row("milliseconds an evaluation", "seconds_per_evaluation", ".2f", 1e3)
    row("share of Allreduce", "allreduce_share", ".1%")
    return table


def _shards_table(result: dict[str, Any]) -> Table:
    title = "Gap at the exact solution, were the rows cut into so many shards"
    columns = ("shards", "as they lie", "predicted", "99 % bound", "sorted by norm")
    table = Table(title=title)
    for column in columns:
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


def _shown(value: float | None, form: str, unit: float = 1.0) -> str:
    return "infinite" if value is None else format(value * unit, form)
