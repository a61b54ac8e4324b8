"""What a run is: its command and settings, its tasks, the models that it has."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from mpilayer import __version__
from mpilayer.config import (
    Config,
    FinetuneConfig,
    PretrainConfig,
    SparseConfig,
    from_values,
)
from mpilayer.errors import CheckpointError, ConfigError, UnfinishedWarning
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor, Stack
from mpilayer.numerics.parameters import Parameters
from mpilayer.runs.directory import WEIGHTS, RunDirectory
from mpilayer.runs.session import at_work
from mpilayer.store import checkpoint
from mpilayer.train.layer import layer_shapes, make_layer
from mpilayer.train.sparse.cost import make_model

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
    """Tell whether there is a run to go on with; ConfigError: another command's."""
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

    CheckpointError: there is no such section, or another version has written it.
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


# --- what fine-tuning can be for


@dataclass(frozen=True)
class Task:
    """Names of what a task leaves."""

    name: str  # of its section, metrics and mark; keys of the summary begin with it
    model: str  # the checkpoint, and what is in it

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
    """Return what a run was doing last; CheckpointError: there is none. Local."""
    directory = RunDirectory.open(run)
    kind, task = kind_of(directory), begun_last(directory)
    if kind != PRETRAIN or task is None:
        return kind
    alone = task.config(directory).from_scratch and not directory.is_complete(task.name)
    return task.name if alone or directory.is_complete(PRETRAIN) else PRETRAIN


# --- the models of a run


def chosen_task(run: Path, name: str | None) -> Task:
    """Return the task, one of ``TASKS`` or what was trained last, to be used. Local.

    CheckpointError: there is no run, or no such predictor in it. UnfinishedWarning: one
    was begun last of which nothing is saved yet.
    """
    directory = RunDirectory.open(run)
    if name is None:
        task, begun = trained_last(directory), begun_last(directory)
        if begun not in (None, AUTOENCODE) and not begun.is_trained(directory):
            warn_if_unfinished(directory, begun)
    else:
        task = TASKS[name]
    if task != AUTOENCODE and not task.is_trained(directory):
        raise CheckpointError(
            f"{run} must have a {task.model}; it has none. Train one with 'mpilayer "
            f"finetune {run} --task {task.name}'."
        )
    return task


def load_model(directory: RunDirectory, task: Task) -> tuple[str, Stack]:
    """Return a task's model, and what it is called; see ``load_trained``."""
    if task == AUTOENCODE:
        return load_trained(directory)
    return task.model, load_predictor(directory, task)


def load_trained(directory: RunDirectory) -> tuple[str, DeepAutoencoder]:
    """Return the autoencoder of a run: ``sparse``, ``pretrained`` or ``finetuned``.

    Local. CheckpointError: the run is not finished, or a checkpoint missing or damaged.
    UnfinishedWarning: fine-tuning has begun, but not come to its end.
    """
    kind = kind_of(directory)
    if kind == COMPARE:
        raise CheckpointError(
            f"{directory.path} must be one run; it is a comparison of two. Give "
            f"{directory.path / 'average'} or {directory.path / 'exact'}."
        )
    if kind == SPARSE:
        return SPARSE, _load_sparse(directory)
    tuned = AUTOENCODE.is_trained(directory)
    if not (tuned and AUTOENCODE.config(directory).from_scratch):
        check_pretrained(directory)
    warn_if_unfinished(directory, AUTOENCODE)
    return "finetuned" if tuned else "pretrained", load_stack(directory)


def load_predictor(directory: RunDirectory, task: Task) -> Predictor:
    """Return a run's classifier or regressor, with its best weights. Local."""
    path = directory.checkpoint(task.model)
    arrays = checkpoint.load_for_use(path)
    warn_if_unfinished(directory, task)
    if "classes" not in arrays:
        raise CheckpointError(
            f"{path} must say which classes there are; it does not. Restore it, or "
            "train again."
        )
    model = Predictor(run_shapes(directory)[1], arrays["classes"])
    for name, view in model.parameters.items():
        checkpoint.fill(view, arrays, f"best/{name}", path)
    return model


def load_stack(directory: RunDirectory, pretrained: bool = False) -> DeepAutoencoder:
    """Return a run's fine-tuned model; else, or ``pretrained``, the unrolled layers.

    Local. CheckpointError: a checkpoint is missing or damaged.
    """
    config, shapes = run_shapes(directory)
    if not pretrained and AUTOENCODE.is_trained(directory):
        stack = DeepAutoencoder(shapes)
        _fill(stack.parameters, directory.checkpoint("finetuned"), "best")
        return stack
    layers = [make_layer(config, shape) for shape in shapes]
    for index, layer in enumerate(layers):
        _fill(layer.parameters, directory.layer_checkpoint(index), "parameters")
    return DeepAutoencoder.unroll(layers)


