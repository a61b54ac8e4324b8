"""Rows as estimators get them: sparse ones, and those that must change ranks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from mpilayer.arrays import ROW_BLOCK, AnyArray, row_blocks
from mpilayer.parallel.comm import Communicator, owned, wait_until
from mpilayer.parallel.team import Sketch, Team, check_room
from mpilayer.train.strata import Strata
from mpilayer.train.sums import EAGER_SECONDS

Bounds: TypeAlias = Sequence[tuple[int, int]]
"""Start and stop of each rank's rows, in rows of all ranks."""

_TAG = 11
_MESSAGE_BYTES = 256 << 20


class SparseRows:
    """Rows of a sparse matrix, made dense only where training looks at them.

    The matrix (n_samples, n_visible) is in CSR form.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self.shape: tuple[int, int] = matrix.shape
        self.dtype: np.dtype[Any] = matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: slice | AnyArray) -> Any:
        """Return some rows as an array, or sparse if they are many."""
        chosen = self._matrix[where]
        return chosen.toarray() if chosen.shape[0] <= ROW_BLOCK else SparseRows(chosen)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **_: Any
    ) -> Any:
        """Multiply with weights block by block: ``numpy.matmul`` asks for it."""
        if ufunc is not np.matmul or method != "__call__" or inputs[0] is not self:
            return NotImplemented
        weights = inputs[1]
        shape = (len(self), weights.shape[1])
        result = out[0] if out else np.empty(shape, weights.dtype)
        for where in row_blocks(len(self)):
            np.matmul(self[where], weights, out=result[where])
        return result

    def toarray(self) -> AnyArray:
        """Return all rows as an array."""
        rows: AnyArray = self._matrix.toarray()
        return rows

    def __array__(self, *_: Any, **__: Any) -> AnyArray:
        """Return all rows as an array: ``numpy.asarray`` asks for it."""
        return self.toarray()

    def take(self, indices: AnyArray, axis: int, out: AnyArray, mode: str) -> AnyArray:  # noqa: ARG002
        """Write some rows into ``out``: ``numpy.take`` asks for it."""
        self._matrix[indices].toarray(out=out)
        return out


def current_bounds(comm: Communicator, n_rows: int) -> list[tuple[int, int]]:
    """Return where each rank's rows lie among all, in rank order. Collective."""
    stops = np.cumsum(comm.allgather(n_rows)).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))


def redistribute(
    rows: Any,
    now: Bounds,
    wanted: Bounds,
    comm: Communicator,
    out: AnyArray | None = None,
) -> AnyArray:
    """Return the rows that this rank wants, from whoever has them. Collective.

    ``rows`` (n_samples, n_columns) are those that it has; ``now`` and ``wanted`` say
    what each rank has and gets, in ``out`` where given.
    """
    dense = rows.toarray() if isinstance(rows, SparseRows) else rows
    have, me = np.ascontiguousarray(dense), comm.rank
    if out is None:
        out = np.empty((wanted[me][1] - wanted[me][0], have.shape[1]), have.dtype)
    block = max(1, _MESSAGE_BYTES // max(1, have.itemsize * have.shape[1]))
    requests = []
    for peer in range(comm.size):
        target = _part(out, wanted[me], now[peer])
        source = _part(have, now[me], wanted[peer])
        if peer == me:
            target[:] = source
            continue
        for where in row_blocks(len(target), block):
            requests.append(comm.start_receive(target[where], peer, _TAG))
        for where in row_blocks(len(source), block):
            requests.append(comm.start_send(source[where], peer, _TAG))
    for request in requests:
        wait_until(request.test)
    return out


@contextmanager
def on_hosts(
    rows: Any,
    bounds: Bounds,
    comm: Communicator,
    names: Sequence[str],
    more: Callable[[Team], object],
) -> Iterator[tuple[Team, Any]]:
    """Give the ranks of this host as a team, with the rows of all ranks. Collective.

    Every host computes the same then. One rank has its rows as they are. ``names`` are
    those of the ranks' hosts; ``more`` makes what a team shares besides, to be counted.
    """
    n_rows = bounds[-1][1]
    heads = [names.index(name) for name in names]
    sketch = Sketch(names.count(names[comm.rank]))
    sketch.array((n_rows, rows.shape[1]))
    more(sketch)
    need = sketch.n_bytes if heads[comm.rank] == comm.rank else 0
    check_room(comm, need, "fit on one rank of each host")
    with (
        owned(comm.split(heads[comm.rank])) as part,
        Team(part, EAGER_SECONDS) as team,
    ):
        if comm.size > 1:
            wanted = [(0, n_rows if k == head else 0) for k, head in enumerate(heads)]
            everything = team.array((n_rows, rows.shape[1]), rows.dtype)
            own = everything[: wanted[comm.rank][1]]
            redistribute(rows, bounds, wanted, comm, own)
            rows = everything
            team.barrier()
        yield team, rows


def by_strata(
    rows: Any,
    bounds: Bounds,
    minibatch: int,
    comm: Communicator,
    numbers: Sequence[int] = (),
) -> tuple[Any, Strata]:
    """Return the rows of this rank's part in every minibatch, and which. Collective.

    Parts are dealt by the ``numbers`` of the ranks, which are their own by default.
    """
    shares = [
        Strata.of_rank(bounds[-1][1], minibatch, number, comm.size)
        for number in numbers or range(comm.size)
    ]
    if comm.size > 1:
        rows = redistribute(rows, bounds, [share.rows for share in shares], comm)
    return rows, shares[comm.rank]


def _part(rows: AnyArray, own: tuple[int, int], other: tuple[int, int]) -> AnyArray:
    """Return those of the rows of one range that another one shares."""
    start, stop = max(own[0], other[0]), min(own[1], other[1])
    return rows[start - own[0] : max(start, stop) - own[0]]
