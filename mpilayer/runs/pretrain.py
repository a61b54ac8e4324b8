"""Pre-training as a run: its rows and schedule, the pipeline, going on after a cut."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

from mpilayer.config import PretrainConfig
from mpilayer.errors import ConfigError
from mpilayer.far import Scratch
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.notice import Notice
from mpilayer.parallel.team import check_room
from mpilayer.placement import Place, describe, without_slice
from mpilayer.runs import checkpoints
from mpilayer.runs.checkpoints import Cut, LayerKeeper, find_cut, restore_layers
from mpilayer.runs.directory import replayed
from mpilayer.runs.drive import Summary, Terms, Training, check_same
from mpilayer.runs.outcome import (
    LayerOutcome,
    conclude_pretraining,
    gathered,
    leave_parameters,
)
from mpilayer.runs.rows import Facts, data_facts, data_of_run, pretraining_rows
from mpilayer.runs.tasks import PRETRAIN, run_shapes
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.layer import LayerState, check_layer, layer_shapes
from mpilayer.train.layers import bytes_of_rows, held_of_rows, needed_bytes
from mpilayer.train.plans import effective, plan_of, table_of
from mpilayer.train.pools import CHUNKS, memory_of, pool_rows, with_memory_of
from mpilayer.train.pretrain import Pipeline, Snapshot
from mpilayer.train.record import EpochRecord
from mpilayer.train.schedule import Schedule
from mpilayer.train.teams import (
    folder_of,
    of_one_slice,
    places_for,
    team_up,
    useful_ranks,
    with_memory,
    with_slices,
    with_slices_of,
)
from mpilayer.words import count

_Terms: TypeAlias = Terms[PretrainConfig]
# Settings that make a run longer or shorter.
_LENGTHS = frozenset({"epochs", "extra_epochs"})
_Trained: TypeAlias = tuple[list[LayerOutcome], float]


class Pretraining(Training[PretrainConfig]):
    """A stack of layers; only rank 0, which has the first one, reads rows to train."""

    name = PRETRAIN

    def _check_first(self) -> None:
        if self.asked is not None:
            places_for(self.asked, self.session.placement.hosts)

    def _facts_of(self, data: Path, config: PretrainConfig) -> Facts:
        facts = data_facts(data, config.minibatch)
        # Makes every model complain now about units that it does not have.
        for index, shape in enumerate(layer_shapes(config, facts.n_visible)):
            check_layer(config, shape, index)
        return facts

    def _settings(self) -> PretrainConfig:
        return run_shapes(self.directory)[0]

    def _terms(self, data: Path, config: PretrainConfig, facts: Facts) -> _Terms:
        shapes = layer_shapes(config, facts.n_visible)
        table = table_of(config, shapes, replayed(config.schedule, len(shapes)))
        config = effective(config, table)
        places = self._places(config, facts, table)
        config = self._with_memory(with_slices(config, places), facts, places)
        return Terms(data, config, facts, table)

    def _with_memory(
        self, config: PretrainConfig, facts: Facts, places: Sequence[Place]
    ) -> PretrainConfig:
        sizes = facts.n_visible, facts.n_train, facts.row_bytes
        return with_memory(config, places, self.session.placement.hosts, *sizes)

    def _places(
        self, config: PretrainConfig, facts: Facts, table: Schedule | None
    ) -> list[Place]:
        hosts = self.session.placement.hosts
        return places_for(config, hosts, facts.n_visible, table)

    def _look(self) -> _Terms:
        before = memory_of(of_one_slice(self._settings()))
        recorded = before.schedule != "async"
        table = self.directory.read_table() if recorded else None
        wanted = before
        if self.asked is not None:
            wanted = with_slices_of(effective(self.asked, table), before)
            wanted = with_memory_of(wanted, before)
        by_table = before.schedule in ("lockstep", "greedy")
        check_same(before, wanted, _LENGTHS if by_table else ())
        data = data_of_run(self.directory, self.data)
        facts = self._facts_of(data, before)
        shapes = layer_shapes(before, facts.n_visible)
        new = table_of(wanted, shapes) if by_table else table
        laid_out = replace(wanted, layout=self._layout(wanted, facts, new))
        self._with_memory(before, facts, self._places(laid_out, facts, new))
        if table is None or new is None or new.epochs == table.epochs:
            return Terms(data, replace(before, layout=laid_out.layout), facts, table)
        checkpoints.lengthen(self.directory, before, wanted, table, new)
        return Terms(data, laid_out, facts, new)

    def _layout(
        self, config: PretrainConfig, facts: Facts, table: Schedule | None
    ) -> str:
        """Return the layout with which a run goes on: its own, where that fits."""
        try:
            self._places(config, facts, table)
        except ConfigError:
            if self.asked is not None:
                raise
            # It was for the ranks of another launch.
            self._places(replace(config, layout="auto"), facts, table)
            return "auto"
        return config.layout

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
        far = self._scratch(terms) is not None
        return pretraining_rows(terms.data, terms.config, far)

    def _scratch(self, terms: _Terms) -> Scratch | None:
        """Return where rows are that do not stay in memory; None if all do."""
        held = held_of_rows(terms.config, terms.facts.n_train, terms.facts.row_bytes)
        return Scratch(self.directory.scratch, held) if held else None

    def _check_room(self, terms: _Terms, rows: Rows | None) -> None:
        comm, config, facts = self.session.comm, terms.config, terms.facts
        places = self._places(config, facts, terms.table)
        where = config, facts.n_visible, places, comm.rank
        newer, scratch = plan_of(config, terms.table).replace, self._scratch(terms)
        counts = facts.counts(config.monitor_rows)
        need = needed_bytes(*where, rows, counts, newer, scratch)
        most = count(len(config.layers), "rank")
        fewer = f"start at most {most}, as layers, which needs none"
        self._shared = check_room(comm, need, fewer)
        if scratch is not None:
            rows_of_all = facts.n_train, facts.row_bytes
            outputs = [bytes_of_rows(config, p.layers, *rows_of_all)[1] for p in places]
            comm.on_root(lambda: scratch.check_room(sum(outputs)))

    def _train(self, terms: _Terms, rows: Rows | None, again: bool) -> _Trained:
        session, config = self.session, terms.config
        shapes = layer_shapes(config, terms.facts.n_visible)
        plan, cut = plan_of(config, terms.table), None
        if again:
            cut = find_cut(self.directory, session, plan, len(shapes))
        places = self._places(config, terms.facts, terms.table)
        # A run that began has its slices, for whatever ranks.
        slices = config if again else self.asked or config
        session.announce(useful_ranks(slices), self._shared)
        sizes = [terms.facts.n_visible, *config.layers]
        session.say(describe(places, sizes, config.slices_of_layers))
        session.warn(without_slice(places, config.slices_of_layers))
        scratch = self._scratch(terms)
        if rows is not None and scratch is not None:
            most = pool_rows(scratch.held, terms.facts.row_bytes, sizes[1])
            self._tell_of_far(rows.train, config.memory, most // CHUNKS)
        with (
            folder_of(scratch, session.comm),
            team_up(session.comm, places, session.eager) as (team, own, heads),
        ):
            states = [LayerState(config, shapes, index, team) for index in own]
            return self._train_layers(terms, rows, states, cut, heads, scratch)

    def _train_layers(
        self,
        terms: _Terms,
        rows: Rows | None,
        states: Sequence[LayerState],
        cut: Cut | None,
        heads: Communicator,
        scratch: Scratch | None,
    ) -> _Trained:
        """Train to the end; return the outcome of all layers, and seconds. Collective.

        ``Interrupted`` is raised on every rank, after saving.
        """
        session, directory, config = self.session, self.directory, terms.config
        comm, facts, n_layers = session.comm, terms.facts, len(config.layers)
        snapshots = [Snapshot()] * n_layers
        former: dict[int, list[EpochRecord]] = {i: [] for i in range(n_layers)}
        if cut is not None:
            # On followers, too: they count epochs by themselves.
            snapshots, former = restore_layers(directory, states, cut, session)
        notice, plan = Notice(comm), plan_of(config, terms.table)
        keeper = LayerKeeper(directory, session, plan, notice, n_layers)
        counts = facts.counts(config.monitor_rows)
        again = cut.again if cut else ()
        channels = counts, heads, plan, keeper
        pipeline = Pipeline(states, rows, *channels, snapshots, again, scratch)
        before = max((r.ended for own in former.values() for r in own), default=0.0)
        epochs = terms.table.epochs if terms.table else [None] * n_layers
        goals = {f"layer-{i}": goal for i, goal in enumerate(epochs, 1)}
        comm.barrier()
        began = perf_counter()
        with (
            session.display(directory, goals),
            session.listening(),
            ExitStack() as opened,
        ):
            launch = {"rank": comm.rank, **session.launch(before)}
            metrics = {}
            for i in pipeline.states:
                writer = MetricsWriter(directory.metrics_file(f"layer-{i + 1}"))
                metrics[i] = opened.enter_context(writer)
            for state, record in pipeline.run(before):
                leave_parameters(directory, state, config)
                line = {**asdict(record), "layer": record.layer + 1, **launch}
                metrics[record.layer].write(line)
                former[record.layer].append(record)
            keeper.finish()
            notice.close()
        comm.everywhere(keeper.insist)
        comm.everywhere(pipeline.check)
        if any(comm.allgather(pipeline.interrupted)):
            raise session.interrupted(directory.go_on)
        seconds = before + perf_counter() - began
        return gathered(pipeline, former, comm), seconds

    def _conclude(self, terms: _Terms, trained: _Trained) -> Summary:
        return conclude_pretraining(self, terms, *trained)

    def _clear_up(self) -> None:
        checkpoints.remove_cuts(self.directory, len(self._settings().layers))
        checkpoints.remove_unfinished(self.directory)
