"""Fine-tuning: what is measured of a stack, and what ranks make of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.config import FinetuneConfig
from mpilayer.data.dataset import Dataset
from mpilayer.models.base import LayerShape
from mpilayer.models.initial import first_stack
from mpilayer.plan.ghost import Ghost, Work
from mpilayer.plan.links import Links
from mpilayer.plan.measured import Curve, Measured
from mpilayer.plan.model import Cost, Model
from mpilayer.plan.pieces import (
    BUDGET,
    STILL,
    Pieces,
    Rows,
    first_of,
    random_rows,
    some_of,
)
from mpilayer.runs.rows import classes_of, read_labels
from mpilayer.train.evaluate import targets
from mpilayer.train.finetune import FinetuneRecord, FinetuneState, finetune
from mpilayer.train.groups import RowGroups, check_ranks, most_slices_of, resolved
from mpilayer.words import count

_MANY = 10**6  # epochs


class StackWork:
    """Fine-tuning as the first rank of a team does it: epochs of so many minibatches.

    ``evaluating`` are the seconds of a validation row.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        shapes: Sequence[LayerShape],
        size: int,
        rows: tuple[Rows, Array32],
        labels: AnyArray | None = None,
    ) -> None:
        names = ["host"] * size
        config = resolved(replace(config, learning_rate=STILL), shapes, names)
        self.config = replace(config, epochs=_MANY, patience=0)
        self._groups, self._rows = RowGroups(Ghost(size), names), rows
        classes = None if labels is None else classes_of(labels, config.task)
        self._new_stack = partial(first_stack, config, shapes, None, labels, classes)
        self._wanted = None
        if labels is not None and classes is not None:
            made = targets(labels[: len(rows[0])], classes)
            self._wanted = made, made[: len(rows[1])]
        self._epochs: dict[int, Iterator[FinetuneRecord]] = {}
        self.evaluating = 0.0

    def __call__(self, steps: int) -> float:
        """Return the seconds of training in an epoch, not the first one."""
        if steps not in self._epochs:
            self._epochs[steps] = self._begin(steps)
            next(self._epochs[steps])
        record = next(self._epochs[steps])
        self.evaluating = record.evaluating / max(1, len(self._rows[1]))
        return record.training

    def _begin(self, steps: int) -> Iterator[FinetuneRecord]:
        config, (train, validation) = self.config, self._rows
        n = min(len(train), steps * config.minibatch)
        state = FinetuneState(self._new_stack(), config, self._groups.team)
        strata = self._groups.strata(n, config.minibatch)
        some = first_of(train, n)
        return finetune(state, strata, some, validation, self._groups, self._wanted)


