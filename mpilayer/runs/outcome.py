"""What pre-training has come to: records, times, the summary, errors along the way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import Array32
from mpilayer.config import PretrainConfig
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.losses import squared_error
from mpilayer.parallel.comm import Communicator
from mpilayer.runs.advice import after_pretraining, over_fits, worse_than_pca
from mpilayer.runs.checkpoints import Cut
from mpilayer.runs.directory import RunDirectory, remove
from mpilayer.runs.model import load_stack
from mpilayer.runs.rows import errors_of, pca_of
from mpilayer.runs.session import Session, finite
from mpilayer.store.metrics import keep_until, lines_of
from mpilayer.train.layer import LayerState, monitored_rows
from mpilayer.train.pretrain import Pipeline
from mpilayer.train.record import KINDS, EpochRecord
from mpilayer.train.schedule import Schedule, finish_times

_GAPS = "the picture of the whole stack over time will have gaps"
_MOMENTS = 40
"""Moments at which the stack is looked at, at most."""


# --- what pre-training has done


@dataclass(frozen=True)
class LayerOutcome:
    """What a rank tells the others about one of its layers."""

    records: list[EpochRecord]
    digest: str
    used: tuple[int, ...]
    dropped: tuple[int, ...]


def outcomes_of(
    pipeline: Pipeline, records: list[EpochRecord]
) -> dict[int, LayerOutcome]:
    """Return the outcome of each of this rank's layers."""
    return {
        index: LayerOutcome(
            records=[record for record in records if record.layer == index],
            digest=state.layer.parameters.digest(),
            used=pipeline.row(index),
            dropped=pipeline.dropped(index),
        )
        for index, state in pipeline.states.items()
    }


def recorded_table(config: PretrainConfig, layers: Sequence[LayerOutcome]) -> Schedule:
    """Return the table that an asynchronous run has filled."""
    return Schedule(
        "async",
        tuple(layer.used for layer in layers),
        config.stipulated_epochs,
        dropped=tuple(layer.dropped for layer in layers),
        settings={
            "extra_epochs": list(config.extra),
            "end": config.end,
            "cut_short": config.cut_short,
            "activations": config.activations,
        },
    )


def former_records(directory: RunDirectory, cut: Cut) -> dict[int, list[EpochRecord]]:
    """Return each layer's records up to the cut; forget later ones. On rank 0."""
    known = {item.name for item in fields(EpochRecord)}

    def record(line: Mapping[str, Any], index: int) -> EpochRecord:
        values: dict[str, Any] = {name: line[name] for name in known & line.keys()}
        values = {k: math.nan if v is None else v for k, v in values.items()}
        return EpochRecord(**{**values, "layer": index})

    former = {}
    for index, candidate in enumerate(cut.candidates):
        path = directory.metrics_file(f"layer-{index + 1}")
        lines = keep_until(path, "epoch", candidate.epoch)
        former[index] = [record(line, index) for line in lines]
    return former


def layer_times(
    layers: dict[int, LayerOutcome], owners: Sequence[range]
) -> list[dict[str, Any]]:
    """Return where the time of each layer went, in seconds."""
    rank_of = {layer: rank for rank, own in enumerate(owners) for layer in own}
    result = []
    for index in sorted(layers):
        records = layers[index].records
        sums = {kind: sum(r.seconds[kind] for r in records) for kind in KINDS}
        last = records[-1] if records else None
        result.append(
            {
                "layer": index + 1,
                "rank": rank_of[index],
                "epochs": len(records),
                "digest": layers[index].digest,
                "train_error": finite(last.train_error) if last else None,
                "validation_error": finite(last.validation_error) if last else None,
                **sums,
            }
        )
    return result


def summarize(
    data: Path,
    directory: RunDirectory,
    config: PretrainConfig,
    session: Session,
    schedule: Schedule,
    times: list[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """Measure the stack beside PCA; write and return the summary. Collective."""
    comm = session.comm
    short = short_of_epochs(config, schedule)
    session.warn(short)
    stack = comm.everywhere(lambda: load_stack(directory, pretrained=True))
    errors = errors_of(stack, data, comm)
    pca = errors_of(pca_of(data, config.layers[-1], session), data, comm)
    remedies = after_pretraining(config, over_fits(errors, pca))
    worse = worse_than_pca("pre-trained", stack.shapes, errors, pca, remedies)
    session.warn(worse)
    summary = {
        **session.facts(),
        "schedule": config.schedule,
        "epochs": list(schedule.epochs),
        "short_of_epochs": short,
        "pretrain_seconds": seconds,
        "simulated_seconds": _simulated_seconds(schedule, times),
        "finetune_seconds": None,
        **{f"{split}_error": error for split, error in errors.items()},
        "pretrained": errors,
        "pca": pca,
        "worse_than_pca": worse,
        "layers": times,
    }
    return comm.on_root(lambda: directory.write_summary(summary))


def short_of_epochs(config: PretrainConfig, schedule: Schedule) -> str:
    """Say which layers the end of the first one has stopped too early; empty for none.

    Only ``--end first-layer`` does that; see ``simulate``.
    """
    if config.schedule not in ("async", "simulate"):
        return ""
    pairs = zip(schedule.epochs, config.stipulated_epochs, strict=True)
    short = [
        f"layer {index} {done} of {asked}"
        for index, (done, asked) in enumerate(pairs, start=1)
        if done < asked
    ]
    if not short:
        return ""
    return (
        f"--end first-layer has left layers short of their epochs: {', '.join(short)}. "
        "Upper layers that hardly trained spoil the code; --end stipulated waits for "
        "them."
    )


def _simulated_seconds(schedule: Schedule, times: Sequence[dict[str, Any]]) -> float:
    """Return the seconds this table would take on a machine with more cores.

    Of a simulated table the end of its virtual clock, whose unit is the measured epoch
    of the first layer; of any other table the time with a core for each layer, from the
    measured epoch of each. Messages take no time.
    """
    kinds = ("training", "transform", "monitor")
    costs = [
        float(sum(layer[kind] for kind in kinds) / max(1, layer["epochs"]))
        for layer in times
    ]
    if schedule.virtual_end:
        return costs[0] * max(schedule.virtual_end)
    return max(finish_times(schedule, costs))


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
    shapes: list[LayerShape],
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
        i: _error(directory, config, shapes, moments[i][1], rows)
        for i in range(comm.rank, len(moments), comm.size)
        if len(rows)
    }
    found = {i: error for part in comm.allgather(mine) for i, error in part.items()}
    lines = []
    for i in sorted(found):
        seconds, epochs = moments[i]
        line = {"seconds": seconds, "epochs": epochs, "validation_error": found[i]}
        lines.append(line)

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


def _error(
    directory: RunDirectory,
    config: PretrainConfig,
    shapes: list[LayerShape],
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
                    _fill(layer.parameters.vector, path)
                    read = True
            if not read:
                return math.nan
    stack = DeepAutoencoder.unroll(layers)
    with np.errstate(all="ignore"):  # who knows what the file holds
        return squared_error(rows, stack.reconstruct(rows)) / len(rows)


def _fill(vector: Array32, path: Path) -> None:
    found = files.read_array(path)
    if found.shape != vector.shape or found.dtype != vector.dtype:
        raise CheckpointError(f"{path} must hold the parameters of a layer.")
    vector[:] = found


def _file(directory: RunDirectory, index: int, epoch: int) -> Path:
    return directory.monitor / f"layer-{index + 1}.e{epoch:06}.npy"
