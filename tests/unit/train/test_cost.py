"""The cost of a sparse autoencoder on one rank."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from mpilayer.arrays import ROW_BLOCK
from mpilayer.config import SparseConfig, from_values
from mpilayer.errors import TrainingError
from mpilayer.partition import shard_bounds
from mpilayer.train.sparse.cost import Evaluation, cut_of, make_model, start_weights
from tests.support import sparse
from tests.support.plain import central_differences
from tests.support.sparse import (
    MODES,
    TOLERANCES,
    UNITS,
    assert_close,
    make_cost,
    patches,
    settings,
)


@pytest.mark.parametrize("n_rows", [1, 7, ROW_BLOCK, 2 * ROW_BLOCK + 501])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("hidden", "output"), UNITS)
def test_cost_and_gradient(hidden, output, dtype, n_rows):
    """On one rank all modes are the same."""
    config = settings(activation=hidden, output=output, dtype=dtype)
    x = patches(n_rows).astype(dtype)
    cost = make_cost(config, x)
    vector = cost.model.parameters.vector.copy()
    expected = sparse.exact(cost.model.shape, vector, x.astype(float), config)
    fires = sparse.firing(cost.model.shape, vector, x.astype(float)).mean(axis=0)
    for cost.kl in MODES:
        assert_close(cost(vector), expected, TOLERANCES[dtype])
        np.testing.assert_allclose(cost.mean_activation, fires, TOLERANCES[dtype])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("hidden", "output"), UNITS)
def test_central_differences(hidden, output, mode):
    config = settings(activation=hidden, output=output, hidden=3, kl=mode)
    cost = make_cost(config, patches(11, 5))
    vector = cost.model.parameters.vector.copy()
    expected = central_differences(lambda v: cost(v)[0], vector)
    np.testing.assert_allclose(cost(vector)[1], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shards", [1, 3, 30])
@pytest.mark.parametrize("n_rows", [30, 1201])
def test_the_average_over_shards(n_rows, shards):
    """Of a few rows, too; one rank holds them all."""
    config, x = settings(shards=shards), patches(n_rows)
    cost = make_cost(config, x)
    vector = cost.model.parameters.vector.copy()
    plain = [x[a:b] for a, b in shard_bounds(n_rows, shards)]
    expected = sparse.average(cost.model.shape, vector, plain, config)
    assert_close(cost(vector), expected, 1e-12)
    exact, _ = sparse.exact(cost.model.shape, vector, x, config)
    assert cost.latest.exact_cost == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("n_rows", "hidden", "longest"),
    [
        (300, 30, 500),
        (10_000, 30, 625),
        (100_000, 30, 2000),
        (100_000, 3000, 6000),
        (100, 3000, 500),
    ],
)
def test_blocks_are_long_where_rows_or_units_are_many(n_rows, hidden, longest):
    """So that what they give, all of which is kept, is no more than the rows."""
    cut = cut_of(settings(kl="exact", hidden=hidden), n_rows, 4)
    sizes = [stop - start for start, stop in cut.blocks]
    assert len(sizes) == -(-n_rows // longest)
    assert max(sizes) <= longest
    assert len(cut.shards) == 1


def recorded(**changes):
    """Return a cost of a few rows, its position, and where its records go."""
    cost, records = make_cost(settings(**changes), patches(30)), []
    cost.on_evaluation = records.append
    return cost, cost.model.parameters.vector.copy(), records


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_is_the_caller_s(mode):
    cost, vector, _ = recorded(kl=mode)
    _, gradient = cost(vector)
    before = gradient.copy()
    _, other = cost(vector + 1)
    assert not np.shares_memory(other, gradient)
    np.testing.assert_array_equal(gradient, before)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [-20.0, -30.0, -40.0])
def test_units_that_are_nearly_off(bias, mode, dtype):
    """½(1 + tanh z) would be 0, and the cost infinite."""
    config = settings(dtype=dtype, kl=mode)
    cost = make_cost(config, patches(30), deviation=0.1)
    cost.model.parameters["hidden_bias"][:] = bias
    vector = cost.model.parameters.vector.copy()
    found, gradient = cost(vector)
    assert cost.latest.sparsity == pytest.approx(_kl_far_off(cost, config), rel=1e-5)
    assert np.isfinite(found)
    assert np.isfinite(gradient).all()
    # p · ∂KL/∂p = −ρ where p is nearly 0: the bias pulls each unit back.
    pulls = gradient[cost.model.parameters.span("hidden_bias")]
    expected = -2 * config.sparsity_weight * config.sparsity_target
    np.testing.assert_allclose(pulls, expected, rtol=1e-4)


def _kl_far_off(cost, config):
    """Return the sparsity term where p = mean of exp(2z), to rounding."""
    p = cost.model.parameters
    z = patches(30) @ p["weights"] + p["hidden_bias"]
    rho, log_p = config.sparsity_target, np.log(np.exp(2 * z).mean(axis=0))
    kl = rho * (np.log(rho) - log_p) + (1 - rho) * np.log(1 - rho)
    return config.sparsity_weight * kl.sum()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [-1e3, 1e3])
def test_units_that_never_or_always_fire_cost_infinity(mode, bias):
    """Unless there is no sparsity term."""
    for weight, value in ((0.5, np.inf), (0.0, 0.0)):
        cost, vector, _ = recorded(dtype="float32", kl=mode, sparsity_weight=weight)
        vector[cost.model.parameters.span("hidden_bias")] = bias
        found, gradient = cost(vector)
        assert cost.latest.sparsity == value
        assert np.isfinite(cost.latest.reconstruction)
        assert np.isfinite(found) == np.isfinite(cost.latest.exact_cost) == (not weight)
        assert weight or np.isfinite(gradient).all()
        assert cost.mean_activation.tolist() == [float(bias > 0)] * 5


# --- records


def test_evaluations_are_counted_and_recorded():
    cost, vector, records = recorded()
    values = []
    for cost.iteration in range(4):
        values.append(cost(vector + cost.iteration))
    numbers = [(r.evaluation, r.iteration) for r in records]
    assert numbers == [(i + 1, i) for i in range(4)]
    assert cost.evaluations == 4
    assert cost.latest is records[-1]
    for record, (value, gradient) in zip(records, values, strict=True):
        parts = record.reconstruction + record.decay + record.sparsity
        assert parts == pytest.approx(value, rel=1e-15)
        assert record.cost == value
        assert record.exact_cost == pytest.approx(value, rel=1e-15)
        assert record.gradient_norm == pytest.approx(np.linalg.norm(gradient))
        assert min(record.computing, record.allreduce, record.seconds) >= 0
    assert all(a.seconds < b.seconds for a, b in pairwise(records))


@pytest.mark.parametrize("mode", MODES)
def test_the_parts_of_the_cost(mode):
    cost, vector, _ = recorded(kl=mode)
    cost(vector)
    off = {"sparsity_weight": 0.0, "weight_decay": 0.0}
    for name, part in (("sparsity_weight", "sparsity"), ("weight_decay", "decay")):
        shape, x = cost.model.shape, patches(30)
        without, _ = sparse.exact(shape, vector, x, settings(**off))
        others = {key: 0.0 for key in off if key != name}
        value, _ = sparse.exact(shape, vector, x, settings(**others))
        assert cost.latest.reconstruction == pytest.approx(without, rel=1e-12)
        assert getattr(cost.latest, part) == pytest.approx(value - without, rel=1e-9)


def test_measuring_is_not_counted():
    cost, vector, records = recorded()
    value, _ = cost(vector)
    latest = cost.latest
    found, other = cost.measure(vector), cost.measure(vector + 1)
    assert isinstance(found, Evaluation)
    assert found.cost == value != other.cost
    assert (cost.evaluations, len(records)) == (1, 1)
    assert cost.latest is latest
    same = {k: v for k, v in asdict(found).items() if "cost" in k or "norm" in k}
    assert same == {name: getattr(latest, name) for name in same}


@pytest.mark.parametrize("mode", MODES)
def test_a_rank_that_wants_to_stop_and_a_cost_that_is_no_number(mode):
    cost, vector, records = recorded(kl=mode)
    cost(vector)
    assert not cost.stopping
    cost.time_over = lambda: True
    cost(vector)
    assert cost.stopping
    vector[3] = np.nan
    with pytest.raises(TrainingError, match="evaluation 3 found NaN") as caught:
        cost(vector)
    assert caught.value.collective
    assert [r.evaluation for r in records] == [1, 2, 3]
    assert np.isnan(records[-1].cost)


# --- the first weights


def first(n_visible=16, **changes):
    config = from_values(SparseConfig, changes)
    model = make_model(config, n_visible)
    model.parameters.vector[:] = np.nan
    start_weights(model, config)
    return model.parameters


@pytest.mark.parametrize("initial", ["positive", "symmetric"])
def test_first_weights(initial):
    """Uniform, from 0 or −bound to the bound."""
    p = first(hidden=400, initial=initial)
    for name, n_inputs in (("weights", 16), ("decode_weights", 400)):
        bound, least = np.sqrt(6 / 417), -1
        if initial == "positive":
            bound, least = 1 / np.sqrt(n_inputs), 0
        relative = p[name] / bound
        assert least <= relative.min() < least + 0.01
        assert 0.99 < relative.max() <= 1
        assert relative.mean() == pytest.approx((1 + least) / 2, abs=0.05)
    assert not np.any([*p["hidden_bias"], *p["visible_bias"]])
    one, same, other = (first(initial=initial, seed=seed) for seed in (3, 3, 4))
    assert one.digest() == same.digest() != other.digest()
    square = first(16, hidden=16, initial=initial)
    assert (square["weights"] != square["decode_weights"]).all()
