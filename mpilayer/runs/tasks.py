"""What a run was made from: its commands and their settings, its data, its tasks."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mpilayer import __version__
from mpilayer.config import Config, FinetuneConfig, SparseConfig, from_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError, ConfigError, DataError
from mpilayer.runs.directory import WEIGHTS, RunDirectory
from mpilayer.store import checkpoint

PRETRAIN, SPARSE, COMPARE = "pretrain", "sparse", "compare"
"""Commands that begin a run: sections of ``config.toml``, and marks in ``complete``."""

# A comparison has the settings of its sparse runs, too: in this order.
_KINDS = {
    COMPARE: "a comparison",
    SPARSE: "a sparse run",
    PRETRAIN: "a pre-trained run",
}


def kind_of(directory: RunDirectory) -> str:
    """Return the command that has begun a run. Local."""
    sections = directory.read_config()
    return next((name for name in _KINDS if name in sections), PRETRAIN)


def is_run(run: Path, command: str) -> bool:
    """Tell whether there is a run to go on with by a command. Local.

    A ``ConfigError`` says: there is one, but another command has begun it.
    """
    if not (run / "config.toml").is_file():
        return False
    kind = kind_of(RunDirectory(run))
    if kind != command:
        raise ConfigError(
            f"--resume auto goes on with what '{command}' has begun; {run} is "
            f"{_KINDS[kind]}. Go on with 'mpilayer resume {run}', or give another "
            "--run."
        )
    return True


def settings_of(directory: RunDirectory, section: str, cls: type[Config]) -> Config:
    """Return the settings that a section of a run's ``config.toml`` holds. Local.

    A ``CheckpointError`` says: there is no such section, or it has what this version
    does not know: another one has written it.
    """
    path, sections = directory.path / "config.toml", directory.read_config()
    values = sections.get(section)
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path} must have what training wrote; the section [{section}] is "
            "missing. Restore it, or train again."
        )
    try:
        return from_values(cls, values)
    except ConfigError as error:
        by = sections.get("created_by", {}).get("mpilayer", "an unknown version")
        found = re.split(r"; choose from|; it belongs|\. Did you mean", str(error))[0]
        raise CheckpointError(
            f"{path}, [{section}], must hold what mpilayer {__version__} knows; found "
            f"{found}. It was written by mpilayer {by}: use that one, or a newer one."
        ) from error


def sparse_config(directory: RunDirectory) -> SparseConfig:
    """Return the settings of a sparse run, or of both runs of a comparison. Local."""
    return settings_of(directory, SPARSE, SparseConfig)


def noted_threads(run: Path, command: str) -> int:
    """Return the threads a command of a run was begun with, 0 if nobody knows."""
    if not (run / "config.toml").is_file():
        return 0
    return int(RunDirectory(run).section("launch").get(f"{command}_threads", 0))


# --- its data set


def data_of_run(directory: RunDirectory, data: Path | None) -> Path:
    """Return the data set a run was trained on, checked to be the same one. Local.

    ``data`` says where it is now; by default it is where it was. A ``DataError`` says:
    missing, damaged, changed, or not the data that the run was trained on.
    """
    trained_on = directory.section("data")
    path = data or Path(trained_on.get("path", ""))
    if not path.is_file():
        raise DataError(
            f"the data set of the run must be there; {path} is not a file. Say where "
            "it is now with --data FILE."
        )
    with Dataset.open(path) as dataset:
        if dataset.digest != trained_on.get("digest"):
            raise DataError(
                f"{path} must be the data set of the run, {trained_on.get('name')!r} "
                f"with digest {str(trained_on.get('digest'))[:12]}; found "
                f"{dataset.name!r} with {dataset.digest[:12]}. Give the right --data."
            )
        dataset.ensure(trained_on.get("stamp", []))
    return path


def data_to_use(directory: RunDirectory, data: Path | None) -> Path:
    """Return a data set of the user's choice, or the one a run was trained on. Local.

    A ``DataError`` says that it is missing, damaged, or changed.
    """
    if data is None:
        return data_of_run(directory, None)
    with Dataset.open(data, like=directory.path) as dataset:
        dataset.ensure()
    return data


def training_data(directory: RunDirectory, data: Path) -> Path | None:
    """Return the data set a run was trained on: this one, or where it was. Local.

    None if it is neither.
    """
    for path in (data, None):
        with suppress(DataError):
            return data_of_run(directory, path)
    return None


# --- what fine-tuning can be for


@dataclass(frozen=True)
class Task:
    """Names of what a task leaves.

    ``name`` is the section of ``config.toml``, the file of metrics, the mark in
    ``complete``, and how the keys of the summary begin; ``model`` is the checkpoint,
    and what is in it.
    """

    name: str
    model: str

    @property
    def words(self) -> str:
        """What it is to train the model."""
        own = self == AUTOENCODE
        return "fine-tuning" if own else f"training of the {self.model}"

    def is_trained(self, directory: RunDirectory) -> bool:
        """Tell whether the run has such a model, perhaps an interrupted one."""
        return checkpoint.exists(directory.checkpoint(self.model))

    def config(self, directory: RunDirectory) -> FinetuneConfig:
        """Return the settings that the task of a run began with."""
        return settings_of(directory, self.name, FinetuneConfig)


AUTOENCODE, *_PREDICT = (
    Task(name, WEIGHTS[name]) for name in ("finetune", "classify", "regress")
)
TASKS = {"autoencode": AUTOENCODE, **{task.name: task for task in _PREDICT}}
"""The tasks, by the setting of that name."""


def model_in_words(kind: str) -> str:
    """Return what a model of a run is called, by its kind in ``load_model``."""
    is_predictor = any(kind == task.model for task in _PREDICT)
    return f"the {kind}" if is_predictor else f"the {kind} autoencoder"


def task_of_command(name: str) -> Task:
    """Return the task that is called so in ``complete``."""
    return next(task for task in TASKS.values() if task.name == name)


def begun_last(directory: RunDirectory) -> Task | None:
    """Return the task that a run is at, or came to its end last; None before any.

    Interrupted ones come first: among several, the one that was new last.
    """
    sections = directory.read_config()

    def place(task: Task) -> tuple[bool, int]:
        complete = directory.is_complete(task.name)
        order = directory.completed() if complete else list(sections)
        return not complete, order.index(task.name)

    begun = [task for task in TASKS.values() if task.name in sections]
    return max(begun, key=place, default=None)


def trained_last(directory: RunDirectory) -> Task:
    """Return the task whose model came to its end last; if none, the autoencoder's."""
    trained = {t.name: t for t in TASKS.values() if t.is_trained(directory)}
    names = [name for name in directory.completed() if name in trained]
    return trained[(names or list(trained))[-1]] if trained else AUTOENCODE


def command_of(run: Path) -> str:
    """Return what a run was doing last. Local.

    A ``CheckpointError`` says: there is no run.
    """
    directory = RunDirectory.open(run)
    kind, task = kind_of(directory), begun_last(directory)
    if kind != PRETRAIN or task is None:
        return kind
    alone = task.config(directory).from_scratch and not directory.is_complete(task.name)
    return task.name if alone or directory.is_complete(PRETRAIN) else PRETRAIN
