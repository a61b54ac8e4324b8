"""Pre-training as a run: checks, rows, the pipeline, its records, its errors."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer import __version__
from mpilayer.config import PretrainConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError, CommunicationError, ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.notice import Notice
from mpilayer.parallel.watchdog import Pulse
from mpilayer.partition import layers_to_ranks
from mpilayer.runs.directory import RunDirectory, write_text
from mpilayer.runs.keeping import (
    Cut,
    LayerKeeper,
    remove_cuts,
    remove_false_start,
    remove_unfinished,
)
from mpilayer.runs.longer import LENGTHS, lengthen
from mpilayer.runs.model import load_stack, restore_layer, run_shapes
from mpilayer.runs.monitor import leave_parameters, stack_over_time
from mpilayer.runs.resuming import check_same, data_of_run, is_run, launch_facts
from mpilayer.runs.session import (
    Session,
    check_range,
    finite,
    pca_errors,
    stack_errors,
)
from mpilayer.store.metrics import MetricsWriter, keep_until
from mpilayer.train.layer import (
    LayerState,
    check_layer,
    layer_shapes,
    monitored_rows,
    new_state,
)
from mpilayer.train.pretrain import (
    AsyncPlan,
    EpochRecord,
    Pipeline,
    Plan,
    Snapshot,
    TablePlan,
)
from mpilayer.train.restart import BEGINNING, AsyncRule, Rule, TableRule
from mpilayer.train.schedule import (
    AsyncLayer,
    Schedule,
    finish_times,
    greedy,
    lockstep,
    simulate,
)

NAME = "pretrain"
"""What a run's ``complete`` says at the end."""


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
    if session.safety.resume and comm.on_root(lambda: is_run(run, NAME)):
        return resume_pretraining(run, session, config, data)
    if session.safety.resume:
        comm.on_root(lambda: remove_false_start(run))
    facts = comm.on_root(lambda: _check(data, run, config, comm.size, replace_run))
    config = _effective(config)
    rows = _read(data, config, comm)
    launch = launch_facts(NAME, session)
    directory = comm.on_root(
        lambda: _open(data, run, config, facts, launch, replace_run)
    )
    return _train(data, rows, directory, config, facts, session, None)


