"""Runs as large as they get, made by simulation and written by the real writers.

Nothing is trained: weights are random, times and errors follow plausible laws. All that
lies in the folders comes from the functions that training itself writes with.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, as_values
from mpilayer.data.dataset import PIXEL_SCALE, Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.optim.lbfgs import LBFGSState
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.runs.checkpoints import saving
from mpilayer.runs.directory import RunDirectory
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.finetune import FinetuneRecord, FinetuneState, random_weights
from mpilayer.train.layer import LayerState, layer_shapes
from mpilayer.train.plans import Candidate
from mpilayer.train.pretrain import Snapshot
from mpilayer.train.record import EpochRecord
from mpilayer.train.schedule import lockstep
from mpilayer.train.sparse.cost import Evaluation, ShardedCost, make_model
from mpilayer.train.sparse.descent import Descent

EPOCHS = 200
LAYERS = (1000, 800, 600, 500, 400, 250, 100, 30)
EVALUATIONS = 5000
RANKS = 64
SERIAL = SerialCommunicator()


def write_data(path: Path, n_visible: int = 784) -> Path:
    """Write a data set of noise."""
    rng = np.random.default_rng(0)
    sizes = {"train": 1000, "validation": 500, "test": 1000}
    splits = {
        name: Split(
            rng.integers(0, 256, (n, n_visible), np.uint8),
            rng.integers(0, 10, n),
        )
        for name, n in sizes.items()
    }
    write_dataset(path, splits, name="large", origin="noise", scale=PIXEL_SCALE)
    return path


def write_deep(
    path: Path,
    data: Path,
    layers: Sequence[int] = LAYERS,
    ranks: int | None = None,
    epochs: int = EPOCHS,
) -> Path:
    """Write a pre-trained and fine-tuned run, a layer a rank unless ``ranks`` says so.

    Parameters
    ----------
    path, data : Path
        The run, and the data set that it names.
    layers : sequence of int
        Units.
    ranks : int, optional
        Each has equally many layers.
    epochs : int
        Of each layer, and of fine-tuning.
    """
    ranks = ranks or len(layers)
    directory, rng = RunDirectory.create(path, replace=False), np.random.default_rng(1)
    config = PretrainConfig(layers=tuple(layers), epochs=(epochs,))
    sections = {"pretrain": as_values(config), "data": _identity(data)}
    tuning = FinetuneConfig(epochs=epochs, learning_rate=0.01)
    directory.write_config({**sections, "finetune": as_values(tuning)})
    with Dataset.open(data) as dataset:
        shapes = layer_shapes(config, dataset.n_visible)
    table = lockstep((epochs,) * len(layers), (0,) * len(layers))
    directory.schedule.write_text(table.to_json())
    ended = np.zeros(epochs + 1)
    for index in range(len(layers)):
        ended = _write_layer(directory, index, ended, rng, index * ranks // len(layers))
        state = LayerState(config, shapes, index)
        state.epoch = epochs
        snapshot = Snapshot(Candidate(epochs, epochs, True))
        saving(directory.layer_checkpoint(index), state, snapshot, content="layer")()
    with MetricsWriter(directory.metrics_file("stack")) as writer:
        for moment in np.linspace(0.05, 1, 40):
            error = 20 + 100 * np.exp(-5 * moment) + rng.random()
            line = {"seconds": moment * ended[-1], "validation_error": error}
            writer.write({**line, "epochs": [int(moment * epochs)] * len(layers)})
    with MetricsWriter(directory.metrics_file("finetune")) as writer:
        for epoch in range(1, epochs + 1):
            error = 10 + 20 / epoch + 0.1 * rng.random()
            record = FinetuneRecord(epoch, error, error + 0.2, 4.0, 0.5, 0.1)
            writer.write(asdict(record))
    stack = DeepAutoencoder(shapes)
    random_weights(stack, 0)
    state = FinetuneState(stack, tuning)
    facts = {"content": "finetuned", "seconds": 920.0}
    saving(directory.checkpoint("finetuned"), state, **facts)()
    errors = {"train": 20.1, "validation": 20.5, "test": 20.4}
    directory.write_summary(
        {
            **_facts(ranks),
            **{f"finetune_{key}": value for key, value in _facts(ranks).items()},
            "pretrain_seconds": float(ended[-1]),
            "pretrained": errors,
            "pca": errors,
            "finetuned": errors,
            "test_error": 20.4,
            "finetune_seconds": 920.0,
        }
    )
    for command in ("pretrain", "finetune"):
        directory.set_complete(command)
    return path


def write_sparse(
    path: Path,
    data: Path,
    ranks: int = RANKS,
    evaluations: int = EVALUATIONS,
    hidden: int = 100,
) -> Path:
    """Write a run of a sparse autoencoder; evaluations are faster on more ranks."""
    directory = RunDirectory.create(path, replace=False)
    rng = np.random.default_rng(ranks)
    config = SparseConfig(hidden=hidden, evaluations=evaluations)
    identity = _identity(data)
    directory.write_config({"sparse": as_values(config), "data": identity})
    each, waited = 0.64 / ranks, 0.002 * np.log2(2 * ranks)
    with MetricsWriter(directory.metrics_file("sparse")) as writer:
        for number in range(1, evaluations + 1):
            parts = (4 + 40 / number, 0.5, 0.1 + 9 / number)
            writer.write(
                asdict(
                    Evaluation(
                        evaluation=number,
                        iteration=number - number // 10,
                        cost=sum(parts),
                        reconstruction=parts[0],
                        decay=parts[1],
                        sparsity=parts[2],
                        exact_cost=sum(parts) - 1e-3,
                        gradient_norm=1 / number,
                        seconds=number * (each + waited) * (1 + 0.01 * rng.random()),
                        computing=each,
                        allreduce=waited,
                    )
                )
            )
    model = make_model(config, int(identity["n_visible"]))
    model.parameters.vector[:] = rng.normal(size=model.parameters.vector.shape)
    cost = ShardedCost(
        model, np.zeros((0, model.shape.n_visible), np.float32), config, SERIAL
    )
    descent = Descent(cost, config)
    descent.evaluations = evaluations
    descent.state = LBFGSState(
        iteration=evaluations,
        position=model.parameters.vector,
        cost=4.6,
        gradient=model.parameters.vector,
    )
    seconds = evaluations * (each + waited)
    facts = {"content": "sparse", "seconds": seconds}
    saving(directory.checkpoint("sparse"), descent, **facts)()
    directory.write_summary(
        {
            **_facts(ranks),
            "seconds": seconds,
            "allreduce_seconds": evaluations * waited,
            "evaluations": evaluations,
            "n_rows": 1_000_000,
            "cost": 4.6,
            "mean_activation": 0.002,
            "mean_activations": rng.lognormal(-6, 0.5, hidden).tolist(),
        }
    )
    directory.set_complete("sparse")
    return path


def _write_layer(
    directory: RunDirectory,
    index: int,
    below: np.ndarray,
    rng: np.random.Generator,
    rank: int,
) -> np.ndarray:
    """Write the epochs of a layer; return when each ended, from when those below did.

    Both arrays begin with a 0, the start of training.
    """
    ended = np.zeros_like(below)
    with MetricsWriter(directory.metrics_file(f"layer-{index + 1}")) as writer:
        for epoch in range(1, len(below)):
            started = max(ended[epoch - 1], below[epoch] if index else 0.0)
            times = 1.9 + 0.2 * rng.random(), 0.1, 0.05
            error = 12 + 30 / epoch + 0.2 * rng.random()
            record = EpochRecord(
                layer=index,
                epoch=epoch,
                used=epoch if index else 0,
                started=started,
                training=times[0],
                transform=times[1],
                monitor=times[2],
                waiting=started - ended[epoch - 1],
                sending=0.01,
                train_error=error,
                validation_error=error + 0.3,
            )
            line = {**asdict(record), "layer": index + 1, "rank": rank}
            writer.write(line)
            ended[epoch] = started + sum(times)
    return ended


def _identity(data: Path) -> dict[str, object]:
    """Return what a run writes down about its data."""
    with Dataset.open(data) as dataset:
        return {
            "path": str(data.absolute()),
            "name": dataset.name,
            "digest": dataset.digest,
            "n_visible": dataset.n_visible,
        }


def _facts(ranks: int) -> dict[str, object]:
    """Return what a run writes down about its ranks."""
    return {
        "ranks": ranks,
        "hosts": -(-ranks // 16),
        "threads_per_rank": 1,
        "mpi": "simulated",
    }
