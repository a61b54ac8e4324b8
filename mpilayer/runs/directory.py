"""The run directory: what lies where, and who may write it.

::

    config.toml              the effective configuration, and the data set's identity
    preparation.json         names of columns and classes, and the scaling, if any
    schedule.json            the table; any run's is a FILE for --schedule replay:FILE
    metrics/layer-1.jsonl …  one line an epoch;  metrics/finetune.jsonl  likewise
    metrics/stack.jsonl      error of the whole stack while its layers were trained
                             metrics/classify.jsonl, metrics/regress.jsonl  likewise
    metrics/sparse.jsonl     one line an evaluation
    checkpoints/layer-1.h5 … parameters, velocity, epoch;  checkpoints/finetuned.h5
                             checkpoints/classifier.h5, checkpoints/regressor.h5
    checkpoints/sparse.h5    parameters, the optimizer's state
    filters.npy, filters.png what each hidden unit of a sparse run responds to most
    summary.json             errors, seconds, ranks: what comparisons read
    compare.json             average against exact; the two runs are in average/, exact/
    complete                 the commands that have come to their end, one a line
    .lock                    held by the ranks that write; see ``holding``
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mpilayer import files
from mpilayer.config import to_toml
from mpilayer.errors import CheckpointError, ConfigError, DamageWarning, ScheduleError
from mpilayer.store import checkpoint
from mpilayer.train.plans import Candidate
from mpilayer.train.schedule import Schedule

PREPARATION = "preparation.json"
"""What a run keeps of its data: names of columns and classes, the scaling."""

# In the order of removal: who is killed then leaves a run that can be replaced again.
_CONTENT = (
    "complete",
    PREPARATION,
    "schedule.json",
    "metrics",
    "monitor",
    "scratch",
    "checkpoints",
    "filters.npy",
    "filters.png",
    "summary.json",
    "compare.json",
    "average",
    "exact",
    "config.toml",
)
LOCK = ".lock"
"""The file that the ranks of a launch hold while they write into a run."""

EXPERIMENT = "experiment.toml"
"""The settings of an experiment, in whose directory the runs lie."""

WEIGHTS = {
    "finetune": "finetuned",
    "classify": "classifier",
    "regress": "regressor",
    "sparse": "sparse",
}
"""The checkpoint that a command leaves at its end; pre-training leaves one a layer."""

_CUT = re.compile(r"layer-(?P<layer>\d+)\.e(?P<epoch>\d+)\.u(?P<used>\d+)\.h5")


class RunDirectory:
    """A run directory. Making and changing it is for one rank; all may read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schedule = path / "schedule.json"
        self.metrics = path / "metrics"
        self.checkpoints = path / "checkpoints"
        self.monitor = path / "monitor"
        self.scratch = path / "scratch"
        self.filters = path / "filters.npy"

    @property
    def go_on(self) -> str:
        """The command that goes on with the run, in quotes."""
        return f"'mpilayer resume {self.path}'"

    def check_free(self, replace: bool) -> None:
        """Check that a run can be made here, without making anything."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise ConfigError(
                f"--run must name a folder; {path} is a file. Choose another name."
            )
        content, others = _content(path), _others(path)
        # A launch that was killed at once leaves no more than empty folders.
        empty = all(p.is_dir() and not any(p.iterdir()) for p in content)
        if others or not (empty or (path / "config.toml").exists()):
            raise ConfigError(
                f"--run must name a new folder or a run; {path} holds other files "
                f"({', '.join(others[:3])}). Choose another name."
            )
        if content and not replace:
            raise ConfigError(
                f"--run must name a new folder; {path} holds a run already. Go on with "
                f"'mpilayer resume {path}' or --resume auto, replace it with "
                "--replace, or choose another name."
            )
        parent = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ConfigError(
                f"--run must lie in a folder that can be written; {parent} can't be. "
                "Choose another folder, or mend its permissions."
            )

    def create(self, replace: bool) -> None:
        """Make it, empty, in place of a former run; see ``check_free``."""
        self.check_free(replace)
        self.clear()
        self.metrics.mkdir(parents=True)
        self.checkpoints.mkdir()

    @staticmethod
    def open(path: Path) -> "RunDirectory":
        """Open an existing run; a ``CheckpointError`` says that there is none."""
        if (path / "config.toml").is_file():
            return RunDirectory(path)
        if (path / EXPERIMENT).is_file():
            found = sorted(p.parent for p in path.glob("*/config.toml"))
            such = f" Name a run in it, such as {found[0]}." if found else ""
            raise CheckpointError(
                f"{path} must be the directory of a run; it is that of an experiment."
                f"{such} The whole goes on with 'mpilayer run {path / EXPERIMENT} "
                "--resume auto'."
            )
        raise CheckpointError(
            f"{path} must be the directory of a run; it has no config.toml. "
            "Make one with 'mpilayer pretrain DATA.h5 --run DIR' or 'mpilayer "
            "sparse DATA.h5 --run DIR'."
        )

    def clear(self) -> None:
        """Remove all of a run."""
        for name in _CONTENT:
            remove(self.path / name)

    def is_complete(self, command: str) -> bool:
        """Tell whether a command, or a step of an experiment, has come to its end.

        Without what it has left at its end it has not: it goes on, and leaves it again.
        """
        if command not in self.completed():
            return False
        if command == "compare":
            return self.read_summary("compare.json").get("runs") is not None
        if command == "pretrain":
            layers = range(len(self.section(command).get("layers", ())))
            left = [self.layer_checkpoint(index) for index in layers]
        elif command in WEIGHTS:
            left = [self.checkpoint(WEIGHTS[command])]
        else:
            return True
        key = "seconds" if command == "sparse" else f"{command}_seconds"
        is_measured = self.read_summary().get(key) is not None
        return is_measured and all(map(checkpoint.exists, left))

    def set_complete(self, command: str, complete: bool = True) -> None:
        """Note that a command has come to its end, or begins anew."""
        commands = [name for name in self.completed() if name != command]
        if complete:
            commands.append(command)
        text = "".join(f"{name}\n" for name in commands)
        files.write(self.path / "complete", text)

    def completed(self, strict: bool = False) -> list[str]:
        """Return the commands that have come to their end; see ``read_summary``."""
        path = self.path / "complete"
        with self._missing_if_damaged(strict):
            if path.exists():
                return files.read_text(path).split()
        return []

    def checkpoint(self, name: str) -> Path:
        """Return where a checkpoint is, by its name."""
        return self.checkpoints / f"{name}.h5"

    def layer_checkpoint(self, index: int) -> Path:
        """Return the path of a layer's checkpoint; layers count from 0 here."""
        return self.checkpoint(f"layer-{index + 1}")

    def layer_file(self, index: int, candidate: Candidate) -> Path:
        """Return the path of a checkpoint that ``layer_candidates`` has named."""
        if candidate.final:
            return self.layer_checkpoint(index)
        epoch, used = candidate.epoch, candidate.used
        return self.checkpoint(f"layer-{index + 1}.e{epoch:06}.u{used:06}")

    def layer_candidates(self, index: int) -> list[Candidate]:
        """Return a layer's checkpoints; only that of its end is opened."""
        # Unlike glob, iterdir never passes over a folder that cannot be read.
        paths = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        cuts = (match for path in paths if (match := _CUT.fullmatch(path.name)))
        found = [
            Candidate(int(cut["epoch"]), int(cut["used"]))
            for cut in cuts
            if int(cut["layer"]) == index + 1
        ]
        # One that is damaged is left out: who reads it says so.
        with suppress(CheckpointError, KeyError):
            if self.layer_checkpoint(index).exists():
                facts = checkpoint.attributes(self.layer_checkpoint(index))
                found.append(Candidate(int(facts["epoch"]), int(facts["used"]), True))
        return found

    def metrics_file(self, name: str) -> Path:
        """Return the path of a file of metrics."""
        return self.metrics / f"{name}.jsonl"

    def read_config(self, strict: bool = False) -> dict[str, Any]:
        """Return the sections of ``config.toml``; see ``files.read_toml``."""
        return files.read_toml(self.path / "config.toml", strict)

    def section(self, name: str) -> dict[str, Any]:
        """Return a section of ``config.toml``, empty if there is none."""
        found: dict[str, Any] = self.read_config().get(name, {})
        return found

    def write_config(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """Write sections; the others of an existing file stay."""
        old = self.read_config() if (self.path / "config.toml").exists() else {}
        text = to_toml(files.sealed({**old, **sections}))
        files.write(self.path / "config.toml", text)

    def read_table(self) -> Schedule:
        """Return the schedule of layers; an error if it is missing or was changed."""
        path = self.schedule
        if not path.exists():
            raise CheckpointError(
                f"{path} must be there to go on; it is missing. Restore it, or train "
                "again."
            )
        content = files.read_json(path, ScheduleError)
        return Schedule.from_json(json.dumps(content), str(path))

    def write_table(self, table: Schedule) -> None:
        """Write the schedule of layers."""
        files.write_json(self.schedule, json.loads(table.to_json()))

    def read_summary(
        self, name: str = "summary.json", strict: bool = False
    ) -> dict[str, Any]:
        """Return ``summary.json`` or a file like it, empty if there is none.

        One that is not as it was written counts as none, with a DamageWarning, for it
        can be made again; if ``strict`` it is a CheckpointError.
        """
        path = self.path / name
        with self._missing_if_damaged(strict):
            if path.exists():
                return files.read_json(path)
        return {}

    @contextmanager
    def _missing_if_damaged(self, strict: bool) -> Iterator[None]:
        try:
            yield
        except CheckpointError as error:
            if strict:
                raise
            warnings.warn(
                f"{str(error).partition('. Restore')[0]}. It is taken for missing; "
                f"{self.go_on} makes it again.",
                DamageWarning,
                stacklevel=4,
            )

    def write_summary(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Write values; the others of an existing summary stay. Return all."""
        summary = {**self.read_summary(), **values}
        files.write_json(self.path / "summary.json", summary)
        return summary


def replayed(setting: str, n_layers: int) -> Schedule | None:
    """Return the schedule of so many layers that is to be replayed, if any. Local."""
    name, _, file = setting.partition(":")
    if name != "replay":
        return None
    path = Path(file)
    if not path.is_file():
        raise ConfigError(
            f"--schedule replay:FILE must name the schedule.json of a run; {path} is "
            "not a file. Give another one."
        )
    # Perhaps written by hand: without the seal of a run's own.
    schedule = Schedule.from_json(path.read_text("utf-8", "replace"), str(path))
    if schedule.n_layers != n_layers:
        raise ConfigError(
            f"a schedule must have a row for every layer; {path} has "
            f"{schedule.n_layers}, --layers {n_layers}. Give the same number of layers."
        )
    return schedule


def check_links(path: Path, folders: Collection[str] = ()) -> None:
    """Check that nothing which a launch writes or removes in a run is a link. Local.

    The run itself may be one. A launch also writes into ``folders``. CheckpointError: a
    stranger could let a link point to files of the user's.
    """
    names = (LOCK, *_CONTENT, *folders)
    whole = [path / name for name in ("metrics", "monitor", "scratch", "checkpoints")]
    inside = (file for folder in whole if folder.is_dir() for file in folder.iterdir())
    for found in (*(path / name for name in names), *inside):
        if found.is_symlink():
            raise CheckpointError(
                f"{found} must lie in the run itself, for it is written or removed; it "
                f"is a link to {found.readlink()}. Put what it points to in its place."
            )


def may_become_run(path: Path) -> bool:
    """Tell whether a folder is missing, or holds no more than a run that begins."""
    return not path.exists() or (path.is_dir() and not _others(path))


def _others(path: Path) -> list[str]:
    """Return the names of what no run has."""
    found = {p.name for p in _content(path) if not p.name.endswith(".tmp")}
    return sorted(found - set(_CONTENT))


def _content(path: Path) -> list[Path]:
    """Return what lies in a folder, perhaps a missing one, but for the lock."""
    return [p for p in path.iterdir() if p.name != LOCK] if path.exists() else []


def remove(path: Path) -> None:
    """Remove a file, a whole folder, or a link but not what it points to. Local."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
