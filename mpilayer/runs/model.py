"""The models of a run, at their end and on the way there."""

import math
import warnings
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mpilayer import files
from mpilayer.arrays import Array32
from mpilayer.config import PretrainConfig
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError, UnfinishedWarning
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor, Stack
from mpilayer.numerics.losses import squared_error
from mpilayer.numerics.parameters import Parameters
from mpilayer.parallel.comm import Communicator
from mpilayer.runs.directory import RunDirectory, remove
from mpilayer.runs.session import at_work
from mpilayer.runs.tasks import (
    COMPARE,
    PRETRAIN,
    SPARSE,
    TASKS,
    Task,
    begun_last,
    kind_of,
    settings_of,
    sparse_config,
    trained_last,
)
from mpilayer.store import checkpoint
from mpilayer.store.metrics import lines_of
from mpilayer.train.layer import LayerState, layer_shapes, make_layer, monitored_rows
from mpilayer.train.record import EpochRecord
from mpilayer.train.sparse.cost import make_model

_GAPS = "the picture of the whole stack over time will have gaps"
_MOMENTS = 40
"""Moments at which the stack is looked at, at most."""


def load_trained(directory: RunDirectory) -> tuple[str, DeepAutoencoder]:
    """Return what a run has trained, and what that is. Local.

    That is ``sparse``, ``pretrained`` or ``finetuned``; a sparse autoencoder is a stack
    of one layer. A ``CheckpointError`` says that the run is not finished, or that a
    checkpoint is missing or damaged; an ``UnfinishedWarning``, that fine-tuning has
    begun, but not come to its end.
    """
    kind = kind_of(directory)
    if kind == COMPARE:
        raise CheckpointError(
            f"{directory.path} must be one run; it is a comparison of two. Give "
            f"{directory.path / 'average'} or {directory.path / 'exact'}."
        )
    if kind == SPARSE:
        return SPARSE, _load_sparse(directory)
    tuned = is_finetuned(directory)
    if not (tuned and TASKS["autoencode"].config(directory).from_scratch):
        check_pretrained(directory)
    warn_if_unfinished(directory, TASKS["autoencode"])
    return "finetuned" if tuned else "pretrained", load_stack(directory)


def chosen_task(run: Path, name: str | None) -> Task | None:
    """Return the task whose predictor is to be used, None for the autoencoder. Local.

    ``name`` is one of ``TASKS``; by default it is what was trained last. A
    ``CheckpointError`` says that there is no run, or no such predictor in it; an
    ``UnfinishedWarning``, that one was begun last of which nothing is saved yet.
    """
    directory = RunDirectory.open(run)
    task = trained_last(directory) if name is None else TASKS[name]
    begun = begun_last(directory) if name is None else None
    if begun and begun.model != "finetuned" and not begun.is_trained(directory):
        warn_if_unfinished(directory, begun)
    if task is None or task == TASKS["autoencode"]:
        return None
    if not task.is_trained(directory):
        raise CheckpointError(
            f"{run} must have a {task.model}; it has none. Train one with 'mpilayer "
            f"finetune {run} --task {task.name}'."
        )
    return task


def chosen_model(directory: RunDirectory, name: str | None) -> tuple[str, Stack]:
    """Return the model that ``chosen_task`` names, and what it is called. Local.

    That is ``classifier``, ``regressor``, or a name that ``load_trained`` gives. A
    ``CheckpointError`` says that there is none, or that it is damaged.
    """
    return load_model(directory, chosen_task(directory.path, name))


def load_model(directory: RunDirectory, task: Task | None) -> tuple[str, Stack]:
    """Return the model of what ``chosen_task`` has given, and what it is called."""
    if task is None:
        return load_trained(directory)
    return task.model, load_predictor(directory, task)


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


def _load_sparse(directory: RunDirectory) -> DeepAutoencoder:
    path = directory.checkpoint(SPARSE)
    if not checkpoint.exists(path):
        raise CheckpointError(
            f"{directory.path} must have trained weights; {_halt(directory.path)}"
        )
    model = make_model(sparse_config(directory), _n_visible(directory))
    _fill(model.parameters, path, "parameters")
    stack, p = DeepAutoencoder([model.shape]), model.parameters
    stack.parameters["weights_0"][:] = p["weights"]
    stack.parameters["bias_0"][:] = p["hidden_bias"]
    stack.parameters["weights_1"][:] = p["decode_weights"]
    stack.parameters["bias_1"][:] = p["visible_bias"]
    return stack


def load_stack(directory: RunDirectory, pretrained: bool = False) -> DeepAutoencoder:
    """Return a run's model: fine-tuned if it was, else the unrolled layers. Local.

    ``pretrained``: the unrolled layers even if the run was fine-tuned.

    A ``CheckpointError`` says: a checkpoint is missing or damaged, or the run is not
    finished.
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

    A ``CheckpointError`` says: the run's ``config.toml`` lacks what a run writes.
    """
    config = settings_of(directory, PRETRAIN, PretrainConfig)
    return config, layer_shapes(config, _n_visible(directory))


