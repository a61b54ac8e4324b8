"""A sparse autoencoder as a run: shards, the descent, and what that has reached."""

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from mpilayer import files
from mpilayer.arrays import AnyArray
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.errors import TrainingError
from mpilayer.optim.search import Iterate
from mpilayer.runs.checkpoints import Saver
from mpilayer.runs.drive import Replicated, Summary, Terms
from mpilayer.runs.outcome import conclude_sparse
from mpilayer.runs.rows import Facts, check_range, sparse_facts
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import SPARSE, sparse_config
from mpilayer.train.sparse.cost import Evaluation, ShardedCost, cut_of
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import filters
from mpilayer.train.sparse.room import (
    check_memory,
    how_ranks_share,
    idle_ranks,
    useful_ranks,
)

SparseTerms: TypeAlias = Terms[SparseConfig]
"""What is known before a sparse training."""

_LIMITS = frozenset({"evaluations", "iterations", "gradient_norm", "decrease"})


class SparseTraining(Replicated[SparseConfig]):
    """A sparse autoencoder on rows that all ranks share; each reads its own.

    Over how many shards the sparsity term is averaged is what a run goes on with, on
    any number of ranks: ``shards`` of its settings are those in effect.
    """

    name, unit = SPARSE, "evaluation"
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
        return self.descend(self.first_cost(terms, rows), terms.config, again)

    def _conclude(self, terms: SparseTerms, trained: Any) -> Summary:  # noqa: ARG002
        return conclude_sparse(self, *trained)

    def first_cost(self, terms: SparseTerms, rows: AnyArray) -> ShardedCost:
        """Return the cost over all ranks, at the first weights. Collective."""
        comm, eager = self.session.comm, self.session.eager
        return ShardedCost.at_start(rows, terms.config, comm, eager)

    def announce(self, terms: SparseTerms) -> None:
        """Say where the ranks run, and what works, but not as the user may think."""
        session, config = self.session, terms.config
        ranks = config, terms.facts.n_train, session.comm.size
        session.announce(useful_ranks(*ranks))
        session.warn(self._remark)
        for words in how_ranks_share(*ranks):
            session.say(words)
        session.warn(idle_ranks(*ranks))
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
        descent, before = Descent(cost, config), 0.0
        if again:
            parameters = cost.model.parameters
            before, _ = self._restore(
                descent, parameters, config, lambda: descent.evaluations
            )
            if descent.state:
                self.session.say(
                    f"going on after {descent.evaluations} evaluations, "
                    f"{descent.state.iteration} iterations"
                )
        return descent, self._loop(descent, before)

    def _loop(self, descent: Descent, before: float) -> float:
        """Descend, with metrics and checkpoints; return the seconds. Collective."""
        session, directory, cost = self.session, self.directory, descent.cost
        comm, unit = session.comm, 0.0
        goal = descent.config.evaluations
        with self._recording(goal, cost.iteration) as (writer, saver):
            launch = session.launch(before)
            origin = cost.began = perf_counter() - before

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
        save = self._saving(descent, perf_counter() - origin)
        picture = self.directory.filters
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
            f"{state.cost:.6g}, are in {self._checkpoint}."
        )
        full.collective = error.collective
        return full


def rows_of_rank(terms: SparseTerms, session: Session) -> tuple[int, int]:
    """Return the training rows that this rank holds. Local."""
    comm = session.comm
    cut = cut_of(terms.config, terms.facts.n_train, comm.size)
    return cut.rows_of(comm.rank, comm.size)
