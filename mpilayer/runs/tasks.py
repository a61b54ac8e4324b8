"""What fine-tuning can be for, and what each task leaves in a run: side by side."""

from dataclasses import dataclass

from mpilayer.config import FinetuneConfig
from mpilayer.runs.directory import WEIGHTS, RunDirectory
from mpilayer.runs.settings import settings_of
from mpilayer.store import checkpoint


@dataclass(frozen=True)
class Task:
    """Names of what a task leaves.

    Attributes
    ----------
    name : str
        The section of ``config.toml``, the file of metrics, the mark in ``complete``,
        and how the keys of the summary begin.
    model : str
        The checkpoint, and what is in it.
    """

    name: str
    model: str

    @property
    def words(self) -> str:
        """What it is to train the model."""
        own = self.model == "finetuned"
        return "fine-tuning" if own else f"training of the {self.model}"

    def is_trained(self, directory: RunDirectory) -> bool:
        """Tell whether the run has such a model, perhaps an interrupted one."""
        return checkpoint.exists(directory.checkpoint(self.model))

    def config(self, directory: RunDirectory) -> FinetuneConfig:
        """Return the settings that the task of a run began with."""
        return settings_of(directory, self.name, FinetuneConfig)


TASKS = {
    "autoencode": Task("finetune", WEIGHTS["finetune"]),
    "classify": Task("classify", WEIGHTS["classify"]),
    "regress": Task("regress", WEIGHTS["regress"]),
}
"""The tasks, by the setting of that name."""


def model_in_words(kind: str) -> str:
    """Return what a model of a run is called, by its kind in ``chosen_model``."""
    predictors = {task.model for name, task in TASKS.items() if name != "autoencode"}
    return f"the {kind}" if kind in predictors else f"the {kind} autoencoder"


def task_of_command(name: str) -> Task:
    """Return the task that is called so in ``complete``."""
    return next(task for task in TASKS.values() if task.name == name)


def begun_last(directory: RunDirectory) -> Task | None:
    """Return the task that a run is at, or came to its end last; None before any.

    Interrupted ones come first: among several, the one that was new last.
    """
    sections = directory.read_config()
    begun = [task for task in TASKS.values() if task.name in sections]
    ended = [task for task in begun if directory.is_complete(task.name)]
    under_way = [task for task in begun if task not in ended]
    if under_way:
        return max(under_way, key=lambda task: list(sections).index(task.name))
    order = directory.completed()
    return max(ended, key=lambda task: order.index(task.name), default=None)


def trained_last(directory: RunDirectory) -> Task | None:
    """Return the task whose model came to its end last; None if there is none."""
    names = {task.name: task for task in TASKS.values() if task.is_trained(directory)}
    ended = [name for name in directory.completed() if name in names]
    chosen = ended or list(names)
    return names[chosen[-1]] if chosen else None
