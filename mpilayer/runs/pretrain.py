"""Pre-training as a run: checks, rows, the pipeline, going on after a cut."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer.config import PretrainConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CommunicationError
from mpilayer.models.base import LayerShape
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.notice import Notice
from mpilayer.partition import layers_to_ranks
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.holding import holding
from mpilayer.runs.keeping import (
    Cut,
    LayerKeeper,
    remove_cuts,
    remove_unfinished,
)
from mpilayer.runs.longer import LENGTHS, lengthen
from mpilayer.runs.model import restore, run_shapes
from mpilayer.runs.opening import begin_or_go_on, open_run
from mpilayer.runs.outcome import (
    former_records,
    layer_times,
    leave_parameters,
    outcomes_of,
    recorded_table,
    stack_over_time,
    summarize,
)
from mpilayer.runs.resuming import check_same, data_of_run, launch_facts
from mpilayer.runs.rows import Facts, check_range, data_facts
from mpilayer.runs.session import Session
from mpilayer.runs.tables import (
    effective,
    plan_of,
    rule_of,
    stored_table,
    table_of,
    write_table,
)
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.layer import (
    LayerState,
    check_layer,
    layer_shapes,
    monitored,
    new_state,
    row_counts,
)
from mpilayer.train.pretrain import Pipeline, Snapshot
from mpilayer.train.record import EpochRecord
from mpilayer.train.restart import BEGINNING
from mpilayer.train.schedule import Schedule

NAME = "pretrain"
"""What a run's ``complete`` says at the end."""


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
    # Before the run is waited for, which may take a while.
    session.comm.on_root(lambda: check_ranks(session.comm.size, config))
    return begin_or_go_on(
        run,
        NAME,
        session,
        lambda: _begin(data, run, config, session, replace_run),
        lambda: _go_on(run, session, config, data),
    )


def resume_pretraining(
    run: Path, session: Session, data: Path | None = None
) -> dict[str, Any]:
    """Go on with a run that was interrupted; see :func:`mpilayer.runs.resume.resume`.

    Collective on all ranks; perhaps another number than before.
    """
    with holding(run, session):
        return _go_on(run, session, None, data)


def _begin(
    data: Path, run: Path, config: PretrainConfig, session: Session, replace_run: bool
) -> dict[str, Any]:
    """Make the run, and train. Collective."""
    comm = session.comm
    facts, table = comm.on_root(
        lambda: _check(data, run, config, comm.size, replace_run)
    )
    config = effective(config, table)
    rows = _read(data, config, comm)
    sections = {NAME: as_values(config), "launch": launch_facts(NAME, session)}
    directory = comm.on_root(
        lambda: open_run(data, run, facts, sections, replace_run, table)
    )
    return _train(data, rows, directory, config, facts, table, session, None)


def _go_on(
    run: Path, session: Session, asked: PretrainConfig | None, data: Path | None
) -> dict[str, Any]:
    """Go on from the newest checkpoints that go together. Collective.

    ``asked`` are settings that must not contradict those of the run.
    """
    comm = session.comm
    directory = RunDirectory.open(run)
    path, config, facts, table = comm.on_root(
        lambda: _look(directory, asked, data, comm.size)
    )
    if comm.on_root(lambda: directory.is_complete(NAME)):
        # Who resumes may have meant a fine-tuning that has left no trace.
        hint = f". Fine-tune it with 'mpilayer finetune {run}'" * (asked is None)
        session.say(f"{run} is pre-trained to the end; there is nothing to do{hint}")
        # It may have been killed while it did so.
        comm.on_root(lambda: _clear_up(directory, len(config.layers)))
        return comm.on_root(directory.read_summary)
    # It may be noted all the same, if what it has left was lost.
    comm.on_root(lambda: directory.set_complete(NAME, False))
    rule = rule_of(config, table)
    cut = comm.on_root(lambda: Cut.newest(directory, rule, len(config.layers)))
    for remark in cut.remarks:
        session.say(f"warning: {remark}")
    rows = _read(path, config, comm)
    return _train(path, rows, directory, config, facts, table, session, cut)


_HARMLESS = frozenset({"monitor_every"})


def _look(
    directory: RunDirectory,
    asked: PretrainConfig | None,
    data: Path | None,
    n_ranks: int,
) -> tuple[Path, PretrainConfig, Facts, Schedule | None]:
    """Return with what a run goes on, longer if that was asked for; on rank 0."""
    config, shapes = run_shapes(directory)
    table = None if config.schedule == "async" else stored_table(directory)
    wanted = effective(asked, table) if asked else config
    by_table = config.schedule in ("lockstep", "greedy")
    check_same(config, wanted, _HARMLESS | (LENGTHS if by_table else set()))
    path = data_of_run(directory, data)
    facts = _facts_of(path, config, n_ranks)
    if table is None:
        return path, config, facts, None
    new = table_of(wanted, shapes) if by_table else table
    if new is None or new.epochs == table.epochs:
        return path, config, facts, table
    lengthen(directory, NAME, config, wanted, table, new)
    return path, wanted, facts, new


