"""What the user sees: lines, tables, live progress. Only rank 0 gets here."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from mpilayer.cli import lines
from mpilayer.cli.view import done, measure
from mpilayer.errors import CheckpointError
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import Goals
from mpilayer.store.metrics import MetricsReader
from mpilayer.train.record import KINDS, at_barriers
from mpilayer.words import count, spans

# As many fit into 80 columns, of short labels and counts below 10,000.
_MOST_CLASSES = 10
_WIDEST = 80

_LIVE_EVERY = 0.5
_LINES_EVERY = 5.0


say = lines.to_stderr
"""Print a line to stderr: results alone go to stdout."""


def number(value: float | None, form: str = ".2f", none: str = "–") -> str:
    """Return a number in a form, or what stands for ``none``."""
    return none if value is None else format(value, form)


def console() -> Console:
    """Return the console for tables; no narrower than they are when not a terminal."""
    return _console(width=None if sys.stdout.isatty() else _WIDEST)


def screen() -> Console:
    """Return the console of standard error: a terminal also behind a launcher.

    What asks for colours in a log (``FORCE_COLOR``) does not ask for animation.
    """
    width = lines.width()
    return _console(stderr=True, force_terminal=width > 0, width=width or _WIDEST)


def _console(**options: Any) -> Console:
    """Return a console; names of users are not markup."""
    return Console(highlight=False, markup=False, emoji=False, **options)


@contextmanager
def told_by(run: Path) -> Iterator[None]:
    """Show what a run tells of its end, perhaps in a file that others have changed."""
    faults = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
    try:
        yield
    except faults as cause:
        raise CheckpointError(
            f"what {run} tells of its end must be as it was written; found another: "
            f"{type(cause).__name__}: {cause}. Restore its .json files, or remove them "
            f"and call 'mpilayer resume {run}'."
        ) from cause


@contextmanager
def progress(directory: RunDirectory, goals: Goals) -> Iterator[None]:
    """Show progress from the metrics files while the block runs.

    On a terminal one live line a file; otherwise a plain line every few seconds. The
    goals are the lines that the files will have.
    """
    readers = {name: MetricsReader(directory.metrics_file(name)) for name in goals}
    latest: dict[str, dict[str, Any]] = {}
    stop = Event()
    terminal = screen()
    live = terminal.is_interactive

    def look() -> bool:
        news: dict[str, dict[str, Any]] = {}
        for name, reader in readers.items():
            with suppress(OSError):  # it is looked at again
                news.update((name, line) for line in reader.new_lines())
        latest.update(news)
        return bool(news)

    def follow() -> None:
        view = Live(console=terminal, refresh_per_second=4) if live else None
        with view or nullcontext():
            running = True
            while running:
                running = not stop.wait(_LIVE_EVERY if live else _LINES_EVERY)
                has_news = look()
                if view:
                    view.update(_live_table(goals, latest))
                elif has_news:
                    say(progress_line(goals, latest))

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def progress_line(goals: Goals, latest: Mapping[str, dict[str, Any]]) -> str:
    """Return how far each file of metrics is, by its last line, if it has any.

    What is measured is named once.
    """
    parts, named = [], ""
    for name, goal in goals.items():
        line = latest.get(name)
        text = f"{name.replace('layer-', 'layer ')}: {_of(goal, done(line))}"
        if measured := measure(line):
            words = "" if measured[0] == named else f"{measured[0]} "
            text, named = f"{text} ({words}{measured[1]:.2f})", measured[0]
        parts.append(text)
    return "  ".join(parts)


def _of(goal: int | None, done: int) -> str:
    return f"{done}/{goal}" if goal else str(done)


def _live_table(goals: Goals, latest: dict[str, dict[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, goal in goals.items():
        line = latest.get(name)
        measured = measure(line)
        unit = "evaluation" if line and "evaluation" in line else "epoch"
        grid.add_row(
            name.replace("-", " "),
            ProgressBar(goal or 1, done(line) if goal else 0, 24, pulse=not goal),
            f"{unit} {_of(goal, done(line))}",
            f"{measured[0]} {measured[1]:.3f}" if measured else "",
            f"{line.get('training', line.get('seconds')):.2f} s" if line else "",
        )
    return grid


def table(
    title: str, head: Iterable[str], rows: Iterable[Sequence[str]], left: int = 1
) -> Table:
    """Return a table of numbers, set flush right but for so many first columns."""
    made = Table(title=title)
    for place, name in enumerate(head):
        side: JustifyMethod = "left" if place < left else "right"
        made.add_column(name, justify=side, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def error_table(summary: dict[str, Any]) -> Table:
    """Return the errors of PCA, the pre-trained and the fine-tuned stack."""
    kinds = {"pretrained": "pre-trained", "finetuned": "fine-tuned"}
    kinds = {"pca": "PCA, as many components as code units", **kinds}
    rows = [
        [words, *map(number, summary[key].values())]
        for key, words in kinds.items()
        if summary.get(key)
    ]
    title = "Reconstruction error (sum over columns, mean over rows)"
    return table(title, ("", "train", "validation", "test"), rows)


def prediction_table(errors: dict[str, float | None], command: str) -> Table:
    """Return the errors of a classifier or a regressor on all splits."""
    title = "Squared error of the labels, mean over rows"
    title = "Wrong classes, percent" if command == "classify" else title
    return table(title, errors, [list(map(number, errors.values()))], left=0)


def confusion_table(result: dict[str, Any]) -> Table:
    """Return which classes were taken for which: all, or the most frequent mistakes."""
    counts, labels = result["confusion"], list(map(str, result["classes"]))
    widths = [max(4, len(label)) + 3 for label in labels]
    if len(labels) <= _MOST_CLASSES and sum(widths) + max(widths) < _WIDEST:
        rows = [
            [label, *(str(n) if n else "·" for n in row)]
            for label, row in zip(labels, counts, strict=True)
        ]
        title = "Rows of each class (down) taken for each (across)"
        return table(title, ("", *labels), rows, left=0)
    classes = result["classes"]
    mistakes = [
        (-n, classes[i], classes[j])
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if n and i != j
    ]
    worst = sorted(mistakes)[:_MOST_CLASSES]
    rows = [[str(there), str(said), str(-n)] for n, there, said in worst]
    head = ("class", "predicted", "rows")
    return table("Most frequent mistakes", head, rows, left=0)


def time_table(summary: dict[str, Any]) -> Table:
    """Return where the time of each layer went, in seconds; of a team its head's."""
    counts, rows, shares = ("layer", "rank", "epochs"), [], []
    for layer in summary["layers"]:
        cells = [*(str(layer[k]) for k in counts), *(number(layer[k]) for k in KINDS)]
        if team := layer.get("team"):
            cells[1] = spans([layer["rank"], *(rank for rank, *_ in team)])
            shares.append(f"{at_barriers(team):.0%} in layer {cells[0]}")
        rows.append(cells)
    made = table("Seconds of each layer in pre-training", (*counts, *KINDS), rows, 0)
    # A column more would be too wide.
    made.caption = f"at barriers: {', '.join(shares)}" if shares else None
    return made


def cost_table(summary: dict[str, Any]) -> Table:
    """Return the parts of a sparse autoencoder's cost, and its activations."""
    parts = {"half the squared error, mean over rows": "reconstruction"}
    parts |= {"decay of the weights": "decay", "sparsity term": "sparsity"}
    parts["cost"] = "cost"
    if summary["kl"] == "average":
        parts["cost with the exact sparsity term"] = "exact_cost"
    parts["mean firing probability"] = "mean_activation"
    # Modes differ in the fifth decimal.
    rows = [[words, number(summary[key], ".6f")] for words, key in parts.items()]
    # Runs of former versions do not tell.
    if "dead_units" in summary:
        dead = f"{summary['dead_units']} of {summary['n_hidden']}"
        rows.append(["dead hidden units", dead])
    ranks = count(summary["ranks"], "rank")
    title = f"Cost, sparsity term {summary['kl']}, {ranks}"
    return table(title, ("", "at the end"), rows)
