"""Slices of a stack: which units and parameters of it a rank trains.

Steps of a stack go in pairs. The units between the two are cut into slices: columns of
the first step's W, rows of the second one's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.models.stack import Stack, Step
from mpilayer.numerics.parameters import Parameters
from mpilayer.optim.minibatch import Optimizer
from mpilayer.partition import layers_to_ranks
from mpilayer.train.groups import RowGroups
from mpilayer.train.layer import most_slices, slice_bounds
from mpilayer.train.sums import Sums


@dataclass(frozen=True)
class Pair:
    """Two steps, and how the units between them are cut.

    ``alone``: there is only the first one, the last of a stack, which is not cut.
    """

    first: int
    slices: tuple[slice, ...]
    alone: bool = False

    @property
    def second(self) -> int:
        """The other step."""
        return self.first + 1

    def name(self, kind: str, step: int, which: int) -> str:
        """Return what parameters of a slice are called; of the only one, as ever."""
        whole = f"{kind}_{step}"
        return whole if len(self.slices) == 1 else f"{whole}/{which}"


def pairs_of(steps: Sequence[Step], n_slices: int) -> list[Pair]:
    """Return the pairs of a stack's steps, first ones first."""
    pairs = []
    for k in range(0, len(steps), 2):
        n_units, alone = steps[k][1], k + 1 == len(steps)
        n = 1 if alone else min(n_slices, most_slices(n_units))
        pairs.append(Pair(k, tuple(slice_bounds(n_units, n)), alone))
    return pairs


@dataclass(frozen=True)
class Piece:
    """Weights or biases of a slice, or both: what is updated together."""

    weights: Array32  # views
    bias: Array32
    d_weights: Array32  # where their gradient goes
    d_bias: Array32
    gradient: Array32  # all of that, and its place in the vector of all
    where: slice
    shown: Array32  # where other ranks look for the bias


_NONE: Array32 = np.empty(0, np.float32)


