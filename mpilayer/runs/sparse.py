"""A sparse autoencoder as a run: checks, shards, going on, the descent."""

from pathlib import Path
from typing import Any

from mpilayer.arrays import AnyArray
from mpilayer.config import SparseConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.partition import shard_bounds
from mpilayer.runs.descending import NAME, train
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.holding import holding
from mpilayer.runs.keeping import remove_unfinished
from mpilayer.runs.model import restore
from mpilayer.runs.opening import begin_or_go_on, open_run
from mpilayer.runs.resuming import (
    check_replicas,
    check_same,
    data_of_run,
    launch_facts,
)
from mpilayer.runs.rows import Facts, check_range, data_facts
from mpilayer.runs.session import Session
from mpilayer.runs.settings import settings_of
from mpilayer.store.checkpoint import exists, forget_damaged
from mpilayer.store.metrics import keep_until
from mpilayer.train.sparse.cost import (
    ShardedCost,
    make_model,
    start_weights,
)
from mpilayer.train.sparse.descent import Descent, State
from mpilayer.train.strata import Strata
from mpilayer.train.sums import EAGER_SECONDS

_LIMITS = frozenset({"evaluations", "iterations", "gradient_norm", "decrease"})


def run_sparse(
    data: Path,
    run: Path,
    config: SparseConfig,
    session: Session,
    replace_run: bool = False,
) -> dict[str, Any]:
    """Train a sparse autoencoder and leave a run directory.

    Parameters
    ----------
    data : Path
        The data set; every rank reads its own training rows.
    run : Path
        The run directory to make.
    config : SparseConfig
        Equal on all ranks.
    session : Session
        The ranks. Collective on all of them.
    replace_run : bool
        A former run at ``run`` gives way.

    Returns
    -------
    dict
        The run's summary.

    Raises
    ------
    MpilayerError
        On every rank, before training, and before anything is written; or because the
        cost is not a number any more: then the last good weights are kept.
    """
    return begin_or_go_on(
        run,
        NAME,
        session,
        lambda: _begin(data, run, config, session, replace_run),
        lambda: _go_on(run, session, config, data),
    )


def resume_sparse(
    run: Path, session: Session, data: Path | None = None
) -> dict[str, Any]:
    """Go on with a run that was interrupted; see :func:`mpilayer.runs.resume.resume`.

    Collective on all ranks; perhaps another number than before.
    """
    with holding(run, session):
        return _go_on(run, session, None, data)


def _begin(
    data: Path, run: Path, config: SparseConfig, session: Session, replace_run: bool
) -> dict[str, Any]:
    """Make the run, and train. Collective."""
    comm = session.comm
    facts = comm.on_root(lambda: check(data, run, config, replace_run))
    config = config.resolved()
    rows = comm.everywhere(lambda: read(data, config, facts, comm.rank, comm.size))
    sections = {NAME: as_values(config), "launch": launch_facts(NAME, session)}
    directory = comm.on_root(lambda: open_run(data, run, facts, sections, replace_run))
    return _announce_and_train(rows, config, facts, session, directory)


def _go_on(
    run: Path, session: Session, asked: SparseConfig | None, data: Path | None
) -> dict[str, Any]:
    """Go on from the run's checkpoint. Collective.

    ``asked`` are settings that must not contradict those of the run, but for limits.
    """
    comm = session.comm
    directory = RunDirectory.open(run)

    def look() -> tuple[Path, SparseConfig, Facts]:
        config = sparse_config(directory)
        check_same(config, asked and asked.resolved(), _harmless(config))
        path = data_of_run(directory, data)
        return path, asked.resolved() if asked else config, facts_of(path, config)

    path, config, facts = comm.on_root(look)
    if comm.on_root(lambda: _has_nothing_left(directory, config)):
        session.say(f"{run} is trained to the end; there is nothing to do")
        return comm.on_root(directory.read_summary)
    rows = comm.everywhere(lambda: read(path, config, facts, comm.rank, comm.size))
    return _announce_and_train(rows, config, facts, session, directory)


def _announce_and_train(
    rows: AnyArray,
    config: SparseConfig,
    facts: Facts,
    session: Session,
    directory: RunDirectory,
) -> dict[str, Any]:
    session.announce()
    warn(session, config, facts)
    cost = make_cost(rows, config, facts, session)
    return carry_out(cost, config, session, directory)


