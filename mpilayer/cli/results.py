"""What is shown at the end of a training, by the command that it was, or of a sweep."""

import json
from collections.abc import Iterator
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

from rich.table import Table

from mpilayer import files
from mpilayer.cli import show
from mpilayer.report import figures
from mpilayer.runs.compare import EXCHANGEABLE
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.tasks import COMPARE, PRETRAIN, SPARSE, TASKS
from mpilayer.sweep import table as sweeps
from mpilayer.sweep.plan import SweepPlan
from mpilayer.words import count

_ERRORS = {
    "classifier": "wrong classes, percent",
    "regressor": "root mean square error of the labels",
}
_MOST_ROWS = 60  # of the table of a sweep
_LONGEST = 32  # name of a setting that stays in one line
_RECONSTRUCTION = "reconstruction (sum over columns, mean over rows)"


def show_result(
    command: str, run: Path, summary: dict[str, Any], alone: bool = True
) -> None:
    """Print what a training has reached and, if it is ``alone``, what may follow."""
    out = show.console()
    tell = partial(out.print, soft_wrap=True)
    if command == COMPARE:
        show_comparison(summary)
    elif command == SPARSE:
        out.print(show.cost_table(summary))
        tell(
            f"{count(summary['evaluations'], 'evaluation')}, "
            f"{count(summary['iterations'], 'iteration')} in "
            f"{summary['seconds']:.1f} s, {summary['allreduce_seconds']:.1f} s of them "
            f"in Allreduce; stopped by {summary['stopped_by']}."
        )
        tell(_draw_filters(RunDirectory(run), summary))
    elif command == PRETRAIN:
        out.print(show.time_table(summary))
        out.print(show.error_table(summary))
        following = f" Next: mpilayer finetune {run}" if alone else ""
        tell(f"Pre-training took {summary['pretrain_seconds']:.1f} s.{following}")
    else:
        if command == TASKS["autoencode"].name:
            out.print(show.error_table(summary))
        else:
            out.print(show.prediction_table(summary[f"{command}_error"], command))
        tell(
            f"Fine-tuning took {summary[f'{command}_seconds']:.1f} s, "
            f"{summary[f'{command}_allreduce']:.1f} s of them waiting for other ranks; "
            "the best weights are those after epoch "
            f"{summary[f'{command}_best_epoch']}."
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


def evaluation_table(summary: dict[str, Any]) -> Table:
    """Return the errors of all models of an experiment, of whatever kind."""
    kinds = [_ERRORS.get(r["model"], _RECONSTRUCTION) for r in summary.values()]
    rows = []
    for name, result in summary.items():
        size = f"{result['n_samples']} {result['split']}"
        errors = map(show.number, (result["error"], result.get("pca_error")))
        components = str(result.get("n_code", "–"))
        rows.append([name, result["model"], size, *errors, components])
    head = ("run", "model", "rows", "error", "PCA error", "components")
    title = f"Error: {'; '.join(dict.fromkeys(kinds))}"
    return show.table(title, head, rows, left=2)


# --- a comparison


def show_comparison(result: dict[str, Any]) -> None:
    """Print both runs side by side."""
    for part in (_runs_table(result), _shards_table(result), *_remarks(result)):
        show.console().print(part)


def _runs_table(result: dict[str, Any]) -> Table:
    runs = result["runs"]

    def row(words: str, form: str, *keys: str, unit: float = 1.0) -> list[str]:
        found = [reduce(getitem, keys, run) for run in runs.values()]
        return [words, *(_shown(value and unit * value, form) for value in found)]

    rows = [
        row("average cost", ".6f", "average_cost"),
        row("exact cost", ".6f", "exact_cost"),
        row("seconds", ".2f", "seconds"),
        row("milliseconds an evaluation", ".2f", "seconds_per_evaluation", unit=1e3),
        row("share of Allreduce", ".1%", "allreduce_share"),
    ]
    n_shards = runs["exact"]["gap"]["shards"]  # over which the average was taken
    if n_shards > 1:
        rows[2:2] = [
            row("gap, measured", ".2e", "gap", "measured"),
            row("gap, predicted to second order", ".2e", "gap", "predicted"),
            row("gap, 99 % bound", ".2e", "gap", "bound"),
        ]
    shards, ranks = count(n_shards, "shard"), count(result["ranks"], "rank")
    title = f"Two runs from one start, {shards}, {ranks}"
    return show.table(title, ("", *(f"trained on\n{name}" for name in runs)), rows)


def _shards_table(result: dict[str, Any]) -> Table:
    title = "Gap at the exact solution, were the rows cut into so many shards"
    columns = ("shards", "as they lie", "predicted", "99 % bound", "sorted by norm")
    shards, rows = result["shards"], []
    pairs = zip(shards["as_they_lie"], shards["sorted_by_norm"], strict=True)
    for lying, ordered in pairs:
        gaps = (lying["measured"], lying["predicted"], lying["bound"])
        cells = [_shown(gap, ".2e") for gap in (*gaps, ordered["measured"])]
        rows.append([str(lying["shards"]), *cells])
    return show.table(title, columns, rows, left=0)


def _remarks(result: dict[str, Any]) -> list[str]:
    lines = [
        "With one shard both are the same: give --shards N, or start several ranks."
    ]
    if result["runs"]["exact"]["gap"]["shards"] > 1:
        paper = result["paper"]
        seconds = result["runs"]["exact"]["seconds_per_evaluation"]
        low, high = paper["exact_slower_by_seconds"]
        lines = [
            f"Distance of the weights: {result['weights_distance']:.3g}, "
            f"{result['weights_distance_relative']:.1%} of their norm.",
            f"An evaluation took {seconds * 1e3:.2f} ms with the exact term, "
            f"{result['exact_slower_by']:+.1%} against the average; {paper['source']} "
            f"measured {low} to {high} s more on {paper['of_seconds'][0]} to "
            f"{paper['of_seconds'][1]} s.",
        ]
    if not result["shards"]["exchangeable"]:
        excess = result["shards"]["variance_over_sampling"]
        lines.append(
            f"Warning: the shards differ {excess:.3g} times as much as sampling "
            f"explains (more than {EXCHANGEABLE:g}): the rows are sorted, and the "
            "average is another cost. Shuffle the rows, or use --kl exact."
        )
    return lines


_shown = partial(show.number, none="infinite")


# --- a sweep


def show_sweep(plan: SweepPlan, as_json: bool = False) -> sweeps.Table:
    """Print the table of a sweep, and write it beside the runs; return it."""
    table = sweeps.table_of(plan)
    text = json.dumps(table.to_json(), indent=2)
    if plan.path.is_dir():
        with files.optional(plan.path, "its tables are not there"):
            files.write(plan.path / "sweep.json", f"{text}\n")
            files.write(plan.path / "sweep.csv", table.to_csv())
    if as_json:
        print(text)
        return table
    out = show.console()
    head, rows = sweeps.runs_in_words(table)
    title = f"Runs by {table.by} error: {table.measure}"
    out.print(show.table(title, head, rows[:_MOST_ROWS], left=2))
    if len(table.settings) < len(table.rows):
        title = "Settings: mean over seeds ± standard error"
        head, rows = sweeps.settings_in_words(table)
        made = show.table(title, head, rows, left=2)
        # A number within a name must not be folded; means can be, at their spaces.
        made.columns[0].no_wrap = all(len(row[0]) <= _LONGEST for row in rows)
        out.print(made)
    if table.pairs and not table.few:
        title = "Differences on the same seeds: mean, 95 % interval"
        out.print(show.table(title, *sweeps.differences_in_words(table)))
    out.print("\n".join(_remarks_on(table, plan)), soft_wrap=True)
    return table


def _remarks_on(table: sweeps.Table, plan: SweepPlan) -> Iterator[str]:
    if more := max(0, len(table.rows) - _MOST_ROWS):
        yield f"{count(more, 'more run')}: {plan.path}/sweep.csv"
    if table.pairs and table.few:
        yield "With fewer than two seeds no interval is known: give --seeds 0-9."
    yield from table.causes
    if left := sum(row.state in ("begun", "waiting") for row in table.rows):
        yield f"{count(left, 'run')} not complete yet"
    yield f"Results: {plan.path}"
