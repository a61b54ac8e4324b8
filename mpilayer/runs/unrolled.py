"""The error of the whole stack while its layers are trained.

No rank has all layers, and none shall wait for the others. So every layer leaves its
parameters after some of its epochs, and errors are computed when training ends.
"""

import math
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpilayer import files
from mpilayer.arrays import Array32
from mpilayer.config import PretrainConfig
from mpilayer.data.dataset import Dataset
from mpilayer.data.far import DataRows
from mpilayer.errors import CheckpointError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.losses import squared_error
from mpilayer.parallel.comm import Communicator
from mpilayer.runs.directory import RunDirectory, remove
from mpilayer.store.metrics import lines_of
from mpilayer.train.layer import LayerState, monitored_rows
from mpilayer.train.record import EpochRecord, is_moment, moments

_GAPS = "the picture of the whole stack over time will have gaps"


def leave_parameters(
    directory: RunDirectory, state: LayerState, config: PretrainConfig
) -> None:
    """Write a layer's parameters, if it is time to. Local to the layer's rank."""
    if is_moment(config, state.index, state.epoch):
        with files.optional(directory.monitor, _GAPS):
            directory.monitor.mkdir(exist_ok=True)
            path = _file(directory, state.index, state.epoch)
            files.write_array(path, state.layer.parameters.vector)


def stack_over_time(
    directory: RunDirectory,
    data: Path,
    config: PretrainConfig,
    shapes: Sequence[LayerShape],
    records: Sequence[Sequence[EpochRecord]],
    comm: Communicator,
) -> None:
    """Write the unrolled stack's error over time to ``metrics/stack.jsonl``.

    The error is Σ over columns of (x − x̂)², mean over the monitored validation rows.
    Collective, for the ranks share the work; ``records`` are those of all layers. What
    ``leave_parameters`` has left is removed.
    """
    shown = moments(records, config)
    rows = comm.everywhere(lambda: _monitored(data, config))

    def error_then(epochs: Sequence[int]) -> float:
        """Return the error after these epochs; NaN if what they left is lost."""
        layers = [LayerState(config, shapes, i).layer for i in range(len(shapes))]
        for index, (layer, epoch) in enumerate(zip(layers, epochs, strict=True)):
            path = _file(directory, index, epoch)
            if epoch and not _filled(layer.parameters.vector, path):
                return math.nan
        stack = DeepAutoencoder.unroll(layers)
        with np.errstate(all="ignore"):  # who knows what the file holds
            return squared_error(rows, stack.reconstruct(rows)) / len(rows)

    mine = {
        i: error_then(shown[i][1])
        for i in range(comm.rank, len(shown), comm.size)
        if len(rows)
    }
    found = ChainMap(*comm.allgather(mine))
    lines = [
        {"seconds": seconds, "epochs": epochs, "validation_error": found[i]}
        for i, (seconds, epochs) in enumerate(shown)
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


def _monitored(data: Path, config: PretrainConfig) -> Array32:
    with Dataset.open(data) as dataset:
        if "validation" not in dataset.splits:
            return np.empty((0, dataset.n_visible), np.float32)
    rows = DataRows(data, "validation")
    return rows[monitored_rows(len(rows), config.monitor_rows)]


def _filled(vector: Array32, path: Path) -> bool:
    """Fill a layer's parameters from a file; tell whether that is there, and whole."""
    if path.exists():  # else the run began without --monitor-every
        with files.optional(path, _GAPS):
            found = files.read_array(path)
            if found.shape != vector.shape or found.dtype != vector.dtype:
                raise CheckpointError(f"{path} must hold the parameters of a layer.")
            vector[:] = found
            return True
    return False


def _file(directory: RunDirectory, index: int, epoch: int) -> Path:
    return directory.monitor / f"layer-{index + 1}.e{epoch:06}.npy"
