"""A minibatch through a stack and back, by slices of units and ranks of a team.

A slice's weights, and its units' activations, belong to one rank. What the second step
of a pair makes of all slices is added up in their order, each rank some rows of the
minibatch, and so, on the way back, is what the first step hands down. Every product has
the shape of its slice, whoever makes it: numbers depend on the slices, never on ranks.

Between two pairs there are two barriers each way: all slices are there; all rows are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from mpilayer.arrays import Array32, Array64
from mpilayer.config import FinetuneConfig
from mpilayer.models.base import Workspace, affine
from mpilayer.models.stack import Stack
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import output_delta, row_losses
from mpilayer.optim.minibatch import make_optimizer
from mpilayer.parallel.team import Sketch
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.groups import RowGroups
from mpilayer.train.slices import OwnSlices, Pair, pairs_of

_NONE: Array32 = np.empty(0, np.float32)

Masks = Callable[[int], Array32 | None]
"""Returns the factors (n_samples, n_in) on what enters a step; None leaves it."""


@dataclass(frozen=True)
class Minibatch:
    """Rows, as one rank meets them."""

    n: int  # of the team
    rows: slice  # this rank's among them
    entering: Array32  # (n, n_visible), the first step
    target: Array32  # of this rank's rows; of the team's if the last step is alone
    masks: Masks  # for the rows of the team


class _Slice:
    """A slice of this rank: its parameters, and what a minibatch makes of its units.

    That are the ``values``, what is ``leaving`` with dropout, and ``delta``, ∂loss/∂z.
    """

    def __init__(self, pair: Pair, number: int, own: OwnSlices) -> None:
        self.number, self.units = number, pair.slices[number]
        self.first = own.first(pair, number)
        self.second = None if pair.alone else own.second(pair, number)
        self.values = self.leaving = self.delta = _NONE


def shared_shapes(
    stack: Stack, pairs: list[Pair], n: int
) -> dict[str, tuple[int, ...]]:
    """Return what a team shares for ``n`` rows, but for parameters and their states.

    ``entering`` the first step, or where it is the last one's, ``target``; the
    ``values`` that enter a pair, and the ``deltas``, ∂loss/∂z, of what left the pair
    before; the ``parts`` of slices in either.
    """
    widths = [stack.steps[0][0], *(n_out for _, n_out, _ in stack.steps)]
    shapes: dict[str, tuple[int, ...]] = {"entering": (2, n, widths[0])}
    largest = 0
    for pair in pairs:
        into, out = widths[pair.first], widths[min(pair.second + 1, len(widths) - 1)]
        if pair.alone:
            shapes["target"] = (2, n, out)
        ends = [pair.first] * (pair.first > 0) + [pair.second + 1] * (not pair.alone)
        for k in ends:
            shapes[f"values {k}"] = shapes[f"delta {k}"] = (n, widths[k])
        for width in (into * (pair.first > 0), out * (not pair.alone)):
            largest = max(largest, len(pair.slices) * n * width)
    return {**shapes, "parts": (largest,)}


def shared_bytes(stack: Stack, config: FinetuneConfig, groups: RowGroups) -> int:
    """Return how much memory a team of several ranks shares. Local."""
    team, batch = Sketch(groups.team.size), groups.of_team(config.minibatch)
    n = batch.stop - batch.start
    n_states = len(make_optimizer(config.optimizer, 1, 1.0).state)
    shapes = shared_shapes(stack, pairs_of(stack.steps, config.slices or 1), n)
    for shape in [stack.parameters.vector.shape] * (2 + n_states) + [*shapes.values()]:
        team.array(shape)
    team.array((n,), np.float64)
    return team.n_bytes


class Backpropagation:
    """Trains a stack, minibatch by minibatch. Collective on all ranks to make.

    The ``loss`` is ``squared``, ``cross-entropy`` or ``softmax``; the ``minibatch`` has
    so many rows of all ranks.
    """

    def __init__(
        self,
        stack: Stack,
        own: OwnSlices,
        groups: RowGroups,
        loss: str,
        minibatch: int,
    ) -> None:
        self._stack, self._own, self._loss = stack, own, loss
        self._team, self._batch = groups.team, groups.of_team(minibatch)
        self._workspace = Workspace()
        n = self._batch.stop - self._batch.start
        shapes = shared_shapes(stack, own.pairs, n)
        self._shared = {name: self._team.array(size) for name, size in shapes.items()}
        self._losses: Array64 = self._team.array((n,), np.float64)
        self._peers = groups.peers
        self._slices = {
            pair.first: [_Slice(pair, number, own) for number in own.mine(pair)]
            for pair in own.pairs
        }
        self._biases = {pair.first: own.biases(pair) for pair in own.pairs}

    def meet(
        self,
        number: int,
        n: int,
        first: int,
        rows: tuple[Array32, Array32],
        masks: Masks,
    ) -> Minibatch:
        """Put this rank's rows of a minibatch where the team sees them. Local.

        It must not be more than one ahead of the one that any rank is at.

        Parameters
        ----------
        number, n, first : int
            Of the minibatch; its rows, of all ranks; the place of this rank's first one
            among these.
        rows : pair of ndarray (n_samples, n_visible), (n_samples, n_out)
            This rank's, and what should come out.
        masks : callable
            Of the rows of all ranks.
        """
        batch, (visible, target) = self._batch, rows
        stop = min(max(n, batch.start), batch.stop)
        mine = slice(first - batch.start, first - batch.start + len(visible))

        @cache
        def of_team(k: int) -> Array32 | None:
            mask = masks(k)
            return None if mask is None else mask[batch.start : stop]

        entering = self._shared["entering"][number % 2][: stop - batch.start]
        _masked(visible, of_team(0), mine, entering[mine])
        if "target" in self._shared:
            whole = self._shared["target"][number % 2][: stop - batch.start]
            whole[mine] = target
            target = whole
        return Minibatch(len(entering), mine, entering, target, of_team)

    def begin(self) -> None:
        """Let an epoch begin. Local, after all ranks of the team have had its loss."""
        self._losses[:] = 0
        self._own.sums.waited = self._team.waited = 0.0

    @property
    def waited(self) -> float:
        """Seconds that this rank has waited for others in this epoch."""
        return self._own.sums.waited + self._team.waited

    def loss(self) -> float:
        """Return the loss of all rows of all ranks in this epoch. Collective.

        At each place of the minibatches it is summed by one rank, then over places.
        """
        total = np.array([self._losses.sum()])
        return float(sum_over_ranks(self._peers, total)[0])

    def barrier(self) -> None:
        """Wait until all ranks of the team are here. Collective."""
        self._team.barrier()

    # Numbers that leave float32 are met after the epoch, in words.
    @np.errstate(over="ignore", invalid="ignore")
    def step(self, now: Minibatch, meanwhile: Callable[[], object]) -> None:
        """Descend on a minibatch that all ranks have met. Collective.

        The gradient is summed, not averaged, over the rows of all ranks (Santara et
        al. 2016 §2.2 and §4). ``meanwhile`` is called where the next one may be met.
        """
        own = self._own
        own.optimizer.start_step()
        for pair in own.pairs:
            self._forth(pair, now)
            if pair.alone:
                continue
            self._team.barrier()
            if pair.first == 0:
                meanwhile()
            self._join(pair, now)
            self._team.barrier()
        for pair in reversed(own.pairs):
            self._back(pair, now)
        own.sums.finish()

    # --- forth: x_{k+1} = f(x_k W_k + b_k)

    def _forth(self, pair: Pair, now: Minibatch) -> None:
        """Compute the units of this rank's slices, and their parts of what follows."""
        k, entering = pair.first, self._entering(pair.first, now)
        kind = self._stack.steps[k][2]
        mask = None if pair.alone else now.masks(k + 1)
        for own in self._slices[k]:
            shape = (now.n, own.units.stop - own.units.start)
            values = self._workspace.array(f"values {k} {own.number}", shape)
            own.values = affine(
                entering, own.first.weights, own.first.bias, kind, values
            )
            if own.second is None:
                own.delta = self._workspace.array(f"delta {k} {own.number}", shape)
                self._end(values, now.target, slice(0, now.n), own.delta)
                continue
            own.leaving = values
            if mask is not None:
                own.leaving = self._workspace.array(f"leaving {k} {own.number}", shape)
                np.multiply(values, mask[:, own.units], out=own.leaving)
            part = self._part(pair, own.number, "values", pair.second + 1, now.n)
            np.matmul(own.leaving, own.second.weights, out=part)

    def _join(self, pair: Pair, now: Minibatch) -> None:
        """Compute this rank's rows of what leaves a pair."""
        k, rows = pair.second + 1, now.rows
        kind = self._stack.steps[k - 1][2]
        bias = self._stack.parameters[f"bias_{k - 1}"]
        is_last = k == len(self._stack.steps)
        mask = None if is_last else now.masks(k)
        shared: Array32 = self._shared[f"values {k}"][rows]
        values = shared if mask is None else self._unmasked(k, shared)
        self._add_up(pair, "values", k, now, values)
        values += bias
        activation(kind).apply(values)
        if is_last:
            delta = self._shared[f"delta {k}"][rows]
            self._end(values, now.target, rows, delta)
        elif mask is not None:
            np.multiply(values, mask[rows], out=shared)

    def _unmasked(self, k: int, shared: Array32) -> Array32:
        """Return where this rank has what leaves a pair, before dropout."""
        return self._workspace.array(f"unmasked {k}", shared.shape)

    def _end(
        self, values: Array32, target: Array32, rows: slice, delta: Array32
    ) -> None:
        """Note the loss of some rows of the team; write scale · ∂loss/∂z."""
        kind = activation(self._stack.steps[-1][2])
        output_delta(self._loss, target, values, kind, out=delta)
        delta *= np.float32(self._own.optimizer.scale)
        self._losses[rows] += row_losses(self._loss, target, values)

    # --- back: ∂loss/∂W_k = x_kᵀ δ_k, ∂loss/∂b_k = Σ δ_k, δ_{k−1} = (δ_k W_kᵀ) f′(x_k)

    def _back(self, pair: Pair, now: Minibatch) -> None:
        """Descend on a pair of steps, and hand down what the pair below needs.

        Gradients are computed where ranks would wait: nobody else needs them.
        """
        k, team, own = pair.first, self._team, self._own
        above = _NONE if pair.alone else self._shared[f"delta {k + 2}"][: now.n]
        mask = None if pair.alone else now.masks(k + 1)
        for mine in self._slices[k]:
            if mine.second is not None:
                name = f"delta {k} {mine.number}"
                mine.delta = self._workspace.array(name, mine.values.shape)
                np.matmul(above, mine.second.weights.T, out=mine.delta)
                if mask is not None:
                    mine.delta *= mask[:, mine.units]
                activation(self._stack.steps[k][2]).times_slope(mine.values, mine.delta)
            if k:
                part = self._part(pair, mine.number, "delta", k, now.n)
                np.matmul(mine.delta, mine.first.weights.T, out=part)
        arrived = team.arrive() if k else None
        self._descend_second(pair, above)
        if arrived is not None:
            team.wait(arrived)
            self._join_back(pair, now)
            arrived = team.arrive()
        entering = self._entering(k, now)
        for mine in self._slices[k]:
            np.matmul(entering.T, mine.delta, out=mine.first.d_weights)
            np.sum(mine.delta, axis=0, out=mine.first.d_bias)
            own.update(mine.first)
        if arrived is not None:
            team.wait(arrived)

    def _descend_second(self, pair: Pair, above: Array32) -> None:
        for mine in self._slices[pair.first]:
            if mine.second is not None:
                np.matmul(mine.leaving.T, above, out=mine.second.d_weights)
                self._own.update(mine.second)
        bias = self._biases[pair.first]
        if bias is not None:
            np.sum(above, axis=0, out=bias.d_bias)
            self._own.update(bias)

    def _join_back(self, pair: Pair, now: Minibatch) -> None:
        """Compute this rank's rows of δ of what enters a pair."""
        k, rows = pair.first, now.rows
        delta: Array32 = self._shared[f"delta {k}"][rows]
        values = self._shared[f"values {k}"][rows]
        self._add_up(pair, "delta", k, now, delta)
        mask = now.masks(k)
        if mask is not None:
            delta *= mask[rows]
            values = self._unmasked(k, values)
        activation(self._stack.steps[k - 1][2]).times_slope(values, delta)

    # --- what lies between

    def _entering(self, k: int, now: Minibatch) -> Array32:
        return self._shared[f"values {k}"][: now.n] if k else now.entering

    def _part(self, pair: Pair, number: int, kind: str, k: int, n: int) -> Array32:
        """Return where a slice's part of what is between steps k − 1 and k goes."""
        # With others in the team, one of them may still read what was there before.
        if len(pair.slices) == self._team.size == 1:
            whole: Array32 = self._shared[f"{kind} {k}"][:n]
            return whole
        width = self._stack.steps[k - 1][1]
        size = n * width
        part: Array32 = self._shared["parts"][number * size : (number + 1) * size]
        return part.reshape(n, width)

    def _add_up(
        self, pair: Pair, kind: str, k: int, now: Minibatch, out: Array32
    ) -> None:
        """Add this rank's rows of the parts of all slices, in their order."""
        numbers = range(len(pair.slices))
        parts = [self._part(pair, s, kind, k, now.n)[now.rows] for s in numbers]
        if len(parts) > 1:
            np.add(parts[0], parts[1], out=out)
            for part in parts[2:]:
                out += part
        elif self._team.size > 1 or out.base is not parts[0].base:
            out[...] = parts[0]


def _masked(values: Array32, mask: Array32 | None, rows: slice, out: Array32) -> None:
    """Write what a mask leaves of some rows."""
    if mask is None:
        out[...] = values
    else:
        np.multiply(values, mask[rows], out=out)