def _load_sparse(directory: RunDirectory) -> DeepAutoencoder:
    path = directory.checkpoint(SPARSE)
    if not checkpoint.exists(path):
        raise CheckpointError(
            f"{directory.path} must have trained weights; {_halt(directory.path)}"
        )
    model = make_model(sparse_config(directory), _n_visible(directory))
    _fill(model.parameters, path, "parameters")
    stack = DeepAutoencoder([model.shape])
    stack.parameters.vector[:] = model.parameters.vector  # both are W₁, b₁, W₂, b₂
    return stack


def _fill(parameters: Parameters, path: Path, group: str) -> None:
    arrays = checkpoint.load_for_use(path)
    for name, view in parameters.items():
        checkpoint.fill(view, arrays, f"{group}/{name}", path)


def run_shapes(directory: RunDirectory) -> tuple[PretrainConfig, list[LayerShape]]:
    """Return the configuration of pre-training and the shapes of the layers."""
    config = settings_of(directory, PRETRAIN, PretrainConfig)
    return config, layer_shapes(config, _n_visible(directory))


def _n_visible(directory: RunDirectory) -> int:
    try:
        return int(directory.read_config()["data"]["n_visible"])
    except KeyError as error:
        raise CheckpointError(
            f"{directory.path / 'config.toml'} must have what training wrote; {error} "
            "is missing. Restore it, or train again."
        ) from error


# --- how far training has come


def check_pretrained(directory: RunDirectory, weights: bool = True) -> None:
    """Check that pre-training has come to its end, or begun if no weights are needed.

    CheckpointError: it was interrupted, or a layer's checkpoint is missing.
    """
    kind = kind_of(directory)
    if kind != PRETRAIN:
        raise CheckpointError(
            f"{directory.path} must be a pre-trained run; it is a {kind} one. "
            "Make one with 'mpilayer pretrain DATA.h5 --run DIR'."
        )
    if not weights:
        return
    if "pretrain_seconds" not in directory.read_summary():
        raise CheckpointError(
            f"{directory.path} must be pre-trained to the end; {_halt(directory.path)}"
        )
    for index in range(len(run_shapes(directory)[1])):
        if not directory.layer_checkpoint(index).exists():
            raise CheckpointError(
                f"{directory.path} must be pre-trained; layer {index + 1} has no "
                f"checkpoint. Go on with it: mpilayer resume {directory.path}."
            )


def check_untrained(directory: RunDirectory, task: Task) -> None:
    """Check that a task has not begun; else a ``ConfigError`` says how to go on."""
    run = directory.path
    if not task.is_trained(directory):
        return
    if not directory.is_complete(task.name):
        raise ConfigError(
            f"{task.words} of {run} must go on, or begin anew; it was interrupted "
            f"after epoch {progress(directory, task)}. Go on with 'mpilayer resume "
            f"{run}', or start again from the pre-trained stack with --replace."
        )
    model = "fine-tuned" if task.model == "finetuned" else f"a {task.model}"
    raise ConfigError(
        f"{run} must not be {model} yet; it is. Look at it with 'mpilayer evaluate "
        f"{run}', go on with more --epochs and --resume auto, or start again from the "
        "pre-trained stack with --replace."
    )


def warn_if_unfinished(directory: RunDirectory, task: Task) -> None:
    """Warn if a task has begun in a run, but not come to its end. Local."""
    if task.name not in directory.read_config() or directory.is_complete(task.name):
        return
    run, advice = directory.path, "."
    if not at_work(run):
        advice = f"; go on with 'mpilayer resume {run}'."
    state = "has saved nothing yet; what came before it is used"
    if task.is_trained(directory):
        state = f"has not ended: {progress(directory, task)} epochs"
    warnings.warn(
        f"{task.words} of {run} {state}{advice}", UnfinishedWarning, stacklevel=2
    )


def progress(directory: RunDirectory, task: Task) -> str:
    """Return how many epochs of how many a task has saved; an error if none. Local."""
    _, saved, _ = checkpoint.load_newest(directory.checkpoint(task.model))
    return f"{saved['epoch']} of {task.config(directory).epochs}"


def _halt(run: Path) -> str:
    """Return why a run is not at its end, and what to do."""
    if at_work(run):
        return (
            "it has not come that far yet (a launch is at work in it). Wait for it: "
            f"'mpilayer watch {run}' shows how far it is."
        )
    return f"it was interrupted. Go on with 'mpilayer resume {run}'."
