"""The sparse autoencoder once more, plainly and slowly; and its toy data."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count, pairwise

import numpy as np
import pytest

from mpilayer.config import SparseConfig
from mpilayer.models.base import LayerShape
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.train.sparse import cost as cost_module
from mpilayer.train.sparse.cost import ShardedCost, cut_of, make_model, start_weights
from mpilayer.train.strata import Strata
from tests.support.plain import FUNCTIONS, SLOPES, named
from tests.support.together import SPLITS
from tests.support.toys import randomize

SERIAL = SerialCommunicator()
MODES = ("average", "exact", "exact-fused")
UNITS = [(f, g) for f in ("tanh", "sigmoid") for g in ("tanh", "sigmoid", "linear")]
# What a float32 or float64 result may differ by, relative to its norm.
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def settings(**changes) -> SparseConfig:
    """Return a configuration whose three terms are of one size on toy data."""
    usual = {
        "hidden": 5,
        "weight_decay": 0.01,
        "sparsity_weight": 0.5,
        "sparsity_target": 0.1,
        "dtype": "float64",
        "measure_every": 0,
    }
    return SparseConfig(**usual | changes)


def patches(n_rows: int, n_columns: int = 16, seed: int = 0) -> np.ndarray:
    """Return float64 rows as of whitened images: mean 0, a few strong causes."""
    rng = np.random.default_rng(seed)
    causes = rng.laplace(0, 0.15, (n_rows, 6))
    patterns = np.random.default_rng(99).standard_normal((6, n_columns))
    return causes @ patterns + 0.05 * rng.standard_normal((n_rows, n_columns))


def make_cost(
    config: SparseConfig,
    rows: np.ndarray,
    comm: Communicator = SERIAL,
    deviation: float = 0.5,
) -> ShardedCost:
    """Return the cost of these rows of this rank; the model has random weights."""
    model = randomize(make_model(config, rows.shape[1]), deviation=deviation)
    return ShardedCost(model, rows.astype(config.dtype), config, comm)


def dealt(
    rows: np.ndarray, config: SparseConfig, ranks: int, split: str = "even"
) -> list[np.ndarray]:
    """Return each rank's rows: whole blocks, as many as the split says."""
    blocks = [rows[a:b] for a, b in cut_of(config, len(rows), ranks).blocks]
    stops = np.cumsum([0, *SPLITS[split](len(blocks), ranks)])
    own = [blocks[a:b] for a, b in pairwise(stops)]
    return [np.concatenate(parts) if parts else rows[:0] for parts in own]


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut even a few rows into blocks: about sixteen."""
    monkeypatch.setattr(cost_module, "_FEW_ROWS", 1)


def fresh_cost(
    config: SparseConfig, rows: np.ndarray, comm: Communicator = SERIAL
) -> ShardedCost:
    """Return the cost as training begins with it."""
    cost = make_cost(config, rows, comm)
    start_weights(cost.model, config)
    return cost


def shapes(shape: LayerShape) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the parameters, in their order."""
    return {
        "weights": (shape.n_visible, shape.n_hidden),
        "hidden_bias": (shape.n_hidden,),
        "decode_weights": (shape.n_hidden, shape.n_visible),
        "visible_bias": (shape.n_visible,),
    }


def firing(shape: LayerShape, vector, rows) -> np.ndarray:
    """Return every unit's firing probability on every row."""
    p = named(shapes(shape), vector)
    a = FUNCTIONS[shape.hidden](rows @ p["weights"] + p["hidden_bias"])
    return a if shape.hidden == "sigmoid" else (1 + a) / 2


