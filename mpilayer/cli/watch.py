"""``mpilayer watch``: a live view of a run, from the files it writes."""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mpilayer.cli import show, view
from mpilayer.cli.arguments import require_one_process
from mpilayer.runs import experiment
from mpilayer.runs.directory import RunDirectory, may_become_run
from mpilayer.runs.lock import at_work
from mpilayer.runs.model import run_shapes
from mpilayer.runs.plan import FILE, FOLDERS, is_experiment
from mpilayer.runs.tasks import (
    COMPARE,
    PRETRAIN,
    SPARSE,
    command_of,
    sparse_config,
    task_of_command,
)
from mpilayer.store.metrics import MetricsReader

_CURVE_WIDTH = 64
_HEIGHT_ALONE, _HEIGHT_OF_SEVERAL = 8, 4
_TREND_WIDTH = 14
_WORDS = {PRETRAIN: "pre-training", "finetune": "fine-tuning", SPARSE: "sparse"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Show how far a run is: on a terminal again and again until it is complete, "
        "else once. It waits for a run that has not begun. It only reads the run's "
        "files, so it works from any machine that sees them, while the run is in a "
        "job. Ctrl-C ends the view, not the run."
    )
    parser.add_argument("run", type=Path, metavar="DIR", help="the run")
    parser.add_argument("--once", action="store_true", help="show it once, and end")
    parser.add_argument(
        "--every",
        type=_period,
        default=1.0,
        metavar="S",
        help="seconds between two looks (default: 1)",
    )


def run(args: argparse.Namespace) -> None:
    """Show one view, or views until the run is complete."""
    require_one_process("watch")
    console = show.console()
    if args.once or not sys.stdout.isatty():
        console.print(Watched(args.run).look(console))
        return
    try:
        with Live(console=console, auto_refresh=False) as live:
            while _is_awaited(args.run):
                words = f"{args.run}: waiting for a run to begin; Ctrl-C ends"
                live.update(Text(words, overflow="fold"), refresh=True)
                time.sleep(args.every)
            watched = Watched(args.run)
            while True:
                live.update(watched.look(console), refresh=True)
                if watched.complete:
                    return
                time.sleep(args.every)
    except KeyboardInterrupt:
        # It would be repeated if it were not heard.
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_awaited(run: Path) -> bool:
    """Tell whether there is no run yet, and may be one soon."""
    begun = (run / "config.toml").is_file() or is_experiment(run)
    return not begun and may_become_run(run)


