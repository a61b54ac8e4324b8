"""A layer trained on rows that stay on their ranks, with the steps of one rank."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.estimators.rows import Bounds
from mpilayer.models.base import Layer
from mpilayer.parallel.comm import Communicator, wait_until
from mpilayer.train.layer import LayerState

_EAGER_SECONDS = 0.02
_SIZES = 16
"""A layer keeps buffers for every size of minibatch; after so many sizes it gives way
to one without."""


class SharedTraining:
    """Epochs of a layer over the rows of all ranks. Collective.

    Every minibatch is that of one rank with all rows in rank order. Each rank adds up
    the gradient over the rows that it has, and one Allreduce sums the gradients: so
    results agree with one rank's to rounding. Shares of a minibatch vary a little.

    Parameters
    ----------
    state : LayerState
        Equal on all ranks; trained in place.
    fresh : callable
        Returns an untrained layer of the same shape.
    bounds : sequence of (int, int)
        Start and stop of each rank's rows.
    comm : Communicator
        All ranks.

    Notes
    -----
    In contrastive divergence every rank draws the random numbers of the whole minibatch
    and uses those of its rows. A rounding error can turn a sample over: about one in
    ten million.
    """

    def __init__(
        self,
        state: LayerState,
        fresh: Callable[[], Layer],
        bounds: Bounds,
        comm: Communicator,
    ) -> None:
        self._state, self._fresh, self._comm = state, fresh, comm
        self._start, self._stop = bounds[comm.rank]
        self._n_rows = bounds[-1][1]
        self._gradient: Array32 = np.empty_like(state.layer.parameters.vector)
        self._sizes: set[int] = set()

    @np.errstate(over="ignore", invalid="ignore")
    def train_epoch(self, rows: AnyArray) -> None:
        """Pass once over all rows in a new random order.

        Parameters
        ----------
        rows : ndarray (n_samples, n_visible)
            Those of this rank. *Local.*
        """
        everything = slice(0, self._gradient.size)
        for chosen, rng in self._state.minibatches(self._n_rows):
            self._add_up(rows, chosen, rng)
            request = self._comm.start_sum(self._gradient)
            wait_until(request.test, eager=_EAGER_SECONDS)
            self._state.descend(everything, self._gradient)

    def _add_up(
        self, rows: AnyArray, chosen: AnyArray, rng: np.random.Generator
    ) -> None:
        """Write the gradient over this rank's part of a minibatch."""
        own = np.flatnonzero((self._start <= chosen) & (chosen < self._stop))
        layer = self._layer(len(own))
        minibatch = layer.minibatch(len(own))
        np.take(rows, chosen[own] - self._start, axis=0, out=minibatch, mode="clip")
        numbers = cast(np.random.Generator, _OwnNumbers(rng, len(chosen), own))
        scale = self._state.settings.learning_rate / len(chosen)
        layer.gradient(minibatch, numbers, scale, self._keep)

    def _keep(self, where: slice, gradient: Array32) -> None:
        self._gradient[where] = gradient

    def _layer(self, size: int) -> Layer:
        """Return the layer, with buffers for not too many sizes."""
        self._sizes.add(size)
        if len(self._sizes) > _SIZES:
            layer = self._fresh()
            layer.parameters = self._state.layer.parameters
            self._state.layer, self._sizes = layer, {size}
        return self._state.layer


class _OwnNumbers:
    """A generator that draws for a whole minibatch and gives those of some rows."""

    def __init__(self, rng: np.random.Generator, n_rows: int, own: AnyArray) -> None:
        self._rng, self._n_rows, self._own = rng, n_rows, own

    def random(self, out: Array32, dtype: Any) -> None:
        """Fill ``out`` with uniform numbers."""
        everything = np.empty((self._n_rows, out.shape[1]), dtype)
        self._rng.random(out=everything, dtype=dtype)
        out[:] = everything[self._own]

    def standard_normal(self, out: Array32, dtype: Any) -> None:
        """Fill ``out`` with normal numbers."""
        everything = np.empty((self._n_rows, out.shape[1]), dtype)
        self._rng.standard_normal(out=everything, dtype=dtype)
        out[:] = everything[self._own]
