"""The descent of a sparse run: what it writes on its way, and what it has reached."""

from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig
from mpilayer.errors import TrainingError
from mpilayer.runs.advice import costly_allreduce
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import saving
from mpilayer.runs.session import Session, finite
from mpilayer.runs.writing import Writer
from mpilayer.store.metrics import MetricsReader, MetricsWriter
from mpilayer.train.sparse.cost import Evaluation, ShardedCost
from mpilayer.train.sparse.descent import Descent, State
from mpilayer.train.sparse.firing import dead_units

NAME = "sparse"
"""What a run's ``complete`` says at the end; its metrics and checkpoint, too."""


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
        The cost is not a number; the last good weights are in the checkpoint. If it was
        none from the start, nothing of the run is left.
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
        _Recorder(directory, comm.rank) as recorder,
    ):
        cost.on_evaluation = recorder.write
        cost.time_over = lambda: session.must_stop(recorder.unit)
        keeper = _Keeper(directory, session, descent, origin)
        try:
            for state in descent.states(first):
                keeper.look(state.iteration)
        except TrainingError as error:
            if descent.state is None:
                comm.on_root(directory.clear)
                raise
            raise _with_last_weights(error, descent.state, keeper) from None
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
    dead = dead_units(cost, descent.state.position)
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
        "dead_units": dead.units,
        "warning": dead.warning(final),
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
    if summary["warning"]:
        session.say(f"warning: {summary['warning']}")
    costly = costly_allreduce(
        summary["allreduce_seconds"],
        summary["seconds"],
        session.comm.size,
        f"{summary['n_rows']} rows",
    )
    if costly:
        session.say(f"warning: {costly}")


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
        descent: Descent,
        origin: float,
    ) -> None:
        self.directory = directory
        self._session, self._descent, self._origin = session, descent, origin
        self._saved, self._iteration = perf_counter(), descent.cost.iteration
        self._disk = Writer()

    def look(self, iteration: int) -> None:
        """Save the last state if it is time to."""
        units = iteration - self._iteration
        if self._session.is_due(units, perf_counter() - self._saved):
            self._start(iteration)

    def save(self, state: State) -> None:
        """Write the last state, and wait until everything is written."""
        self._start(state.iteration)
        self._disk.finish()

    def _start(self, iteration: int) -> None:
        self._saved, self._iteration = perf_counter(), iteration
        if self._session.comm.rank > 0:
            return
        path, descent = self.directory.checkpoint(NAME), self._descent
        seconds = perf_counter() - self._origin
        save = saving(path, descent, keep=True, content=NAME, seconds=seconds)
        weights = descent.arrays()["parameters/weights"]

        def write() -> None:
            save()
            buffer = BytesIO()
            np.save(buffer, filters(weights))
            path = self.directory.filters
            with files.optional(path, "the filters are also in the weights"):
                files.write(path, buffer.getvalue())

        self._disk.start(write)


def _with_last_weights(
    error: TrainingError, state: State, keeper: _Keeper
) -> TrainingError:
    """Keep the last good weights; return the error that says where."""
    keeper.save(state)
    full = TrainingError(
        f"{error} The weights after iteration {state.iteration}, cost "
        f"{state.cost:.6g}, are in {keeper.directory.checkpoint(NAME)}."
    )
    full.collective = error.collective
    return full
