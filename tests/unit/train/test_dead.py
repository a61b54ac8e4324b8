"""Hidden units that respond to nothing."""

import numpy as np
import pytest

from mpilayer.train.sparse.firing import dead_units
from tests.support.sparse import fresh_cost, make_cost, patches, settings

ROWS = patches(300)


def at(cost, **values):
    """Return a position: that of the cost, with some parameters changed."""
    p = cost.model.parameters.copy()
    for name, value in values.items():
        p[name][:] = value
    return p.vector


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid"])
def test_random_units_are_alive(hidden, dtype):
    cost = make_cost(settings(activation=hidden, dtype=dtype), ROWS)
    dead = dead_units(cost, at(cost))
    assert (dead.units, dead.of) == (0, 5)
    assert dead.warning(cost.measure(at(cost))) == ""


@pytest.mark.parametrize(
    "values",
    [{"weights": 0}, {"hidden_bias": -40}, {"decode_weights": 0}],
    ids=str,
)
def test_units_that_never_move_the_output_are_dead(values):
    cost = make_cost(settings(output="linear", dtype="float32"), ROWS)
    position = at(cost, **values)
    dead = dead_units(cost, position)
    assert dead.units == 5
    assert dead.cost == pytest.approx(ROWS.var(axis=0).sum() / 2, rel=1e-5)
    assert "all 5 hidden units are dead" in dead.warning(cost.measure(position))


def test_some_are_dead():
    """A unit that the others outlive is counted, and nobody is warned."""
    cost = make_cost(settings(), ROWS)
    position = at(cost, weights=cost.model.parameters["weights"] * [1, 0, 1, 0, 1])
    dead = dead_units(cost, position)
    assert dead.units == 2
    assert dead.warning(cost.measure(position)) == ""


def test_the_cost_of_dead_units_is_that_of_the_mean_row():
    config = settings(output="linear", sparsity_weight=0.0, weight_decay=0.0)
    cost = fresh_cost(config, ROWS + 0.3)
    values = {"weights": 0, "decode_weights": 0}
    position = at(cost, visible_bias=np.mean(ROWS + 0.3, axis=0), **values)
    expected = dead_units(cost, position).cost
    assert cost.measure(position).cost == pytest.approx(expected)


def test_an_infinite_cost():
    cost = make_cost(settings(dtype="float32"), ROWS)
    position = at(cost, hidden_bias=[0, 0, -1e3, 0, 0])
    dead = dead_units(cost, position)
    assert dead.units == 1
    assert "the cost is infinite" in dead.warning(cost.measure(position))
