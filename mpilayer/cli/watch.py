"""``mpilayer watch``: a live view of a run, from the files it writes."""

import argparse
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mpilayer.cli import show, view
from mpilayer.cli.arguments import add, reader
from mpilayer.runs import experiment, tasks
from mpilayer.runs.directory import EXPERIMENT, RunDirectory, may_become_run
from mpilayer.runs.experiment import FOLDERS, is_experiment
from mpilayer.runs.session import at_work
from mpilayer.store.metrics import MetricsReader
from mpilayer.sweep.drive import read_before
from mpilayer.sweep.plan import SweepPlan
from mpilayer.sweep.table import progress
from mpilayer.words import count

_CURVE_WIDTH = 64
_HEIGHT_ALONE, _HEIGHT_OF_SEVERAL = 8, 4
_TREND_WIDTH = 14
_WORDS = {
    tasks.PRETRAIN: "pre-training",
    "finetune": "fine-tuning",
    tasks.SPARSE: "sparse",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Show how far a run is: on a terminal again and again until it is complete, "
        "else once. It waits for a run that has not begun. It only reads the run's "
        "files, so it works from any machine that sees them, while the run is in a "
        "job. Ctrl-C ends the view, not the run."
    )
    add(parser, "run", "the run")
    add(parser, "--once", "show it once, and end", action="store_true")
    looks = "seconds between two looks (default: 1)"
    add(parser, "--every", looks, type=_period, default=1.0, metavar="S")


def run(args: argparse.Namespace) -> None:
    """Show one view, or views until the run is complete."""
    console = show.console()
    if args.once or not sys.stdout.isatty():
        console.print(Watched(args.run).look(console))
        return
    try:
        with Live(console=console, auto_refresh=False) as live:
            # While there is no run yet, and may be one soon.
            while not _has_begun(args.run) and may_become_run(args.run):
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


def _has_begun(run: Path) -> bool:
    return (run / "config.toml").is_file() or is_experiment(run)


def _to_period(text: str) -> float:
    if not 0.05 <= (seconds := float(text)) <= 3600:
        raise ValueError
    return seconds


_period = reader("seconds, from 0.05 to 3600", _to_period)


