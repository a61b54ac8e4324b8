"""The sparse cost: what is measured of an evaluation, and what ranks make of it."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.plan.ghost import Work
from mpilayer.plan.links import Links
from mpilayer.plan.measured import Measured
from mpilayer.plan.model import Cost, Model
from mpilayer.plan.pieces import Pieces, random_rows
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.sparse.cost import Evaluation, ShardedCost, cut_of
from mpilayer.train.sparse.descent import Descent

_MOST_ROWS, _FEW_ROWS = 60_000, 500
_EVALUATIONS = 70  # until L-BFGS remembers as much as it will


def _evaluations(config: SparseConfig, rows: AnyArray) -> list[Evaluation]:
    """Descend on rows; return what each evaluation took."""
    told: list[Evaluation] = []
    cost = ShardedCost.at_start(rows, config, SerialCommunicator())
    with (
        tempfile.TemporaryDirectory() as folder,
        MetricsWriter(Path(folder) / "plan.jsonl") as writer,
    ):

        def note(evaluation: Evaluation) -> None:
            writer.write(asdict(evaluation))
            told.append(evaluation)

        cost.on_evaluation = note
        for _ in Descent(cost, config).states():
            pass
    return told


def _between(told: Sequence[Evaluation]) -> float:
    """Return the seconds from one evaluation to the next, at the end."""
    gaps = [after.seconds - before.seconds for before, after in pairwise(told)]
    return median(gaps[len(gaps) // 2 :]) if gaps else told[0].computing


def _computing(told: Sequence[Evaluation]) -> float:
    return median(evaluation.computing for evaluation in told[1:] or told)


def _cost_company(config: SparseConfig, shape: tuple[int, int]) -> Work:
    rows = random_rows(*shape).astype(config.dtype)
    cost = ShardedCost.at_start(rows, config, SerialCommunicator())
    position = cost.model.parameters.vector.copy()
    return lambda: cost(position)


def measure_cost(pieces: Pieces, config: SparseConfig, dataset: Dataset) -> None:
    """Time what rows, blocks of rows, evaluations and steps of descent take."""
    n = min(dataset.n_samples("train"), _MOST_ROWS)
    rows = dataset.rows("train", 0, n).astype(config.dtype)
    whole = replace(config, shards=1, evaluations=_EVALUATIONS, iterations=0)
    whole = replace(whole, gradient_norm=0.0, decrease=0.0)
    steps = config.optimizer == "sgd"
    plain = replace(whole, optimizer="lbfgs") if steps else whole
    few = replace(plain, evaluations=12)
    small, blocks = min(n, _FEW_ROWS), len(cut_of(plain, n, 1).blocks)
    first = _evaluations(plain, rows[:small])
    taken = _computing(_evaluations(few, rows))
    # As many rows in more blocks.
    more = min(n, 4 * blocks)
    cut = _computing(_evaluations(replace(few, kl="average", shards=more), rows))
    block = max(0.0, cut - taken) / max(1, more - blocks)
    part = small / n
    fixed = _computing(first) - block - part * (taken - blocks * block)
    fixed = max(1e-9, fixed / (1 - part) if part < 1 else 0.0)
    row = max(taken - blocks * block - fixed, 0.1 * taken) / n
    pieces.numbers |= {"row": row, "block": block}
    between = _between(first) - _computing(first)
    pieces.numbers["evaluation"] = fixed + max(0.0, between)
    if steps:
        times = min(400, n // config.minibatch)
        run = replace(whole, evaluations=4, measure_every=times * config.minibatch)
        told = _evaluations(run, rows)
        left = median(b.seconds - a.seconds - b.computing for a, b in pairwise(told))
        pieces.numbers["step"] = max(1e-9, left / times)
    pieces.beside(_cost_company, plain, rows.shape)


class Sparse(Model):
    """The cost over all ranks; by sgd the steps, which every rank makes."""

    def __init__(self, measured: Measured, links: Links, config: SparseConfig) -> None:
        super().__init__(measured, links)
        self.config = config
        v, h = int(measured.data["n_visible"]), config.hidden
        self._numbers = 2 * v * h + v + h

    def useful(self) -> int:
        """See ``Model``."""
        return len(cut_of(replace(self.config, shards=1), self.n_train, 1).blocks)

    def cost(self, hosts: Sequence[str], option: str = "") -> Cost:  # noqa: ARG002
        """See ``Model``."""
        config, numbers, n = self.config, self.measured.numbers, len(hosts)
        there = len(set(hosts))
        cut = cut_of(config, self.n_train, n)
        start, stop = cut.rows_of(0, n)
        blocks = -(-len(cut.blocks) // n)
        slow = self.slower(-(-n // there), there)
        rows = numbers["row"] * (stop - start) * slow
        summing = numbers["block"] * blocks * slow
        fixed = numbers["evaluation"] * slow
        sent = self._numbers * (3 if config.kl == "exact-fused" else 1)
        arrays = [sent, config.hidden] if config.kl == "exact" else [sent]
        total = partial(self.links.allreduce, n_ranks=n, n_hosts=there)
        sums = sum(total(factor * size) for size in arrays for factor in (2, 8))
        times = config.evaluations
        seconds = times * (rows + summing + fixed + sums)
        parts = {"rows": rows, "sums of blocks": summing}
        parts |= {"optimizer": fixed, "sums over ranks": sums}
        messages = times * sums
        if config.optimizer == "sgd":
            met = (times - 1) * (config.measure_every or self.n_train)
            steps = met / config.minibatch * numbers["step"] * slow
            told = 4 * self.measured.data["n_visible"] * 1000
            swapped = met / 1000 * total(told)
            seconds, messages = seconds + steps + swapped, messages + swapped
            parts["steps of descent"] = steps / times
            parts["exchange of rows"] = swapped / times
        item = np.dtype(config.dtype).itemsize
        own = item * (stop - start) * int(self.measured.data["n_visible"])
        own += item * blocks * self._numbers + self.measured.base_bytes
        return Cost(
            f"{stop - start} rows",
            seconds,
            messages,
            own,
            -(-n // there) * own,
            max(parts, key=lambda name: parts[name]),
            messages,
        )
