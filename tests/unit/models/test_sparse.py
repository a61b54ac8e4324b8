"""Sparse autoencoders: the sums over one shard."""

import numpy as np
import pytest

from mpilayer.arrays import ROW_BLOCK
from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.models.sparse import SparseAutoencoder, Sparsity
from mpilayer.numerics.parameters import Parameters
from tests.support import plain, sparse
from tests.support.sparse import TOLERANCES, UNITS, patches
from tests.support.toys import randomize

SLOPE = np.array([0.3, -0.7, 0.0, 2.0, -5.0])
ROWS = [0, 1, 7, ROW_BLOCK, 2 * ROW_BLOCK + 501]


def make(hidden="tanh", visible="tanh", dtype="float64"):
    shape = LayerShape(16, 5, visible, hidden)
    return randomize(SparseAutoencoder(shape, np.dtype(dtype).type))


def sums_of(model):
    """Return room for all sums, full of what must be overwritten."""
    more = {"firing_weights": (16, 5), "firing_bias": (5,)}
    sums = Parameters({**model.parameters.shapes, **more}, np.float64)
    sums.vector[:] = np.nan
    return sums


def expected_sums(model, rows, slope=SLOPE):
    """Return half the squared error, and the gradient sums, by name."""
    f, g = model.shape.hidden, model.shape.visible
    p = plain.named(model.parameters.shapes, model.parameters.vector)
    z = rows @ p["weights"] + p["hidden_bias"]
    a = plain.FUNCTIONS[f](z)
    z_out = a @ p["decode_weights"] + p["visible_bias"]
    difference = plain.FUNCTIONS[g](z_out) - rows
    delta = difference * plain.SLOPES[g](z_out)
    spread = plain.SLOPES[f](z) / (1 if f == "sigmoid" else 2)
    back = delta @ p["decode_weights"].T * plain.SLOPES[f](z) + slope * spread
    return np.sum(difference**2) / 2, {
        "weights": rows.T @ back,
        "hidden_bias": back.sum(axis=0),
        "decode_weights": a.T @ delta,
        "visible_bias": delta.sum(axis=0),
        "firing_weights": rows.T @ spread,
        "firing_bias": spread.sum(axis=0),
    }


def assert_near(found, expected, dtype):
    """Demand equal arrays, up to the precision and relative to the norm."""
    difference = np.linalg.norm(found - expected)
    assert difference <= TOLERANCES[dtype] * np.linalg.norm(expected)


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid"])
def test_firing_probabilities_add_up(hidden, dtype, n_rows):
    model, x = make(hidden, dtype=dtype), patches(n_rows).astype(dtype)
    found = model.fire(x)
    vector = model.parameters.vector
    expected = sparse.firing(model.shape, vector, x.astype(float)).sum(axis=0)
    assert found.dtype == np.float64
    assert_near(found, expected, dtype)


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("hidden", "visible"), UNITS)
@pytest.mark.parametrize("fused", [False, True])
def test_sums_of_the_gradient(hidden, visible, dtype, n_rows, fused):
    model, x = make(hidden, visible, dtype), patches(n_rows).astype(dtype)
    before, sums, calls = x.copy(), sums_of(model), []
    error, expected = expected_sums(model, x.astype(float), 0.0 if fused else SLOPE)
    if fused:
        found, fired = model.backpropagate_fused(x, sums)
        assert_near(fired, model.fire(x), dtype)
    else:
        model.fire(x)
        found = model.backpropagate(x, lambda: calls.append(0) or SLOPE, sums)
        assert len(calls) == (n_rows > 0)
        assert np.isnan(sums["firing_weights"]).all()
    assert found == pytest.approx(error, rel=TOLERANCES[dtype])
    for name in sums if fused else model.parameters:
        assert_near(sums[name], expected[name], dtype)
    np.testing.assert_array_equal(x, before)


