"""What a step or an evaluation takes over its matrix products, in one process."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from mpilayer.arrays import ROW_BLOCK, AnyArray, Array32, row_blocks
from mpilayer.bench.pairs import Candidates, repeated
from mpilayer.config import PretrainConfig, SparseConfig
from mpilayer.models.base import LayerShape
from mpilayer.optim.search import Objective
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.rng import stream
from mpilayer.train.layer import new_state
from mpilayer.train.sparse.cost import ShardedCost, make_model, start_weights

MODES = ("average", "exact", "exact-fused")
"""Kinds of sparsity term."""

_ROWS_IN_A_TURN = 1_000_000


def steps(rows: Array32, n_hidden: int, minibatch: int) -> Candidates:
    """Return what a step of CD-1 is compared with; seconds of one step.

    ``gemm`` has the matrix products of the step, nothing else; ``mpilayer`` a whole
    step as in training: gathering rows, sampling, velocity, update.
    """
    n_steps = len(rows) // minibatch
    config = PretrainConfig(layers=(n_hidden,), minibatch=minibatch)
    state = new_state(config, [LayerShape(rows.shape[1], n_hidden)], 0)
    products = _step_products(rows.shape[1], n_hidden, minibatch)
    return {
        "gemm": repeated(products, n_steps),
        "mpilayer": repeated(lambda: state.train_epoch(rows), 1, n_steps),
    }


def costs(rows: Array32, config: SparseConfig) -> dict[str, ShardedCost]:
    """Return the sparse autoencoder's cost with each sparsity term, and in float64."""
    found = {f"mpilayer {kl}": _cost(rows, replace(config, kl=kl)) for kl in MODES}
    wide = replace(config, dtype="float64")
    return found | {"mpilayer float64": _cost(rows.astype(np.float64), wide)}


def evaluations(
    rows: Array32, costs: Mapping[str, Objective], config: SparseConfig
) -> Candidates:
    """Return evaluations to compare, of their products (``gemm``) and of the costs.

    Seconds of one evaluation of cost and gradient, where training starts.
    """
    position = start(rows.shape[1], config)
    n = turn_length(len(rows))
    products = _cost_products(rows, config.hidden)
    timed = {"gemm": repeated(products, n)}
    for name, cost in costs.items():
        timed[name] = repeated(partial(cost, position), n)
    return timed


def start(n_visible: int, config: SparseConfig) -> AnyArray:
    """Return where training starts, as one vector."""
    model = make_model(config, n_visible)
    start_weights(model, config)
    return model.parameters.vector


def turn_length(n_rows: int) -> int:
    """Return the evaluations in a turn: 10, of few rows up to 100."""
    return min(max(10, _ROWS_IN_A_TURN // n_rows), 100)


def _cost(rows: AnyArray, config: SparseConfig) -> ShardedCost:
    model = make_model(config, rows.shape[1])
    return ShardedCost(model, rows, config, SerialCommunicator())


def _random(*shape: int) -> Array32:
    return stream(0, "bench", 0).random(shape, dtype=np.float32)


def _step_products(
    n_visible: int, n_hidden: int, minibatch: int
) -> Callable[[], object]:
    """Return the products of CD-1: up, down, up, and the statistics of both phases."""
    weights, gradient = _random(n_visible, n_hidden), _random(n_visible, n_hidden)
    visible, hidden = (
        _random(2 * minibatch, n_visible),
        _random(2 * minibatch, n_hidden),
    )
    sample = _random(minibatch, n_hidden)
    upper, lower = slice(None, minibatch), slice(minibatch, None)

    def products() -> None:
        np.matmul(visible[upper], weights, out=hidden[upper])
        np.matmul(sample, weights.T, out=visible[lower])
        np.matmul(visible[lower], weights, out=hidden[lower])
        np.matmul(visible.T, hidden, out=gradient)

    return products


def _cost_products(rows: Array32, n_hidden: int) -> Callable[[], object]:
    """Return the five products of cost and gradient, block by block."""
    n_visible = rows.shape[1]
    up, down = _random(n_visible, n_hidden), _random(n_hidden, n_visible)
    hidden, back = _random(ROW_BLOCK, n_hidden), _random(ROW_BLOCK, n_hidden)
    output = _random(ROW_BLOCK, n_visible)
    up_gradient, down_gradient = np.empty_like(up), np.empty_like(down)

    def products() -> None:
        for where in row_blocks(len(rows)):
            x = rows[where]
            h, b, y = hidden[: len(x)], back[: len(x)], output[: len(x)]
            np.matmul(x, up, out=h)
            np.matmul(h, down, out=y)
            np.matmul(y, down.T, out=b)
            np.matmul(x.T, b, out=up_gradient)
            np.matmul(h.T, y, out=down_gradient)

    return products
