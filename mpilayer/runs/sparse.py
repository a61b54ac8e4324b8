"""A sparse autoencoder as a run: checks, shards, descent, its records."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer import __version__
from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig, as_values, from_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError, TrainingError
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory, write_bytes
from mpilayer.runs.keeping import remove_false_start, remove_unfinished
from mpilayer.runs.model import restore_sparse, sparse_content
from mpilayer.runs.resuming import (
    check_replicas,
    check_same,
    data_of_run,
    is_run,
    launch_facts,
)
from mpilayer.runs.session import Session, check_range, finite
from mpilayer.runs.writing import Writer
from mpilayer.store.checkpoint import exists, forget_damaged
from mpilayer.store.metrics import MetricsReader, MetricsWriter, keep_until
from mpilayer.train.descent import Descent, State
from mpilayer.train.sparse import (
    EAGER_SECONDS,
    Evaluation,
    ShardedCost,
    make_model,
    start_weights,
)
from mpilayer.train.strata import Strata

NAME = "sparse"
"""What a run's ``complete`` says at the end."""

_HARMLESS = frozenset({"evaluations", "iterations", "gradient_norm", "decrease"})

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
    if session.safety.resume and comm.on_root(lambda: is_run(run, NAME)):
        return resume_sparse(run, session, config, data)
    if session.safety.resume:
        comm.on_root(lambda: remove_false_start(run))
    facts = comm.on_root(lambda: check(data, run, config, replace_run))
    config = effective(config)
    rows = comm.everywhere(lambda: read(data, config, facts, comm.rank, comm.size))
    launch = launch_facts(NAME, session)
    directory = comm.on_root(
        lambda: open_run(data, run, config, facts, launch, replace_run)
    )
    session.announce()
    warn(session, config, facts)
    return carry_out(
        make_cost(rows, config, facts, session), config, session, directory
    )


def resume_sparse(
    run: Path,
    session: Session,
    asked: SparseConfig | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """Go on with a run that was interrupted; see :func:`run_sparse`.

    Parameters
    ----------
    run : Path
        The run directory.
    session : Session
        The ranks; perhaps another number than before. Collective on all of them.
    asked : SparseConfig, optional
        Settings that must not contradict those of the run, but for its limits.
    data : Path, optional
        Where the data set is now.

    Returns
    -------
    dict
        The run's summary.

    Raises
    ------
    MpilayerError
        On every rank, before training.
    """
    comm = session.comm
    directory = RunDirectory.open(run)

    def look() -> tuple[Path, SparseConfig, Facts]:
        config = sparse_config(directory)
        check_same(config, asked and effective(asked), _HARMLESS)
        path = data_of_run(directory, data)
        return path, effective(asked) if asked else config, facts_of(path, config)

    path, config, facts = comm.on_root(look)
    if comm.on_root(lambda: _has_nothing_left(directory, config)):
        session.say(f"{run} is trained to the end; there is nothing to do")
        return comm.on_root(directory.read_summary)
    rows = comm.everywhere(lambda: read(path, config, facts, comm.rank, comm.size))
    session.announce()
    warn(session, config, facts)
    return carry_out(
        make_cost(rows, config, facts, session), config, session, directory
    )


def carry_out(
    cost: ShardedCost, config: SparseConfig, session: Session, directory: RunDirectory
) -> dict[str, Any]:
    """Train from the run's checkpoint if there is one; return the summary.

    Collective; see :func:`train`.
    """
    comm = session.comm
    if comm.on_root(lambda: _has_nothing_left(directory, config)):
        return comm.on_root(directory.read_summary)
    first, before = _restore(directory, cost, config, session)
    comm.on_root(lambda: _go_on(directory, config, cost.evaluations))
    if first:
        session.say(
            f"going on after {cost.evaluations} evaluations, {first.iteration} "
            "iterations"
        )
    return train(cost, config, session, directory, first, before)


def sparse_config(directory: RunDirectory) -> SparseConfig:
    """Return the settings of a run."""
    return from_values(SparseConfig, directory.read_config()[NAME])


def _has_nothing_left(directory: RunDirectory, config: SparseConfig) -> bool:
    before = sparse_config(directory)
    return directory.is_complete(NAME) and all(
        getattr(config, name) == getattr(before, name) for name in _HARMLESS
    )


def _restore(
    directory: RunDirectory, cost: ShardedCost, config: SparseConfig, session: Session
) -> tuple[State | None, float]:
    """Return where the run was, and its seconds so far. Collective."""
    comm = session.comm
    if not comm.on_root(lambda: exists(directory.checkpoint(NAME))):
        return None, 0.0
    state, evaluations, seconds, remark = comm.everywhere(
        lambda: restore_sparse(directory, config.optimizer)
    )
    if remark:
        session.say(f"warning: {remark}")
        comm.on_root(lambda: forget_damaged(directory.checkpoint(NAME)))
    cost.model.parameters.vector[:] = state.position
    check_replicas(cost.model.parameters, comm)
    cost.evaluations, cost.iteration = evaluations, state.iteration
    return state, seconds


def _go_on(directory: RunDirectory, config: SparseConfig, evaluations: int) -> None:
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
    data: Path,
    run: Path,
    config: SparseConfig,
    facts: Facts,
    launch: dict[str, Any],
    replace_run: bool,
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
            "launch": launch,
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
    cost: ShardedCost,
    config: SparseConfig,
    session: Session,
    directory: RunDirectory,
    first: State | None = None,
    before: float = 0.0,
) -> dict[str, Any]:
    """Descend to the end, and write metrics, checkpoints and the summary. Collective.

    Parameters
    ----------
    cost : ShardedCost
        At the first weights, or at those of ``first``.
    config : SparseConfig
        The optimizer and its limits.
    session : Session
        The ranks.
    directory : RunDirectory
        Where everything goes.
    first : State, optional
        Where to go on.
    before : float
        Seconds of training until then.

    Returns
    -------
    dict
        The run's summary.

    Raises
    ------
    TrainingError
        The cost is no number; the last good weights are in the checkpoint.
    Interrupted
        On every rank, after saving.
    """
    comm = session.comm
    descent = Descent(cost, config)
    descent.state = first
    comm.barrier()
    origin = cost.began = perf_counter() - before
    with (
        session.display(directory, {NAME: config.evaluations}),
        session.listening(),
        session.impatient(),
        _Recorder(directory, comm.rank) as recorder,
    ):
        cost.on_evaluation = recorder.write
        cost.time_over = lambda: session.must_stop(recorder.unit)
        keeper = _Keeper(directory, session, cost, origin)
        try:
            for state in descent.states(first):
                keeper.look(state)
        except TrainingError as error:
            raise _with_last_weights(error, descent, keeper) from None
        finally:
            cost.on_evaluation = lambda _: None
            cost.time_over = lambda: False
        if descent.state is not None:
            keeper.save(descent.state)
        comm.barrier()
        if descent.stopped_by == "time":
            raise session.interrupted(directory)
    seconds = perf_counter() - origin
    if descent.state is None:
        raise RuntimeError("a descent without evaluations")
    summary = _summary(cost, config, descent, session)
    times = comm.on_root(lambda: _times(directory))
    summary |= {"seconds": seconds, **times}
    _advise(session, summary)
    summary = comm.on_root(lambda: directory.write_summary(summary))
    comm.on_root(lambda: directory.set_complete(NAME))
    return summary


