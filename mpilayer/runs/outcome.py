"""What pre-training has done: the records of its layers, times, the summary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mpilayer.config import PretrainConfig
from mpilayer.runs.advice import after_pretraining, over_fits, worse_than_pca
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.keeping import Cut
from mpilayer.runs.model import load_stack
from mpilayer.runs.session import Session, finite, pca_errors, stack_errors
from mpilayer.store.metrics import keep_until
from mpilayer.train.pretrain import Pipeline
from mpilayer.train.record import KINDS, EpochRecord
from mpilayer.train.schedule import Schedule, finish_times


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
    former = {}
    for index, candidate in enumerate(cut.candidates):
        path = directory.metrics_file(f"layer-{index + 1}")
        lines = keep_until(path, "epoch", candidate.epoch)
        former[index] = [
            EpochRecord(**_record_values(line, known, index)) for line in lines
        ]
    return former


def _record_values(line: dict[str, Any], known: set[str], index: int) -> dict[str, Any]:
    values = {k: math.nan if v is None else v for k, v in line.items() if k in known}
    return {**values, "layer": index}


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
    if words := short_of_epochs(config, schedule):
        session.say(f"warning: {words}")
    stack = comm.everywhere(lambda: load_stack(directory, pretrained=True))
    errors = stack_errors(stack, data, comm)
    pca = pca_errors(data, config.layers[-1], session)
    remedies = after_pretraining(config, over_fits(errors, pca))
    worse = worse_than_pca("pre-trained", stack.shapes, errors, pca, remedies)
    if worse:
        session.say(f"warning: {worse}")
    summary = {
        **session.facts(),
        "schedule": config.schedule,
        "epochs": list(schedule.epochs),
        "short_of_epochs": words,
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


def _simulated_seconds(
    schedule: Schedule, times: Sequence[dict[str, Any]]
) -> float | None:
    """Return the seconds this table would take on a machine with more cores.

    Of a simulated table the end of its virtual clock, whose unit is the measured epoch
    of the first layer; of any other table the time with a core for each layer, from the
    measured epoch of each. Messages take no time.
    """
    costs = [_epoch_seconds(layer) for layer in times]
    if schedule.virtual_end:
        return costs[0] * max(schedule.virtual_end)
    return max(finish_times(schedule, costs))


def _epoch_seconds(layer: dict[str, Any]) -> float:
    busy = layer["training"] + layer["transform"] + layer["monitor"]
    return float(busy / max(1, layer["epochs"]))