def resume_pretraining(
    run: Path,
    session: Session,
    asked: PretrainConfig | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """Go on with a run that was interrupted; see :func:`pretrain`.

    Parameters
    ----------
    run : Path
        The run directory.
    session : Session
        The ranks; perhaps another number than before. Collective on all of them.
    asked : PretrainConfig, optional
        Settings that must not contradict those of the run.
    data : Path, optional
        Where the data set is now.

    Returns
    -------
    dict
        The run's summary.

    Raises
    ------
    MpilayerError
        On every rank, before training.
    """
    comm = session.comm
    directory = RunDirectory.open(run)

    def check() -> tuple[Path, PretrainConfig, _Facts]:
        config, shapes = run_shapes(directory)
        wanted = _effective(asked) if asked else config
        by_table = config.schedule in ("lockstep", "greedy")
        check_same(config, wanted, _HARMLESS | (LENGTHS if by_table else set()))
        path = data_of_run(directory, data)
        facts = _facts_of(path, config, comm.size)
        if config.schedule.startswith("async"):
            return path, config, facts
        table = _stored_schedule(directory)
        new = _table(wanted, shapes) if by_table else table
        if new is not None and new.epochs != table.epochs:
            lengthen(directory, config, wanted, table, new)
            _note_length(directory, wanted, new)
            return path, wanted, replace(facts, table=new)
        return path, config, replace(facts, table=table)

    path, config, facts = comm.on_root(check)
    if comm.on_root(lambda: directory.is_complete(NAME)):
        session.say(f"{run} is pre-trained to the end; there is nothing to do")
        # It may have been killed while it did so.
        comm.on_root(lambda: _clear_up(directory, len(config.layers)))
        return comm.on_root(directory.read_summary)
    rule = _rule(config, facts.table)
    cut = comm.on_root(lambda: Cut.newest(directory, rule, len(config.layers)))
    for remark in cut.remarks:
        session.say(f"warning: {remark}")
    rows = _read(path, config, comm)
    return _train(path, rows, directory, config, facts, session, cut)


_HARMLESS = frozenset({"monitor_every"})


def _note_length(
    directory: RunDirectory, config: PretrainConfig, table: Schedule
) -> None:
    directory.set_complete(NAME, False)
    directory.write_config({NAME: as_values(config)})
    write_text(directory.schedule, table.to_json())


def _train(
    data: Path,
    rows: Rows | None,
    directory: RunDirectory,
    config: PretrainConfig,
    facts: _Facts,
    session: Session,
    cut: Cut | None,
) -> dict[str, Any]:
    """Train to the end, from the beginning or from a cut. Collective."""
    comm, n_layers = session.comm, len(config.layers)
    shapes = layer_shapes(config, facts.n_visible)
    counts = facts.table.epochs if facts.table else config.stipulated_epochs
    owners = layers_to_ranks(
        [shape.cost * n for shape, n in zip(shapes, counts, strict=True)], comm.size
    )
    session.announce()
    session.say(_describe(owners, shapes))
    states = [new_state(config, shapes, index) for index in owners[comm.rank]]
    snapshots = [Snapshot(BEGINNING)] * n_layers
    former: dict[int, list[EpochRecord]] = {}
    if cut is not None:
        snapshots = _restore(directory, states, cut, session)
        former = comm.on_root(lambda: _former_records(directory, cut))
    goals = {
        f"layer-{i + 1}": facts.table.epochs[i] if facts.table else None
        for i in range(n_layers)
    }
    plan = _plan(config, facts.table, snapshots)
    notice, pulse = Notice(comm), Pulse(comm, session.safety.peer_timeout)
    rule = _rule(config, facts.table)
    keeper = LayerKeeper(directory, session, rule, notice, pulse, n_layers)
    pipeline = Pipeline(
        states,
        rows,
        (facts.n_train, facts.n_validation),
        comm,
        plan,
        config.monitor_rows,
        keeper,
        cut.again if cut else (),
    )
    for index, outlet in pipeline.outlets.items():
        outlet.dropped.extend(snapshots[index].dropped)
    before = max((_end_of(records) for records in former.values()), default=0.0)
    comm.barrier()
    began = perf_counter()
    with session.display(directory, goals), session.listening():
        records = _run(pipeline, directory, config, comm.rank, before)
        keeper.finish()
        notice.close()
        pulse.close()
    if any(comm.allgather(pipeline.interrupted)):
        raise session.interrupted(directory)
    seconds = before + perf_counter() - began

    records = [*(r for i in pipeline.states for r in former.get(i, [])), *records]
    parts = comm.allgather(_outcome(pipeline, plan, records))
    layers = {index: outcome for part in parts for index, outcome in part.items()}
    schedule = facts.table or _recorded(config, [layers[i] for i in sorted(layers)])
    comm.on_root(lambda: write_text(directory.schedule, schedule.to_json()))
    del pipeline, rows  # make room before the data are read again
    times = _times(layers, owners)
    summary = _summarize(data, directory, config, session, schedule, times, seconds)
    all_records = {index: layer.records for index, layer in layers.items()}
    stack_over_time(directory, data, config, shapes, all_records, comm)
    comm.on_root(lambda: _finish(directory, n_layers))
    return summary


def _finish(directory: RunDirectory, n_layers: int) -> None:
    directory.set_complete(NAME)
    _clear_up(directory, n_layers)


def _clear_up(directory: RunDirectory, n_layers: int) -> None:
    remove_cuts(directory, n_layers)
    remove_unfinished(directory)


def _restore(
    directory: RunDirectory, states: Sequence[LayerState], cut: Cut, session: Session
) -> list[Snapshot]:
    """Put this rank's layers where the cut is; return the snapshots of all layers."""
    comm = session.comm

    def restore() -> dict[int, Snapshot]:
        return {
            state.settings.index: restore_layer(
                directory, state, cut.candidates[state.settings.index]
            )
            for state in states
        }

    mine = comm.everywhere(restore)
    comm.on_root(lambda: cut.make_so(directory))
    parts = comm.allgather(mine)
    snapshots = {index: snapshot for part in parts for index, snapshot in part.items()}
    at = ", ".join(str(candidate.epoch) for candidate in cut.candidates)
    session.say(f"going on after epochs {at} of layers 1 to {len(snapshots)}")
    return [snapshots[index] for index in sorted(snapshots)]


def _former_records(directory: RunDirectory, cut: Cut) -> dict[int, list[EpochRecord]]:
    """Return the records up to the cut; later ones are forgotten. On rank 0."""
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


def _end_of(records: Sequence[EpochRecord]) -> float:
    """Return when the last epoch ended, in seconds of training."""
    if not records:
        return 0.0
    last = records[-1]
    return last.started + last.training + last.transform + last.monitor


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
    facts = _facts_of(data, config, n_ranks)
    shapes = layer_shapes(config, facts.n_visible)
    # Makes every model complain now about units that it does not have.
    for shape in shapes:
        check_layer(config, shape)
    RunDirectory.check_free(run, replace_run)
    return replace(facts, table=_table(config, shapes))


def _facts_of(data: Path, config: PretrainConfig, n_ranks: int) -> _Facts:
    """Return what the data set says, checked against configuration and ranks."""
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
    return facts


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


def _stored_schedule(directory: RunDirectory) -> Schedule:
    path = directory.schedule
    if not path.is_file():
        raise CheckpointError(
            f"{path} must be there to go on; it is missing. Restore it, or train again."
        )
    return Schedule.from_json(path.read_text(errors="replace"), str(path))


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


def _read(data: Path, config: PretrainConfig, comm: Communicator) -> Rows | None:
    """Return the rows on rank 0, which has the first layer. Collective."""
    return comm.everywhere(lambda: _read_rows(data, config) if comm.rank == 0 else None)


def _read_rows(data: Path, config: PretrainConfig) -> Rows:
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
    data: Path,
    run: Path,
    config: PretrainConfig,
    facts: _Facts,
    launch: dict[str, Any],
    replace_run: bool,
) -> RunDirectory:
    directory = RunDirectory.create(run, replace_run)
    # First: who finds the configuration can go on.
    if facts.table is not None:
        write_text(directory.schedule, facts.table.to_json())
    directory.write_config(
        {
            "data": {
                "path": str(data.absolute()),
                "name": facts.data_name,
                "digest": facts.data_digest,
                "n_visible": facts.n_visible,
            },
            "pretrain": as_values(config),
            "launch": launch,
            "created_by": {"mpilayer": __version__},
        }
    )
    return directory


