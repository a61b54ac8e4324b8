"""One step of contrastive divergence against its matrix products, and rivals."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mpilayer.bench import rivals
from mpilayer.bench.pairs import Comparison, Say, silent, take_turns
from mpilayer.config import PretrainConfig
from mpilayer.models.base import LayerShape
from mpilayer.rng import stream
from mpilayer.train.layer import new_state


def compare_steps(
    n_visible: int,
    n_hidden: int,
    minibatch: int,
    threads: int,
    rounds: int,
    steps: int = 50,
    say: Say = silent,
) -> Comparison:
    """Time CD-1 steps; seconds of one step of each candidate.

    Candidates: ``gemm`` (the matrix products of the step, nothing else), ``mpilayer``
    (a whole step as in training: gathering rows, sampling, velocity, update) and, where
    they are installed, ``torch`` and ``scikit-learn`` doing the same.
    """
    rows = stream(0, "bench").random((steps * minibatch, n_visible), dtype=np.float32)
    candidates: dict[str, Callable[[], float]] = {
        "gemm": _per_step(_gemms(n_visible, n_hidden, minibatch), steps),
        "mpilayer": _epoch(rows, n_hidden, minibatch, steps),
    }
    if rivals.has("torch"):
        work = rivals.torch_steps(rows, n_hidden, minibatch, threads)
        candidates["torch"] = _timed(work, steps)
    if rivals.has("sklearn"):
        work = rivals.sklearn_steps(rows, n_hidden, minibatch)
        candidates["scikit-learn"] = _timed(work, steps)
    with threadpool_limits(threads):
        return take_turns(candidates, rounds, say=say)


def _gemms(n_visible: int, n_hidden: int, minibatch: int) -> Callable[[], None]:
    """Return the products of CD-1: up, down, up, and the statistics of both phases."""
    rng = stream(0, "bench")

    def random(*shape: int) -> Any:
        return rng.random(shape, dtype=np.float32)

    weights, gradient = random(n_visible, n_hidden), random(n_visible, n_hidden)
    visible, hidden = random(2 * minibatch, n_visible), random(2 * minibatch, n_hidden)
    sample = random(minibatch, n_hidden)
    upper, lower = slice(None, minibatch), slice(minibatch, None)

    def products() -> None:
        np.matmul(visible[upper], weights, out=hidden[upper])
        np.matmul(sample, weights.T, out=visible[lower])
        np.matmul(visible[lower], weights, out=hidden[lower])
        np.matmul(visible.T, hidden, out=gradient)

    return products


def _epoch(rows: Any, n_hidden: int, minibatch: int, steps: int) -> Callable[[], float]:
    config = PretrainConfig(layers=(n_hidden,), minibatch=minibatch)
    state = new_state(config, [LayerShape(rows.shape[1], n_hidden)], 0)
    return _timed(lambda: state.train_epoch(rows), steps)


def _per_step(work: Callable[[], object], steps: int) -> Callable[[], float]:
    def repeat() -> None:
        for _ in range(steps):
            work()

    return _timed(repeat, steps)


def _timed(work: Callable[[], object], steps: int) -> Callable[[], float]:
    def timed() -> float:
        began = perf_counter()
        work()
        return (perf_counter() - began) / steps

    return timed
