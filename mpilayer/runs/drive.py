"""The life of a run, told once: check, begin or go on, read, train, conclude.

All checks come before anything is written, on rank 0, whose findings and errors reach
all ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from mpilayer import __version__, files
from mpilayer.config import as_values, flag, options_of
from mpilayer.data.dataset import Dataset
from mpilayer.data.far import DataRows
from mpilayer.errors import CheckpointError, ConfigError
from mpilayer.numerics.parameters import Parameters
from mpilayer.runs.checkpoints import (
    Saver,
    State,
    remove_false_start,
    remove_unfinished,
    restore,
    saving,
)
from mpilayer.runs.directory import PREPARATION, WEIGHTS, RunDirectory
from mpilayer.runs.rows import Facts, data_of_run
from mpilayer.runs.session import Session, holding
from mpilayer.runs.tasks import (
    COMPARE,
    PRETRAIN,
    SPARSE,
    TASKS,
    command_of,
    is_run,
    task_of_command,
)
from mpilayer.store import checkpoint
from mpilayer.store.metrics import MetricsWriter, keep_until
from mpilayer.train.schedule import Schedule

C = TypeVar("C")

Summary: TypeAlias = dict[str, Any]
"""What a training has reached, by name."""

_TRAININGS = {
    PRETRAIN: "pretrain.Pretraining",
    **{task.name: "finetune.Finetuning" for task in TASKS.values()},
    SPARSE: "sparse.SparseTraining",
    COMPARE: "compare.Comparison",
}


@dataclass(frozen=True)
class Terms(Generic[C]):
    """What rank 0 has found out for all ranks, with the effective settings."""

    data: Path
    config: C
    facts: Facts
    table: Schedule | None = None


class Training(ABC, Generic[C]):
    """A command that trains: what is particular to it, and the life that all share.

    The methods that a command has for itself stand in the order in which they are
    called; on rank 0 alone, unless another place is named. ``asked`` and ``data`` None
    are those that the run has; with ``replace`` what is there already gives way.
    """

    name: str  # the section of ``config.toml``, and the mark in ``complete``
    _shared = 0  # bytes that ranks of a host share

    def __init__(
        self,
        run: Path,
        session: Session,
        asked: C | None,
        data: Path | None = None,
        replace: bool = False,
    ) -> None:
        self.run, self.session, self.asked = run, session, asked
        self.data, self.replace = data, replace
        self.directory = RunDirectory(run)

    def drive(self) -> Summary:
        """Train to the end, and return what was reached. Collective.

        A run that is there goes on if the session wants that; else one is begun. On
        every rank: MpilayerError, before anything is written; TrainingError, training
        diverges, and what was finite until then is kept; Interrupted, after saving.
        """
        comm = self.session.comm
        comm.on_root(self._check_first)
        with holding(self.run, self.session):
            again = comm.on_root(self._goes_on)
            threads = comm.on_root(lambda: self._threads(again))
            self.session = self.session.with_threads(threads)
            terms = comm.on_root(self._look if again else self._check)
            if again and (words := comm.on_root(lambda: self._nothing_left(terms))):
                self.session.say(words)
                # It may have been killed while it did so.
                comm.on_root(self._clear_up)
                return comm.on_root(self.found)
            self._team_up(terms)
            rows = comm.everywhere(lambda: self._read(terms))
            self._check_room(terms, rows)
            if not again:
                comm.on_root(lambda: self._begin(terms))
            trained = self._train(terms, rows, again)
            # Measuring reads the data once more: there may not be room for both.
            del rows
            result = self._conclude(terms, trained)
            comm.on_root(lambda: self.directory.set_complete(self.name))
            comm.on_root(self._clear_up)
            return result

    def found(self) -> Summary:
        """Return what the run has reached."""
        return self.directory.read_summary()

    def _check_first(self) -> None:
        """Check what needs no waiting for another launch in the run."""

    def _goes_on(self) -> bool:
        """Tell whether there is a run to go on with, and that is wished."""
        if not self.session.safety.resume:
            return False
        if self.asked is None:
            # There was one, which another launch may have taken away meanwhile.
            RunDirectory.open(self.run)
            return True
        if is_run(self.run, self.name):
            return True
        remove_false_start(self.run)
        return False

    def _threads(self, again: bool) -> int:
        """Return the BLAS threads of each rank: a run goes on with those it has."""
        asked = self.session.threads
        key = f"{self.name}_threads"
        noted = int(self.directory.section("launch").get(key, 0)) if again else 0
        if asked and noted and asked != noted:
            raise _differing([f"--threads was {noted}, is {asked}"])
        return asked or noted or 1

    def _check(self) -> Terms[C]:
        """Check all that can be known before a new run."""
        if self.asked is None or self.data is None:
            raise RuntimeError("a new run without settings or data")
        facts = self._facts_of(self.data, self.asked)
        self.directory.check_free(self.replace)
        return self._terms(self.data, self.asked, facts)

    def _look(self) -> Terms[C]:
        """Check that the run may go on so; return how."""
        before = self._settings()
        wanted = before if self.asked is None else self._filled_in(self.asked)
        check_same(before, wanted, self._harmless(before))
        data = data_of_run(self.directory, self.data)
        return self._terms(data, wanted, self._facts_of(data, wanted))

    @abstractmethod
    def _facts_of(self, data: Path, config: C) -> Facts:
        """Return what the data set says, checked against settings and ranks."""

    @abstractmethod
    def _settings(self) -> C:
        """Return the settings that the run began with."""

    def _filled_in(self, config: C) -> C:
        """Return the settings with the defaults that depend on others."""
        return config

    def _harmless(self, config: C) -> Collection[str]:  # noqa: ARG002
        """Return the names of settings that may change when the run goes on."""
        return ()

    def _terms(self, data: Path, config: C, facts: Facts) -> Terms[C]:
        """Return all that is known before the rows are read."""
        return Terms(data, self._filled_in(config), facts)

    @abstractmethod
    def _nothing_left(self, terms: Terms[C]) -> str:
        """Say why a run that goes on has nothing left to do; empty if it has."""

    def _team_up(self, terms: Terms[C]) -> None:
        """Split the ranks, before anything that may fail on one alone. Collective."""

    @abstractmethod
    def _read(self, terms: Terms[C]) -> Any:
        """Return this rank's rows, or all that it trains with. On every rank."""

    def _check_room(self, terms: Terms[C], rows: Any) -> None:
        """Note what ranks share, and check that there is room for it. Collective."""

    def _tell_of_far(self, rows: object, memory: str, n: int) -> None:
        """Say how rows are met that stay in the data set, ``n`` of them at a time."""
        if isinstance(rows, DataRows):
            self.session.say(
                f"rows do not stay in memory: they are read in chunks, {memory} held"
            )
            self.session.warn(rows.slow(n))

    def _begin(self, terms: Terms[C]) -> None:
        """Make the run directory, and the file that lets the run go on."""
        directory, facts = self.directory, terms.facts
        with Dataset.open(terms.data) as dataset:
            # Damage, as far as it cannot be seen when rows are read.
            dataset.ensure()
            preparation = dataset.preparation
        directory.create(self.replace)
        # Before the configuration: who finds that can go on.
        if terms.table is not None:
            directory.write_table(terms.table)
        if preparation:
            files.write_json(self.run / PREPARATION, preparation.to_json())
        identity = {
            "path": str(terms.data.absolute()),
            "name": facts.data_name,
            "digest": facts.data_digest,
            "stamp": list(facts.data_stamp),
            "n_visible": facts.n_visible,
        }
        own, made_by = self._sections(terms), {"mpilayer": __version__}
        directory.write_config({"data": identity, **own, "created_by": made_by})

    def _sections(self, terms: Terms[C]) -> dict[str, dict[str, Any]]:
        """Return what is new in ``config.toml``."""
        return {self.name: as_values(terms.config), "launch": self._launch_facts()}

    def _launch_facts(self) -> dict[str, Any]:
        """Return the BLAS threads of each rank: other numbers round differently."""
        return {f"{self.name}_threads": self.session.placement.threads}

    @abstractmethod
    def _train(self, terms: Terms[C], rows: Any, again: bool) -> Any:
        """Train from the beginning, or ``again`` from where the run was. Collective."""

    @abstractmethod
    def _conclude(self, terms: Terms[C], trained: Any) -> Summary:
        """Measure what was trained; write down, and return it. Collective."""

    def _clear_up(self) -> None:
        """Remove what nobody needs after the end."""


