"""What a step of contrastive divergence takes over its matrix products."""

from collections.abc import Callable

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.bench.pairs import Candidates, repeated
from mpilayer.config import PretrainConfig
from mpilayer.models.base import LayerShape
from mpilayer.rng import stream
from mpilayer.train.layer import LayerState

N_STEPS = 50  # in a turn


def steps(n_visible: int, n_hidden: int, minibatch: int) -> Candidates:
    """Return what a step of CD-1 is compared with; seconds of one step.

    ``gemm`` has the matrix products of the step, nothing else; ``mpilayer`` a whole
    step as in training: gathering rows, sampling, velocity, update.
    """
    config = PretrainConfig(layers=(n_hidden,), minibatch=minibatch)
    state = LayerState(config, [LayerShape(n_visible, n_hidden)], 0)
    rows = _random(N_STEPS * minibatch, n_visible)
    return {
        "gemm": repeated(_products(n_visible, n_hidden, minibatch), N_STEPS),
        "mpilayer": repeated(lambda: state.train_epoch(rows), 1, N_STEPS),
    }


def _random(*shape: int) -> Array32:
    return stream(0, "bench", 0).random(shape, dtype=np.float32)


def _products(n_visible: int, n_hidden: int, minibatch: int) -> Callable[[], object]:
    """Return the products of CD-1: up, down, up, and the statistics of both phases."""
    weights, gradient = _random(n_visible, n_hidden), _random(n_visible, n_hidden)
    visible = _random(2 * minibatch, n_visible)
    hidden, sample = _random(2 * minibatch, n_hidden), _random(minibatch, n_hidden)
    upper, lower = slice(None, minibatch), slice(minibatch, None)

    def products() -> None:
        np.matmul(visible[upper], weights, out=hidden[upper])
        np.matmul(sample, weights.T, out=visible[lower])
        np.matmul(visible[lower], weights, out=hidden[lower])
        np.matmul(visible.T, hidden, out=gradient)

    return products
