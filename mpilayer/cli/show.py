"""What the user sees: lines, tables, live progress. Only rank 0 gets here."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from mpilayer.cli import lines
from mpilayer.errors import CheckpointError
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import Goals
from mpilayer.store.metrics import MetricsReader
from mpilayer.train.record import KINDS
from mpilayer.words import count

_PREDICTION_TITLES = {
    "classify": "Wrong classes, percent",
    "regress": "Squared error of the labels, mean over rows",
}
# As many fit into 80 columns, of short labels and counts below 10,000.
_MOST_CLASSES = 10
_WIDEST = 80

_LIVE_EVERY = 0.5
_LINES_EVERY = 5.0


def say(line: str) -> None:
    """Print a line to stderr: results alone go to stdout."""
    lines.to_stderr(line)


def console() -> Console:
    """Return the console for tables; no narrower than they are when not a terminal."""
    return _console(width=None if sys.stdout.isatty() else 80)


def screen() -> Console:
    """Return the console of standard error: a terminal also behind a launcher.

    What asks for colours in a log (``FORCE_COLOR``) does not ask for animation.
    """
    width = lines.width()
    return _console(stderr=True, force_terminal=width > 0, width=width or 80)


def _console(**options: Any) -> Console:
    """Return a console; names of users are not markup."""
    return Console(highlight=False, markup=False, emoji=False, **options)


@contextmanager
def told_by(run: Path) -> Iterator[None]:
    """Show what a run tells of its end, perhaps in a file that a stranger has changed.

    Raises
    ------
    CheckpointError
        It is not what runs tell.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as cause:
        raise CheckpointError(
            f"what {run} tells of its end must be as it was written; found another: "
            f"{type(cause).__name__}: {cause}. Restore its .json files, or remove them "
            f"and call 'mpilayer resume {run}'."
        ) from cause


