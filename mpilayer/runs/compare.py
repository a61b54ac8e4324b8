"""Average against exact: two sparse runs from one start, in one launch."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import Array64
from mpilayer.config import SparseConfig, as_values
from mpilayer.errors import CommunicationError, TrainingError
from mpilayer.interrupt import Interrupted
from mpilayer.papers import LAHIRI, LAHIRI_EXACT
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.holding import holding
from mpilayer.runs.keeping import remove_false_start
from mpilayer.runs.model import restore
from mpilayer.runs.opening import open_run
from mpilayer.runs.resuming import check_same, data_of_run, is_run, launch_facts
from mpilayer.runs.rows import Facts
from mpilayer.runs.session import Session, finite
from mpilayer.runs.sparse import (
    carry_out,
    check,
    facts_of,
    make_cost,
    read,
    sparse_config,
    warn,
)
from mpilayer.train.sparse.cost import ShardedCost
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import RISK, Firing, Gap

NAME = "compare"
"""What a run's ``complete`` says at the end."""

EXCHANGEABLE = 4.0
"""Variance between shards, over that of sampling, from which on rows are sorted."""

_RANKS = "compare_ranks"
_SHARDS = (2, 8, 16, 1000)
_ROWS_OF_A_SHARD = 50


def run_compare(
    data: Path,
    run: Path,
    config: SparseConfig,
    session: Session,
    replace_run: bool = False,
) -> dict[str, Any]:
    """Train with the average and with the exact sparsity term, and compare.

    Parameters
    ----------
    data : Path
        The data set; every rank reads its own training rows, once.
    run : Path
        The run directory to make, with a run in ``average/`` and one in ``exact/``.
    config : SparseConfig
        Equal on all ranks; ``kl`` says which exact mode is meant.
    session : Session
        The ranks. Collective on all of them.
    replace_run : bool
        A former comparison at ``run`` gives way.

    Returns
    -------
    dict
        What ``compare.json`` holds.

    Raises
    ------
    MpilayerError
        As :func:`mpilayer.runs.sparse.run_sparse`.
    """
    with holding(run, session):
        return _carry_out_both(data, run, config, session, replace_run)


def resume_compare(
    run: Path, session: Session, data: Path | None = None
) -> dict[str, Any]:
    """Go on with a comparison that was interrupted; see :func:`run_compare`."""
    directory = RunDirectory.open(run)
    config, path = session.comm.on_root(
        lambda: (sparse_config(directory), data_of_run(directory, data))
    )
    safety = replace(session.safety, resume=True)
    return run_compare(path, run, config, replace(session, safety=safety))


def _carry_out_both(
    data: Path, run: Path, config: SparseConfig, session: Session, replace_run: bool
) -> dict[str, Any]:
    """Make the two runs, or go on with them, and compare. Collective."""
    comm = session.comm
    goes_on = session.safety.resume and comm.on_root(lambda: is_run(run, NAME))
    if goes_on:
        data, config, facts = comm.on_root(lambda: _look(run, config, data))
        if found := comm.on_root(lambda: stored_comparison(run)):
            session.say(f"{run} is compared to the end; there is nothing to do")
            return found
        comm.on_root(lambda: _check_ranks(run, comm.size))
    else:
        if session.safety.resume:
            comm.on_root(lambda: remove_false_start(run))
        facts = comm.on_root(lambda: check(data, run, config, replace_run))
        config = config.resolved()
    rows = comm.everywhere(lambda: read(data, config, facts, comm.rank, comm.size))
    directory = RunDirectory(run)
    if not goes_on:
        sections = {
            "sparse": as_values(config),
            NAME: {"runs": ["average", "exact"]},
            "launch": {**launch_facts(NAME, session), _RANKS: comm.size},
        }
        comm.on_root(lambda: open_run(data, run, facts, sections, replace_run))
    session.announce()
    warn(session, config, facts)
    costs: dict[str, ShardedCost] = {}
    positions: dict[str, Array64] = {}
    summaries: dict[str, dict[str, Any]] = {}
    for name, kl in {"average": "average", "exact": _exact_mode(config)}.items():
        session.say(f"{name}:")
        own = replace(config, kl=kl)
        costs[name] = make_cost(rows, own, facts, session)
        try:
            # Each can also be resumed alone.
            with holding(run / name, session):
                below = _below(data, run / name, own, facts, session)
                summaries[name] = carry_out(costs[name], own, session, below)
        except Interrupted:
            raise session.interrupted(directory) from None
        except TrainingError:
            if not summaries:
                comm.on_root(lambda: _clear_refused(directory))
            raise
        positions[name] = comm.everywhere(
            partial(_last_position, below, Descent(costs[name], own))
        )
    result = _compare(costs, positions, summaries)
    result["shards"] = _shards(costs["exact"], positions["exact"])
    comm.on_root(lambda: files.write_json(directory.path / "compare.json", result))
    comm.on_root(lambda: directory.set_complete(NAME))
    return result


