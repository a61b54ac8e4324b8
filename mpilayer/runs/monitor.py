"""The reconstruction error of the whole stack while its layers are trained.

No rank has all layers, and none shall wait for the others. So every layer leaves its
parameters after some of its epochs, and the errors are computed when training ends.
"""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import AnyArray, Array32
from mpilayer.config import PretrainConfig
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.losses import squared_error
from mpilayer.parallel.comm import Communicator
from mpilayer.runs.directory import RunDirectory, remove
from mpilayer.store.metrics import lines_of
from mpilayer.train.layer import LayerState, monitored_rows, new_state
from mpilayer.train.record import EpochRecord

_GAPS = "the picture of the whole stack over time will have gaps"
_MOMENTS = 40
"""Moments at which the stack is looked at, at most."""


def leave_parameters(
    directory: RunDirectory, state: LayerState, config: PretrainConfig
) -> None:
    """Write a layer's parameters, if it is time to. Local to the layer's rank."""
    if _is_kept(config, state.settings.index, state.epoch):
        content = BytesIO()
        np.save(content, state.layer.parameters.vector)
        with files.optional(directory.monitor, _GAPS):
            directory.monitor.mkdir(exist_ok=True)
            path = _file(directory, state.settings.index, state.epoch)
            files.write(path, content.getvalue())


def stack_over_time(
    directory: RunDirectory,
    data: Path,
    config: PretrainConfig,
    shapes: list[LayerShape],
    records: Mapping[int, Sequence[EpochRecord]],
    comm: Communicator,
) -> None:
    """Write the unrolled stack's error over time to ``metrics/stack.jsonl``.

    The error is Σ over columns of (x − x̂)², mean over the monitored validation rows.

    Parameters
    ----------
    directory : RunDirectory
        Holds what ``leave_parameters`` has left; it is removed.
    data : Path
        The data set.
    config : PretrainConfig
        Of the run.
    shapes : list of LayerShape
        Of the layers.
    records : mapping of int to sequence of EpochRecord
        All records of all layers.
    comm : Communicator
        All ranks, which share the work. Collective.
    """
    moments = _moments(records, config)
    rows = comm.everywhere(lambda: _rows(data, config))
    mine = {
        i: _error(directory, config, shapes, moments[i][1], rows)
        for i in range(comm.rank, len(moments), comm.size)
        if len(rows)
    }
    found = {i: error for part in comm.allgather(mine) for i, error in part.items()}
    lines = [
        {
            "seconds": moments[i][0],
            "epochs": moments[i][1],
            "validation_error": found[i],
        }
        for i in sorted(found)
    ]
    comm.on_root(lambda: _finish(directory, lines))


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


def _error(
    directory: RunDirectory,
    config: PretrainConfig,
    shapes: list[LayerShape],
    epochs: Sequence[int],
    rows: Array32,
) -> float:
    layers = []
    for index, epoch in enumerate(epochs):
        layer = new_state(config, shapes, index).layer
        if epoch:
            path, found = _file(directory, index, epoch), None
            if path.exists():  # else the run began without --monitor-every
                with files.optional(path, _GAPS):
                    found = _read(path, layer.parameters.vector)
            if found is None:
                return math.nan
            layer.parameters.vector[:] = found
        layers.append(layer)
    stack = DeepAutoencoder.unroll(layers)
    with np.errstate(all="ignore"):  # who knows what the file holds
        return squared_error(rows, stack.reconstruct(rows)) / len(rows)


def _read(path: Path, like: Array32) -> AnyArray:
    found = files.read_array(path)
    if found.shape != like.shape or found.dtype != like.dtype:
        raise CheckpointError(f"{path} must hold the parameters of a layer.")
    return found


def _file(directory: RunDirectory, index: int, epoch: int) -> Path:
    return directory.monitor / f"layer-{index + 1}.e{epoch:06}.npy"


def _finish(directory: RunDirectory, lines: Sequence[Mapping[str, Any]]) -> None:
    path = directory.metrics_file("stack")
    with files.optional(path, "there will be no picture of the whole stack over time"):
        files.write(path, lines_of(lines))
    with files.optional(directory.monitor, "it stays, and may be removed"):
        remove(directory.monitor)
