"""Pre-training as a run: its rows and schedule, the pipeline, going on after a cut."""

from collections import ChainMap
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from mpilayer.config import PretrainConfig
from mpilayer.errors import ConfigError
from mpilayer.far import Scratch
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import Communicator
from mpilayer.parallel.notice import Notice
from mpilayer.parallel.team import check_room
from mpilayer.placement import Place, describe, without_slice
from mpilayer.runs import checkpoints
from mpilayer.runs.checkpoints import Cut, LayerKeeper
from mpilayer.runs.directory import replayed
from mpilayer.runs.drive import Summary, Terms, Training, check_same
from mpilayer.runs.evaluate import (
    after_pretraining,
    beside_rival,
    over_fits,
    worse_than_pca,
)
from mpilayer.runs.rows import Facts, data_facts, data_of_run, pretraining_rows
from mpilayer.runs.session import finite
from mpilayer.runs.tasks import PRETRAIN, load_stack, run_shapes
from mpilayer.runs.unrolled import leave_parameters, stack_over_time
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train import layer
from mpilayer.train.layer import LayerState, check_layer, layer_shapes
from mpilayer.train.layers import bytes_of_rows, held_of_rows, needed_bytes
from mpilayer.train.plans import effective, plan_of, table_of
from mpilayer.train.pools import CHUNKS, memory_of, pool_rows, with_memory_of
from mpilayer.train.pretrain import Pipeline, Snapshot
from mpilayer.train.record import (
    KINDS,
    EpochRecord,
    mostly_at_barriers,
    recorded_table,
    short_of_epochs,
    simulated_seconds,
    team_of,
)
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
        table = None
        if before.schedule != "async":
            table = self.directory.read_table()
        wanted = before
        if self.asked is not None:
            wanted = with_slices_of(effective(self.asked, table), before)
            wanted = with_memory_of(wanted, before)
        by_table = before.schedule in ("lockstep", "greedy")
        check_same(before, wanted, _LENGTHS if by_table else ())
        data = data_of_run(self.directory, self.data)
        facts = self._facts_of(data, before)
        new = table
        if by_table:
            new = table_of(wanted, layer_shapes(before, facts.n_visible))
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
        need = needed_bytes(*where, rows, _counts(config, facts), newer, scratch)
        most = len(config.layers)
        fewer = f"start at most {count(most, 'rank')}, as layers, which needs none"
        self._shared = check_room(comm, need, fewer)
        if scratch is not None:
            rows_of_all = facts.n_train, facts.row_bytes
            outputs = [bytes_of_rows(config, p.layers, *rows_of_all)[1] for p in places]
            comm.on_root(lambda: scratch.check_room(sum(outputs)))

    def _train(self, terms: _Terms, rows: Rows | None, again: bool) -> _Trained:
        session, config = self.session, terms.config
        cut = self._find_cut(terms) if again else None
        shapes = layer_shapes(config, terms.facts.n_visible)
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

    def _find_cut(self, terms: _Terms) -> Cut:
        """Return where the run goes on, which is not at its end then. Collective."""
        comm, directory = self.session.comm, self.directory
        plan, n_layers = plan_of(terms.config, terms.table), len(terms.config.layers)
        # It may be noted all the same, if what it has left was lost.
        comm.on_root(lambda: directory.set_complete(PRETRAIN, False))
        cut = comm.on_root(lambda: Cut.newest(directory, plan, n_layers))
        for remark in cut.remarks:
            self.session.warn(remark)
        return cut

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
            found = checkpoints.restore_layers(directory, states, cut, session)
            snapshots, former = found
        notice, plan = Notice(comm), plan_of(config, terms.table)
        keeper = LayerKeeper(directory, session, plan, notice, n_layers)
        counts = _counts(config, facts)
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
        return _gathered(pipeline, former, comm), seconds

    def _conclude(self, terms: _Terms, trained: _Trained) -> Summary:
        (layers, seconds), config = trained, terms.config
        directory, session, comm = self.directory, self.session, self.session.comm
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

    def _clear_up(self) -> None:
        checkpoints.remove_cuts(self.directory, len(self._settings().layers))
        checkpoints.remove_unfinished(self.directory)


def _gathered(
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


def _counts(config: PretrainConfig, facts: Facts) -> tuple[int, int, int]:
    """Return how many rows layers train on, and measure their errors on."""
    return layer.row_counts(facts.n_train, facts.n_validation, config.monitor_rows)