def exact(
    shape: LayerShape, vector, rows, config: SparseConfig
) -> tuple[float, np.ndarray]:
    """Return the cost of all rows together, and its gradient."""
    p, x, m = named(shapes(shape), vector), np.asarray(rows, np.float64), len(rows)
    f, g = shape.hidden, shape.visible
    z = x @ p["weights"] + p["hidden_bias"]
    a = FUNCTIONS[f](z)
    z_out = a @ p["decode_weights"] + p["visible_bias"]
    y = FUNCTIONS[g](z_out)
    rho, fires = config.sparsity_target, firing(shape, vector, x).mean(axis=0)
    kl = rho * np.log(rho / fires) + (1 - rho) * np.log((1 - rho) / (1 - fires))
    squares = sum(np.sum(p[name] ** 2) for name in ("weights", "decode_weights"))
    cost = (
        np.sum((y - x) ** 2) / (2 * m)
        + config.weight_decay / 2 * squares
        + config.sparsity_weight * np.sum(kl)
    )
    delta = (y - x) * SLOPES[g](z_out) / m
    pull = config.sparsity_weight * ((1 - rho) / (1 - fires) - rho / fires)
    pull *= 1 if f == "sigmoid" else 0.5
    back = (delta @ p["decode_weights"].T + pull / m) * SLOPES[f](z)
    gradient = (
        x.T @ back + config.weight_decay * p["weights"],
        back.sum(axis=0),
        a.T @ delta + config.weight_decay * p["decode_weights"],
        delta.sum(axis=0),
    )
    return float(cost), np.concatenate([part.ravel() for part in gradient])


def average(
    shape: LayerShape, vector, shards: Sequence[np.ndarray], config: SparseConfig
) -> tuple[float, np.ndarray]:
    """Return the mean of the shards' costs, weighted by rows, and its gradient."""
    shards = [shard for shard in shards if len(shard)]
    costs = [exact(shape, vector, shard, config) for shard in shards]
    parts = np.array([len(shard) for shard in shards]) / sum(map(len, shards))
    gradient = sum(part * found[1] for part, found in zip(parts, costs, strict=True))
    return float(parts @ [found[0] for found in costs]), gradient


def plain_descent(
    shape: LayerShape, vector, mean, rows, config: SparseConfig
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield parameters, running mean and rows met, where the whole cost is measured."""
    vector, mean, done, size = np.array(vector), np.array(mean), 0, config.minibatch
    every = config.measure_every or len(rows)
    total = (config.evaluations - 1) * every
    rho, gain = config.sparsity_target, 1 if shape.hidden == "sigmoid" else 2
    no_sparsity = replace(config, sparsity_weight=0.0)
    strata = Strata.of_rank(len(rows), size, 0, 1)
    passes = (strata.minibatches(config.seed, n, size) for n in count())
    for chosen in chain.from_iterable(passes):
        if done >= total:
            return
        x, n, rate = (
            rows[chosen],
            len(chosen),
            config.learning_rate * (1 - done / total),
        )
        s, kept = firing(shape, vector, x), config.memory**n
        mean = kept * mean + (1 - kept) * s.mean(axis=0)
        gradient = exact(shape, vector, x, no_sparsity)[1]
        part = named(shapes(shape), gradient)
        if config.sgd_sparsity == "bias":
            part["hidden_bias"] += config.sgd_bias_weight * (mean - rho)
        else:
            pull = config.sparsity_weight * ((1 - rho) / (1 - mean) - rho / mean)
            delta = pull * gain * s * (1 - s)
            part["weights"] += x.T @ delta / n
            part["hidden_bias"] += delta.mean(axis=0)
        vector -= rate * gradient
        done += n
        if done // every > (done - n) // every:
            yield vector.copy(), mean, done


def assert_close(
    found: tuple[float, np.ndarray],
    expected: tuple[float, np.ndarray],
    tolerance: float,
) -> None:
    """Demand equal costs and gradients, the latter relative to the norm."""
    assert abs(found[0] - expected[0]) <= tolerance * abs(expected[0])
    difference = np.linalg.norm(found[1] - expected[1])
    assert difference <= tolerance * np.linalg.norm(expected[1])
