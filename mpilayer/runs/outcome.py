"""What a training has come to: the summary of each command, the stack over time."""

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import Array32
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.data.far import DataRows
from mpilayer.errors import CheckpointError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor
from mpilayer.numerics.losses import squared_error
from mpilayer.parallel.comm import Communicator
from mpilayer.runs.directory import RunDirectory, remove
from mpilayer.runs.drive import Summary, Terms, Training
from mpilayer.runs.evaluate import (
    after_finetuning,
    after_pretraining,
    beside_rival,
    confusion_of,
    errors_of,
    no_better_than_always,
    over_fits,
    worse_than_pca,
)
from mpilayer.runs.session import Session, finite
from mpilayer.runs.tasks import SPARSE, Task, load_stack, run_shapes
from mpilayer.store.metrics import MetricsReader, lines_of
from mpilayer.train.finetune import FinetuneState
from mpilayer.train.layer import LayerState, monitored_rows
from mpilayer.train.pretrain import Pipeline
from mpilayer.train.record import (
    KINDS,
    EpochRecord,
    is_moment,
    moments,
    mostly_at_barriers,
    recorded_table,
    short_of_epochs,
    simulated_seconds,
    team_of,
)
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import dead_units
from mpilayer.train.sums import costly_allreduce

_GAPS = "the picture of the whole stack over time will have gaps"

# --- what pre-training has done


@dataclass(frozen=True)
class LayerOutcome:
    """What a rank tells the others about one of its layers."""

    rank: int
    records: list[EpochRecord]
    digest: str
    used: tuple[int, ...]
    dropped: tuple[int, ...]

    def facts(self, index: int) -> dict[str, Any]:
        """Return what the summary says of the layer: errors, and seconds."""
        last, team = self.records[-1] if self.records else None, team_of(self.records)
        return {
            "layer": index + 1,
            "rank": self.rank,
            "epochs": len(self.records),
            "digest": self.digest,
            "train_error": finite(last.train_error) if last else None,
            "validation_error": finite(last.validation_error) if last else None,
            **{kind: sum(r.seconds[kind] for r in self.records) for kind in KINDS},
            **({"team": team} if team else {}),
        }


def gathered(
    pipeline: Pipeline, records: dict[int, list[EpochRecord]], comm: Communicator
) -> list[LayerOutcome]:
    """Return the outcome of all layers. Collective."""
    mine = {
        i: LayerOutcome(
            comm.rank,
            records[i],
            state.layer.parameters.digest(),
            pipeline.row(i),
            pipeline.dropped(i),
        )
        for i, state in pipeline.states.items()
    }
    found = dict(ChainMap(*comm.allgather(mine)))
    return [found[i] for i in sorted(found)]


def conclude_pretraining(
    training: Training[PretrainConfig],
    terms: Terms[PretrainConfig],
    layers: Sequence[LayerOutcome],
    seconds: float,
) -> Summary:
    """Measure the stack beside PCA; write all, and return the summary. Collective."""
    directory, session, config = training.directory, training.session, terms.config
    comm = session.comm
    schedule = terms.table or recorded_table(
        config, [one.used for one in layers], [one.dropped for one in layers]
    )
    comm.on_root(lambda: directory.write_table(schedule))
    short = short_of_epochs(config, schedule)
    session.warn(short)
    stack = comm.everywhere(lambda: load_stack(directory, pretrained=True))
    errors, pca = beside_rival(stack, terms.data, terms.data, session)
    remedies = after_pretraining(config, over_fits(errors, pca))
    worse = worse_than_pca("pre-trained", stack.shapes, errors, pca, remedies)
    session.warn(worse)
    times = [layer.facts(index) for index, layer in enumerate(layers)]
    waiting = mostly_at_barriers([own.get("team", ()) for own in times])
    session.warn(waiting)
    summary = {
        **session.facts(),
        "schedule": config.schedule,
        "epochs": list(schedule.epochs),
        "short_of_epochs": short,
        "pretrain_seconds": seconds,
        "simulated_seconds": simulated_seconds(schedule, times),
        "finetune_seconds": None,
        **{f"{split}_error": error for split, error in errors.items()},
        "pretrained": errors,
        "pca": pca,
        "worse_than_pca": worse,
        "mostly_at_barriers": waiting,
        "layers": times,
    }
    written = comm.on_root(lambda: directory.write_summary(summary))
    records = [layer.records for layer in layers]
    stack_over_time(directory, terms.data, config, stack.shapes, records, comm)
    return written


