"""Sparse autoencoders: the sums over one shard."""

import numpy as np
import pytest

from mpilayer.arrays import ROW_BLOCK, row_blocks
from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.models.sparse import BlockSums, SparseAutoencoder, Sparsity, block_shapes
from mpilayer.numerics.parameters import Parameters
from tests.support import plain, sparse
from tests.support.sparse import TOLERANCES, UNITS, patches
from tests.support.toys import randomize

SLOPE = np.array([0.3, -0.7, 0.0, 2.0, -5.0])
ROWS = [0, 1, 7, ROW_BLOCK, 2 * ROW_BLOCK + 501]


def make(hidden="tanh", visible="tanh", dtype="float64"):
    shape = LayerShape(16, 5, visible, hidden)
    return randomize(SparseAutoencoder(shape, np.dtype(dtype).type))


FUSED = ("firing_weights", "firing_bias")


def room(model, n_blocks):
    """Return room for all that blocks add, full of what must be overwritten."""
    shapes = block_shapes(model.parameters.shapes, fused=True)
    sums = BlockSums(n_blocks, shapes, model.dtype)
    sums.table[:] = np.nan
    return sums, Parameters(shapes, np.float64)


def fire(model, rows):
    """Return the sums of the firing probabilities over all rows."""
    blocks = row_blocks(len(rows))
    sums = np.full((len(blocks), model.shape.n_hidden), np.nan, model.dtype)
    model.fire(rows, blocks, sums)
    return sums.sum(axis=0, dtype=float)


def sums_of(model, rows, slope=None, calls=None):
    """Return all sums, of one pass if there is no slope."""
    blocks = row_blocks(len(rows))
    sums, totals = room(model, len(blocks))
    if slope is None:
        model.backpropagate_fused(rows, blocks, sums)
    else:
        fire(model, rows)

        def slopes():
            if calls is not None:
                calls.append(0)
            return [slope] * len(blocks)

        model.backpropagate(rows, blocks, slopes, sums)
    totals.vector[:] = sums.table.sum(axis=0, dtype=float)
    model.finish(totals)
    return totals


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
    found = fire(model, x)
    vector = model.parameters.vector
    expected = sparse.firing(model.shape, vector, x.astype(float))
    assert_near(model.firing, expected, dtype)
    assert_near(found, expected.sum(axis=0), dtype)


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("hidden", "visible"), UNITS)
@pytest.mark.parametrize("fused", [False, True])
def test_sums_of_the_gradient(hidden, visible, dtype, n_rows, fused):
    model, x = make(hidden, visible, dtype), patches(n_rows).astype(dtype)
    before, calls = x.copy(), []
    error, expected = expected_sums(model, x.astype(float), 0.0 if fused else SLOPE)
    found = sums_of(model, x, None if fused else SLOPE, calls)
    if fused:
        assert_near(found["firing"], fire(model, x), dtype)
    else:
        assert len(calls) == (n_rows > 0)
        assert np.isnan(found["firing_weights"]).all() == (n_rows > 0)
    assert found["squared"] / 2 == pytest.approx(error, rel=TOLERANCES[dtype])
    for name in (*model.parameters, *(FUSED if fused else ())):
        assert_near(found[name], expected[name], dtype)
    np.testing.assert_array_equal(x, before)


def test_what_a_block_adds_is_its_own():
    """To the bit, whatever was computed before, and beside others with other slopes."""
    model, x = make(dtype="float32"), patches(2500).astype(np.float32)
    blocks = [slice(0, 1000), slice(1000, 1700), slice(1700, 2500)]
    slopes = [SLOPE, SLOPE, -SLOPE]
    sums, _ = room(model, 3)
    fired = np.empty((3, 5), np.float32)
    model.fire(x, blocks, fired)
    model.backpropagate(x, blocks, lambda: slopes, sums)
    for number, where in reversed(list(enumerate(blocks))):
        alone, _ = room(make(dtype="float32"), 1)
        own = np.empty((1, 5), np.float32)
        for other in (model, make(dtype="float32")):
            rows, whole = x[where].copy(), [slice(0, where.stop - where.start)]
            other.fire(rows, whole, own)
            other.backpropagate(rows, whole, lambda n=number: [slopes[n]], alone)
            np.testing.assert_array_equal(own[0], fired[number])
            np.testing.assert_array_equal(alone.table[0], sums.table[number])


def test_as_many_hidden_units_as_columns():
    shape = LayerShape(5, 5, "linear", "sigmoid")
    model, x = randomize(SparseAutoencoder(shape, np.float64)), patches(9, 5)
    sums, _ = room(model, 1)
    model.backpropagate_fused(x, [slice(0, 9)], sums)
    _, expected = expected_sums(model, x, slope=0.0)
    for name in expected:
        assert_near(sums[name][0], expected[name], "float64")


@pytest.mark.parametrize(("hidden", "gain"), [("tanh", 2), ("sigmoid", 1)])
@pytest.mark.parametrize("bias", [-20.0, -30.0, -40.0])
def test_units_that_are_nearly_off_still_fire(hidden, gain, bias):
    """In float32, where ½(1 + tanh z) is 0."""
    model = make(hidden, dtype="float32")
    model.parameters.vector[:] = 0
    model.parameters["hidden_bias"][:] = bias
    found = fire(model, np.zeros((10, 16), np.float32))
    np.testing.assert_allclose(found, 10 * np.exp(gain * bias), rtol=1e-5)


def test_units_far_out_without_warnings():
    model = make(dtype="float32")
    model.parameters["hidden_bias"][:] = [-1e4, 1e4, -1e30, 1e30, 0]
    x = np.zeros((3, 16), np.float32)
    assert fire(model, x).tolist() == [0, 3, 0, 3, 1.5]
    found = sums_of(model, x, SLOPE)
    assert np.isfinite([found[name].sum() for name in model.parameters]).all()


def test_backpropagation_needs_the_firing():
    model = make()
    sums, _ = room(model, 1)
    with pytest.raises(RuntimeError, match="fire comes before"):
        model.backpropagate(patches(3), [slice(0, 3)], lambda: [SLOPE], sums)


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