@contextmanager
def progress(directory: RunDirectory, goals: Goals) -> Iterator[None]:
    """Show progress from the metrics files while the block runs.

    On a terminal one live line a file; otherwise a plain line every few seconds.

    Parameters
    ----------
    directory : RunDirectory
        The run, which all ranks write into.
    goals : mapping of str to int or None
        Files of metrics and the lines that they will have.
    """
    readers = {name: MetricsReader(directory.metrics_file(name)) for name in goals}
    latest: dict[str, dict[str, Any]] = {}
    stop = Event()
    terminal = screen()
    live = terminal.is_interactive

    def look() -> bool:
        news = False
        for name, reader in readers.items():
            with suppress(OSError):  # it is looked at again
                for line in reader.new_lines():
                    latest[name] = line
                    news = True
        return news

    def show_lines() -> None:
        while not stop.wait(_LINES_EVERY):
            if look():
                say(progress_line(goals, latest))

    def show_live() -> None:
        with Live(console=terminal, refresh_per_second=4) as view:
            running = True
            while running:
                running = not stop.wait(_LIVE_EVERY)
                look()
                view.update(_live_table(goals, latest))

    thread = Thread(target=show_live if live else show_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
        if not live and look():
            say(progress_line(goals, latest))


def progress_line(goals: Goals, latest: Mapping[str, dict[str, Any]]) -> str:
    """Return how far each file of metrics is; what is measured is named once.

    Parameters
    ----------
    goals : mapping of str to int or None
        Files of metrics and the lines that they will have.
    latest : mapping of str to dict
        The last line of those that have any.
    """
    parts, named = [], ""
    for name, goal in goals.items():
        line = latest.get(name)
        label, done = name.replace("layer-", "layer "), _done(line)
        text = f"{label}: {done}/{goal}" if goal else f"{label}: {done}"
        measure = _measure(line)
        if measure:
            words = "" if measure[0] == named else f"{measure[0]} "
            text, named = f"{text} ({words}{measure[1]:.2f})", measure[0]
        parts.append(text)
    return "  ".join(parts)


def _done(line: dict[str, Any] | None) -> int:
    """Return how many lines a file of metrics has, by its last one."""
    return int(line.get("epoch") or line["evaluation"]) if line else 0


def _measure(line: dict[str, Any] | None) -> tuple[str, float] | None:
    """Return the name and value of what shows best how far training is."""
    keys = ("validation_error", "train_error", "train_loss", "cost")
    found = ((k, line[k]) for k in keys if line and line.get(k) is not None)
    return next(((key.replace("_", " "), value) for key, value in found), None)


def _live_table(goals: Goals, latest: dict[str, dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, goal in goals.items():
        line = latest.get(name)
        done, measure = _done(line), _measure(line)
        unit = "evaluation" if line and "evaluation" in line else "epoch"
        table.add_row(
            name.replace("-", " "),
            ProgressBar(total=goal, completed=done, width=24)
            if goal
            else ProgressBar(total=1, pulse=True, width=24),
            f"{unit} {done}/{goal}" if goal else f"{unit} {done}",
            f"{measure[0]} {measure[1]:.3f}" if measure else "",
            f"{line.get('training', line.get('seconds')):.2f} s" if line else "",
        )
    return table


def error_table(summary: dict[str, Any]) -> Table:
    """Return the errors of PCA, the pre-trained and the fine-tuned stack."""
    table = Table(title="Reconstruction error (sum over columns, mean over rows)")
    table.add_column("")
    for split in ("train", "validation", "test"):
        table.add_column(split, justify="right")
    rows = {
        "PCA, as many components as code units": summary.get("pca"),
        "pre-trained": summary.get("pretrained"),
        "fine-tuned": summary.get("finetuned"),
    }
    for name, errors in rows.items():
        if errors:
            table.add_row(name, *(number(errors[split]) for split in errors))
    return table


def prediction_table(errors: dict[str, float | None], command: str) -> Table:
    """Return the errors of a classifier or a regressor on all splits."""
    table = Table(title=_PREDICTION_TITLES[command])
    for split in errors:
        table.add_column(split, justify="right")
    table.add_row(*map(number, errors.values()))
    return table


def confusion_table(result: dict[str, Any]) -> Table:
    """Return which classes were taken for which: all, or the most frequent mistakes."""
    classes, counts = result["classes"], result["confusion"]
    widths = [max(4, len(str(label))) + 3 for label in classes]
    if len(classes) > _MOST_CLASSES or sum(widths) + max(widths) >= _WIDEST:
        return _mistakes(classes, counts)
    table = Table(title="Rows of each class (down) taken for each (across)")
    table.add_column("", justify="right")
    for label in classes:
        table.add_column(str(label), justify="right")
    for label, row in zip(classes, counts, strict=True):
        table.add_row(str(label), *(str(n) if n else "·" for n in row))
    return table


def _mistakes(classes: list[Any], counts: list[list[int]]) -> Table:
    table = Table(title="Most frequent mistakes")
    for name in ("class", "predicted", "rows"):
        table.add_column(name, justify="right")
    mistakes = [
        (n, classes[i], classes[j])
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if n and i != j
    ]
    mistakes.sort(key=lambda mistake: (-mistake[0], *mistake[1:]))
    for n, label, predicted in mistakes[:_MOST_CLASSES]:
        table.add_row(str(label), str(predicted), str(n))
    return table


def time_table(summary: dict[str, Any]) -> Table:
    """Return where the time of each layer went, in seconds."""
    table = Table(title="Seconds of each layer in pre-training")
    for name in ("layer", "rank", "epochs", *KINDS):
        table.add_column(name, justify="right")
    for layer in summary["layers"]:
        table.add_row(
            str(layer["layer"]),
            str(layer["rank"]),
            str(layer["epochs"]),
            *(number(layer[name]) for name in KINDS),
        )
    return table


def cost_table(summary: dict[str, Any]) -> Table:
    """Return the parts of a sparse autoencoder's cost, and its activations."""
    ranks = count(summary["ranks"], "rank")
    table = Table(title=f"Cost, sparsity term {summary['kl']}, {ranks}")
    table.add_column("")
    table.add_column("at the end", justify="right")
    rows = {
        "reconstruction": "half the squared error, mean over rows",
        "decay": "decay of the weights",
        "sparsity": "sparsity term",
        "cost": "cost",
    }
    for key, words in rows.items():
        table.add_row(words, _digits(summary[key]))
    if summary["kl"] == "average":
        table.add_row(
            "cost with the exact sparsity term", _digits(summary["exact_cost"])
        )
    table.add_row("mean firing probability", _digits(summary["mean_activation"]))
    # Runs of former versions do not tell.
    if "dead_units" in summary:
        n_dead, n_hidden = summary["dead_units"], summary["n_hidden"]
        table.add_row("dead hidden units", f"{n_dead} of {n_hidden}")
    return table


def _digits(value: float | None) -> str:
    """Return a number with six decimals: modes differ in the fifth."""
    return "–" if value is None else f"{value:.6f}"


def number(value: float | None) -> str:
    """Return a number with two decimals, a dash for none."""
    return "–" if value is None else f"{value:.2f}"
