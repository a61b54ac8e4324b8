"""Layers and stacks to checkpoints, and back."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.config import PretrainConfig, SparseConfig, as_values
from mpilayer.errors import CheckpointError, UnfinishedWarning
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor
from mpilayer.numerics.parameters import Parameters
from mpilayer.optim.cg import CGState
from mpilayer.optim.lbfgs import LBFGSState
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.holding import at_work
from mpilayer.runs.settings import settings_of
from mpilayer.runs.tasks import TASKS, Task
from mpilayer.store import checkpoint
from mpilayer.train.finetune import FinetuneState
from mpilayer.train.layer import LayerState, layer_shapes, make_layer
from mpilayer.train.pretrain import Snapshot
from mpilayer.train.restart import Candidate
from mpilayer.train.sparse.cost import make_model
from mpilayer.train.sparse.descent import State
from mpilayer.train.sparse.sgd import SGDState


@dataclass(frozen=True)
class Content:
    """What a checkpoint is going to hold, and where; nothing in it changes any more.

    Attributes
    ----------
    path : Path
        The file.
    arrays, attributes, keep
        As :func:`mpilayer.store.checkpoint.save` takes them.
    """

    path: Path
    arrays: Mapping[str, AnyArray]
    attributes: Mapping[str, Any]
    keep: bool = False

    def save(self) -> None:
        """Write the file. Local."""
        checkpoint.save(self.path, self.arrays, self.attributes, self.keep)


def layer_content(
    directory: RunDirectory, state: LayerState, snapshot: Snapshot
) -> Content:
    """Return what a layer's checkpoint holds: copies, for training goes on."""
    layer = state.layer
    parameters, velocity = layer.parameters.copy(), layer.parameters.like()
    velocity.vector[:] = state.optimizer.state["velocity"]
    shape, candidate = layer.shape, snapshot.candidate
    index = state.settings.index
    return Content(
        directory.layer_file(index, candidate),
        {
            **{f"parameters/{k}": v for k, v in parameters.items()},
            **{f"velocity/{k}": v for k, v in velocity.items()},
            "row": np.array(snapshot.row, np.int64),
            "dropped": np.array(snapshot.dropped, np.int64),
        },
        {
            "content": "layer",
            "layer": index + 1,
            "epoch": state.epoch,
            "used": candidate.used,
            "final": candidate.final,
            "extra_left": snapshot.extra_left,
            "optimizer_steps": state.optimizer.steps,
            "n_visible": shape.n_visible,
            "n_hidden": shape.n_hidden,
            "visible": shape.visible,
            "hidden": shape.hidden,
        },
    )


def restore_layer(
    directory: RunDirectory, state: LayerState, candidate: Candidate
) -> Snapshot:
    """Put a layer where one of its checkpoints was. Local.

    Raises
    ------
    CheckpointError
        It is damaged, or belongs to another layer.
    """
    if candidate.epoch == 0:
        return Snapshot(candidate)
    index = state.settings.index
    path = directory.layer_file(index, candidate)
    arrays, attributes = checkpoint.load(path)
    for name, view in state.layer.parameters.items():
        checkpoint.fill(view, arrays, f"parameters/{name}", path)
    velocity = state.layer.parameters.like()
    for name, view in velocity.items():
        checkpoint.fill(view, arrays, f"velocity/{name}", path)
    state.optimizer.state["velocity"][:] = velocity.vector
    state.optimizer.steps = int(attributes["optimizer_steps"])
    state.epoch = int(attributes["epoch"])
    return Snapshot(
        candidate,
        tuple(arrays["row"].tolist()),
        int(attributes["extra_left"]),
        tuple(arrays["dropped"].tolist()),
    )


def finetuned_content(
    directory: RunDirectory, state: FinetuneState, seconds: float
) -> Content:
    """Return copies of the best weights, the last ones, and the optimizer's vectors."""
    now = state.stack.parameters.vector
    vectors = {
        "best": state.best,
        "parameters": now if state.last is None else state.last,
        **state.optimizer.state,
    }
    arrays: dict[str, AnyArray] = {}
    for group, vector in vectors.items():
        named = state.stack.parameters.like()
        named.vector[:] = vector
        arrays |= {f"{group}/{k}": v for k, v in named.items()}
    if isinstance(state.stack, Predictor):
        arrays["classes"] = state.stack.classes
    task = TASKS[state.config.task]
    return Content(
        directory.checkpoint(task.model),
        arrays,
        {
            "content": task.model,
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_error": state.best_error,
            "optimizer_steps": state.optimizer.steps,
            "seconds": seconds,
            **{f"finetune_{k}": v for k, v in as_values(state.config).items()},
        },
        keep=True,
    )


def restore_finetuned(
    directory: RunDirectory, state: FinetuneState
) -> tuple[float, str]:
    """Put fine-tuning where its checkpoint was. Local.

    Returns
    -------
    float, str
        Seconds of training so far, and a remark if the newest file was damaged.

    Raises
    ------
    CheckpointError
        There is none that is whole.
    """
    path = directory.checkpoint(TASKS[state.config.task].model)
    arrays, attributes, remark = checkpoint.load_newest(path)
    named = state.stack.parameters.like()
    vectors = {
        "best": state.best,
        "parameters": state.stack.parameters.vector,
        **state.optimizer.state,
    }
    for group, vector in vectors.items():
        for name, view in named.items():
            checkpoint.fill(view, arrays, f"{group}/{name}", path)
        vector[:] = named.vector
    state.epoch = int(attributes["epoch"])
    state.best_epoch = int(attributes["best_epoch"])
    state.best_error = float(attributes["best_error"])
    state.optimizer.steps = int(attributes["optimizer_steps"])
    return float(attributes["seconds"]), remark


def sparse_content(
    directory: RunDirectory,
    shape: LayerShape,
    parameters: Parameters,
    state: State,
    evaluations: int,
    seconds: float,
) -> Content:
    """Return a sparse autoencoder and the state of its optimizer, which is constant."""
    return Content(
        directory.checkpoint("sparse"),
        {
            **{f"parameters/{k}": v for k, v in parameters.items()},
            **{f"optimizer/{k}": v for k, v in state.arrays().items()},
        },
        {
            "content": "sparse",
            "evaluations": evaluations,
            "seconds": seconds,
            "n_visible": shape.n_visible,
            "n_hidden": shape.n_hidden,
            "visible": shape.visible,
            "hidden": shape.hidden,
            **{f"optimizer_{k}": v for k, v in state.numbers().items()},
        },
        keep=True,
    )


def restore_sparse(
    directory: RunDirectory, optimizer: str
) -> tuple[State, int, float, str]:
    """Return where a sparse run was. Local.

    Returns
    -------
    State, int, float, str
        The optimizer's state; evaluations and seconds so far; a remark if the newest
        file was damaged.

    Raises
    ------
    CheckpointError
        There is none that is whole.
    """
    arrays, attributes, remark = checkpoint.load_newest(directory.checkpoint("sparse"))
    kinds: dict[str, type[LBFGSState] | type[CGState] | type[SGDState]] = {
        "lbfgs": LBFGSState,
        "cg": CGState,
        "sgd": SGDState,
    }
    state = kinds[optimizer].restore(
        _with_prefix(arrays, "optimizer/"), _with_prefix(attributes, "optimizer_")
    )
    return state, int(attributes["evaluations"]), float(attributes["seconds"]), remark


def _with_prefix(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}


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