def _look(
    run: Path, config: SparseConfig, data: Path
) -> tuple[Path, SparseConfig, Facts]:
    """Return with what a comparison goes on; on rank 0."""
    directory = RunDirectory(run)
    before = sparse_config(directory)
    check_same(before, config.resolved(), ())
    path = data_of_run(directory, data)
    return path, before, facts_of(path, before)


def stored_comparison(run: Path) -> dict[str, Any]:
    """Return what a comparison has found, nothing before its end. Local."""
    directory = RunDirectory(run)
    if not directory.is_complete(NAME):
        return {}
    return directory.read_summary("compare.json")


def _check_ranks(run: Path, n_ranks: int) -> None:
    """Check that a comparison goes on with the ranks that it began with."""
    began = RunDirectory(run).read_config().get("launch", {}).get(_RANKS, n_ranks)
    if n_ranks != began:
        raise CommunicationError(
            "a comparison must go on with as many ranks as it began with, for the "
            f"average sparsity term depends on them; it began with {began}, got "
            f"{n_ranks}. Start as many, or begin another comparison."
        )


def _clear_refused(directory: RunDirectory) -> None:
    """Remove a comparison whose first run was refused at its start."""
    if not is_run(directory.path / "average", "sparse"):
        directory.clear()


def _below(
    data: Path, run: Path, config: SparseConfig, facts: Facts, session: Session
) -> RunDirectory:
    """Return the directory of one of the two runs, made if there is none."""
    sections = {"sparse": as_values(config), "launch": launch_facts("sparse", session)}
    return session.comm.on_root(
        lambda: (
            RunDirectory(run)
            if is_run(run, "sparse")
            else open_run(data, run, facts, sections, replace_run=True)
        )
    )


def _exact_mode(config: SparseConfig) -> str:
    return "exact" if config.kl == "average" else config.kl


def _last_position(directory: RunDirectory, descent: Descent) -> Array64:
    """Return where a run has ended; its cost is there, too. Local."""
    arrays, _, _ = restore(directory.checkpoint("sparse"), descent)
    return arrays["optimizer/position"]


def _compare(
    costs: Mapping[str, ShardedCost],
    positions: Mapping[str, Array64],
    summaries: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return both runs side by side, each under both definitions. Collective."""
    runs = {}
    for name, cost in costs.items():
        cost.kl = "average"
        found = cost.measure(positions[name])
        summary = summaries[name]
        gap = Firing(cost, positions[name]).gap_of_ranks()
        runs[name] = {
            "average_cost": finite(found.cost),
            "exact_cost": finite(found.exact_cost),
            "gap": _plain(gap),
            "evaluations": summary["evaluations"],
            "iterations": summary["iterations"],
            "seconds": summary["seconds"],
            "seconds_per_evaluation": summary["seconds"] / summary["evaluations"],
            "allreduce_share": summary["allreduce_seconds"] / summary["seconds"],
        }
    distance = float(np.linalg.norm(positions["average"] - positions["exact"]))
    size = float(np.linalg.norm(positions["exact"]))
    average, exact = runs["average"], runs["exact"]
    slower = exact["seconds_per_evaluation"] / average["seconds_per_evaluation"] - 1
    return {
        "ranks": costs["exact"].comm.size,
        "n_rows": costs["exact"].n_rows,
        "risk_of_bounds": RISK,
        "runs": runs,
        "weights_distance": distance,
        "weights_distance_relative": distance / size,
        "exact_slower_by": slower,
        "paper": {"source": LAHIRI, **LAHIRI_EXACT},
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