def _rule(config: PretrainConfig, table: Schedule | None) -> Rule:
    streamed = config.activations == "streamed"
    if table is not None:
        return TableRule(table, streamed)
    return AsyncRule(config.stipulated_epochs, streamed)


def _plan(
    config: PretrainConfig, table: Schedule | None, snapshots: Sequence[Snapshot]
) -> Plan:
    streamed = config.activations == "streamed"
    if table is not None:
        begun = [snapshot.candidate.epoch for snapshot in snapshots]
        return TablePlan(table, streamed, begun)
    layers = [
        AsyncLayer(n, extra, config.cut_short, list(done.row), done.extra_left)
        for n, extra, done in zip(
            config.stipulated_epochs, config.extra, snapshots, strict=True
        )
    ]
    return AsyncPlan(layers, streamed, config.end)


def _run(
    pipeline: Pipeline,
    directory: RunDirectory,
    config: PretrainConfig,
    rank: int,
    before: float,
) -> list[EpochRecord]:
    """Run the pipeline to its end; write a line after an epoch."""
    records = []
    with ExitStack() as stack:
        writers = {
            index: stack.enter_context(
                MetricsWriter(directory.metrics_file(f"layer-{index + 1}"))
            )
            for index in pipeline.states
        }
        for state, record in pipeline.run(before):
            records.append(record)
            leave_parameters(directory, state, config)
            writers[record.layer].write(
                {**asdict(record), "layer": record.layer + 1, "rank": rank}
            )
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
