"""Layers and stacks to checkpoints, and back."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mpilayer.arrays import AnyArray
from mpilayer.config import PretrainConfig, SparseConfig
from mpilayer.errors import CheckpointError, UnfinishedWarning
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.parameters import Parameters
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.holding import at_work
from mpilayer.runs.settings import settings_of
from mpilayer.runs.tasks import TASKS, Task
from mpilayer.store import checkpoint
from mpilayer.train.layer import layer_shapes, make_layer
from mpilayer.train.pretrain import Snapshot
from mpilayer.train.sparse.cost import make_model


class State(Protocol):
    """What a checkpoint holds: it says itself what that is, and takes it back."""

    def arrays(self) -> Mapping[str, AnyArray]:
        """Return arrays by name; nothing changes them any more."""

    def numbers(self) -> Mapping[str, Any]:
        """Return numbers by name."""

    def restore(
        self, arrays: Mapping[str, AnyArray], numbers: Mapping[str, Any]
    ) -> None:
        """Go where the state with these ``arrays()`` and ``numbers()`` was."""


def saving(
    path: Path, *states: State | Snapshot, keep: bool = False, **facts: Any
) -> Callable[[], None]:
    """Return what writes states as they are now, in any thread and at any time. Local.

    ``facts`` stand beside their numbers; ``keep`` as
    :func:`mpilayer.store.checkpoint.save` takes it.
    """
    arrays: dict[str, AnyArray] = {}
    numbers = dict(facts)
    for state in states:
        arrays |= state.arrays()
        numbers |= state.numbers()
    return partial(checkpoint.save, path, arrays, numbers, keep)


def restore(
    path: Path, state: State
) -> tuple[dict[str, AnyArray], dict[str, Any], str]:
    """Put a state where its newest whole checkpoint is. Local.

    Returns
    -------
    dict, dict, str
        All that the checkpoint holds, arrays and numbers, and a remark if the newest
        file was damaged.

    Raises
    ------
    CheckpointError
        There is none that is whole, or it is of another model.
    """
    arrays, numbers, remark = checkpoint.load_newest(path)
    for name, own in state.arrays().items():
        checkpoint.fill(own, arrays, name, path)  # only for its checks
    state.restore(arrays, numbers)
    return arrays, numbers, remark


def load_trained(directory: RunDirectory) -> tuple[str, DeepAutoencoder]:
    """Return what a run has trained, and what that is. Local.

    Returns
    -------
    str, DeepAutoencoder
        ``sparse``, ``pretrained`` or ``finetuned``; a sparse autoencoder is a stack of
        one layer.

    Raises
    ------
    CheckpointError
        The run is not finished, or a checkpoint is missing or damaged.

    Warns
    -----
    UnfinishedWarning
        Fine-tuning has begun, but not come to its end.
    """
    sections = directory.read_config()
    if "compare" in sections:
        raise CheckpointError(
            f"{directory.path} must be one run; it is a comparison of two. Give "
            f"{directory.path / 'average'} or {directory.path / 'exact'}."
        )
    if "sparse" in sections:
        return "sparse", _load_sparse(directory)
    tuned = is_finetuned(directory)
    if not (tuned and TASKS["autoencode"].config(directory).from_scratch):
        check_pretrained(directory)
    warn_if_unfinished(directory, TASKS["autoencode"])
    return "finetuned" if tuned else "pretrained", load_stack(directory)


def warn_if_unfinished(directory: RunDirectory, task: Task) -> None:
    """Warn if a task has begun in a run, but not come to its end. Local."""
    if task.name not in directory.read_config() or directory.is_complete(task.name):
        return
    run, advice = directory.path, "."
    if not at_work(run):
        advice = f"; go on with 'mpilayer resume {run}'."
    if not task.is_trained(directory):
        warnings.warn(
            f"{task.words} of {run} has saved nothing yet; what came before it is "
            f"used{advice}",
            UnfinishedWarning,
            stacklevel=2,
        )
        return
    done = progress(directory, task)
    warnings.warn(
        f"{task.words} of {run} has not ended: {done} epochs{advice}",
        UnfinishedWarning,
        stacklevel=2,
    )


def progress(directory: RunDirectory, task: Task) -> str:
    """Return how many epochs a task has saved, and of how many. Local.

    Raises
    ------
    CheckpointError
        There is no checkpoint that is whole.
    """
    _, saved, _ = checkpoint.load_newest(directory.checkpoint(task.model))
    return f"{saved['epoch']} of {task.config(directory).epochs}"


def _load_sparse(directory: RunDirectory) -> DeepAutoencoder:
    if not checkpoint.exists(directory.checkpoint("sparse")):
        raise CheckpointError(
            f"{directory.path} must have trained weights; {_halt(directory.path)}"
        )
    config = settings_of(directory, "sparse", SparseConfig)
    model = make_model(config, _n_visible(directory))
    _fill(model.parameters, directory.checkpoint("sparse"), "parameters")
    stack, p = DeepAutoencoder([model.shape]), model.parameters
    stack.parameters["weights_0"][:] = p["weights"]
    stack.parameters["bias_0"][:] = p["hidden_bias"]
    stack.parameters["weights_1"][:] = p["decode_weights"]
    stack.parameters["bias_1"][:] = p["visible_bias"]
    return stack


def load_stack(directory: RunDirectory, pretrained: bool = False) -> DeepAutoencoder:
    """Return a run's model: fine-tuned if it was, else the unrolled layers. Local.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    pretrained : bool
        Take the unrolled layers even if the run was fine-tuned.

    Raises
    ------
    CheckpointError
        A checkpoint is missing or damaged, or the run is not finished.
    """
    config, shapes = run_shapes(directory)
    if not pretrained and is_finetuned(directory):
        stack = DeepAutoencoder(shapes)
        _fill(stack.parameters, directory.checkpoint("finetuned"), "best")
        return stack
    layers = []
    for index, shape in enumerate(shapes):
        layer = make_layer(config, shape)
        _fill(layer.parameters, directory.layer_checkpoint(index), "parameters")
        layers.append(layer)
    return DeepAutoencoder.unroll(layers)


def run_shapes(directory: RunDirectory) -> tuple[PretrainConfig, list[LayerShape]]:
    """Return the configuration of pre-training and the shapes of the layers.

    Raises
    ------
    CheckpointError
        The run's ``config.toml`` lacks what a run writes.
    """
    config = settings_of(directory, "pretrain", PretrainConfig)
    return config, layer_shapes(config, _n_visible(directory))


def check_pretrained(directory: RunDirectory, weights: bool = True) -> None:
    """Check that pre-training has come to its end.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    weights : bool
        They are needed; else it is enough that pre-training has begun.

    Raises
    ------
    CheckpointError
        It was interrupted, or a layer's checkpoint is missing.
    """
    for other in ("sparse", "compare"):
        if other in directory.read_config():
            raise CheckpointError(
                f"{directory.path} must be a pre-trained run; it is a {other} one. "
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


def _halt(run: Path) -> str:
    """Return why a run is not at its end, and what to do."""
    if at_work(run):
        return (
            "it has not come that far yet (a launch is at work in it). Wait for it: "
            f"'mpilayer watch {run}' shows how far it is."
        )
    return f"it was interrupted. Go on with 'mpilayer resume {run}'."


def is_finetuned(directory: RunDirectory) -> bool:
    """Tell whether the run has a fine-tuned stack, perhaps an interrupted one."""
    return TASKS["autoencode"].is_trained(directory)


def _fill(parameters: Parameters, path: Path, group: str) -> None:
    arrays = checkpoint.load_for_use(path)
    for name, view in parameters.items():
        checkpoint.fill(view, arrays, f"{group}/{name}", path)


def _n_visible(directory: RunDirectory) -> int:
    try:
        return int(directory.read_config()["data"]["n_visible"])
    except KeyError as error:
        raise CheckpointError(
            f"{directory.path / 'config.toml'} must have what training wrote; {error} "
            "is missing. Restore it, or train again."
        ) from error
