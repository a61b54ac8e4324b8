"""Average against exact: two sparse runs from one start, in one launch."""

from collections.abc import Collection
from dataclasses import asdict, replace
from functools import partial
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from mpilayer import files
from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig, as_values
from mpilayer.errors import TrainingError
from mpilayer.interrupt import Interrupted
from mpilayer.papers import LAHIRI, LAHIRI_EXACT
from mpilayer.runs.checkpoints import restore
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import Summary
from mpilayer.runs.session import finite, holding
from mpilayer.runs.sparse import SparseTerms, SparseTraining, rows_of_rank
from mpilayer.runs.tasks import COMPARE, SPARSE, is_run
from mpilayer.train.sparse.cost import ShardedCost
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import RISK, Firing, Gap

EXCHANGEABLE = 4.0
"""Variance between shards, over that of sampling, from which on rows are sorted."""

_RANKS = "compare_ranks"
"""What former versions noted, for there were as many shards."""

_SHARDS = (2, 8, 16, 1000)
_ROWS_OF_A_SHARD = 50


class _Ended(NamedTuple):
    """One of the runs at its end."""

    cost: ShardedCost
    position: Array64
    summary: Summary


class Comparison(SparseTraining):
    """Two sparse runs of the same rows, which every rank reads once."""

    name = COMPARE

    def _harmless(self, config: SparseConfig) -> Collection[str]:  # noqa: ARG002
        return ()  # not even limits

    def _settings(self) -> SparseConfig:
        config = super()._settings()
        launch = self.directory.section("launch")
        return replace(config, shards=config.shards or int(launch.get(_RANKS, 0)))

    def _averages(self, config: SparseConfig) -> bool:  # noqa: ARG002
        return True

    def _read(self, terms: SparseTerms) -> AnyArray:
        return self._read_rows(terms, *self._held(terms))

    def _held(self, terms: SparseTerms) -> tuple[int, int]:
        """Return the rows that this rank needs for any of the runs. Local."""
        parts = [rows_of_rank(own, self.session) for own in _runs(terms).values()]
        some = [part for part in parts if part[0] < part[1]] or [(0, 0)]
        return min(start for start, _ in some), max(stop for _, stop in some)

    def _costs(self, terms: SparseTerms) -> list[SparseConfig]:
        return [own.config for own in _runs(terms).values()]

    def _nothing_left(self, terms: SparseTerms) -> str:  # noqa: ARG002
        if not self.found():
            return ""
        return f"{self.run} is compared to the end; there is nothing to do"

    def found(self) -> Summary:
        """Return what the comparison has found, nothing before its end."""
        if not self.directory.is_complete(COMPARE):
            return {}
        return self.directory.read_summary("compare.json")

    def _sections(self, terms: SparseTerms) -> dict[str, dict[str, Any]]:
        return {
            SPARSE: as_values(terms.config),
            COMPARE: {"runs": ["average", "exact"]},
            "launch": self._launch_facts(),
        }

    def _train(
        self,
        terms: SparseTerms,
        rows: AnyArray,
        again: bool,  # noqa: ARG002
    ) -> Any:
        comm, (first, _) = self.session.comm, self._held(terms)
        self.announce(terms)
        ended: dict[str, _Ended] = {}
        for name, own in _runs(terms).items():
            self.session.say(f"{name}:")
            start, stop = rows_of_rank(own, self.session)
            held = rows[max(0, start - first) : max(0, stop - first)]
            cost = self.first_cost(own, held)
            try:
                summary = self._train_one(name, own, cost)
            except Interrupted:
                raise self.session.interrupted(self.directory.go_on) from None
            except TrainingError:
                if not ended:
                    comm.on_root(self._clear_refused)
                raise
            # Where the run has ended; its cost is there, too.
            path = RunDirectory(self.run / name).checkpoint(SPARSE)
            descent = Descent(cost, own.config)
            arrays, _, _ = comm.everywhere(partial(restore, path, descent))
            ended[name] = _Ended(cost, arrays["optimizer/position"], summary)
        return ended

    def _conclude(self, terms: SparseTerms, trained: Any) -> Summary:  # noqa: ARG002
        result = _compared(**trained)
        path = self.run / "compare.json"
        self.session.comm.on_root(lambda: files.write_json(path, result))
        return result

    def _train_one(self, name: str, terms: SparseTerms, cost: ShardedCost) -> Summary:
        """Make one of the runs, or go on with it. Collective."""
        run, comm = self.run / name, self.session.comm
        one = SparseTraining(run, self.session, terms.config, terms.data, replace=True)
        # Each can also be resumed alone.
        with holding(run, self.session):
            again = comm.on_root(lambda: is_run(run, SPARSE))
            if not again:
                comm.on_root(lambda: one._begin(terms))
            elif comm.on_root(lambda: one._nothing_left(terms)):
                return comm.on_root(one.found)
            summary = one._conclude(terms, one.descend(cost, terms.config, again))
            comm.on_root(lambda: one.directory.set_complete(SPARSE))
            return summary

    def _clear_refused(self) -> None:
        """Remove a comparison whose first run was refused at its start."""
        if not is_run(self.run / "average", SPARSE):
            self.directory.clear()


