"""A sparse autoencoder as a run: shards, the descent, and what that has reached."""

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from mpilayer import files
from mpilayer.arrays import AnyArray
from mpilayer.config import SparseConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import TrainingError
from mpilayer.optim.search import Iterate
from mpilayer.runs.checkpoints import Saver, remove_unfinished, restore_replicas, saving
from mpilayer.runs.drive import Summary, Terms, Training
from mpilayer.runs.outcome import conclude_sparse
from mpilayer.runs.rows import Facts, check_range, sparse_facts
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import SPARSE, sparse_config
from mpilayer.store.checkpoint import exists, forget_damaged
from mpilayer.store.metrics import MetricsWriter, keep_until
from mpilayer.train.sparse.cost import (
    Evaluation,
    ShardedCost,
    cut_of,
    make_model,
    start_weights,
)
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import filters
from mpilayer.train.sparse.room import check_memory
from mpilayer.words import count

SparseTerms: TypeAlias = Terms[SparseConfig]
"""What is known before a sparse training."""

_LIMITS = frozenset({"evaluations", "iterations", "gradient_norm", "decrease"})
# With fewer the Allreduce takes more than another rank saves (docs/choosing.md).
_ROWS_OF_A_RANK = 10_000


class SparseTraining(Training[SparseConfig]):
    """A sparse autoencoder on rows that all ranks share; each reads its own.

    Over how many shards the sparsity term is averaged is what a run goes on with, on
    any number of ranks: ``shards`` of its settings are those in effect.
    """

    name = SPARSE
    _remark = ""  # on how it goes on; on rank 0

    def _facts_of(self, data: Path, config: SparseConfig) -> Facts:
        return sparse_facts(data, config, self._averages(config))

    def _settings(self) -> SparseConfig:
        config = sparse_config(self.directory)
        if config.shards or config.kl != "average":
            return config
        # Former versions had as many as ranks, which the summary names at the end.
        found = self.directory.read_summary()
        shards = min(found.get("ranks", 0), found.get("n_rows", 0))
        return replace(config, shards=shards)

    def _filled_in(self, config: SparseConfig) -> SparseConfig:
        return config.resolved()

    def _harmless(self, config: SparseConfig) -> Collection[str]:
        # The rate of sgd comes to its end with the evaluations.
        limits = _LIMITS - {"evaluations"} if config.optimizer == "sgd" else _LIMITS
        # Former versions did not note the shards: the user may know how many.
        unknown = self._averages(config) and not config.shards
        return limits | config.unused | ({"shards"} if unknown else set())

    def _averages(self, config: SparseConfig) -> bool:
        """Tell whether the run has a use for shards."""
        return config.kl == "average"

    def _look(self) -> SparseTerms:
        before, asked = self._settings(), self.asked
        if asked is not None and self._averages(asked) and not asked.shards:
            self.asked = replace(asked, shards=before.shards)
        terms = super()._look()
        known = before.shards or (asked is not None and asked.shards)
        if self._averages(before) and not known:
            self._remark = (
                "the run does not say over how many shards it averages, as it is one "
                f"of a former version; taking {terms.config.shards}, for the ranks of "
                "now. If it began on others, give --resume auto --shards and their "
                "number"
            )
        return terms

    def _terms(self, data: Path, config: SparseConfig, facts: Facts) -> SparseTerms:
        terms = super()._terms(data, config, facts)
        usual = min(self.session.comm.size, facts.n_train)
        if self._averages(config) and not config.shards:
            terms = replace(terms, config=replace(terms.config, shards=usual))
        return terms

    def _nothing_left(self, terms: SparseTerms) -> str:
        before = self._settings()
        same = all(getattr(terms.config, n) == getattr(before, n) for n in _LIMITS)
        if same and self.directory.is_complete(SPARSE):
            return f"{self.run} is trained to the end; there is nothing to do"
        return ""

    def _read(self, terms: SparseTerms) -> AnyArray:
        return self._read_rows(terms, *rows_of_rank(terms, self.session))

    def _read_rows(self, terms: SparseTerms, start: int, stop: int) -> AnyArray:
        with Dataset.open(terms.data) as dataset:
            rows = dataset.rows("train", start, stop)
        output, advice = terms.config.output, "give --output tanh or linear"
        check_range(rows, output, terms.data, advice)
        return rows.astype(terms.config.dtype, copy=False)

    def _check_room(self, terms: SparseTerms, rows: AnyArray) -> None:  # noqa: ARG002
        shape = terms.facts.n_train, terms.facts.n_visible
        check_memory(self._costs(terms), shape, self.session.comm)

    def _costs(self, terms: SparseTerms) -> list[SparseConfig]:
        """Return the settings of all costs that are there at the same time."""
        return [terms.config]

    def _train(self, terms: SparseTerms, rows: AnyArray, again: bool) -> Any:
        self.announce(terms)
        cost = make_cost(rows, terms.config, terms.facts, self.session)
        return self.descend(cost, terms.config, again)

    def _conclude(self, terms: SparseTerms, trained: Any) -> Summary:  # noqa: ARG002
        return conclude_sparse(self.directory, self.session, *trained)

    def announce(self, terms: SparseTerms) -> None:
        """Say where the ranks run, and what works, but not as the user may think."""
        session, config, n_train = self.session, terms.config, terms.facts.n_train
        n_ranks = session.comm.size
        cut = cut_of(config, n_train, n_ranks)
        idle = n_ranks - len(cut.blocks)
        enough = n_train // _ROWS_OF_A_RANK if config.optimizer != "sgd" else 0
        session.announce(min(enough, len(cut.blocks)))
        session.warn(self._remark)
        if config.kl == "average":
            shards = count(len(cut.shards), "shard")
            session.say(f"sparsity term averaged over {shards} of {n_train} rows")
        if idle > 0:
            blocks = count(len(cut.blocks), "block")
            session.warn(
                f"{n_ranks} ranks share {n_train} training rows in {blocks}; {idle} "
                "have none. Start fewer ranks."
            )
        if config.optimizer == "sgd" and n_ranks > 1:
            session.say(
                "sgd: every rank makes every step; the ranks share the evaluations of "
                "the whole cost"
            )
        if config.kl != "average" and not config.sparsity_weight:
            session.warn(
                f"--kl {config.kl} makes no difference: --sparsity-weight is 0, so "
                "there is no sparsity term"
            )

    def descend(
        self, cost: ShardedCost, config: SparseConfig, again: bool
    ) -> tuple[Descent, float]:
        """Descend to the end; return the descent, and its seconds. Collective.

        A ``TrainingError`` says that the cost is not a number; the last good weights
        are in the checkpoint. If it was none from the start, nothing is left.
        """
        descent = Descent(cost, config)
        before = self._restore(descent) if again else 0.0
        return descent, self._loop(descent, before)

    def _restore(self, descent: Descent) -> float:
        """Go where the run was, if that was saved; return its seconds. Collective."""
        session, before = self.session, 0.0
        comm, path = session.comm, self.directory.checkpoint(SPARSE)
        if comm.on_root(lambda: exists(path)):
            parameters = descent.cost.model.parameters
            before, remark = restore_replicas(path, descent, parameters, comm)
            if remark:
                session.warn(remark)
                comm.on_root(lambda: forget_damaged(path))
        comm.on_root(lambda: self._forget_later(descent))
        if descent.state:
            session.say(
                f"going on after {descent.evaluations} evaluations, "
                f"{descent.state.iteration} iterations"
            )
        return before

    def _forget_later(self, descent: Descent) -> None:
        """Forget what came after the checkpoint; note the limits that hold now."""
        directory = self.directory
        remove_unfinished(directory)
        keep_until(directory.metrics_file(SPARSE), "evaluation", descent.evaluations)
        directory.set_complete(SPARSE, False)
        directory.write_config({SPARSE: as_values(descent.config)})

    def _loop(self, descent: Descent, before: float) -> float:
        """Descend, with metrics and checkpoints; return the seconds. Collective."""
        session, directory, cost = self.session, self.directory, descent.cost
        comm, unit = session.comm, 0.0
        comm.barrier()
        launch = session.launch(before)
        origin = cost.began = perf_counter() - before
        saver = Saver(session, cost.iteration)
        with (
            session.display(directory, {SPARSE: descent.config.evaluations}),
            session.listening(),
            MetricsWriter(directory.metrics_file(SPARSE)) as writer,
        ):

            def note(evaluation: Evaluation) -> None:
                nonlocal unit
                unit = evaluation.computing + evaluation.allreduce
                if comm.rank == 0:
                    writer.write({**asdict(evaluation), **launch})

            cost.on_evaluation = note
            cost.time_over = lambda: session.must_stop(unit)
            try:
                for state in descent.states():
                    if saver.is_due(state.iteration):
                        self._save(descent, state, saver, origin)
            except TrainingError as error:
                if descent.state is None:
                    comm.on_root(directory.clear)
                    raise
                self._save(descent, descent.state, saver, origin)
                saver.finish()
                raise self._with_last_weights(error, descent.state) from None
            finally:
                cost.on_evaluation = lambda _: None
                cost.time_over = lambda: False
            if descent.state is not None:
                self._save(descent, descent.state, saver, origin)
                saver.finish()
            comm.barrier()
            if descent.stopped_by == "time":
                raise session.interrupted(directory.go_on)
        return perf_counter() - origin

    def _save(
        self, descent: Descent, state: Iterate, saver: Saver, origin: float
    ) -> None:
        """Start to write the last complete iteration, on rank 0."""
        saver.note(state.iteration)
        if self.session.comm.rank > 0:
            return
        seconds = perf_counter() - origin
        path, picture = self.directory.checkpoint(SPARSE), self.directory.filters
        save = saving(path, descent, keep=True, content=SPARSE, seconds=seconds)
        weights = descent.arrays()["parameters/weights"]

        def write() -> None:
            save()
            with files.optional(picture, "the filters are also in the weights"):
                files.write_array(picture, filters(weights))

        saver.start(write)

    def _with_last_weights(self, error: TrainingError, state: Iterate) -> TrainingError:
        """Return the error that also says where the last good weights are."""
        full = TrainingError(
            f"{error} The weights after iteration {state.iteration}, cost "
            f"{state.cost:.6g}, are in {self.directory.checkpoint(SPARSE)}."
        )
        full.collective = error.collective
        return full


def rows_of_rank(terms: SparseTerms, session: Session) -> tuple[int, int]:
    """Return the training rows that this rank holds. Local."""
    comm = session.comm
    cut = cut_of(terms.config, terms.facts.n_train, comm.size)
    return cut.rows_of(comm.rank, comm.size)


def make_cost(
    rows: AnyArray, config: SparseConfig, facts: Facts, session: Session
) -> ShardedCost:
    """Return the cost over all ranks, at the first weights. Collective."""
    model = make_model(config, facts.n_visible)
    start_weights(model, config)
    return ShardedCost(model, rows, config, session.comm, session.eager)