def carry_out(
    cost: ShardedCost, config: SparseConfig, session: Session, directory: RunDirectory
) -> dict[str, Any]:
    """Train from the run's checkpoint if there is one; return the summary.

    Collective; see :func:`mpilayer.runs.descending.train`.
    """
    comm = session.comm
    if comm.on_root(lambda: _has_nothing_left(directory, config)):
        return comm.on_root(directory.read_summary)
    first, before = _restore(directory, cost, config, session)
    comm.on_root(lambda: _forget_later(directory, config, cost.evaluations))
    if first:
        session.say(
            f"going on after {cost.evaluations} evaluations, {first.iteration} "
            "iterations"
        )
    return train(cost, config, session, directory, first, before)


def sparse_config(directory: RunDirectory) -> SparseConfig:
    """Return the settings of a run."""
    return settings_of(directory, NAME, SparseConfig)


def _has_nothing_left(directory: RunDirectory, config: SparseConfig) -> bool:
    before = sparse_config(directory)
    return directory.is_complete(NAME) and all(
        getattr(config, name) == getattr(before, name) for name in _LIMITS
    )


def _harmless(config: SparseConfig) -> frozenset[str]:
    """Return what may change when a run goes on; sgd's rate ends with evaluations."""
    limits = _LIMITS - {"evaluations"} if config.optimizer == "sgd" else _LIMITS
    return limits | config.unused


def _restore(
    directory: RunDirectory, cost: ShardedCost, config: SparseConfig, session: Session
) -> tuple[State | None, float]:
    """Return where the run was, and its seconds so far. Collective."""
    comm = session.comm
    if not comm.on_root(lambda: exists(directory.checkpoint(NAME))):
        return None, 0.0
    path, descent = directory.checkpoint(NAME), Descent(cost, config)
    _, numbers, remark = comm.everywhere(lambda: restore(path, descent))
    if remark:
        session.say(f"warning: {remark}")
        comm.on_root(lambda: forget_damaged(path))
    check_replicas(cost.model.parameters, comm)
    return descent.state, float(numbers["seconds"])


def _forget_later(
    directory: RunDirectory, config: SparseConfig, evaluations: int
) -> None:
    """Forget what came after the checkpoint; note the limits that hold now."""
    remove_unfinished(directory)
    keep_until(directory.metrics_file(NAME), "evaluation", evaluations)
    directory.set_complete(NAME, False)
    directory.write_config({NAME: as_values(config)})


def check(data: Path, run: Path, config: SparseConfig, replace_run: bool) -> Facts:
    """Check all that can be known before training; on rank 0, nothing is written."""
    facts = facts_of(data, config)
    RunDirectory.check_free(run, replace_run)
    return facts


def facts_of(data: Path, config: SparseConfig) -> Facts:
    """Return what the data set says, checked against the configuration."""
    return data_facts(data, config.minibatch if config.optimizer == "sgd" else 0)


def read(
    data: Path, config: SparseConfig, facts: Facts, rank: int, size: int
) -> AnyArray:
    """Read this rank's rows, in the type they are computed with."""
    start, stop = shard_bounds(facts.n_train, size)[rank]
    if config.optimizer == "sgd":
        strata = Strata.of_rank(facts.n_train, config.minibatch, rank, size)
        start, stop = strata.rows
    with Dataset.open(data) as dataset:
        rows = dataset.rows("train", start, stop)
    check_range(rows, config.output, data, "give --output tanh or linear")
    return rows.astype(config.dtype, copy=False)


def warn(session: Session, config: SparseConfig, facts: Facts) -> None:
    """Say what works, but not as the user may think."""
    n_ranks = session.comm.size
    if n_ranks > facts.n_train:
        session.say(
            f"warning: {n_ranks} ranks share {facts.n_train} training rows; "
            f"{n_ranks - facts.n_train} have none. Start fewer ranks."
        )
    if config.optimizer == "sgd" and n_ranks > config.minibatch:
        session.say(
            f"warning: {n_ranks} ranks share minibatches of {config.minibatch} rows; "
            "some have nothing to do"
        )
    if config.kl != "average" and not config.sparsity_weight:
        session.say(
            f"warning: --kl {config.kl} makes no difference: --sparsity-weight is 0, "
            "so there is no sparsity term"
        )


def make_cost(
    rows: AnyArray, config: SparseConfig, facts: Facts, session: Session
) -> ShardedCost:
    """Return the cost over all ranks, at the first weights. Collective."""
    model = make_model(config, facts.n_visible)
    start_weights(model, config)
    # A rank that offers its core while it waits slows down those that share it.
    eager = 0.0 if session.placement.crowded else EAGER_SECONDS
    return ShardedCost(model, rows, config, session.comm, eager)