class OwnSlices:
    """A rank's slices of a stack's parameters, in memory of their own.

    Contiguous, they are faster than columns of the whole, and so is memory that no
    other rank sees. If nothing is cut, and no rank beside this one, they are the whole.

    All ranks of the team see the parameters of the ``stack``, and those states of them
    that the optimizer of the ``whole`` holds between epochs; ``new_optimizer`` returns
    one like it for so many. Units are cut into ``n_slices``, where there are enough.
    ``sums`` are those of gradients over the teams; a step takes the part ``decay`` of
    the weights away.
    """

    def __init__(
        self,
        stack: Stack,
        whole: Optimizer,
        new_optimizer: Callable[[int], Optimizer],
        groups: RowGroups,
        n_slices: int,
    ) -> None:
        self.pairs = pairs_of(stack.steps, n_slices)
        self.sums = Sums(groups.peers, groups.eager)
        self.decay = 0.0
        self._stack, self._whole, self._team = stack, whole, groups.team
        self._regions = {
            own: (name, at) for pair in self.pairs for own, name, at in self._own(pair)
        }
        everything = stack.parameters
        shapes = {o: everything[n][at].shape for o, (n, at) in self._regions.items()}
        if shapes == everything.shapes:
            self._parameters, self.optimizer = everything, whole
        else:
            self._parameters = Parameters(shapes)
            self.optimizer = new_optimizer(self._parameters.vector.size)
        # What travels must stay as it is until it has come; else it is of no use any
        # more, and memory that is in the cache is written again.
        self._travels = groups.peers.size > 1
        size = self._parameters.vector.size
        self._gradients: Array32 = np.empty(size, np.float32)

    def mine(self, pair: Pair) -> range:
        """Return this rank's slices: neighbours, with as few units as can be."""
        if pair.alone:
            return range(int(self._has_the_rest))
        widths, team = [own.stop - own.start for own in pair.slices], self._team
        dealt = layers_to_ranks(widths, min(len(widths), team.size))
        return dealt[team.rank] if team.rank < len(dealt) else range(0)

    @property
    def _has_the_rest(self) -> bool:
        """Whether what is not cut is this rank's: the last has the fewest slices."""
        return self._team.rank == self._team.size - 1

    def _own(self, pair: Pair) -> Iterator[tuple[str, str, tuple[slice, ...]]]:
        """Yield names of this rank's parameters, of the whole, and where in that."""
        everything, k, mine = slice(None), pair.first, self.mine(pair)
        for s in mine:
            units = pair.slices[s]
            yield pair.name("weights", k, s), f"weights_{k}", (everything, units)
            yield pair.name("bias", k, s), f"bias_{k}", (units,)
        if pair.alone:
            return
        for s in mine:
            own = pair.name("weights", k + 1, s)
            yield own, f"weights_{k + 1}", (pair.slices[s],)
        if self._has_the_rest:
            yield f"bias_{k + 1}", f"bias_{k + 1}", (everything,)

    # --- from the whole, and back

    def take(self) -> None:
        """Fetch the slices from the whole. Local."""
        self.optimizer.steps = self._whole.steps
        for own, whole in self._places():
            own[...] = whole

    def give(self) -> None:
        """Bring them back; after the next barrier the whole is whole. Local."""
        self._whole.steps = self.optimizer.steps
        for own, whole in self._places():
            whole[...] = own

    def _places(self) -> Iterator[tuple[AnyArray, AnyArray]]:
        """Yield views of the same numbers here and in the whole."""
        stack, own = self._stack.parameters, self._parameters
        if own is stack:
            return
        vectors = [(own.vector, stack.vector)]
        for name, state in self.optimizer.state.items():
            vectors.append((state, self._whole.state[name]))
        for mine, whole in vectors:
            here, there = own.views(mine), stack.views(whole)
            for name, (source, at) in self._regions.items():
                yield here[name], there[source][at]

    # --- updates

    def first(self, pair: Pair, which: int) -> Piece:
        """Return weights and bias of a slice in a pair's first step."""
        names = (pair.name(kind, pair.first, which) for kind in ("weights", "bias"))
        return self._piece(*names)

    def second(self, pair: Pair, which: int) -> Piece:
        """Return the weights of a slice in a pair's second step."""
        return self._piece(pair.name("weights", pair.second, which), "")

    def biases(self, pair: Pair) -> Piece | None:
        """Return the bias of a pair's second step, if it is this rank's."""
        there = self._has_the_rest and not pair.alone
        return self._piece("", f"bias_{pair.second}") if there else None

    def _piece(self, weights: str, bias: str) -> Piece:
        own, names = self._parameters, [name for name in (weights, bias) if name]
        where = own.span(names[0], names[-1])
        start = where.start if self._travels else 0
        gradient = self._gradients[start : start + where.stop - where.start]
        views, at = {"": (_NONE, _NONE)}, 0
        for name in names:
            size = own[name].size
            slope = gradient[at : at + size].reshape(own[name].shape)
            views[name], at = (own[name], slope), at + size
        (w, d_w), (b, d_b) = views[weights], views[bias]
        shown = _NONE
        if not weights and own is not self._stack.parameters:
            shown = self._stack.parameters[bias]
        return Piece(w, b, d_w, d_b, gradient, where, shown)

    def update(self, piece: Piece) -> None:
        """Descend on a piece's gradient, once it is summed over the teams."""
        self.sums.start(piece.gradient, lambda: self._descend(piece))

    def _descend(self, piece: Piece) -> None:
        if self.decay and piece.weights.size:
            # Beside the optimizer, biases left out: Loshchilov and Hutter 2019.
            weights = piece.weights
            weights *= np.float32(1 - self.decay)
        vector = self._parameters.vector
        self.optimizer.update(vector, piece.gradient, piece.where)
        if piece.shown.size:
            piece.shown[:] = piece.bias
