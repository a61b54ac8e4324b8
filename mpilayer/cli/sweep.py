"""What is shown of a sweep: its tables, and how they are written."""

import json
from collections.abc import Iterator

from mpilayer import files
from mpilayer.cli import show
from mpilayer.sweep.plan import SweepPlan
from mpilayer.sweep.table import (
    Table,
    differences_in_words,
    runs_in_words,
    settings_in_words,
    table_of,
)
from mpilayer.words import count

_MOST_ROWS = 60


def show_sweep(plan: SweepPlan, as_json: bool = False) -> Table:
    """Print the table of a sweep, and write it beside the runs; return it."""
    table = table_of(plan)
    text = json.dumps(table.to_json(), indent=2)
    if plan.path.is_dir():
        with files.optional(plan.path, "its tables are not there"):
            files.write(plan.path / "sweep.json", f"{text}\n")
            files.write(plan.path / "sweep.csv", table.to_csv())
    if as_json:
        print(text)
        return table
    out = show.console()
    head, rows = runs_in_words(table)
    title = f"Runs by {table.by} error: {table.measure}"
    out.print(show.table(title, head, rows[:_MOST_ROWS], left=2))
    if len(table.settings) < len(table.rows):
        title = "Settings: mean over seeds ± standard error"
        out.print(show.table(title, *settings_in_words(table), left=2))
    if table.pairs and not table.few:
        title = "Differences on the same seeds: mean, 95 % interval"
        out.print(show.table(title, *differences_in_words(table)))
    out.print("\n".join(_remarks(table, plan)), soft_wrap=True)
    return table


def _remarks(table: Table, plan: SweepPlan) -> Iterator[str]:
    if more := max(0, len(table.rows) - _MOST_ROWS):
        yield f"{count(more, 'more run')}: {plan.path}/sweep.csv"
    if table.pairs and table.few:
        yield "With fewer than two seeds no interval is known: give --seeds 0-9."
    yield from table.causes
    if left := sum(row.state in ("begun", "waiting") for row in table.rows):
        yield f"{count(left, 'run')} not complete yet"
    yield f"Results: {plan.path}"
