"""Pre-training as a run: checks, rows, the pipeline, its records, its errors."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer import __version__
from mpilayer.config import PretrainConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CommunicationError, ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.parallel.channel import Rows
from mpilayer.partition import layers_to_ranks
from mpilayer.runs.directory import RunDirectory, write_text
from mpilayer.runs.model import load_stack, save_layer
from mpilayer.runs.session import (
    Session,
    check_range,
    finite,
    pca_errors,
    stack_errors,
)
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.layer import (
    check_layer,
    layer_shapes,
    monitored_rows,
    new_state,
)
from mpilayer.train.pretrain import AsyncPlan, EpochRecord, Pipeline, Plan, TablePlan
from mpilayer.train.schedule import (
    AsyncLayer,
    Schedule,
    finish_times,
    greedy,
    lockstep,
    simulate,
)

CHECKPOINT_EVERY = 5
"""Epochs between two checkpoints of a layer; it also gets one at its end."""


@dataclass(frozen=True)
class _Facts:
    """What rank 0 finds out for all before anything is written."""

    n_train: int
    n_validation: int
    n_visible: int
    data_name: str
    data_digest: str
    table: Schedule | None


def pretrain(
    data: Path,
    run: Path,
    config: PretrainConfig,
    session: Session,
    replace_run: bool = False,
) -> dict[str, Any]:
    """Pre-train a stack and leave a run directory.

    Parameters
    ----------
    data : Path
        The data set; only rank 0, which has the first layer, reads its rows to train.
    run : Path
        The run directory to make.
    config : PretrainConfig
        Equal on all ranks.
    session : Session
        The ranks. Collective on all of them.
    replace_run : bool
        A former run at ``run`` gives way.

    Returns
    -------
    dict
        The run's summary.

    Raises
    ------
    MpilayerError
        On every rank, before training, and before anything is written.
    """
    comm = session.comm
    facts = comm.on_root(lambda: _check(data, run, config, comm.size, replace_run))
    config = _effective(config)
    shapes = layer_shapes(config, facts.n_visible)
    rows = comm.everywhere(lambda: _read(data, config) if comm.rank == 0 else None)
    directory = comm.on_root(lambda: _open(data, run, config, facts, replace_run))

    counts = facts.table.epochs if facts.table else config.stipulated_epochs
    owners = layers_to_ranks(
        [shape.cost * n for shape, n in zip(shapes, counts, strict=True)], comm.size
    )
    session.announce()
    session.say(_describe(owners, shapes))
    plan = _plan(config, facts.table)
    pipeline = Pipeline(
        [new_state(config, shapes, index) for index in owners[comm.rank]],
        rows,
        (facts.n_train, facts.n_validation),
        comm,
        plan,
        config.monitor_rows,
    )
    goals = {
        f"layer-{i + 1}": facts.table.epochs[i] if facts.table else None
        for i in range(len(shapes))
    }
    comm.barrier()
    began = perf_counter()
    with session.display(directory, goals):
        records = _train(pipeline, directory, comm.rank, counts)
        comm.barrier()
    seconds = perf_counter() - began

    parts = comm.allgather(_outcome(pipeline, plan, records))
    layers = {index: outcome for part in parts for index, outcome in part.items()}
    schedule = facts.table or _recorded(config, [layers[i] for i in sorted(layers)])
    comm.on_root(lambda: write_text(directory.schedule, schedule.to_json()))
    del pipeline, rows  # make room before the data are read again
    times = _times(layers, owners)
    return _summarize(data, directory, config, session, schedule, times, seconds)


@dataclass(frozen=True)
class _LayerOutcome:
    """What a rank tells the others about one of its layers."""

    records: list[EpochRecord]
    digest: str
    used: tuple[int, ...]
    dropped: tuple[int, ...]


def _check(
    data: Path, run: Path, config: PretrainConfig, n_ranks: int, replace_run: bool
) -> _Facts:
    """Check all that can be known before training; on rank 0, nothing is written."""
    if n_ranks > len(config.layers):
        raise CommunicationError(
            f"a rank needs a layer of its own; got {n_ranks} ranks for "
            f"{len(config.layers)} layers. Start at most {len(config.layers)} ranks."
        )
    with Dataset.open(data) as dataset:
        facts = _Facts(
            n_train=dataset.n_samples("train"),
            n_validation=min(config.monitor_rows, dataset.n_samples("validation"))
            if "validation" in dataset.splits
            else 0,
            n_visible=dataset.n_visible,
            data_name=dataset.name,
            data_digest=dataset.digest,
            table=None,
        )
    if config.minibatch > facts.n_train:
        raise ConfigError(
            f"a minibatch must not be larger than the data; got {config.minibatch} "
            f"with {facts.n_train} training rows. Give a smaller --minibatch."
        )
    shapes = layer_shapes(config, facts.n_visible)
    # Makes every model complain now about units that it does not have.
    for shape in shapes:
        check_layer(config, shape)
    RunDirectory.check_free(run, replace_run)
    return replace(facts, table=_table(config, shapes))


def _table(config: PretrainConfig, shapes: Sequence[LayerShape]) -> Schedule | None:
    """Return the table of the schedule, None if it comes about as outputs arrive."""
    epochs, extra = config.stipulated_epochs, config.extra
    name, _, file = config.schedule.partition(":")
    if name == "replay":
        return _read_schedule(Path(file), len(shapes))
    if name == "greedy":
        return greedy(epochs, extra)
    if name == "lockstep":
        lag = config.lag[0] if len(config.lag) == 1 else config.lag
        return lockstep(epochs, extra, lag, config.refresh_every)
    if name == "simulate":
        costs = [
            given or shape.cost
            for given, shape in zip(config.epoch_costs, shapes, strict=True)
        ]
        n_cores = config.cores or len(shapes)
        return simulate(epochs, extra, costs, n_cores, config.end, config.cut_short)
    return None


def _read_schedule(path: Path, n_layers: int) -> Schedule:
    if not path.is_file():
        raise ConfigError(
            f"--schedule replay:FILE must name the schedule.json of a run; {path} is "
            "no file. Give another one."
        )
    schedule = Schedule.from_json(path.read_text(errors="replace"), str(path))
    if schedule.n_layers != n_layers:
        raise ConfigError(
            f"a schedule must have a row for every layer; {path} has "
            f"{schedule.n_layers}, --layers {n_layers}. Give the same number of layers."
        )
    return schedule


def _effective(config: PretrainConfig) -> PretrainConfig:
    """Return the configuration with the defaults that depend on others filled in."""
    return replace(config, extra_epochs=config.extra)


def _read(data: Path, config: PretrainConfig) -> Rows:
    with Dataset.open(data) as dataset:
        train = dataset.rows("train")
        check_range(train, config.visible, data)
        if "validation" not in dataset.splits:
            return Rows(train, np.empty((0, dataset.n_visible), np.float32))
        validation = dataset.rows("validation")
        check_range(validation, config.visible, data)
        # Validation rows only serve to measure errors: no others travel.
        some = monitored_rows(len(validation), config.monitor_rows)
        return Rows(train, validation[some])


def _open(
    data: Path, run: Path, config: PretrainConfig, facts: _Facts, replace_run: bool
) -> RunDirectory:
    directory = RunDirectory.create(run, replace_run)
    directory.write_config(
        {
            "data": {
                "path": str(data.absolute()),
                "name": facts.data_name,
                "digest": facts.data_digest,
                "n_visible": facts.n_visible,
            },
            "pretrain": as_values(config),
            "created_by": {"mpilayer": __version__},
        }
    )
    if facts.table is not None:
        write_text(directory.schedule, facts.table.to_json())
    return directory


def _plan(config: PretrainConfig, table: Schedule | None) -> Plan:
    streamed = config.activations == "streamed"
    if table is not None:
        return TablePlan(table, streamed)
    pairs = zip(config.stipulated_epochs, config.extra, strict=True)
    layers = [AsyncLayer(n, extra, config.cut_short) for n, extra in pairs]
    return AsyncPlan(layers, streamed, config.end)


def _train(
    pipeline: Pipeline, directory: RunDirectory, rank: int, counts: Sequence[int]
) -> list[EpochRecord]:
    """Run the pipeline; write a line and now and then a checkpoint after an epoch."""
    records = []
    with ExitStack() as stack:
        writers = {
            index: stack.enter_context(
                MetricsWriter(directory.metrics_file(f"layer-{index + 1}"))
            )
            for index in pipeline.states
        }
        for state, record in pipeline.run():
            records.append(record)
            writers[record.layer].write(
                {**asdict(record), "layer": record.layer + 1, "rank": rank}
            )
            is_last = record.epoch >= counts[record.layer]
            if record.epoch % CHECKPOINT_EVERY == 0 and not is_last:
                save_layer(directory, state)
    for state in pipeline.states.values():
        save_layer(directory, state)
    return records


def _outcome(
    pipeline: Pipeline, plan: Plan, records: list[EpochRecord]
) -> dict[int, _LayerOutcome]:
    """Return the outcome of each of this rank's layers."""
    return {
        index: _LayerOutcome(
            records=[record for record in records if record.layer == index],
            digest=state.layer.parameters.digest(),
            used=tuple(plan.layers[index].used) if isinstance(plan, AsyncPlan) else (),
            dropped=tuple(pipeline.outlets[index].dropped),
        )
        for index, state in pipeline.states.items()
    }