# --- the error of the whole stack while its layers are trained
#
# No rank has all layers, and none shall wait for the others. So every layer leaves its
# parameters after some of its epochs, and errors are computed when training ends.


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
    """Write the unrolled stack's error over time; remove what layers have left for it.

    Σ over columns of (x − x̂)², mean over the monitored validation rows. Collective;
    ``records`` are those of all layers.
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


# --- what fine-tuning, or a sparse training, has reached


def conclude_finetuning(
    training: Training[FinetuneConfig],
    task: Task,
    data: Path,
    state: FinetuneState,
    lines: Sequence[Mapping[str, Any]],
    seconds: float,
) -> Summary:
    """Measure the model, by its metrics, too; write, return the summary. Collective."""
    directory, session, config = training.directory, training.session, state.config
    parts = ("training", "allreduce", "evaluating")
    times = {part: sum(line[part] for line in lines) for part in parts}
    work = f"minibatches of {config.minibatch} rows"
    what = "Allreduce" if config.parallel == "rows" else "waiting for other ranks"
    waited, n_ranks = times["allreduce"], session.comm.size
    session.warn(costly_allreduce(waited, seconds, n_ranks, work, what))
    if isinstance(state.stack, Predictor):
        own = _of_predictor(session, state, state.stack, data, task)
    else:
        own = _of_autoencoder(directory, session, state, data)
    own_times = {
        **session.facts(),
        "seconds": seconds,
        "optimizer": config.optimizer,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        **times,
    }
    # Keys of pre-training stay; those of this step are told by their prefix.
    own = {**{f"{task.name}_{key}": v for key, v in own_times.items()}, **own}
    return session.comm.on_root(lambda: directory.write_summary(own))


def _of_autoencoder(
    directory: RunDirectory, session: Session, state: FinetuneState, data: Path
) -> Summary:
    """Return the errors of the autoencoder, beside PCA. Collective."""
    comm, shapes = session.comm, state.stack.shapes
    errors = errors_of(state.stack, data, comm)

    def advise() -> str:
        pca = directory.read_summary().get("pca") or {}
        below, over = run_shapes(directory)[0], over_fits(errors, pca)
        epochs = state.epoch, state.best_epoch
        remedies = after_finetuning(state.config, below, *epochs, over)
        return worse_than_pca("fine-tuned", shapes, errors, pca, remedies)

    worse = comm.on_root(advise)
    session.warn(worse)
    own = {f"{split}_error": error for split, error in errors.items()}
    return {**own, "finetuned": errors, "worse_than_pca": worse}


def _of_predictor(
    session: Session, state: FinetuneState, model: Predictor, data: Path, task: Task
) -> Summary:
    """Return the errors of a predictor, beside what predicts always the same."""
    errors, usual = beside_rival(model, data, data, session)
    made = state.config, state.epoch
    worse = no_better_than_always(task.model, errors, usual, *made)
    session.warn(worse)
    found = {f"{task.name}_error": errors, f"{task.name}_no_better": worse}
    if not len(model.classes):
        return found
    split = "train" if errors["test"] is None else "test"
    table = confusion_of(model, data, split, session.comm)
    return {**found, **table, "confusion_split": split}


def conclude_sparse(
    training: Training[SparseConfig], descent: Descent, seconds: float
) -> Summary:
    """Measure the last iteration; write and return the summary. Collective."""
    directory, session, state = training.directory, training.session, descent.state
    comm, cost, config = session.comm, descent.cost, descent.config
    if state is None:
        raise RuntimeError("a descent without evaluations")
    dead, final = dead_units(cost, state.position), cost.measure(state.position)

    def times() -> dict[str, float]:
        # Of rank 0, in all evaluations.
        kinds = ("computing", "allreduce")
        lines = list(MetricsReader(directory.metrics_file(SPARSE)).new_lines())
        return {f"{k}_seconds": sum(line[k] for line in lines) for k in kinds}

    spent, warning = comm.on_root(times), dead.warning(final)
    allreduce, work = spent["allreduce_seconds"], f"{cost.n_rows} rows"
    session.warn(warning)
    session.warn(costly_allreduce(allreduce, seconds, comm.size, work))
    measures = (
        *("cost", "exact_cost", "reconstruction", "decay", "sparsity"),
        "gradient_norm",
    )
    summary = {
        **session.facts(),
        "kl": config.kl,
        "optimizer": config.optimizer,
        **{name: finite(getattr(final, name)) for name in measures},
        "evaluations": cost.evaluations,
        "iterations": state.iteration,
        "stopped_by": descent.stopped_by,
        "dead_units": dead.units,
        "warning": warning,
        "mean_activation": float(cost.mean_activation.mean()),
        "mean_activations": cost.mean_activation.tolist(),
        "digest": cost.model.parameters.digest(),
        "n_visible": cost.model.shape.n_visible,
        "n_hidden": cost.model.shape.n_hidden,
        "n_rows": cost.n_rows,
        "seconds": seconds,
        **spent,
    }
    return comm.on_root(lambda: directory.write_summary(summary))
