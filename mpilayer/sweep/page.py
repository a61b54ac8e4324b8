"""The page of a sweep: settings beside one another, all runs, the file of settings."""

from collections.abc import Iterator
from pathlib import Path

from mpilayer.report import html
from mpilayer.report.build import check_outputs, write_page
from mpilayer.report.figures import Chart, Line
from mpilayer.report.words import count
from mpilayer.runs.directory import EXPERIMENT
from mpilayer.sweep.plan import SweepPlan
from mpilayer.sweep.table import (
    Table,
    differences_in_words,
    digits,
    runs_in_words,
    settings_in_words,
    table_of,
)


def write_sweep_page(
    plan: SweepPlan, out: Path, folder: Path | None = None, replace: bool = False
) -> None:
    """Write the page of a sweep, finished or not; see ``write_report``. Local."""
    check_outputs(out, folder, replace)
    table = table_of(plan)
    text = (plan.path / EXPERIMENT).read_text("utf-8", "replace")
    title = f"All runs by {table.by} error: {table.measure}."
    runs = html.table(title, *runs_in_words(table))
    sections = [
        html.Section("settings", "Settings", list(_settings(table))),
        html.Section("runs", "Runs", [runs, *map(html.note, table.causes)]),
        html.Section("configuration", "Configuration", [html.element("pre", text)]),
    ]
    what = f"A sweep of {count(len(table.rows), 'run')}"
    write_page(plan.path.name or "sweep", what, sections, out, folder)


def _settings(table: Table) -> Iterator[html.Part]:
    """Yield means of settings, their differences, and strips of all runs."""
    yield html.table(
        f"Mean over seeds ± standard error of it: {table.measure}. The order is that "
        f"of the {table.by} rows; runs that diverged are in no mean.",
        *settings_in_words(table),
    )
    if table.pairs and table.few:
        yield html.note("With fewer than two seeds no difference has an interval.")
    elif table.pairs:
        yield html.table(
            "Differences of settings on the same seeds: mean, and 95 % interval of it "
            "by Student's t, as if it were the only one.",
            *differences_in_words(table),
        )
    for split in table.splits:
        if split in ("test", table.by):
            yield _strips(table, split)


def _strips(table: Table, split: str) -> html.Figure:
    lines, bars = [], {}
    for one in table.settings:
        name, own = one["setting"] or "all", []
        # By seed: the same place in every strip.
        for row in sorted(table.rows, key=lambda row: row.seed or 0):
            error = row.errors.get(split)
            if row.setting == one["setting"] and error is not None:
                own.append(error)
        lines.append(Line(name, own, own))
        if own:
            bars[name] = (one[split]["mean"], one[split]["standard_error"] or 0.0)
    says = (
        f"Each point is a run; the bar is the mean ± its standard error. {split} rows."
    )
    told = "; ".join(f"{name}: {digits(m)}" for name, (m, _) in bars.items())
    title = f"{table.measure.capitalize()}, {split}"
    alt = f"Strips of the {split} error of {count(len(lines), 'setting')}. {told}"
    name = f"strips-{split}"
    return Chart(name, title, says, lines, table.measure, "", alt).strips(bars)