def _runs(terms: SparseTerms) -> dict[str, SparseTerms]:
    """Return what is known before each of the runs."""
    config = terms.config
    exact = "exact" if config.kl == "average" else config.kl
    configs = {
        "average": replace(config, kl="average"),
        "exact": replace(config, kl=exact, shards=0),
    }
    return {name: replace(terms, config=own) for name, own in configs.items()}


def _compared(average: _Ended, exact: _Ended) -> Summary:
    """Return both runs side by side, each under both definitions. Collective."""
    cost, runs = average.cost, {}
    for name, one in {"average": average, "exact": exact}.items():
        found, seconds = cost.measure(one.position), one.summary["seconds"]
        runs[name] = {
            "average_cost": finite(found.cost),
            "exact_cost": finite(found.exact_cost),
            "gap": _plain(Firing(cost, one.position).gap()),
            **{key: one.summary[key] for key in ("evaluations", "iterations")},
            "seconds": seconds,
            "seconds_per_evaluation": seconds / one.summary["evaluations"],
            "allreduce_share": one.summary["allreduce_seconds"] / seconds,
        }
    paces = [run["seconds_per_evaluation"] for run in runs.values()]
    distance = float(np.linalg.norm(average.position - exact.position))
    return {
        "ranks": cost.comm.size,
        "n_rows": cost.n_rows,
        "risk_of_bounds": RISK,
        "runs": runs,
        "weights_distance": distance,
        "weights_distance_relative": distance / float(np.linalg.norm(exact.position)),
        "exact_slower_by": paces[1] / paces[0] - 1,
        "paper": {"source": LAHIRI, **LAHIRI_EXACT},
        "shards": _shards(cost, exact.position),
    }


def _shards(cost: ShardedCost, position: Array64) -> dict[str, Any]:
    """Return the gap for other cuts of the same rows, as they lie and sorted."""
    firing = Firing(cost, position)
    counts = [n for n in _SHARDS if n * _ROWS_OF_A_SHARD <= cost.n_rows]
    excess = firing.excess()
    return {
        "variance_over_sampling": finite(excess),
        "exchangeable": not (isfinite(excess) and excess > EXCHANGEABLE),
        "as_they_lie": [_plain(firing.gap(n)) for n in counts],
        "sorted_by_norm": [_plain(firing.gap(n, ordered=True)) for n in counts],
    }


def _plain(gap: Gap) -> dict[str, Any]:
    """Return a gap for JSON; infinite bounds are null."""
    return {k: finite(v) if k != "shards" else v for k, v in asdict(gap).items()}
