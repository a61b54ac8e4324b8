"""Pre-training as a run: its rows and schedule, the pipeline, going on after a cut."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from mpilayer.config import PretrainConfig, as_values, flag
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CommunicationError, ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.notice import Notice
from mpilayer.partition import layers_to_ranks
from mpilayer.runs.checkpoints import (
    Cut,
    LayerKeeper,
    remove_cuts,
    remove_unfinished,
    restore,
)
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import Summary, Terms, Training, check_same
from mpilayer.runs.model import run_shapes
from mpilayer.runs.outcome import (
    LayerOutcome,
    former_records,
    layer_times,
    leave_parameters,
    outcomes_of,
    recorded_table,
    stack_over_time,
    summarize,
)
from mpilayer.runs.rows import Facts, check_range, data_facts
from mpilayer.runs.tasks import PRETRAIN, data_of_run
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.layer import (
    LayerState,
    check_layer,
    layer_shapes,
    monitored,
    row_counts,
)
from mpilayer.train.plans import BEGINNING, AsyncPlan, Plan, TablePlan
from mpilayer.train.pretrain import Pipeline, Snapshot
from mpilayer.train.record import EpochRecord
from mpilayer.train.schedule import Schedule, greedy, lockstep, simulate
from mpilayer.words import count

_Terms: TypeAlias = Terms[PretrainConfig]
# Settings that make a run longer or shorter.
_LENGTHS = frozenset({"epochs", "extra_epochs"})


class Pretraining(Training[PretrainConfig]):
    """A stack of layers; only rank 0, which has the first one, reads rows to train."""

    name = PRETRAIN

    def _check_first(self) -> None:
        if self.asked is not None:
            check_ranks(self.session.comm.size, self.asked)

    def _facts_of(self, data: Path, config: PretrainConfig) -> Facts:
        check_ranks(self.session.comm.size, config)
        facts = data_facts(data, config.minibatch)
        # Makes every model complain now about units that it does not have.
        for shape in layer_shapes(config, facts.n_visible):
            check_layer(config, shape)
        return facts

    def _settings(self) -> PretrainConfig:
        return run_shapes(self.directory)[0]

    def _terms(self, data: Path, config: PretrainConfig, facts: Facts) -> _Terms:
        table = _table_of(config, layer_shapes(config, facts.n_visible))
        return Terms(data, _effective(config, table), facts, table)

    def _look(self) -> _Terms:
        before = self._settings()
        table = None
        if before.schedule != "async":
            table = self.directory.read_table()
        wanted = _effective(self.asked, table) if self.asked else before
        by_table = before.schedule in ("lockstep", "greedy")
        check_same(before, wanted, _LENGTHS if by_table else ())
        data = data_of_run(self.directory, self.data)
        facts = self._facts_of(data, before)
        new = table
        if by_table:
            new = _table_of(wanted, layer_shapes(before, facts.n_visible))
        if table is None or new is None or new.epochs == table.epochs:
            return Terms(data, before, facts, table)
        _lengthen(self.directory, before, wanted, table, new)
        return Terms(data, wanted, facts, new)

    def _nothing_left(self, terms: _Terms) -> str:  # noqa: ARG002
        if not self.directory.is_complete(PRETRAIN):
            return ""
        words = f"{self.run} is pre-trained to the end; there is nothing to do"
        if self.asked is not None:
            return words
        # Who resumes may have meant a fine-tuning that has left no trace.
        return f"{words}. Fine-tune it with 'mpilayer finetune {self.run}'"

    def _read(self, terms: _Terms) -> Rows | None:
        if self.session.comm.rank > 0:
            return None
        config, data = terms.config, terms.data
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

    def _train(self, terms: _Terms, rows: Rows | None, again: bool) -> Summary:
        session, directory, config = self.session, self.directory, terms.config
        comm = session.comm
        plan = plan_of(config, terms.table)
        cut = self._cut(plan, len(config.layers)) if again else None
        shapes = layer_shapes(config, terms.facts.n_visible)
        counts = terms.table.epochs if terms.table else config.stipulated_epochs
        owners = layers_to_ranks(
            [shape.cost * n for shape, n in zip(shapes, counts, strict=True)], comm.size
        )
        session.announce()
        session.say(_describe(owners, shapes))
        states = [LayerState(config, shapes, index) for index in owners[comm.rank]]
        layers, seconds = self._train_layers(terms, plan, rows, states, cut)
        schedule = terms.table
        if schedule is None:
            schedule = recorded_table(config, [layers[i] for i in sorted(layers)])
        comm.on_root(lambda: directory.write_table(schedule))
        times = layer_times(layers, owners)
        summary = summarize(
            terms.data, directory, config, session, schedule, times, seconds
        )
        records = {index: layer.records for index, layer in layers.items()}
        stack_over_time(directory, terms.data, config, shapes, records, comm)
        return summary

    def _clear_up(self) -> None:
        remove_cuts(self.directory, len(self._settings().layers))
        remove_unfinished(self.directory)

    def _cut(self, plan: Plan, n_layers: int) -> Cut:
        """Return where the run goes on. Collective."""
        comm, directory = self.session.comm, self.directory
        # It may be noted all the same, if what it has left was lost.
        comm.on_root(lambda: directory.set_complete(PRETRAIN, False))
        cut = comm.on_root(lambda: Cut.newest(directory, plan, n_layers))
        for remark in cut.remarks:
            self.session.warn(remark)
        return cut

    def _restore(
        self, states: Sequence[LayerState], cut: Cut
    ) -> tuple[list[Snapshot], dict[int, list[EpochRecord]]]:
        """Put this rank's layers where the cut is. Collective.

        Returns the snapshots of all layers, and their records until then.
        """
        comm, directory = self.session.comm, self.directory

        def snapshot(state: LayerState) -> Snapshot:
            index = state.index
            candidate = cut.candidates[index]
            if candidate == BEGINNING:
                return Snapshot(candidate)
            arrays, numbers, _ = restore(directory.layer_file(index, candidate), state)
            return Snapshot.restore(candidate, arrays, numbers)

        mine = comm.everywhere(lambda: {s.index: snapshot(s) for s in states})
        comm.on_root(lambda: cut.make_so(directory))
        snapshots = _merged(comm.allgather(mine))
        at = ", ".join(str(candidate.epoch) for candidate in cut.candidates)
        self.session.say(f"going on after epochs {at} of layers 1 to {len(snapshots)}")
        former = comm.on_root(lambda: former_records(directory, cut))
        return [snapshots[index] for index in sorted(snapshots)], former

    def _train_layers(
        self,
        terms: _Terms,
        plan: Plan,
        rows: Rows | None,
        states: Sequence[LayerState],
        cut: Cut | None,
    ) -> tuple[dict[int, LayerOutcome], float]:
        """Train to the end; return the outcome of all layers, and seconds. Collective.

        Raises
        ------
        Interrupted
            On every rank, after saving.
        """
        session, directory, config = self.session, self.directory, terms.config
        comm, facts, n_layers = session.comm, terms.facts, len(config.layers)
        snapshots = [Snapshot()] * n_layers
        former: dict[int, list[EpochRecord]] = {}
        if cut is not None:
            snapshots, former = self._restore(states, cut)
        notice = Notice(comm)
        keeper = LayerKeeper(directory, session, plan, notice, n_layers)
        pipeline = Pipeline(
            states,
            rows,
            row_counts(facts.n_train, facts.n_validation, config.monitor_rows),
            comm,
            plan,
            keeper,
            snapshots,
            cut.again if cut else (),
        )
        before = max((r.ended for own in former.values() for r in own), default=0.0)
        goals = {
            f"layer-{i + 1}": terms.table.epochs[i] if terms.table else None
            for i in range(n_layers)
        }
        comm.barrier()
        began = perf_counter()
        with session.display(directory, goals), session.listening():
            records = self._run(pipeline, config, before)
            keeper.finish()
            notice.close()
        comm.everywhere(keeper.insist)
        comm.everywhere(pipeline.check)
        if any(comm.allgather(pipeline.interrupted)):
            raise session.interrupted(directory)
        seconds = before + perf_counter() - began
        records = [*(r for i in pipeline.states for r in former.get(i, [])), *records]
        outcomes = comm.allgather(outcomes_of(pipeline, records))
        return _merged(outcomes), seconds

    def _run(
        self, pipeline: Pipeline, config: PretrainConfig, before: float
    ) -> list[EpochRecord]:
        """Run the pipeline to its end; write a line after an epoch."""
        records, rank = [], self.session.comm.rank
        with ExitStack() as stack:
            writers = {
                index: stack.enter_context(
                    MetricsWriter(self.directory.metrics_file(f"layer-{index + 1}"))
                )
                for index in pipeline.states
            }
            for state, record in pipeline.run(before):
                records.append(record)
                leave_parameters(self.directory, state, config)
                writers[record.layer].write(
                    {**asdict(record), "layer": record.layer + 1, "rank": rank}
                )
        return records


def check_ranks(n_ranks: int, config: PretrainConfig) -> None:
    """Check that there are layers enough; else a ``CommunicationError``."""
    n_layers = len(config.layers)
    if n_ranks > n_layers:
        raise CommunicationError(
            f"a rank needs a layer of its own; got {n_ranks} ranks for "
            f"{count(n_layers, 'layer')}. Start at most {count(n_layers, 'rank')}."
        )


def _describe(owners: Sequence[range], shapes: Sequence[LayerShape]) -> str:
    """Return which rank has which layers, with their sizes."""
    parts = []
    for rank, own in enumerate(owners):
        which = f"layer {own.start + 1}"
        if len(own) > 1:
            which = f"layers {own.start + 1}-{own.stop}"
        sizes = "-".join(str(s.n_hidden) for s in shapes[own.start : own.stop])
        parts.append(f"rank {rank}: {which} ({shapes[own.start].n_visible}-{sizes})")
    return "; ".join(parts)


def _merged(parts: Sequence[Mapping[int, Any]]) -> dict[int, Any]:
    """Return what all ranks say of their layers."""
    return {index: item for part in parts for index, item in part.items()}


# --- the schedule: filled in, and made longer


def _effective(config: PretrainConfig, table: Schedule | None) -> PretrainConfig:
    """Return the configuration with the defaults that depend on others filled in."""
    activations = config.activations
    if activations == "auto":
        name = config.schedule.partition(":")[0]
        activations = "transformed" if name in ("async", "simulate") else "streamed"
        if name == "replay" and table is not None:
            activations = table.settings.get("activations", activations)
    return replace(config, extra_epochs=config.extra, activations=activations)


def _table_of(config: PretrainConfig, shapes: Sequence[LayerShape]) -> Schedule | None:
    """Return the table of the schedule, None if it comes about as outputs arrive."""
    epochs, extra = config.stipulated_epochs, config.extra
    name, _, file = config.schedule.partition(":")
    if name == "async":
        return None
    if name == "replay":
        table = _replayed(Path(file), len(shapes))
    elif name == "greedy":
        table = greedy(epochs, extra)
    elif name == "lockstep":
        lag = config.lag[0] if len(config.lag) == 1 else config.lag
        table = lockstep(epochs, extra, lag, config.refresh_every)
    else:
        costs = [
            given or shape.cost
            for given, shape in zip(config.epoch_costs, shapes, strict=True)
        ]
        n_cores = config.cores or len(shapes)
        table = simulate(epochs, extra, costs, n_cores, config.end, config.cut_short)
    activations = _effective(config, table).activations
    return replace(table, settings={**table.settings, "activations": activations})


def _replayed(path: Path, n_layers: int) -> Schedule:
    if not path.is_file():
        raise ConfigError(
            f"--schedule replay:FILE must name the schedule.json of a run; {path} is "
            "not a file. Give another one."
        )
    # Perhaps written by hand: without the seal of a run's own.
    schedule = Schedule.from_json(path.read_text("utf-8", "replace"), str(path))
    if schedule.n_layers != n_layers:
        raise ConfigError(
            f"a schedule must have a row for every layer; {path} has "
            f"{schedule.n_layers}, --layers {n_layers}. Give the same number of layers."
        )
    return schedule


def plan_of(config: PretrainConfig, table: Schedule | None) -> Plan:
    """Return who trains when, and which checkpoints of the layers go together."""
    streamed = config.activations == "streamed"
    if table is not None:
        return TablePlan(table, streamed)
    return AsyncPlan(
        config.stipulated_epochs, config.extra, streamed, config.end, config.cut_short
    )


def _lengthen(
    directory: RunDirectory,
    before: PretrainConfig,
    asked: PretrainConfig,
    old: Schedule,
    new: Schedule,
) -> None:
    """Let a run have more epochs: the weights will be those of such a run.

    Not if a layer has used outputs that it would not have used then, or one that was
    the last and is not now.
    """
    plans = plan_of(before, old), plan_of(before, new)
    cut = Cut.newest(directory, plans[0], old.n_layers)
    for layer, candidate in enumerate(cut.candidates):
        used, then = (table.used[layer][: candidate.epoch] for table in (old, new))
        below = set(used) if layer else set[int]()
        if used != then or any(
            plans[0].streams(layer - 1, output) != plans[1].streams(layer - 1, output)
            for output in below
        ):
            key = "epochs" if before.epochs != asked.epochs else "extra_epochs"
            was, now = (",".join(map(str, getattr(c, key))) for c in (before, asked))
            raise ConfigError(
                f"a longer run must begin as this one did; {flag(key)} was {was}, is "
                f"{now}, and layer {layer + 1} would have been trained on other "
                "outputs. Leave it out, or begin another run."
            )
    # First: in a complete run, checkpoints that are not final would be removed.
    directory.set_complete(PRETRAIN, False)
    for layer, candidate in enumerate(cut.candidates):
        if candidate.final and candidate.epoch < len(new.used[layer]):
            later = replace(candidate, final=False)
            directory.layer_file(layer, candidate).rename(
                directory.layer_file(layer, later)
            )
    directory.write_config({PRETRAIN: as_values(asked)})
    directory.write_table(new)