def _train(
    data: Path,
    rows: Rows | None,
    directory: RunDirectory,
    config: PretrainConfig,
    facts: Facts,
    table: Schedule | None,
    session: Session,
    cut: Cut | None,
) -> dict[str, Any]:
    """Train to the end, from the beginning or from a cut. Collective."""
    comm, n_layers = session.comm, len(config.layers)
    shapes = layer_shapes(config, facts.n_visible)
    counts = table.epochs if table else config.stipulated_epochs
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
        former = comm.on_root(lambda: former_records(directory, cut))
    goals = {
        f"layer-{i + 1}": table.epochs[i] if table else None for i in range(n_layers)
    }
    plan, rule = plan_of(config, table, snapshots), rule_of(config, table)
    notice = Notice(comm)
    keeper = LayerKeeper(directory, session, rule, notice, n_layers)
    pipeline = Pipeline(
        states,
        rows,
        row_counts(facts.n_train, facts.n_validation, config.monitor_rows),
        comm,
        plan,
        keeper,
        cut.again if cut else (),
    )
    for index, outlet in pipeline.outlets.items():
        outlet.dropped.extend(snapshots[index].dropped)
    before = max((r.ended for own in former.values() for r in own), default=0.0)
    comm.barrier()
    began = perf_counter()
    with session.display(directory, goals), session.listening():
        records = _run(pipeline, directory, config, comm.rank, before)
        keeper.finish()
        notice.close()
    comm.everywhere(keeper.insist)
    comm.everywhere(pipeline.check)
    if any(comm.allgather(pipeline.interrupted)):
        raise session.interrupted(directory)
    seconds = before + perf_counter() - began

    records = [*(r for i in pipeline.states for r in former.get(i, [])), *records]
    parts = comm.allgather(outcomes_of(pipeline, plan, records))
    layers = {index: outcome for part in parts for index, outcome in part.items()}
    schedule = table or recorded_table(config, [layers[i] for i in sorted(layers)])
    comm.on_root(lambda: write_table(directory, schedule))
    del pipeline, rows  # make room before the data are read again
    times = layer_times(layers, owners)
    summary = summarize(data, directory, config, session, schedule, times, seconds)
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

    def snapshot(state: LayerState) -> Snapshot:
        index = state.settings.index
        candidate = cut.candidates[index]
        if candidate == BEGINNING:
            return Snapshot(candidate)
        arrays, numbers, _ = restore(directory.layer_file(index, candidate), state)
        return Snapshot.restore(candidate, arrays, numbers)

    mine = comm.everywhere(lambda: {s.settings.index: snapshot(s) for s in states})
    comm.on_root(lambda: cut.make_so(directory))
    parts = comm.allgather(mine)
    snapshots = {index: found for part in parts for index, found in part.items()}
    at = ", ".join(str(candidate.epoch) for candidate in cut.candidates)
    session.say(f"going on after epochs {at} of layers 1 to {len(snapshots)}")
    return [snapshots[index] for index in sorted(snapshots)]


def _check(
    data: Path, run: Path, config: PretrainConfig, n_ranks: int, replace_run: bool
) -> tuple[Facts, Schedule | None]:
    """Check all that can be known before training; on rank 0, nothing is written."""
    facts = _facts_of(data, config, n_ranks)
    shapes = layer_shapes(config, facts.n_visible)
    # Makes every model complain now about units that it does not have.
    for shape in shapes:
        check_layer(config, shape)
    RunDirectory.check_free(run, replace_run)
    return facts, table_of(config, shapes)


def check_ranks(n_ranks: int, config: PretrainConfig) -> None:
    """Check that there are layers enough.

    Raises
    ------
    CommunicationError
        There are not.
    """
    n_layers = len(config.layers)
    if n_ranks > n_layers:
        plural = "s" * (n_layers > 1)
        raise CommunicationError(
            f"a rank needs a layer of its own; got {n_ranks} ranks for {n_layers} "
            f"layer{plural}. Start at most {n_layers} rank{plural}."
        )


def _facts_of(data: Path, config: PretrainConfig, n_ranks: int) -> Facts:
    """Return what the data set says, checked against configuration and ranks."""
    check_ranks(n_ranks, config)
    return data_facts(data, config.minibatch)


def _read(data: Path, config: PretrainConfig, comm: Communicator) -> Rows | None:
    """Return the rows on rank 0, which has the first layer. Collective."""
    return comm.everywhere(lambda: _read_rows(data, config) if comm.rank == 0 else None)


def _read_rows(data: Path, config: PretrainConfig) -> Rows:
    with Dataset.open(data) as dataset:
        train = dataset.rows("train")
        check_range(train, config.visible, data)
        validation = np.empty((0, dataset.n_visible), np.float32)
        if "validation" in dataset.splits:
            validation = dataset.rows("validation")
            # What the training rows have scaled may lie a little outside.
            if dataset.preparation.scaling is None:
                check_range(validation, config.visible, data)
        return monitored(train, validation, config.monitor_rows)


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