class Replicated(Training[C]):
    """A training of which every rank has the whole state; rank 0 writes it down."""

    unit: str  # of which there is a line of metrics: an epoch, an evaluation

    @property
    def _checkpoint(self) -> Path:
        return self.directory.checkpoint(WEIGHTS[self.name])

    def _restore(
        self, state: State, parameters: Parameters, config: C, done: Callable[[], int]
    ) -> tuple[float, list[dict[str, Any]]]:
        """Put a state where the run was, if that was saved. Collective.

        Returns the seconds of training until then, and the metrics of the units that
        are ``done``. CheckpointError, on all ranks: no checkpoint is whole, or one rank
        has other ``parameters`` than rank 0.
        """
        comm, path, before = self.session.comm, self._checkpoint, 0.0
        if comm.on_root(lambda: checkpoint.exists(path)):
            _, numbers, remark = comm.everywhere(lambda: restore(path, state))
            if other := comm.unlike_first(parameters.digest()):
                raise CheckpointError(
                    f"all ranks must read the same checkpoint; rank {other} has found "
                    "another than rank 0. Put the run where all hosts see the same "
                    "files."
                ).of_all_ranks()
            before = float(numbers["seconds"])
            self.session.warn(remark)
        return before, comm.on_root(lambda: self._cut_off(config, done()))

    def _cut_off(
        self, config: C, done: int, launch: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Forget what came after so many units; return the metrics until then.

        Notes the settings of now, and what is new of the ``launch``. On rank 0.
        """
        directory = self.directory
        # First: what is removed below must not pass for complete.
        directory.set_complete(self.name, False)
        remove_unfinished(directory)
        if done == 0:
            checkpoint.remove(self._checkpoint)
        else:
            checkpoint.forget_damaged(self._checkpoint)
        lines = keep_until(directory.metrics_file(self.name), self.unit, done)
        # In one step: who finds the settings finds the threads that go with them.
        sections = {self.name: as_values(config)}
        if launch:
            sections["launch"] = {**directory.section("launch"), **launch}
        directory.write_config(sections)
        return lines

    @contextmanager
    def _recording(self, goal: int, done: int) -> Iterator[tuple[MetricsWriter, Saver]]:
        """Yield what writes, while progress is shown and signals are heard. Collective.

        Of ``goal`` lines of metrics; ``done`` epochs or iterations are saved already.
        """
        self.session.comm.barrier()
        with (
            self.session.display(self.directory, {self.name: goal}),
            self.session.listening(),
            MetricsWriter(self.directory.metrics_file(self.name)) as writer,
        ):
            yield writer, Saver(self.session, done)

    def _saving(self, state: State, seconds: float) -> Callable[[], None]:
        """Return what writes the checkpoint of a state as it is now. Local."""
        content = WEIGHTS[self.name]
        return saving(
            self._checkpoint, state, keep=True, content=content, seconds=seconds
        )


def check_same(run: Any, asked: Any, harmless: Collection[str] = ()) -> None:
    """Check that only ``harmless`` settings, or those declared so, differ from a run's.

    ConfigError names every other one that does, with both values.
    """
    options, before = options_of(type(run)), as_values(run)
    different = []
    for name, now in as_values(asked).items():
        may_differ = name in harmless or options[name].harmless
        if before[name] != now and not may_differ:
            was, now = (
                ",".join(map(str, value)) if isinstance(value, list) else value
                for value in (before[name], now)
            )
            different.append(f"{flag(name)} was {was}, is {now}")
    if different:
        raise _differing(different)


def _differing(settings: Sequence[str]) -> ConfigError:
    """Return what refuses settings, of which each is told before and now."""
    return ConfigError(
        f"a run must go on with the settings it began with; {'; '.join(settings)}. "
        "Leave them out, or begin another run."
    )


def training_of(command: str) -> type[Training[Any]]:
    """Return the training of a command, by its mark; no other one is imported."""
    module, _, name = _TRAININGS[command].partition(".")
    found: type[Training[Any]] = getattr(import_module(f"mpilayer.runs.{module}"), name)
    return found


def resume(
    run: Path, session: Session, data: Path | None = None
) -> tuple[str, dict[str, Any]]:
    """Go on with a run, to the end of the command that began last. Collective.

    Perhaps on other ranks than before; ``data`` says where the data set is now. Returns
    the command, and its summary.
    """
    comm = session.comm
    session = replace(session, safety=replace(session.safety, resume=True))

    def look() -> tuple[str, Any]:
        command = command_of(run)
        if command in (PRETRAIN, SPARSE, COMPARE):
            return command, None
        return command, task_of_command(command).config(RunDirectory(run))

    command, config = comm.on_root(look)
    summary = training_of(command)(run, session, config, data).drive()
    if command == PRETRAIN and comm.on_root(lambda: command_of(run)) != command:
        # What pre-training had left was lost, after fine-tuning had begun.
        return resume(run, session, data)
    return command, summary
