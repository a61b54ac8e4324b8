"""Pools: what is held at a time of rows that do not fit into memory.

Contiguous chunks are met in a new random order every epoch, some of them together as a
pool, whose rows are shuffled. While a pool is trained on, a thread reads the next one.
What is in a pool follows from settings and addresses alone, never from the ranks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from mpilayer import memory
from mpilayer.arrays import AnyArray, Array32, StoredRows, row_blocks
from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.errors import ConfigError
from mpilayer.far import FarRows, RowFile
from mpilayer.parallel.comm import wait_until
from mpilayer.parallel.team import ALONE, Team
from mpilayer.rng import stream

C = TypeVar("C", PretrainConfig, FinetuneConfig)

CHUNKS = 8
"""Chunks of a pool: a minibatch has rows of so many places."""

# What BLAS, HDF5 and threads take of an address space that is limited.
_PROCESS = 1 << 28
# Views begin at multiples of so many bytes.
_ALIGNED = 64

Minibatch: TypeAlias = tuple[Array32 | StoredRows, AnyArray, Array32 | None]
"""Rows that are held, which of them it has, and where what they make is put."""

Round: TypeAlias = Sequence[slice]
"""Which rows are held together, in the order in which they lie in the pool."""


def pool_rows(held: int, row_bytes: int, n_out: int = 0) -> int:
    """Return how many rows a pool can have if two, and their outputs, are ``held``."""
    return max(0, held - 4 * _ALIGNED) // (2 * (row_bytes + 4 * n_out))


@dataclass(frozen=True)
class Need:
    """Bytes that a rank needs for training; so many ``ranks`` are on its host.

    ``rows`` are those of its rows, and of outputs, if all stay in memory; ``weights``
    are parameters with what belongs to them.
    """

    rows: int
    weights: int
    ranks: int

    def settle(self, asked: str) -> str:
        """Return ``--memory``, decided where that is left to this machine."""
        if asked != "auto":
            return asked
        left = memory.available(self.ranks)
        if left is None or self.rows <= left:
            return "all"
        return f"{max((left - self.weights - _PROCESS) >> 21, 1)}M"

    def check(self, held: int) -> None:
        """Check that there is room for what is held of rows.

        Raises
        ------
        ConfigError
            There is not; it says how much is needed.
        """
        left, need = memory.available(self.ranks), held + self.weights
        if left is not None and need > left:
            raise ConfigError(
                "--memory must leave room for weights; with these a rank needs "
                f"{need >> 20}M, and {left >> 20}M are free. Give less --memory, start "
                "fewer ranks on a host, or use a larger machine."
            )


def check_held(
    held: int, minibatch: int, what: str, row_bytes: int, n_out: int = 0
) -> None:
    """Check that two pools of the smallest chunks, of a minibatch each, can be held.

    Raises
    ------
    ConfigError
        They cannot; it says how much is needed.
    """
    least = CHUNKS * minibatch
    if pool_rows(held, row_bytes, n_out) < least:
        need = 4 * _ALIGNED + least * 2 * (row_bytes + 4 * n_out)
        raise ConfigError(
            f"--memory must hold two pools of {CHUNKS} chunks, each of a minibatch or "
            f"more, for {what}; that is {-(-need // 1024)}K, and {held // 1024}K are "
            "given. Give more, or a smaller --minibatch."
        )


def memory_of(run: C) -> C:
    """Return a run's settings; those from before ``--memory`` have said nothing."""
    return replace(run, memory="all") if run.memory == "auto" else run


def with_memory_of(config: C, run: C) -> C:
    """Return the settings with the memory that is left open filled in from a run's."""
    return replace(config, memory=run.memory) if config.memory == "auto" else config


def held_bytes(config: PretrainConfig | FinetuneConfig, n_bytes: int) -> int:
    """Return what may be held of rows of ``n_bytes``, 0 if they all stay in memory."""
    size = memory.size_of(config.memory) or n_bytes
    return 0 if n_bytes <= size else size


