"""One evaluation of the sparse autoencoder's cost: its products, rivals, and ranks.

``mpiexec -n N python -m mpilayer.bench.evaluations DATA.h5 ...`` times the modes of the
sparsity term on N ranks and prints the seconds as JSON.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from mpilayer.arrays import ROW_BLOCK, AnyArray, Array32, row_blocks
from mpilayer.bench import rivals, sparse_rivals
from mpilayer.bench.launches import mpiexec, run_command
from mpilayer.bench.pairs import Comparison, Say, silent, take_turns
from mpilayer.bench.patches import write_patches
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.optim.search import Objective
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.partition import shard_bounds
from mpilayer.rng import stream
from mpilayer.runs.rows import Facts
from mpilayer.runs.session import Session
from mpilayer.runs.sparse import make_cost
from mpilayer.train.sparse.cost import ShardedCost, make_model, start_weights

MODES = ("average", "exact", "exact-fused")

ONE_RANK = "1 rank"
"""Name of the candidate in which rank 0 has all rows, and the others sleep."""

TOLERANCE = 1e-4
"""Relative; all candidates must find the same cost and gradient to this."""

_ROWS_IN_A_TURN = 1_000_000


def compare_costs(
    rows: Array32, threads: int, rounds: int, say: Say = silent
) -> Comparison:
    """Time cost and gradient in one process; seconds of one evaluation.

    Candidates: ``gemm`` (the five matrix products, nothing else), ``mpilayer`` with
    each kind of sparsity term and with float64, ``torch`` in both types where it is
    installed, and plain ``numpy``.

    Parameters
    ----------
    rows : ndarray (n_samples, n_visible)
        What the cost is of.
    threads : int
        BLAS threads, and PyTorch's.
    rounds : int
        That count.
    say : callable
        Receives a line a round.

    Raises
    ------
    RuntimeError
        The candidates do not compute the same.
    """
    config = SparseConfig()
    model = make_model(config, rows.shape[1])
    start_weights(model, config)
    position = model.parameters.vector
    with threadpool_limits(threads):
        costs = candidates(rows, config, threads)
        check_agreement(costs, position)
        n = turn_length(len(rows))
        timed = {"gemm": _repeat(products(rows, config.hidden), n)}
        for name, cost in costs.items():
            timed[name] = _repeat(_at(cost, position), n)
        return take_turns(timed, rounds, say=say)


def candidates(
    rows: Array32, config: SparseConfig, threads: int
) -> dict[str, Objective]:
    """Return all that compute cost and gradient of the same rows in this process."""
    wide = rows.astype(np.float64)
    costs: dict[str, Objective] = {}
    for mode in MODES:
        costs[f"mpilayer {mode}"] = _own(rows, replace(config, kl=mode))
    costs["mpilayer float64"] = _own(wide, replace(config, dtype="float64"))
    if rivals.has("torch"):
        costs["torch"] = sparse_rivals.torch_cost(rows, config, threads)
        costs["torch float64"] = sparse_rivals.torch_cost(wide, config, threads)
    costs["numpy float64"] = sparse_rivals.numpy_cost(wide, config)
    return costs


def check_agreement(costs: dict[str, Objective], position: AnyArray) -> None:
    """Check that all compute the same cost and gradient, to ``TOLERANCE``.

    Raises
    ------
    RuntimeError
        One does not: it would be timed for other work.
    """
    first, *_ = costs
    cost, gradient = costs[first](position)
    for name, objective in costs.items():
        other, its_gradient = objective(position)
        difference = np.linalg.norm(its_gradient - gradient)
        distance = float(difference / np.linalg.norm(gradient))
        if not max(abs(other / cost - 1), distance) <= TOLERANCE:
            raise RuntimeError(
                f"{name} must compute what {first} computes; cost {other} against "
                f"{cost}, gradient off by {distance:.1e} of its length"
            )


def products(rows: Array32, n_hidden: int) -> Callable[[], None]:
    """Return the five matrix products of cost and gradient, block by block."""
    rng = stream(0, "bench", 0)

    def random(*shape: int) -> Array32:
        return rng.random(shape, dtype=np.float32)

    n_visible = rows.shape[1]
    up, down = random(n_visible, n_hidden), random(n_hidden, n_visible)
    hidden, back = random(ROW_BLOCK, n_hidden), random(ROW_BLOCK, n_hidden)
    output = random(ROW_BLOCK, n_visible)
    up_gradient, down_gradient = np.empty_like(up), np.empty_like(down)

    def work() -> None:
        for where in row_blocks(len(rows)):
            x = rows[where]
            h, b, y = hidden[: len(x)], back[: len(x)], output[: len(x)]
            np.matmul(x, up, out=h)
            np.matmul(h, down, out=y)
            np.matmul(y, down.T, out=b)
            np.matmul(x.T, b, out=up_gradient)
            np.matmul(h.T, y, out=down_gradient)

    return work


def turn_length(n_rows: int) -> int:
    """Return the evaluations in a turn: 10, of few rows up to 100."""
    return min(max(10, _ROWS_IN_A_TURN // n_rows), 100)


def compare_ranks(
    data: Path | None, n_rows: int, ranks: int, rounds: int, folder: Path
) -> Comparison:
    """Time the modes of the sparsity term on ranks; seconds of one evaluation.

    Candidates: ``average`` (the base), ``exact`` and ``exact-fused`` on all ranks in
    turn, in one launch, and ``1 rank``, which has all rows while the others sleep. All
    with one thread a rank.

    Parameters
    ----------
    data : Path or None
        A data set; None for random rows.
    n_rows : int
        Of all ranks together.
    ranks, rounds : int
        Ranks to start, and rounds that count.
    folder : Path
        Where the rows may be put.
    """
    path = write_patches(data, n_rows, folder)
    program = [sys.executable, "-m", "mpilayer.bench.evaluations", str(path)]
    launcher = [*mpiexec(), "-n", str(ranks)]
    output = run_command([*launcher, *program, "--rounds", str(rounds)])
    return Comparison(json.loads(output))


def time_modes(
    rows: Array32, shard: Array32, session: Session, rounds: int
) -> Comparison:
    """Time the candidates of ``compare_ranks``; collective, the seconds are rank 0's.

    Parameters
    ----------
    rows : ndarray (n_samples, n_visible)
        All rows on rank 0; not used elsewhere.
    shard : ndarray
        This rank's rows. *Local.*
    session : Session
        The ranks, and whether they have cores of their own.
    rounds : int
        That count.
    """
    config, comm = SparseConfig(), session.comm
    facts = Facts(0, shard.shape[1], "bench", "")
    cost = make_cost(shard, config, facts, session)
    alone = ShardedCost(
        make_model(config, facts.n_visible), rows, config, SerialCommunicator()
    )
    position = cost.model.parameters.vector.copy()
    n = turn_length(cost.n_rows)

    def mode(name: str) -> Callable[[], float]:
        def timed() -> float:
            cost.kl = name
            comm.barrier()
            return _repeat(_at(cost, position), n)()

        return timed

    timed = {name: mode(name) for name in MODES}
    timed[ONE_RANK] = _on_rank_0(_repeat(_at(alone, position), n), comm)
    return take_turns(timed, rounds)


def _on_rank_0(work: Callable[[], float], comm: Communicator) -> Callable[[], float]:
    """Return work that rank 0 does while the others sleep; they return 0."""

    def timed() -> float:
        seconds = work() if comm.rank == 0 else 0.0
        comm.barrier()
        return seconds

    return timed


def _own(rows: AnyArray, config: SparseConfig) -> ShardedCost:
    model = make_model(config, rows.shape[1])
    return ShardedCost(model, rows, config, SerialCommunicator())


def _at(cost: Objective, position: AnyArray) -> Callable[[], object]:
    return lambda: cost(position)


def _repeat(work: Callable[[], object], times: int) -> Callable[[], float]:
    """Return a function that does the work so often and returns the mean seconds."""

    def timed() -> float:
        # Not counted: ranks leave a barrier, but not an Allreduce, one by one.
        work()
        began = perf_counter()
        for _ in range(times):
            work()
        return (perf_counter() - began) / times

    return timed


def main() -> None:
    """Time the modes on the ranks of this launch, and print the seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, required=True)
    args = parser.parse_args()
    session = Session.begin(threads=1)
    comm = session.comm
    with Dataset.open(args.data) as dataset:
        n_rows = dataset.n_samples("train")
        start, stop = shard_bounds(n_rows, comm.size)[comm.rank]
        shard = dataset.rows("train", start, stop)
        rows = dataset.rows("train") if comm.rank == 0 else shard
    comparison = time_modes(rows, shard, session, args.rounds)
    if comm.rank == 0:
        print(json.dumps(comparison.seconds))  # noqa: T201  (a program of its own)


if __name__ == "__main__":
    main()