def check_pretrained(directory: RunDirectory, weights: bool = True) -> None:
    """Check that pre-training has come to its end, or begun if no weights are needed.

    A ``CheckpointError`` says: it was interrupted, or a layer's checkpoint is missing.
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


# --- the error of the whole stack while its layers are trained
#
# No rank has all layers, and none shall wait for the others. So every layer leaves its
# parameters after some of its epochs, and the errors are computed when training ends.


def leave_parameters(
    directory: RunDirectory, state: LayerState, config: PretrainConfig
) -> None:
    """Write a layer's parameters, if it is time to. Local to the layer's rank."""
    if _is_kept(config, state.index, state.epoch):
        path = _file(directory, state.index, state.epoch)
        with files.optional(directory.monitor, _GAPS):
            directory.monitor.mkdir(exist_ok=True)
            files.write_array(path, state.layer.parameters.vector)


def stack_over_time(
    directory: RunDirectory,
    data: Path,
    config: PretrainConfig,
    shapes: Sequence[LayerShape],
    records: Mapping[int, Sequence[EpochRecord]],
    comm: Communicator,
) -> None:
    """Write the unrolled stack's error over time to ``metrics/stack.jsonl``.

    The error is Σ over columns of (x − x̂)², mean over the monitored validation rows.
    Collective, for the ranks share the work; ``records`` are those of all layers. What
    ``leave_parameters`` has left is removed.
    """
    moments = _moments(records, config)
    rows = comm.everywhere(lambda: _rows(data, config))
    mine = {
        i: _error_then(directory, config, shapes, moments[i][1], rows)
        for i in range(comm.rank, len(moments), comm.size)
        if len(rows)
    }
    found = ChainMap(*comm.allgather(mine))
    lines = [
        {"seconds": seconds, "epochs": epochs, "validation_error": found[i]}
        for i, (seconds, epochs) in enumerate(moments)
        if i in found
    ]

    def finish() -> None:
        path = directory.metrics_file("stack")
        lost = "there will be no picture of the whole stack over time"
        with files.optional(path, lost):
            files.write(path, lines_of(lines))
        with files.optional(directory.monitor, "it stays, and may be removed"):
            remove(directory.monitor)

    comm.on_root(finish)


def _is_kept(config: PretrainConfig, index: int, epoch: int) -> bool:
    """Tell whether a layer leaves its parameters after an epoch."""
    usual = max(1, config.stipulated_epochs[index] // _MOMENTS)
    every = config.monitor_every or usual
    return every > 0 and epoch % every == 0


def _moments(
    records: Mapping[int, Sequence[EpochRecord]], config: PretrainConfig
) -> list[tuple[float, list[int]]]:
    """Return moments, and the epoch whose parameters each layer had left by then."""
    ends = [
        (r.ended, layer, r.epoch)
        for layer, own in records.items()
        for r in own
        if _is_kept(config, layer, r.epoch)
    ]
    epochs = [0] * len(records)
    moments: list[tuple[float, list[int]]] = []
    for seconds, layer, epoch in sorted(ends):
        epochs[layer] = epoch
        moments.append((seconds, list(epochs)))
    if not moments:
        return []
    some = np.unique(np.linspace(0, len(moments) - 1, _MOMENTS).astype(int))
    return [moments[i] for i in some]


def _rows(data: Path, config: PretrainConfig) -> Array32:
    with Dataset.open(data) as dataset:
        if "validation" not in dataset.splits:
            return np.empty((0, dataset.n_visible), np.float32)
        rows = dataset.rows("validation")
    result: Array32 = rows[monitored_rows(len(rows), config.monitor_rows)]
    return result


def _error_then(
    directory: RunDirectory,
    config: PretrainConfig,
    shapes: Sequence[LayerShape],
    epochs: Sequence[int],
    rows: Array32,
) -> float:
    """Return the error with the parameters that layers left after some of their epochs.

    NaN if they are not there, or are damaged.
    """
    layers = [LayerState(config, shapes, index).layer for index in range(len(shapes))]
    for index, (layer, epoch) in enumerate(zip(layers, epochs, strict=True)):
        if epoch:
            path, read = _file(directory, index, epoch), False
            if path.exists():  # else the run began without --monitor-every
                with files.optional(path, _GAPS):
                    _fill_whole(layer.parameters.vector, path)
                    read = True
            if not read:
                return math.nan
    stack = DeepAutoencoder.unroll(layers)
    with np.errstate(all="ignore"):  # who knows what the file holds
        return squared_error(rows, stack.reconstruct(rows)) / len(rows)


def _fill_whole(vector: Array32, path: Path) -> None:
    found = files.read_array(path)
    if found.shape != vector.shape or found.dtype != vector.dtype:
        raise CheckpointError(f"{path} must hold the parameters of a layer.")
    vector[:] = found


def _file(directory: RunDirectory, index: int, epoch: int) -> Path:
    return directory.monitor / f"layer-{index + 1}.e{epoch:06}.npy"