def _summary(
    cost: ShardedCost, config: SparseConfig, descent: Descent, session: Session
) -> dict[str, Any]:
    """Return what was reached. Collective."""
    if descent.state is None:
        raise RuntimeError("a descent without evaluations")
    final = cost.measure(descent.state.position)
    return {
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
        "mean_activation": float(cost.mean_activation.mean()),
        "mean_activations": cost.mean_activation.tolist(),
        "digest": cost.model.parameters.digest(),
        "n_visible": cost.model.shape.n_visible,
        "n_hidden": cost.model.shape.n_hidden,
        "n_rows": cost.n_rows,
    }


def _times(directory: RunDirectory) -> dict[str, float]:
    """Return where rank 0's time went in all evaluations; on rank 0."""
    lines = list(MetricsReader(directory.metrics_file(NAME)).new_lines())
    return {
        "computing_seconds": sum(line["computing"] for line in lines),
        "allreduce_seconds": sum(line["allreduce"] for line in lines),
    }


def _advise(session: Session, summary: Mapping[str, Any]) -> None:
    share = summary["allreduce_seconds"] / summary["seconds"]
    if share > _COSTLY_ALLREDUCE:
        session.say(
            f"warning: Allreduce took {share:.0%} of the time: fewer ranks than "
            f"{session.comm.size} may be faster for {summary['n_rows']} rows"
        )


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
    """Writes a line an evaluation on rank 0; knows how long one takes."""

    def __init__(self, directory: RunDirectory, rank: int) -> None:
        path = directory.metrics_file(NAME)
        self._writer = MetricsWriter(path) if rank == 0 else None
        self.unit = 0.0

    def write(self, evaluation: Evaluation) -> None:
        self.unit = evaluation.computing + evaluation.allreduce
        if self._writer:
            self._writer.write(asdict(evaluation))

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.__exit__(None, None, None)


class _Keeper:
    """Saves complete iterations when it is due, while training goes on; on rank 0."""

    def __init__(
        self,
        directory: RunDirectory,
        session: Session,
        cost: ShardedCost,
        origin: float,
    ) -> None:
        self.directory = directory
        self._session, self._cost, self._origin = session, cost, origin
        self._saved, self._iteration = perf_counter(), cost.iteration
        self._evaluations = cost.evaluations
        self._disk = Writer()

    def look(self, state: State) -> None:
        """Save a new state if it is time to."""
        # A later save is of this state: what comes after it will be done again.
        self._evaluations = self._cost.evaluations
        units = state.iteration - self._iteration
        if self._session.is_due(units, perf_counter() - self._saved):
            self._start(state)

    def save(self, state: State) -> None:
        """Write a state, and wait until everything is written."""
        self._start(state)
        self._disk.finish()

    def _start(self, state: State) -> None:
        self._saved, self._iteration = perf_counter(), state.iteration
        if self._session.comm.rank > 0:
            return
        cost, seconds = self._cost, perf_counter() - self._origin
        parameters = cost.model.parameters.like()
        parameters.vector[:] = state.position
        shape = cost.model.shape
        content = sparse_content(
            self.directory, shape, parameters, state, self._evaluations, seconds
        )

        def write() -> None:
            content.save()
            buffer = BytesIO()
            np.save(buffer, filters(parameters["weights"]))
            write_bytes(self.directory.filters, buffer.getvalue())

        self._disk.start(write)


def _with_last_weights(
    error: TrainingError, descent: Descent, keeper: _Keeper
) -> TrainingError:
    """Keep the last good weights; return the error that says where."""
    if descent.state is None:
        return error
    keeper.save(descent.state)
    full = TrainingError(
        f"{error} The weights after iteration {descent.state.iteration}, cost "
        f"{descent.state.cost:.6g}, are in {keeper.directory.checkpoint(NAME)}."
    )
    full.collective = error.collective
    return full