class Watched:
    """A run, or the runs of a comparison or of a whole experiment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complete = False
        self._followers: dict[Path, Follower] = {}
        self._sweep: SweepPlan | None = None
        self._advice = f"go on with 'mpilayer resume {path}'"
        if is_experiment(path):
            again = f"mpilayer run {path / EXPERIMENT} --resume auto"
            self._advice = f"go on with '{again}'"
            self._sweep = read_before(path)
        else:
            RunDirectory.open(path)

    def look(self, console: Console) -> Group:
        """Read what is new; return the view."""
        whole = is_experiment(self.path)
        command = experiment.NAME if whole else tasks.command_of(self.path)
        # Before the metrics: what is complete has all its lines.
        self.complete = RunDirectory(self.path).is_complete(command)
        ascii = console.options.ascii_only
        head: list[RenderableType] = []
        paths = [self.path]
        if self._sweep is not None:
            over, paths = progress(self._sweep)
            self.complete = over == (n := len(self._sweep.members))
            head = [Text(f"{self.path}: {over} of {count(n, 'run')} over"), Text()]
        runs = [run for path in paths for run in _runs(path)]
        height = _HEIGHT_ALONE if len(runs) == 1 else _HEIGHT_OF_SEVERAL
        parts: list[RenderableType] = []
        for path in runs:
            directory, command = RunDirectory(path), tasks.command_of(path)
            if command == tasks.SPARSE:
                parts += self._sparse(directory, height, ascii)
            else:
                parts += self._deep(directory, command, ascii)
            parts.append(Text())
        if not (head or parts):
            parts = [Text(f"{self.path}: no step has begun")]
        return Group(*head, *parts)

    def _deep(
        self, directory: RunDirectory, command: str, ascii: bool
    ) -> Iterator[RenderableType]:
        config, shapes = tasks.run_shapes(directory)
        goals, more = config.stipulated_epochs, "+"
        if directory.schedule.exists():
            goals, more = directory.read_table().epochs, ""
        files = [self._lines(directory, f"layer-{i + 1}") for i in range(len(shapes))]
        layers = list(map(view.progress, files, goals))
        stands = self._at_work(directory.path) is False
        rows = []
        for number, (shape, row, behind) in enumerate(
            zip(shapes, layers, view.behind(files), strict=True), 1
        ):
            size = f"{shape.n_visible}-{shape.n_hidden}"
            late = "-" if behind is None else str(behind)
            rows.append([str(number), size, *_cells(row, stands, ascii, more, [late])])
        speed = ("epoch", "error", "epochs/min")
        tables = [_table(("layer", "size", *speed, "behind"), rows)]
        if command != tasks.PRETRAIN:
            goal = tasks.task_of_command(command).config(directory).epochs
            layers = [view.progress(self._lines(directory, command), goal)]
            head = (_WORDS.get(command, command), *speed)
            tables.append(_table(head, [["", *_cells(layers[0], stands, ascii)]]))
        yield self._title(directory, command, layers)
        yield from tables

    def _sparse(
        self, directory: RunDirectory, height: int, ascii: bool
    ) -> Iterator[RenderableType]:
        lines = self._lines(directory, tasks.SPARSE)
        row = view.progress(lines, tasks.sparse_config(directory).evaluations)
        iteration = int(lines[-1].get("iteration", 0)) if lines else 0
        yield self._title(directory, tasks.SPARSE, [row])
        yield Text(
            f"evaluation {row.done} of at most {row.goal}, "
            f"{max(0, row.goal - row.done)} left; iteration {iteration}; "
            f"{show.number(row.rate(1), '.1f', '?')} evaluations a second"
        )
        # Without its peak at the beginning.
        shown = view.without_peak(row.values)
        curve = view.curve(shown, _CURVE_WIDTH, height, ascii)
        labels = [""] * len(curve)
        if curve:
            labels[0], labels[-1] = f"{max(shown):.6g}", f"{min(shown):.6g}"
        for label, line in zip(labels, curve, strict=True):
            yield Text(f"{label:>10}  {line}")
        yield Text(f"{'cost now':>10}  {show.number(row.value, '.6g', '?')}")

    def _title(
        self, directory: RunDirectory, command: str, rows: list[view.Progress]
    ) -> Text:
        # In this order: a run is complete before its launch lets go of it.
        working = self._at_work(directory.path)
        complete = directory.is_complete(command)
        unit = max((row.unit for row in rows if row.unit), default=None)
        still = _still(directory, command)
        state = view.condition(complete, still, unit, working, self._advice)
        stands = state.startswith(("has not moved", "interrupted"))
        words = f"{directory.path}: {_WORDS.get(command, command)}, {state}"
        if not complete and working is not False:
            words += f", {view.duration(view.longest([r.left for r in rows]))} left"
        style = "green" if complete else "yellow" if stands else "bold"
        return Text(words, style=style, overflow="fold")

    def _at_work(self, run: Path) -> bool | None:
        """Tell whether a launch is at work in a run, or in the comparison around it."""
        found = {at_work(path) for path in {run, self.path}}
        return True if True in found else None if None in found else False

    def _lines(self, directory: RunDirectory, name: str) -> list[dict[str, Any]]:
        path = directory.metrics_file(name)
        return self._followers.setdefault(path, Follower(path)).lines()


class Follower:
    """All lines of a file of metrics, which may be missing, grow, or lose lines."""

    def __init__(self, path: Path) -> None:
        self._path, self._identity = path, -1

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that are there now."""
        identity = self._path.stat().st_ino if self._path.exists() else 0
        if identity != self._identity:  # a run that goes on has replaced it
            self._identity = identity
            self._reader = MetricsReader(self._path)
            self._lines: list[dict[str, Any]] = []
        self._lines.extend(self._reader.new_lines())
        return self._lines


def _runs(path: Path) -> Iterator[Path]:
    """Yield the directories of the runs that have begun, in their order."""
    if is_experiment(path):
        parts: Iterable[str] = dict.fromkeys(FOLDERS.values())
    elif tasks.command_of(path) == tasks.COMPARE:
        parts = ("average", "exact")
    else:
        yield path
        return
    for name in parts:
        if (path / name / "config.toml").is_file():
            yield from _runs(path / name)


def _still(directory: RunDirectory, command: str) -> float | None:
    """Return the seconds since the command has written metrics."""
    pattern = "layer-*.jsonl" if command == tasks.PRETRAIN else f"{command}.jsonl"
    times = [path.stat().st_mtime for path in directory.metrics.glob(pattern)]
    return max(0.0, time.time() - max(times)) if times else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(head[0], box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in (*head[1:], "left", "trend"):
        where: JustifyMethod = "left" if name == "trend" else "right"
        table.add_column(name, justify=where, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _cells(
    row: view.Progress,
    stands: bool,
    ascii: bool,
    more: str = "",
    others: Sequence[str] = (),
) -> list[str]:
    """Return epochs, error, speed, what else there is, time left and trend."""
    return [
        f"{row.done}/{row.goal}{more}",
        show.number(row.value, ".2f", "?"),
        show.number(row.rate(60), ".1f", "?"),
        *others,
        # What stands has no end, but for what has come to it.
        "-" if stands and row.left != 0 else view.duration(row.left),
        "".join(view.curve(row.values, _TREND_WIDTH, 1, ascii)),
    ]
