"""What is shown of a sweep: its tables, and how they are written."""

import json
from typing import Any

from mpilayer import files
from mpilayer.cli import show
from mpilayer.sweep.plan import SweepPlan
from mpilayer.sweep.table import Table, table_of
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
    out.print(_runs(table))
    if len(table.settings) < len(table.rows):
        out.print(_settings(table))
    if table.pairs:
        out.print(_differences(table))
    out.print(_remarks(table, plan), soft_wrap=True)
    return table


def _runs(table: Table) -> Any:
    rows = [
        [
            row.name,
            row.state,
            *(show.number(row.errors.get(s), 3) for s in table.splits),
        ]
        for row in table.rows[:_MOST_ROWS]
    ]
    title = f"Runs by {table.by} error: {table.measure}"
    return show.table(title, ("run", "state", *table.splits), rows, left=2)


def _settings(table: Table) -> Any:
    rows = []
    for one in table.settings:
        done = f"{one['complete']} of {one['runs']}"
        done += f", {one['diverged']} diverged" if one["diverged"] else ""
        found = [one[split].values() for split in table.splits]
        cells = [" ± ".join(show.number(value, 3) for value in two) for two in found]
        rows.append([one["setting"] or "all", done, *cells])
    title = "Settings: mean over seeds ± standard error"
    return show.table(title, ("setting", "complete", *table.splits), rows, left=2)


def _differences(table: Table) -> Any:
    splits = [s for s in table.splits if s != "train"] or ["train"]
    rows = []
    for pair in table.pairs:
        cells = [f"{pair['setting']} − {pair['minus']}", str(pair[splits[0]]["pairs"])]
        for found in (pair[split] for split in splits):
            ends = " to ".join(show.number(end) for end in found["interval"] or ())
            cells.append(f"{show.number(found['mean'])}: {ends or '–'}")
        rows.append(cells)
    title = "Differences on the same seeds: mean, 95 % interval by Student's t"
    return show.table(title, ("difference", "pairs", *splits), rows)


def _remarks(table: Table, plan: SweepPlan) -> str:
    lines = []
    if len(table.rows) > _MOST_ROWS:
        lines.append(f"{len(table.rows) - _MOST_ROWS} more runs: {plan.path}/sweep.csv")
    if table.pairs and all(p[table.by]["pairs"] < 2 for p in table.pairs):
        lines.append(
            "With fewer than two seeds no interval is known: give --seeds 0-9."
        )
    lines += [f"{row.name}: {row.why}" for row in table.rows if row.why][:5]
    left = sum(row.state in ("begun", "waiting") for row in table.rows)
    if left:
        lines.append(f"{count(left, 'run')} not complete yet.")
    return "\n".join([*lines, f"Results: {plan.path}"])