def shuffled(
    rows: Array32 | StoredRows | FarRows,
    outputs: Array32 | RowFile | None,
    pool: "Pool | None",
    n_out: int,
    minibatch: int,
    address: tuple[int, int, int],
) -> Iterator[Minibatch]:
    """Yield an epoch's minibatches of rows that are in memory, or in files.

    With a ``pool``, in which outputs of ``n_out`` columns have room beside far rows, it
    is collective on the pool's team. The ``address`` is seed, layer, epoch.
    """
    seed, *where = address
    order = stream(seed, "shuffle", *where)
    held: Iterable[tuple[Array32 | StoredRows, Array32 | None]]
    if isinstance(rows, FarRows):
        if pool is None or isinstance(outputs, np.ndarray):
            raise RuntimeError("far rows without a pool, or with outputs in memory")
        most = pool_rows(pool.held, rows.row_bytes, n_out)
        size = max(1, most // (CHUNKS * minibatch)) * minibatch
        chunks = row_blocks(len(rows), size)
        turn = stream(seed, "chunks", *where).permutation(len(chunks))
        together = row_blocks(len(chunks), CHUNKS)
        rounds = [[chunks[i] for i in turn[some]] for some in together]
        held = pool.rounds(rows, rounds, outputs)
    elif isinstance(outputs, RowFile):
        raise RuntimeError("rows in memory with outputs in a file")
    else:
        held = [(rows, outputs)]
    for some, leaving in held:
        shuffled = order.permutation(len(some))
        for part in row_blocks(len(some), minibatch):
            yield some, shuffled[part], leaving


class Pool:
    """Memory for two pools of rows and of outputs. Collective on the team to make.

    ``held`` are the bytes of all; the head of the team reads and writes.
    """

    def __init__(self, team: Team, held: int) -> None:
        self._team, self._memory = team, team.array((held,), np.uint8)
        self._thread = ThreadPoolExecutor(1)
        self._under_way: list[Future[None]] = []
        self.held = held

    def rounds(
        self,
        rows: FarRows,
        rounds: Sequence[Round],
        target: RowFile | None = None,
    ) -> Iterator[tuple[Array32 | StoredRows, Array32 | None]]:
        """Yield the rows of each round, and where their outputs are to be put.

        These are written to the ``target``, all of them when this ends. What was
        yielded is lost after the next. Collective.
        """
        n_out = 0 if target is None else target.shape[1]
        views = self._views(max(map(_size, rounds)), rows, n_out)
        self._start(_read, rows, rounds[0], views[0])
        for k, some in enumerate(rounds):
            self._finish()
            # All have done with the round before, and will see this one.
            self._team.barrier()
            if target is not None and k:
                self._start(_write, target, rounds[k - 1], views[2 + (k - 1) % 2])
            if k + 1 < len(rounds):
                self._start(_read, rows, rounds[k + 1], views[(k + 1) % 2])
            n = _size(some)
            out = None if target is None else views[2 + k % 2][:n]
            yield rows.values(views[k % 2][:n]), out
        if target is not None:
            self._start(_write, target, rounds[-1], views[2 + (len(rounds) - 1) % 2])
            self._finish()

    def _views(self, most: int, rows: FarRows, n_out: int) -> list[AnyArray]:
        """Return arrays for so many rows, two, and their outputs, two, in memory."""
        views, start = [], 0
        for width, dtype in [(rows.shape[1], rows.dtype)] * 2 + [(n_out, "f4")] * 2:
            size = most * width * np.dtype(dtype).itemsize
            view = self._memory[start : start + size].view(dtype)
            views.append(view.reshape(most, width))
            start += -(-size // _ALIGNED) * _ALIGNED
        return views

    def _start(self, work: Callable[..., None], *what: Any) -> None:
        """Let the thread do what it is given after what it does; on the head."""
        if self._team.is_head:
            self._under_way.append(self._thread.submit(work, *what))

    def _finish(self) -> None:
        """Wait until what was begun is done; raise what it has raised. On the head."""
        for work in self._under_way:
            wait_until(work.done)
            work.result()
        self._under_way.clear()


def met_rows(
    rows: Array32 | StoredRows | FarRows,
    rounds: Sequence[tuple[Round, Iterator[tuple[AnyArray, int]]]],
) -> Iterator[tuple[Array32, AnyArray, int]]:
    """Yield the rows of each minibatch, their numbers, and how many all ranks have.

    Of the ``rounds`` in turn, see ``Strata``; far rows are read by this rank. Local.
    """
    if not isinstance(rows, FarRows):
        for _, steps in rounds:
            for where, n in steps:
                yield rows[where], where, n
        return
    most = max(_size(parts) for parts, _ in rounds)
    pool = Pool(ALONE, 4 * _ALIGNED + 2 * most * rows.row_bytes)
    held = pool.rounds(rows, [parts for parts, _ in rounds])
    for (some, _), (parts, steps) in zip(held, rounds, strict=True):
        pairs = [(part.start, place.start) for place, part in _places(parts)]
        starts, places = np.array(pairs, np.intp).reshape(-1, 2).T
        for where, n in steps:
            part = np.searchsorted(starts, where, side="right") - 1
            yield some[where + (places - starts)[part]], where, n


def _read(rows: FarRows, some: Round, pool: AnyArray) -> None:
    for place, part in _places(some):
        pool[place] = rows.read(part.start, part.stop)


def _write(target: RowFile, some: Round, pool: Array32) -> None:
    for place, part in _places(some):
        target.write(part.start, pool[place])


def _size(some: Round) -> int:
    return sum(part.stop - part.start for part in some)


def _places(some: Round) -> Iterator[tuple[slice, slice]]:
    """Yield where in the pool each part of a round lies, and the part."""
    at = 0
    for part in some:
        yield slice(at, at + part.stop - part.start), part
        at += part.stop - part.start
