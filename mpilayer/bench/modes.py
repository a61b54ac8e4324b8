"""The modes of the sparsity term on ranks, in one launch; and all rows on one rank.

``mpiexec -n N python -m mpilayer.bench.modes DATA.h5 ROUNDS`` times them and prints the
seconds as JSON.
"""

import json
import sys
from functools import partial
from pathlib import Path

from mpilayer.arrays import Array32
from mpilayer.bench.launches import mpiexec, run_command
from mpilayer.bench.pairs import Comparison, repeated, take_turns
from mpilayer.bench.rows import write_patches
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.runs.session import Session
from mpilayer.train.sparse.cost import ShardedCost, cut_of, make_model

MODES = ("average", "exact", "exact-fused")

ONE_RANK = "1 rank"
"""Name of the candidate in which rank 0 has all rows, and the others sleep."""

_ROWS_IN_A_TURN = 1_000_000


def compare_modes(
    data: Path | None, n_rows: int, ranks: int, rounds: int, folder: Path
) -> Comparison:
    """Time ``MODES`` on ranks of one thread, and ``ONE_RANK``: seconds an evaluation.

    ``n_rows`` are those of all ranks, of ``data`` or random ones; ``folder`` is for
    them.
    """
    path = write_patches(data, n_rows, folder)
    program = [sys.executable, "-m", "mpilayer.bench.modes", str(path), str(rounds)]
    launcher = [*mpiexec(), "-n", str(ranks)] if ranks > 1 else []
    return Comparison(json.loads(run_command([*launcher, *program])))


def time_modes(
    rows: Array32, shard: Array32, session: Session, rounds: int
) -> Comparison:
    """Time the candidates; collective, the seconds are rank 0's.

    ``rows`` are all of them, used on rank 0 alone; ``shard`` are this rank's.
    """
    config, comm = SparseConfig(), session.comm
    cost = ShardedCost.at_start(shard, config, comm, session.eager)
    position = cost.model.parameters.vector.copy()
    # Ten evaluations in a turn, of few rows up to a hundred.
    n = min(max(10, _ROWS_IN_A_TURN // cost.n_rows), 100)
    together = repeated(lambda: cost(position), n)
    model = make_model(config, rows.shape[1])
    whole = ShardedCost(model, rows, config, SerialCommunicator())
    alone = repeated(lambda: whole(position), n)

    def in_mode(name: str) -> float:
        cost.kl = name
        comm.barrier()
        return together()

    def on_rank_0() -> float:
        seconds = alone() if comm.rank == 0 else 0.0
        comm.barrier()
        return seconds

    modes = {name: partial(in_mode, name) for name in MODES}
    return take_turns({**modes, ONE_RANK: on_rank_0}, rounds)


def main(data: str, rounds: str) -> None:
    """Time the modes on the ranks of this launch, and print the seconds."""
    session = Session.begin(threads=1)
    comm = session.comm
    with Dataset.open(Path(data)) as dataset:
        cut = cut_of(SparseConfig(), dataset.n_samples("train"), comm.size)
        shard = dataset.rows("train", *cut.rows_of(comm.rank, comm.size))
        rows = dataset.rows("train") if comm.rank == 0 else shard
    comparison = time_modes(rows, shard, session, int(rounds))
    if comm.rank == 0:
        print(json.dumps(comparison.seconds))  # noqa: T201  (a program of its own)


if __name__ == "__main__":
    main(*sys.argv[1:])