def _recorded(config: PretrainConfig, layers: Sequence[_LayerOutcome]) -> Schedule:
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
        },
    )


def _times(
    layers: dict[int, _LayerOutcome], owners: Sequence[range]
) -> list[dict[str, Any]]:
    """Return where the time of each layer went, in seconds."""
    rank_of = {layer: rank for rank, own in enumerate(owners) for layer in own}
    kinds = ("training", "transform", "monitor", "waiting", "sending")
    result = []
    for index in sorted(layers):
        records = layers[index].records
        sums = {kind: sum(getattr(r, kind) for r in records) for kind in kinds}
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


def _summarize(
    data: Path,
    directory: RunDirectory,
    config: PretrainConfig,
    session: Session,
    schedule: Schedule,
    times: list[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    comm = session.comm
    stack = comm.everywhere(lambda: load_stack(directory, pretrained=True))
    errors = stack_errors(stack, data, comm)
    summary = {
        **session.facts(),
        "schedule": config.schedule,
        "epochs": list(schedule.epochs),
        "pretrain_seconds": seconds,
        "simulated_seconds": _simulated_seconds(schedule, times),
        "finetune_seconds": None,
        **{f"{split}_error": error for split, error in errors.items()},
        "pretrained": errors,
        "pca": pca_errors(data, config.layers[-1], comm),
        "layers": times,
    }
    return comm.on_root(lambda: directory.write_summary(summary))


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


def _describe(owners: Sequence[range], shapes: Sequence[LayerShape]) -> str:
    """Return which rank has which layers, with their sizes."""
    parts = []
    for rank, own in enumerate(owners):
        sizes = "-".join(str(s.n_hidden) for s in shapes[own.start : own.stop])
        which = f"{own.start + 1}" if len(own) == 1 else f"{own.start + 1}-{own.stop}"
        plural = "s" * (len(own) > 1)
        parts.append(
            f"rank {rank}: layer{plural} {which} "
            f"({shapes[own.start].n_visible}-{sizes})"
        )
    return "; ".join(parts)