def _period(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(
            f"must be seconds, from 0.05 to 3600; got {text!r}"
        )
    return seconds


class Watched:
    """A run, or the runs of a comparison or of a whole experiment.

    Parameters
    ----------
    path : Path
        The directory.

    Raises
    ------
    CheckpointError
        It is none of these.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complete = False
        self._followers: dict[Path, Follower] = {}
        self._advice = f"go on with 'mpilayer resume {path}'"
        if is_experiment(path):
            again = f"mpilayer run {path / FILE} --resume auto"
            self._advice = f"go on with '{again}'"
        else:
            RunDirectory.open(path)

    def look(self, console: Console) -> Group:
        """Read what is new; return the view."""
        whole = RunDirectory(self.path)
        # Before the metrics: what is complete has all its lines.
        self.complete = (
            whole.is_complete(experiment.NAME)
            if is_experiment(self.path)
            else whole.is_complete(command_of(self.path))
        )
        ascii = console.options.ascii_only
        runs = list(_runs(self.path))
        height = _HEIGHT_ALONE if len(runs) == 1 else _HEIGHT_OF_SEVERAL
        parts = [self._view(path, height, ascii) for path in runs]
        if not parts:
            parts = [Group(Text(f"{self.path}: no step has begun"))]
        return Group(*parts)

    def _view(self, path: Path, height: int, ascii: bool) -> Group:
        directory, command = RunDirectory(path), command_of(path)
        if command == SPARSE:
            return self._sparse(directory, height, ascii)
        return self._deep(directory, command, ascii)

    def _deep(self, directory: RunDirectory, command: str, ascii: bool) -> Group:
        config, shapes = run_shapes(directory)
        goals, at_least = _goals(directory, config.stipulated_epochs)
        files = [self._lines(directory, f"layer-{i + 1}") for i in range(len(shapes))]
        layers = view.layer_rows(files, goals, at_least)
        sizes = [f"{shape.n_visible}-{shape.n_hidden}" for shape in shapes]
        times = [row.left for row in layers]
        rates = [row.per_minute for row in layers if row.per_minute]
        stands = self._at_work(directory.path) is False
        tables = [_layer_table(layers, sizes, stands, ascii)]
        if command != PRETRAIN:
            goal = task_of_command(command).config(directory).epochs
            fine = view.finetune_row(self._lines(directory, command), goal)
            times, rates = [fine.left], [fine.per_minute] if fine.per_minute else []
            tables.append(_finetune_table(fine, _words(command), stands, ascii))
        unit = 60 / min(rates) if rates else None
        return Group(self._title(directory, command, unit, times), *tables, Text())

    def _sparse(self, directory: RunDirectory, height: int, ascii: bool) -> Group:
        config = sparse_config(directory)
        row = view.sparse_row(self._lines(directory, SPARSE), config.evaluations)
        unit = 1 / row.per_second if row.per_second else None
        left = max(0, row.goal - row.done)
        words = (
            f"evaluation {row.done} of at most {row.goal}, {left} left; iteration "
            f"{row.iteration}; {_number(row.per_second, '.1f')} evaluations a second"
        )
        return Group(
            self._title(directory, SPARSE, unit, [row.left]),
            Text(words),
            *_cost_curve(row, height, ascii),
            Text(),
        )

    def _title(
        self,
        directory: RunDirectory,
        command: str,
        unit: float | None,
        times: list[float | None],
    ) -> Text:
        # In this order: a run is complete before its launch lets go of it.
        working = self._at_work(directory.path)
        complete = directory.is_complete(command)
        still = self._still(directory, command)
        state = view.condition(complete, still, unit, working, self._advice)
        ends = complete or working is False
        words = "" if ends else f", {view.duration(view.longest(times))} left"
        style = "green" if complete else "yellow" if _stands(state) else "bold"
        return Text(
            f"{directory.path}: {_words(command)}, {state}{words}",
            style=style,
            overflow="fold",
        )

    def _at_work(self, run: Path) -> bool | None:
        """Tell whether a launch is at work in a run, or in the comparison around it."""
        found = {at_work(path) for path in {run, self.path}}
        return True if True in found else None if None in found else False

    def _lines(self, directory: RunDirectory, name: str) -> list[dict[str, Any]]:
        path = directory.metrics_file(name)
        return self._followers.setdefault(path, Follower(path)).lines()

    def _still(self, directory: RunDirectory, command: str) -> float | None:
        """Return the seconds since the command has written metrics."""
        pattern = "layer-*.jsonl" if command == PRETRAIN else f"{command}.jsonl"
        times = [_mtime(path) for path in directory.metrics.glob(pattern)]
        return max(0.0, time.time() - max(times)) if times else None


class Follower:
    """All lines of a file of metrics, which may grow, or lose its last lines.

    Parameters
    ----------
    path : Path
        The file; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that are there now."""
        if self._identity != self._look():
            self._begin()  # a run that goes on has replaced it
        self._lines.extend(self._reader.new_lines())
        return self._lines

    def _begin(self) -> None:
        self._identity = self._look()
        self._reader = MetricsReader(self._path)
        self._lines: list[dict[str, Any]] = []

    def _look(self) -> int:
        return self._path.stat().st_ino if self._path.exists() else 0


def _runs(path: Path) -> Iterator[Path]:
    """Yield the directories of the runs that have begun, in their order."""
    if is_experiment(path):
        for name in FOLDERS:
            if (path / name / "config.toml").is_file():
                yield from _runs(path / name)
    elif command_of(path) == COMPARE:
        for name in ("average", "exact"):
            if (path / name / "config.toml").is_file():
                yield path / name
    else:
        yield path


def _goals(
    directory: RunDirectory, stipulated: tuple[int, ...]
) -> tuple[tuple[int, ...], bool]:
    """Return the epochs of each layer, and whether there may be more."""
    if not directory.schedule.exists():
        return stipulated, True
    return directory.read_table().epochs, False


def _stands(state: str) -> bool:
    return state.startswith(("has not moved", "interrupted"))


def _words(command: str) -> str:
    return _WORDS.get(command, command)


def _mtime(path: Path) -> float:
    return path.stat().st_mtime


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("trend", no_wrap=True)
    return table


def _left(seconds: float | None, stands: bool) -> str:
    """Return the time left, where there is an end to it."""
    return "-" if stands and seconds != 0 else view.duration(seconds)


def _layer_table(
    rows: list[view.LayerRow], sizes: list[str], stands: bool, ascii: bool
) -> Table:
    table = _table("layer", "size", "epoch", "error", "epochs/min", "behind", "left")
    for row, size in zip(rows, sizes, strict=True):
        table.add_row(
            str(row.layer),
            size,
            f"{row.done}/{row.goal}{'+' * row.at_least}",
            _number(row.error, ".2f"),
            _number(row.per_minute, ".1f"),
            "-" if row.behind is None else str(row.behind),
            _left(row.left, stands),
            _trend(row.errors, ascii),
        )
    return table


def _finetune_table(
    row: view.FinetuneRow, name: str, stands: bool, ascii: bool
) -> Table:
    table = _table(name, "epoch", "error", "epochs/min", "left")
    table.add_row(
        "",
        f"{row.done}/{row.goal}",
        _number(row.error, ".2f"),
        _number(row.per_minute, ".1f"),
        _left(row.left, stands),
        _trend(row.errors, ascii),
    )
    return table


def _trend(errors: tuple[float, ...], ascii: bool) -> str:
    return "".join(view.curve(errors, _TREND_WIDTH, 1, ascii))


def _cost_curve(row: view.SparseRow, height: int, ascii: bool) -> list[Text]:
    """Return the curve of the cost, without its peak at the beginning."""
    shown = view.without_peak(row.costs)
    lines = view.curve(shown, _CURVE_WIDTH, height, ascii)
    labels = [""] * len(lines)
    if lines:
        labels[0], labels[-1] = f"{max(shown):.6g}", f"{min(shown):.6g}"
    texts = [
        Text(f"{label:>10}  {line}") for label, line in zip(labels, lines, strict=True)
    ]
    return [*texts, Text(f"{'cost now':>10}  {_number(row.cost, '.6g')}")]


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
