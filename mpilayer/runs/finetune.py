"""Fine-tuning as a run: goes on from a pre-trained run directory."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from mpilayer.arrays import Array32, StoredRows
from mpilayer.config import FinetuneConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError, TrainingError
from mpilayer.models.stack import Predictor, Stack
from mpilayer.numerics.losses import check_loss
from mpilayer.optim.minibatch import DEFAULT_RATES
from mpilayer.parallel.team import check_room
from mpilayer.runs.checkpoints import Saver, remove_unfinished, restore_replicas, saving
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import Summary, Terms, Training, check_same
from mpilayer.runs.outcome import conclude_finetuning
from mpilayer.runs.rows import (
    Facts,
    check_all_labels,
    check_range,
    classes_of,
    data_facts,
    data_of_run,
    labelled_splits,
    read_labels,
)
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import (
    TASKS,
    check_pretrained,
    load_stack,
    progress,
    run_shapes,
)
from mpilayer.store import checkpoint
from mpilayer.store.metrics import MetricsWriter, keep_until
from mpilayer.train.backpropagation import shared_bytes
from mpilayer.train.evaluate import sum_over_ranks, targets
from mpilayer.train.finetune import (
    FinetuneRecord,
    FinetuneState,
    finetune,
    first_stack,
    validation_rows,
)
from mpilayer.train.groups import (
    RowGroups,
    check_ranks,
    how_ranks_share,
    idle_ranks,
    resolved,
    useful_ranks,
)
from mpilayer.train.strata import Strata

_Terms: TypeAlias = Terms[FinetuneConfig]
# See ``finetune``: what is trained, on what; and targets.
_Pair: TypeAlias = tuple[Array32, Array32]
_Own: TypeAlias = tuple[Strata, Array32 | StoredRows, Array32]
_Rows: TypeAlias = tuple[Stack, RowGroups, _Own, _Pair | None]
_Trained: TypeAlias = tuple[FinetuneState, list[dict[str, Any]], float]
_HARMLESS = frozenset({"epochs", "patience"})


class Finetuning(Training[FinetuneConfig]):
    """A stack trained end to end for one of the tasks, by all ranks."""

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
        run, task = self.run, self.task
        if task.is_trained(self.directory) and not self.replace:
            if not self.directory.is_complete(task.name):
                raise ConfigError(
                    f"{task.words} of {run} must go on, or begin anew; it was "
                    f"interrupted after epoch {progress(self.directory, task)}. Go on "
                    f"with 'mpilayer resume {run}', or start again from the "
                    "pre-trained stack with --replace."
                )
            model = "fine-tuned" if task.model == "finetuned" else f"a {task.model}"
            raise ConfigError(
                f"{run} must not be {model} yet; it is. Look at it with 'mpilayer "
                f"evaluate {run}', go on with more --epochs and --resume auto, or "
                "start again from the pre-trained stack with --replace."
            )
        return self._checked()

    def _look(self) -> _Terms:
        before = self._settings()
        if not before.slices:  # a former version's, whose ranks had rows
            before = replace(before, slices=1, parallel="rows")
        # What it has chosen by itself it keeps.
        self.config = replace(
            self.config,
            slices=self.config.slices or before.slices,
            parallel=before.parallel
            if self.config.parallel == "auto"
            else self.config.parallel,
        )
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
        return Terms(path, config, self._facts_of(path, config))

    def _facts_of(self, data: Path, config: FinetuneConfig) -> Facts:
        if config.task != "autoencode":
            with Dataset.open(data) as dataset:
                check_all_labels(dataset, config.task)
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
        comm, config, n_train = self.session.comm, terms.config, terms.facts.n_train
        shapes, pretrained, labels = run_shapes(self.directory)[1], None, None
        if not config.from_scratch:
            pretrained = load_stack(self.directory, pretrained=True)
        groups = self._groups
        strata = groups.strata(n_train, config.minibatch)
        with Dataset.open(terms.data) as dataset:
            if config.task != "autoencode":
                labels = read_labels(dataset, "train")
            classes = None if labels is None else classes_of(labels, config.task)
            stack = first_stack(config, shapes, pretrained, labels, classes)
            train = dataset.compact_rows("train", *strata.rows)
            check_range(train, stack.shapes[0].visible, terms.data)
            predicts = isinstance(stack, Predictor)
            known = labelled_splits(dataset) if predicts else dataset.splits
            part = ("train", 0, 0)  # no rows, but all columns
            if "validation" in known:
                n_rows = dataset.n_samples("validation")
                part = ("validation", *validation_rows(n_rows, comm))
            validation = dataset.rows(*part)
            if not isinstance(stack, Predictor):
                return stack, groups, (strata, train, validation), None
            wanted, measured = (
                targets(read_labels(dataset, *place), stack.classes)
                for place in (("train", *strata.rows), part)
            )
            return stack, groups, (strata, train, validation), (wanted, measured)

    def _check_room(self, terms: _Terms, rows: _Rows) -> None:
        stack, groups = rows[:2]
        head = groups.team.is_head
        need = shared_bytes(stack, terms.config, groups) if head else 0
        fewer = "start one rank on each host, or train with --parallel rows"
        self._shared = check_room(self.session.comm, need, fewer)

    def _begin(self, terms: _Terms) -> None:
        self._keep_until(terms.config, 0, self._launch_facts())

    def _keep_until(
        self, config: FinetuneConfig, epoch: int, launch: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Forget what came after an epoch; return the metrics up to it."""
        directory, path = self.directory, self.directory.checkpoint(self.task.model)
        # First: what is removed below must not pass for complete.
        directory.set_complete(self.name, False)
        remove_unfinished(directory)
        if epoch == 0:
            checkpoint.remove(path)
        else:
            checkpoint.forget_damaged(path)
        lines = keep_until(directory.metrics_file(self.name), "epoch", epoch)
        former = directory.read_config().get("launch", {})
        # In one step: who finds the settings finds the threads that go with them.
        sections = {self.name: as_values(config), "launch": {**former, **launch}}
        directory.write_config(sections)
        return lines

    def _train(self, terms: _Terms, rows: _Rows, again: bool) -> _Trained:
        with rows[1]:
            return self._train_in(*rows, terms.config, again)

    def _train_in(
        self,
        stack: Stack,
        groups: RowGroups,
        own: _Own,
        wanted: _Pair | None,
        config: FinetuneConfig,
        again: bool,
    ) -> _Trained:
        """Train by groups of ranks. Collective."""
        session, directory, comm = self.session, self.directory, self.session.comm
        state, before, remark = FinetuneState(stack, config, groups.team), 0.0, ""
        lines = list[dict[str, Any]]()
        if again:
            path = directory.checkpoint(self.task.model)
            before, remark = restore_replicas(path, state, stack.parameters, comm)
            lines = comm.on_root(lambda: self._keep_until(config, state.epoch, {}))
        self._announce(config, remark)
        if again:
            session.say(f"going on after epoch {state.epoch}")
        finite: Callable[[], None] | None = None
        comm.barrier()
        launch, origin = session.launch(before), perf_counter() - before
        saver = Saver(session, state.epoch)
        with (
            session.display(directory, {self.name: config.epochs}),
            session.listening(),
            MetricsWriter(directory.metrics_file(self.name)) as writer,
        ):
            try:
                for record in finetune(state, *own, groups, wanted):
                    ended = perf_counter() - origin
                    stopping, ranks = self._spent(record)
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
                        raise session.interrupted(directory.go_on)
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

    def _announce(self, config: FinetuneConfig, remark: str) -> None:
        session = self.session
        hosts = set(session.placement.hosts)
        session.announce(useful_ranks(config, len(hosts)), self._shared)
        session.warn(remark)
        session.say(how_ranks_share(config))
        session.warn(idle_ranks(config, session.placement.hosts))
        if config.parallel == "rows":
            session.warn_of_idle_ranks(config.minibatch)

    def _conclude(self, terms: _Terms, trained: _Trained) -> Summary:
        where = self.directory, self.session, terms.data
        return conclude_finetuning(*where, self.task, *trained)

    def _spent(self, record: FinetuneRecord) -> tuple[bool, dict[str, Any]]:
        """Tell whether any rank was asked to end; where all spent seconds. Collective.

        What a line of metrics says of the ranks is nothing where there is only one.
        """
        comm, hosts = self.session.comm, self.session.placement.hosts
        seconds = record.training, record.allreduce, record.evaluating
        told = np.zeros((comm.size + 1, len(seconds)))
        told[comm.rank], told[-1] = seconds, self.session.must_stop(sum(seconds))
        *ranks, stops = sum_over_ranks(comm, told).tolist()
        every = [[host, *own] for host, own in zip(hosts, ranks, strict=True)]
        return any(stops), {"ranks": every} if comm.size > 1 else {}

    def _saving(self, state: FinetuneState, seconds: float) -> Callable[[], None]:
        """Return what writes the checkpoint. Local."""
        model = self.task.model
        path = self.directory.checkpoint(model)
        return saving(path, state, keep=True, content=model, seconds=seconds)