def test_shards_of_other_sizes_do_not_disturb_each_other():
    model, sizes = make(), (2300, 7, 2300, 0, 1)
    for n_rows in sizes:
        x = patches(n_rows)
        sums = sums_of(model)
        model.fire(x)
        model.backpropagate(x, lambda: SLOPE, sums)
        _, expected = expected_sums(model, x)
        assert_near(sums["weights"], expected["weights"], "float64")


def test_as_many_hidden_units_as_columns():
    shape = LayerShape(5, 5, "linear", "sigmoid")
    model, x = randomize(SparseAutoencoder(shape, np.float64)), patches(9, 5)
    more = {"firing_weights": (5, 5), "firing_bias": (5,)}
    sums = Parameters({**model.parameters.shapes, **more}, np.float64)
    _, expected = expected_sums(model, x, slope=0.0)
    model.backpropagate_fused(x, sums)
    for name, view in sums.items():
        assert_near(view, expected[name], "float64")


@pytest.mark.parametrize(("hidden", "gain"), [("tanh", 2), ("sigmoid", 1)])
@pytest.mark.parametrize("bias", [-20.0, -30.0, -40.0])
def test_units_that_are_nearly_off_still_fire(hidden, gain, bias):
    """In float32, where ½(1 + tanh z) is 0."""
    model = make(hidden, dtype="float32")
    model.parameters.vector[:] = 0
    model.parameters["hidden_bias"][:] = bias
    found = model.fire(np.zeros((10, 16), np.float32))
    np.testing.assert_allclose(found, 10 * np.exp(gain * bias), rtol=1e-5)


def test_units_far_out_without_warnings():
    model, sums = make(dtype="float32"), sums_of(make())
    model.parameters["hidden_bias"][:] = [-1e4, 1e4, -1e30, 1e30, 0]
    x = np.zeros((3, 16), np.float32)
    assert model.fire(x).tolist() == [0, 3, 0, 3, 1.5]
    model.backpropagate(x, lambda: SLOPE, sums)
    assert np.isfinite([sums[name].sum() for name in model.parameters]).all()


def test_backpropagation_needs_the_firing():
    model = make()
    with pytest.raises(RuntimeError, match="fire comes before"):
        model.backpropagate(patches(3), lambda: SLOPE, sums_of(model))


@pytest.mark.parametrize("weight", [0.0, 0.5, 4.0])
def test_the_sparsity_term(weight):
    term, p = Sparsity(weight, 0.1), np.array([0.05, 0.1, 0.4])
    kl = 0.1 * np.log(0.1 / p) + 0.9 * np.log(0.9 / (1 - p))
    assert term.cost(p) == pytest.approx(weight * kl.sum())
    slope = plain.central_differences(term.cost, p)
    np.testing.assert_allclose(term.slope(p), slope, atol=1e-7)
    h = 1e-6
    curvature = (term.slope(p + h) - term.slope(p - h)) / (2 * h)
    np.testing.assert_allclose(term.curvature(p), curvature, rtol=1e-6)


@pytest.mark.parametrize("p", [[0.0, 0.1], [0.1, 1.0]])
def test_a_unit_that_never_or_always_fires(p):
    none, p = Sparsity(0.0, 0.1), np.array(p)
    assert Sparsity(1.0, 0.1).cost(p) == np.inf
    assert none.cost(p) == 0
    assert none.slope(p).tolist() == none.curvature(p).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("hidden", "visible", "words"),
    [
        ("relu", "tanh", "hidden activation 'relu'; choose from sigmoid, tanh"),
        ("linear", "tanh", "hidden activation 'linear'"),
        ("tanh", "relu", "output activation 'relu'; choose from sigmoid, tanh, linear"),
    ],
)
def test_units_that_are_refused(hidden, visible, words):
    with pytest.raises(ConfigError, match=words):
        SparseAutoencoder(LayerShape(3, 2, visible, hidden))
