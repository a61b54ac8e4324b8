"""What is timed beside one another computes the same."""

import numpy as np
import pytest

from mpilayer.arrays import ROW_BLOCK
from mpilayer.bench import rivals
from mpilayer.bench.evaluations import (
    candidates,
    check_agreement,
    compare_costs,
    products,
    turn_length,
)
from mpilayer.bench.patches import random_patches
from mpilayer.bench.sparse_rivals import numpy_cost, torch_cost
from mpilayer.config import SparseConfig
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.sparse.cost import ShardedCost, make_model, start_weights

CONFIG = SparseConfig(dtype="float64")
ROWS = random_patches(ROW_BLOCK + 300)
WIDE = ROWS.astype(np.float64)


def position() -> np.ndarray:
    """Return a position where every parameter matters, biases too."""
    model = make_model(CONFIG, ROWS.shape[1])
    start_weights(model, CONFIG)
    vector = model.parameters.vector
    return vector + 0.05 * np.random.default_rng(0).standard_normal(vector.size)


def assert_same(rival, tolerance):
    own = ShardedCost(make_model(CONFIG, 64), WIDE, CONFIG, SerialCommunicator())
    cost, gradient = own(position())
    found, its_gradient = rival(position())
    assert found == pytest.approx(cost, rel=tolerance)
    bound = tolerance * np.abs(gradient).max()
    np.testing.assert_allclose(its_gradient, gradient, rtol=0, atol=bound)


def test_numpy():
    assert_same(numpy_cost(WIDE, CONFIG), 1e-12)


@pytest.mark.parametrize(("rows", "tolerance"), [(WIDE, 1e-12), (ROWS, 1e-5)])
def test_torch(rows, tolerance):
    pytest.importorskip("torch")
    assert_same(torch_cost(rows, CONFIG, 1), tolerance)


def test_all_candidates_agree():
    costs = candidates(ROWS, SparseConfig(), 1)
    assert ("torch" in costs) == rivals.has("torch")
    check_agreement(costs, position())


def test_a_candidate_that_does_other_work_is_found():
    def own(dropped: float):
        config = SparseConfig(dtype="float64", weight_decay=dropped)
        return numpy_cost(WIDE, config)

    costs = {"one": own(0.002), "two": own(0.002), "other": own(0.0)}
    with pytest.raises(RuntimeError, match="other must compute what one computes"):
        check_agreement(costs, position())


def test_a_cost_that_is_no_number_does_not_agree():
    costs = {
        "one": numpy_cost(WIDE, CONFIG),
        "nan": lambda x: (np.nan, np.ones(x.size)),
    }
    with pytest.raises(RuntimeError, match="nan must compute"):
        check_agreement(costs, position())


def test_products_need_no_whole_number_of_blocks():
    products(ROWS, 30)()
    products(ROWS[:7], 30)()


def test_few_rows_have_longer_turns():
    lengths = [turn_length(n) for n in (1, 20_000, 100_000, 10**6)]
    assert lengths == [100, 50, 10, 10]


def test_everything_is_timed():
    said = []
    comparison = compare_costs(ROWS[:50], 1, 2, said.append)
    assert len(said) == 2
    assert next(iter(comparison.seconds)) == "gemm"
    assert {"mpilayer average", "numpy float64"} < set(comparison.seconds)
    for seconds in comparison.seconds.values():
        assert len(seconds) == 2
        assert min(seconds) > 0
