"""The sparse autoencoder once more, plainly and slowly; and its toy data."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mpilayer.config import SparseConfig
from mpilayer.models.base import LayerShape
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.train.sparse import ShardedCost, make_model, start_weights
from mpilayer.train.strata import Strata
from tests.support.plain import FUNCTIONS, SLOPES, named
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


def one_pass(
    shape: LayerShape, vector, mean, rows, config: SparseConfig, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return parameters and running mean after a pass of descent on minibatches."""
    vector, mean = np.array(vector), np.array(mean)
    bias = named(shapes(shape), vector)["hidden_bias"]
    rate, size = config.learning_rate, config.minibatch
    no_sparsity = replace(config, sparsity_weight=0.0)
    strata = Strata.of_rank(len(rows), size, 0, 1)
    for chosen in strata.minibatches(config.seed, number, size):
        x, kept = rows[chosen], config.memory ** len(chosen)
        mean = kept * mean + (1 - kept) * firing(shape, vector, x).mean(axis=0)
        vector -= rate * exact(shape, vector, x, no_sparsity)[1]
        bias -= rate * config.sparsity_weight * (mean - config.sparsity_target)
    return vector, mean


def assert_close(
    found: tuple[float, np.ndarray],
    expected: tuple[float, np.ndarray],
    tolerance: float,
) -> None:
    """Demand equal costs and gradients, the latter relative to the norm."""
    assert abs(found[0] - expected[0]) <= tolerance * abs(expected[0])
    difference = np.linalg.norm(found[1] - expected[1])
    assert difference <= tolerance * np.linalg.norm(expected[1])
