"""Fine-tuning as a run: goes on from a pre-trained run directory."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from mpilayer.config import FinetuneConfig
from mpilayer.data.dataset import Dataset
from mpilayer.errors import TrainingError
from mpilayer.models.initial import first_stack
from mpilayer.models.stack import Stack
from mpilayer.numerics.losses import check_loss
from mpilayer.optim.course import check_length
from mpilayer.optim.minibatch import DEFAULT_RATES
from mpilayer.parallel.team import check_room
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import Replicated, Summary, Terms, check_same
from mpilayer.runs.outcome import conclude_finetuning
from mpilayer.runs.rows import (
    Facts,
    Labelled,
    check_all_labels,
    check_images,
    classes_of,
    data_facts,
    data_of_run,
    read_labels,
    tuning_rows,
)
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import (
    TASKS,
    check_pretrained,
    check_untrained,
    load_stack,
    run_shapes,
)
from mpilayer.train.backpropagation import shared_bytes
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.groups import (
    RowGroups,
    check_ranks,
    how_ranks_share,
    idle_ranks,
    of_one_slice,
    resolved,
    rows_at_a_time,
    useful_ranks,
    with_choices_of,
    with_memory,
)
from mpilayer.train.strata import Strata

_Terms: TypeAlias = Terms[FinetuneConfig]
_Rows: TypeAlias = tuple[Stack, Strata, Labelled]
_Trained: TypeAlias = tuple[FinetuneState, list[dict[str, Any]], float]
_HARMLESS = frozenset({"epochs", "patience"})


class Finetuning(Replicated[FinetuneConfig]):
    """A stack trained end to end for one of the tasks, by all ranks."""

    unit = "epoch"

    def __init__(
        self,
        run: Path,
        session: Session,
        asked: FinetuneConfig,
        data: Path | None = None,
        replace: bool = False,
    ) -> None:
        super().__init__(run, session, asked, data, replace)
        self.config, self.task = self._filled_in(asked), TASKS[asked.task]
        self.name = self.task.name

    def _check_first(self) -> None:
        RunDirectory.open(self.run)

    def _goes_on(self) -> bool:
        is_wished = self.session.safety.resume and not self.replace
        return is_wished and self.task.is_trained(self.directory)

    def _check(self) -> _Terms:
        if not self.replace:
            check_untrained(self.directory, self.task)
        return self._checked()

    def _look(self) -> _Terms:
        before = of_one_slice(self._settings())
        # What it has chosen by itself it keeps.
        self.config = with_choices_of(self.config, before)
        schedule = before.learning_rate_schedule
        check_length(schedule, before.epochs, self.config.epochs)
        check_same(before, self.config, _HARMLESS)
        return self._checked()

    def _checked(self) -> _Terms:
        check_pretrained(self.directory, weights=not self.config.from_scratch)
        _, shapes = run_shapes(self.directory)
        if self.config.task == "autoencode":
            check_loss(self.config.loss, shapes[0].visible)
        hosts = self.session.placement.hosts
        config = resolved(self.config, shapes, hosts)
        check_ranks(config, shapes, hosts)
        path = data_of_run(self.directory, self.data)
        facts = self._facts_of(path, config)
        config = with_memory(config, shapes, hosts, facts.n_bytes, facts.row_bytes)
        return Terms(path, config, facts)

    def _facts_of(self, data: Path, config: FinetuneConfig) -> Facts:
        with Dataset.open(data) as dataset:
            if config.task != "autoencode":
                check_all_labels(dataset, config.task)
            if config.shift is not None:
                check_images(dataset, *config.shift)
        return data_facts(data, config.minibatch)

    def _settings(self) -> FinetuneConfig:
        return self.task.config(self.directory)

    def _filled_in(self, config: FinetuneConfig) -> FinetuneConfig:
        rate = config.learning_rate or DEFAULT_RATES[config.optimizer]
        loss = "cross-entropy" if config.task == "classify" else config.loss
        return replace(config, learning_rate=rate, loss=loss)

    def _nothing_left(self, terms: _Terms) -> str:
        # With more epochs, or patience, it goes on from the last ones: nothing that was
        # done depends on how many were to come.
        if not self.directory.is_complete(self.name):
            return ""
        summary, config = self.directory.read_summary(), terms.config
        done = int(summary.get(f"{self.name}_epochs", 0))
        in_vain = done - int(summary.get(f"{self.name}_best_epoch", 0))
        at_end = f"{self.name} of {self.run} is at its end; "
        if done >= config.epochs:
            return f"{at_end}there is nothing to do"
        if 0 < config.patience <= in_vain:
            return (
                f"{at_end}the last {in_vain} of its {done} epochs have not made it "
                f"better. Go on with a --patience of more than {in_vain}"
            )
        return ""

    def _team_up(self, terms: _Terms) -> None:
        """Form the teams. Collective."""
        session, config = self.session, terms.config
        hosts = session.placement.hosts if config.parallel == "units" else ()
        self._groups = RowGroups(session.comm, hosts, session.eager)

    def _read(self, terms: _Terms) -> _Rows:
        config, facts = terms.config, terms.facts
        shapes, pretrained, labels = run_shapes(self.directory)[1], None, None
        if not config.from_scratch:
            pretrained = load_stack(self.directory, pretrained=True)
        piece = rows_at_a_time(config, facts.n_bytes, facts.row_bytes)
        strata = self._groups.strata(facts.n_train, config.minibatch)
        strata = replace(strata, piece=piece)
        with Dataset.open(terms.data) as dataset:
            if config.task != "autoencode":
                labels = read_labels(dataset, "train")
            classes = None if labels is None else classes_of(labels, config.task)
            stack = first_stack(config, shapes, pretrained, labels, classes)
            comm = self.session.comm
            rows = tuning_rows(dataset, stack, strata.rows, comm, piece > 0)
        return stack, strata, rows

    def _check_room(self, terms: _Terms, rows: _Rows) -> None:
        groups, need = self._groups, 0
        if groups.team.is_head:
            need = shared_bytes(rows[0], terms.config, groups)
        fewer = "start one rank on each host, or train with --parallel rows"
        self._shared = check_room(self.session.comm, need, fewer)

    def _begin(self, terms: _Terms) -> None:
        self._cut_off(terms.config, 0, self._launch_facts())

    def _train(self, terms: _Terms, rows: _Rows, again: bool) -> _Trained:
        with self._groups:
            return self._train_in_groups(terms.config, rows, again)

    def _train_in_groups(
        self, config: FinetuneConfig, found: _Rows, again: bool
    ) -> _Trained:
        session, comm, groups = self.session, self.session.comm, self._groups
        stack, strata, (train, validation, wanted) = found
        state, before = FinetuneState(stack, config, groups.team), 0.0
        lines = list[dict[str, Any]]()
        self._announce(config)
        self._tell_of_far(train, config.memory, strata.piece)
        if again:
            before, lines = self._restore(
                state, stack.parameters, config, lambda: state.epoch
            )
            session.say(f"going on after epoch {state.epoch}")
        finite: Callable[[], None] | None = None
        with self._recording(config.epochs, state.epoch) as (writer, saver):
            launch, origin = session.launch(before), perf_counter() - before
            try:
                for record in finetune(
                    state, strata, train, validation, groups, wanted
                ):
                    ended = perf_counter() - origin
                    stopping, ranks = session.spent(
                        record.training, record.allreduce, record.evaluating
                    )
                    when = {"seconds": ended, **launch, **ranks}
                    lines.append({**asdict(record), **when})
                    if comm.rank == 0:
                        writer.write(lines[-1])
                        finite = self._saving(state, perf_counter() - origin)
                        if stopping or saver.is_due(state.epoch):
                            saver.start(finite)
                            saver.note(state.epoch)
                    if stopping and state.epoch < config.epochs:
                        saver.finish()
                        comm.barrier()
                        raise session.interrupted(self.directory.go_on)
            except TrainingError:
                saver.finish()
                if finite is not None:
                    finite()
                raise
            saver.finish()
        seconds = perf_counter() - origin
        comm.on_root(self._saving(state, seconds))
        state.leave()
        return state, lines, seconds

    def _announce(self, config: FinetuneConfig) -> None:
        session = self.session
        hosts = set(session.placement.hosts)
        session.announce(useful_ranks(config, len(hosts)), self._shared)
        session.say(how_ranks_share(config))
        session.warn(idle_ranks(config, session.placement.hosts))
        if config.parallel == "rows" and session.comm.size > config.minibatch:
            session.warn(
                f"{session.comm.size} ranks share minibatches of {config.minibatch} "
                "rows; some have nothing to do"
            )

    def _conclude(self, terms: _Terms, trained: _Trained) -> Summary:
        return conclude_finetuning(self, self.task, terms.data, *trained)
