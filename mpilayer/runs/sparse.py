"""A sparse autoencoder as a run: checks, shards, descent, its records."""

from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer import __version__
from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError, TrainingError
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory, write_bytes
from mpilayer.runs.model import save_sparse
from mpilayer.runs.session import Session, check_range, finite
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.descent import Descent
from mpilayer.train.sparse import (
    EAGER_SECONDS,
    Evaluation,
    ShardedCost,
    make_model,
    start_weights,
)
from mpilayer.train.strata import Strata

CHECKPOINT_SECONDS = 30.0
"""Least time between two checkpoints; there is also one at the end."""

_COSTLY_ALLREDUCE = 0.25
"""Part of the time from which on fewer ranks are worth a try."""


@dataclass(frozen=True)
class Facts:
    """What rank 0 finds out for all before anything is written."""

    n_train: int
    n_visible: int
    data_name: str
    data_digest: str


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
        cost is no number any more: then the last good weights are kept.
    """
    comm = session.comm
    facts = comm.on_root(lambda: check(data, run, config, replace_run))
    config = effective(config)
    rows = comm.everywhere(lambda: read(data, config, facts, comm.rank, comm.size))
    directory = comm.on_root(lambda: open_run(data, run, config, facts, replace_run))
    session.announce()
    warn(session, config, facts)
    cost = make_cost(rows, config, facts, session)
    return train(cost, config, session, directory)


def check(data: Path, run: Path, config: SparseConfig, replace_run: bool) -> Facts:
    """Check all that can be known before training; on rank 0, nothing is written."""
    with Dataset.open(data) as dataset:
        facts = Facts(
            dataset.n_samples("train"),
            dataset.n_visible,
            dataset.name,
            dataset.digest,
        )
    if config.optimizer == "sgd" and config.minibatch > facts.n_train:
        raise ConfigError(
            f"a minibatch must not be larger than the data; got {config.minibatch} "
            f"with {facts.n_train} training rows. Give a smaller --minibatch."
        )
    RunDirectory.check_free(run, replace_run)
    return facts


def effective(config: SparseConfig) -> SparseConfig:
    """Return the configuration with the defaults that depend on others filled in."""
    same = config.output == "same"
    return replace(config, output=config.activation if same else config.output)


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


def open_run(
    data: Path, run: Path, config: SparseConfig, facts: Facts, replace_run: bool
) -> RunDirectory:
    """Make the run directory; on rank 0."""
    directory = RunDirectory.create(run, replace_run)
    directory.write_config(
        {
            "data": {
                "path": str(data.absolute()),
                "name": facts.data_name,
                "digest": facts.data_digest,
                "n_visible": facts.n_visible,
            },
            "sparse": as_values(config),
            "created_by": {"mpilayer": __version__},
        }
    )
    return directory


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


def train(
    cost: ShardedCost, config: SparseConfig, session: Session, directory: RunDirectory
) -> dict[str, Any]:
    """Descend to the end, and write metrics, checkpoints and the summary. Collective.

    Raises
    ------
    TrainingError
        The cost is no number; the last good weights are in the checkpoint.
    """
    comm = session.comm
    descent = Descent(cost, config)
    totals = np.zeros(2)
    comm.barrier()
    began = cost.began = perf_counter()
    if config.max_time:
        cost.time_over = lambda: perf_counter() - began > config.max_time
    with (
        session.display(directory, {"sparse": config.evaluations}),
        _Recorder(directory, comm.rank) as recorder,
    ):

        def note(evaluation: Evaluation) -> None:
            totals[:] += evaluation.computing, evaluation.allreduce
            recorder.write(evaluation)

        cost.on_evaluation = note
        try:
            _descend(descent, directory, comm.rank)
        except TrainingError as error:
            raise _with_last_weights(error, descent, directory, comm.rank) from None
    seconds = perf_counter() - began
    cost.on_evaluation = lambda _: None
    if descent.state is None:
        raise RuntimeError("a descent without evaluations")
    final = cost.measure(descent.state.position)
    comm.on_root(lambda: _save(directory, descent, cost))
    summary = {
        **session.facts(),
        "kl": config.kl,
        "optimizer": config.optimizer,
        "cost": finite(final.cost),
        "exact_cost": finite(final.exact_cost),
        "reconstruction": finite(final.reconstruction),
        "decay": finite(final.decay),
        "sparsity": finite(final.sparsity),
        "gradient_norm": finite(final.gradient_norm),
        "evaluations": cost.evaluations,
        "iterations": descent.state.iteration,
        "stopped_by": descent.stopped_by,
        "seconds": seconds,
        "computing_seconds": fmean(comm.allgather(float(totals[0]))),
        "allreduce_seconds": fmean(comm.allgather(float(totals[1]))),
        "mean_activation": float(cost.mean_activation.mean()),
        "mean_activations": cost.mean_activation.tolist(),
        "digest": cost.model.parameters.digest(),
        "n_visible": cost.model.shape.n_visible,
        "n_hidden": cost.model.shape.n_hidden,
        "n_rows": cost.n_rows,
    }
    if summary["allreduce_seconds"] > _COSTLY_ALLREDUCE * seconds:
        session.say(
            f"warning: Allreduce took {summary['allreduce_seconds'] / seconds:.0%} of "
            f"the time: fewer ranks than {comm.size} may be faster for "
            f"{cost.n_rows} rows"
        )
    return comm.on_root(lambda: directory.write_summary(summary))


def filters(weights: Array64) -> AnyArray:
    """Return the input of norm 1 that each hidden unit responds to most.

    Parameters
    ----------
    weights : ndarray (n_visible, n_hidden)
        W₁.

    Returns
    -------
    ndarray (n_hidden, n_visible), or (n_hidden, size, size) of square patches
    """
    norms = np.maximum(np.linalg.norm(weights, axis=0), np.finfo(np.float64).tiny)
    rows: AnyArray = (weights / norms).T.astype(np.float32)
    size = round(rows.shape[1] ** 0.5)
    return rows.reshape(-1, size, size) if size * size == rows.shape[1] else rows


class _Recorder:
    """Writes a line an evaluation on rank 0; nothing on the others."""

    def __init__(self, directory: RunDirectory, rank: int) -> None:
        path = directory.metrics_file("sparse")
        self._writer = MetricsWriter(path) if rank == 0 else None

    def write(self, evaluation: Evaluation) -> None:
        if self._writer:
            self._writer.write(asdict(evaluation))

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.__exit__(None, None, None)


def _descend(descent: Descent, directory: RunDirectory, rank: int) -> None:
    saved = perf_counter()
    for _ in descent.states():
        if rank == 0 and perf_counter() - saved > CHECKPOINT_SECONDS:
            _save(directory, descent, descent.cost)
            saved = perf_counter()


def _save(directory: RunDirectory, descent: Descent, cost: ShardedCost) -> None:
    """Write the last complete iteration; on rank 0."""
    if descent.state is None:
        return
    parameters = cost.model.parameters.like()
    parameters.vector[:] = descent.state.position
    save_sparse(directory, cost.model.shape, parameters, descent.state, cost)
    buffer = BytesIO()
    np.save(buffer, filters(parameters["weights"]))
    write_bytes(directory.filters, buffer.getvalue())


def _with_last_weights(
    error: TrainingError, descent: Descent, directory: RunDirectory, rank: int
) -> TrainingError:
    """Keep the last good weights; return the error that says where."""
    if descent.state is None:
        return error
    if rank == 0:
        _save(directory, descent, descent.cost)
    full = TrainingError(
        f"{error} The weights after iteration {descent.state.iteration}, cost "
        f"{descent.state.cost:.6g}, are in {directory.checkpoint('sparse')}."
    )
    full.collective = error.collective
    return full