def _stack_company(
    config: FinetuneConfig, shapes: Sequence[LayerShape], n_rows: int
) -> Work:
    rows = random_rows(n_rows, shapes[0].n_visible)
    plain = replace(config, task="autoencode")
    work = StackWork(plain, shapes, 1, (rows, rows[:1]))
    return lambda: work(min(5, max(1, n_rows // config.minibatch)))


def measure_stack(
    pieces: Pieces,
    config: FinetuneConfig,
    dataset: Dataset,
    shapes: Sequence[LayerShape],
    grid: Sequence[int],
) -> None:
    """Time steps on teams of every size, and of smaller parts of a minibatch."""
    train = some_of(dataset, config.minibatch)
    validation = np.asarray(train[: min(len(train), 500)])
    labels = read_labels(dataset, "train") if config.task != "autoencode" else None
    way = resolved(config, shapes)
    most = max(1, len(train) // config.minibatch)
    useful = [1]
    if way.parallel == "units":
        slices = {n: resolved(config, shapes, ["host"] * n).slices for n in grid}
        useful = [n for n in grid if n <= slices[n]]
    parts = [max(1, config.minibatch >> i) for i in range(1, max(grid).bit_length())]
    budget, lines = BUDGET / (len(useful) + len(parts)), {}
    for size in useful:
        work = StackWork(config, shapes, size, (train, validation), labels)
        lines[size] = pieces.line(work, most, budget)
        if size == 1:
            work(min(3, most))
            pieces.numbers["evaluate"] = work.evaluating
    fixed, steps = zip(*lines.values(), strict=True)
    pieces.curves["epoch"] = Curve(tuple(lines), fixed)
    pieces.curves["step"] = Curve(tuple(lines), steps)
    by_rows = {config.minibatch: steps[0]}
    for part in parts:
        small = replace(config, minibatch=part, parallel=way.parallel)
        work = StackWork(small, shapes, 1, (train, validation), labels)
        by_rows[part] = pieces.line(work, max(1, len(train) // part), budget)[1]
    at, seconds = zip(*sorted(by_rows.items()), strict=True)
    pieces.curves["rows"] = Curve(at, seconds)
    pieces.beside(_stack_company, config, shapes, len(train))


class Finetuning(Model):
    """A stack by teams that share units, or by ranks that share rows."""

    def __init__(
        self,
        measured: Measured,
        links: Links,
        config: FinetuneConfig,
        shapes: Sequence[LayerShape],
    ) -> None:
        super().__init__(measured, links)
        self.config, self.shapes = config, shapes
        sizes = [(s.n_visible, s.n_hidden) for s in shapes]
        steps = 2 if config.task == "autoencode" else 1
        self._numbers = steps * sum(a * b + b for a, b in sizes)
        self._n_pairs = max(1, steps * len(shapes) // 2)

    def useful(self) -> int:
        """See ``Model``."""
        config = resolved(self.config, self.shapes)
        if config.parallel == "rows":
            return max(1, config.minibatch // 100)
        return self.config.slices or most_slices_of(self.shapes, config.task)

    def cost(self, hosts: Sequence[str], option: str = "") -> Cost:  # noqa: ARG002
        """See ``Model``."""
        config = resolved(self.config, self.shapes, hosts)
        check_ranks(config, self.shapes, hosts)
        n, there = len(hosts), len(set(hosts))
        numbers, curves = self.measured.numbers, self.measured.curves
        epoch, step, by_rows = (curves[name] for name in ("epoch", "step", "rows"))
        units = config.parallel == "units"
        size = n // there if units else 1
        groups = n // size
        rows = max(1.0, config.minibatch / groups)
        share = by_rows(rows) / by_rows(config.minibatch)
        useful = min(size, config.slices)
        work = step(useful) * share * self.slower(n // there, there)
        barriers = self.barrier(size) * 4 * self._n_pairs
        n_bytes = 4 * self._numbers / useful
        summed = self.links.allreduce(n_bytes, groups, there) if groups > 1 else 0.0
        summed *= min(size, useful) if there > 1 else 1  # all ranks of a host at once
        n_steps = math.ceil(self.n_train / config.minibatch)
        evaluating = numbers["evaluate"] * math.ceil(self.n_validation / n / 500) * 500
        evaluating = min(evaluating, numbers["evaluate"] * self.n_validation)
        waiting = config.epochs * n_steps * (barriers + summed)
        seconds = waiting + config.epochs * (epoch(useful) + n_steps * work)
        seconds += (config.epochs + 1) * evaluating
        states = {"sgd": 0, "momentum": 1, "adam": 2}[config.optimizer]
        whole = 4 * self._numbers * (2 + states)
        own = whole // useful + 4 * self.n_train * self.shapes[0].n_visible // n
        own += self.measured.base_bytes
        sums = "sums over hosts" if there > 1 else "sums of gradients"
        parts = {"training": n_steps * work, "barriers": n_steps * barriers}
        parts |= {sums: n_steps * summed, "validation": evaluating}
        host = size * own + whole if units else (n // there) * (own + whole)
        how = f"{count(size, 'rank')} by units" if units else "rows"
        return Cost(
            how if there == 1 else f"{how}, {there} hosts by rows",
            seconds,
            waiting,
            own + whole,
            host,
            max(parts, key=lambda name: parts[name]),
            config.epochs * n_steps * summed,
        )
