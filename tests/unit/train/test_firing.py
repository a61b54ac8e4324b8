"""How units fire: the gap of average over exact, its bound, and dead units."""

import numpy as np
import pytest

from mpilayer.models.sparse import Sparsity
from mpilayer.train.sparse import firing
from mpilayer.train.sparse.firing import Firing, dead_units, gap_bound, level_counts
from tests.support import sparse
from tests.support.sparse import fresh_cost, make_cost, patches, settings

ROWS = patches(300)
TERM = Sparsity(4.0, 0.002)


def seldom(n_rows, n_units=6, seed=0):
    """Return firing as after training: 0.006 in the mean, a few rows near 1."""
    rng = np.random.default_rng(seed)
    return 1 / (1 + np.exp(9 - 2 * rng.laplace(0, 1, (n_rows, n_units))))


POPULATIONS = {
    "seldom": lambda n: seldom(n, 2),
    "all or nothing": lambda n: np.arange(2 * n).reshape(n, 2) % 10 < [3, 4],
    "even": lambda n: np.random.default_rng(1).uniform(0.2, 0.3, (n, 2)),
}


def gaps(fires, n_shards, times):
    """Return the gaps of shards drawn again and again, from the definition."""
    rng, rho = np.random.default_rng(7), TERM.target

    def term(p):
        kl = rho * np.log(rho / p) + (1 - rho) * np.log((1 - rho) / (1 - p))
        return TERM.weight * kl.sum(axis=-1)

    n = len(fires)
    assert n % n_shards == 0
    for _ in range(times):
        means = rng.permutation(fires).reshape(n_shards, n // n_shards, -1).mean(axis=1)
        yield term(means).mean() - term(fires.mean(axis=0))


@pytest.mark.parametrize("risk", [0.01, 0.5])
@pytest.mark.parametrize("n_shards", [2, 4])
@pytest.mark.parametrize("name", POPULATIONS)
def test_random_shards_pass_the_bound_more_seldom_than_said(
    monkeypatch, name, n_shards, risk
):
    monkeypatch.setattr(firing, "RISK", risk)
    fires = POPULATIONS[name](4000).astype(float)
    bound = gap_bound(TERM, level_counts(fires), n_shards, 4000 // n_shards)
    drawn = np.array(list(gaps(fires, n_shards, 400)))
    assert (drawn >= 0).all()
    assert np.mean(drawn > bound) <= risk
    # Nor does it hold because it says nothing: a tenth of it does not.
    assert np.mean(drawn > bound / 10) > 0.01


def test_the_bound_says_something_of_rare_firing():
    """Finite from few rows, and far below what the variance of p(1 − p) gives."""
    fires = seldom(20_000, 30)
    assert 0.004 < fires.mean() < 0.01
    counts, p = level_counts(fires), fires.mean(axis=0)
    largest = {n: gap_bound(TERM, counts, n, 20_000 // n) for n in (2, 16)}
    (drawn,) = gaps(fires, 2, 1)
    assert drawn < largest[2] < 0.02
    assert largest[16] < 0.2
    either = level_counts(np.random.default_rng(0).random(fires.shape) < p)
    assert gap_bound(TERM, either, 2, 10_000) > 2 * largest[2]
    assert gap_bound(TERM, either, 16, 1250) == np.inf


def test_counts_keep_means_and_stretch_nothing_else():
    fires = seldom(500)
    counts = level_counts(fires.astype(np.float32))
    assert counts.sum(axis=1) == pytest.approx(np.full(6, 500))
    levels = firing._LEVELS
    assert counts @ levels / 500 == pytest.approx(fires.mean(axis=0), rel=1e-6)
    squares = (fires**2).mean(axis=0)
    assert (counts @ levels**2 / 500 >= squares).all()
    assert counts @ levels**2 / 500 == pytest.approx(squares, rel=5e-3)
    ends = level_counts(np.array([[0.0], [1.0]]))
    assert (ends[0, 0], ends[0, -1], ends.sum()) == (1, 1, 2)


@pytest.mark.parametrize(
    ("term", "fires", "shards", "expected"),
    [
        (Sparsity(0.0, 0.1), seldom(3), (2, 1), 0),
        (TERM, seldom(3), (5, 0), np.inf),  # more ranks than rows
        (TERM, np.zeros((9, 1)), (3, 3), np.nan),  # a unit that never fires
    ],
)
def test_no_gap_and_no_bound(term, fires, shards, expected):
    found = gap_bound(term, level_counts(fires), *shards)
    np.testing.assert_equal(found, expected)


def test_measured_and_predicted_lie_below_the_bound():
    rows = patches(3000)
    cost = make_cost(settings(), rows, deviation=0.2)
    vector = cost.model.parameters.vector.copy()
    found = Firing(cost, vector).gap(3)
    fires, term = sparse.firing(cost.model.shape, vector, rows), cost.sparsity.cost
    parts = [term(part.mean(axis=0)) for part in np.split(fires, 3)]
    assert found.measured == pytest.approx(np.mean(parts) - term(fires.mean(axis=0)))
    assert found.predicted == pytest.approx(found.measured, rel=0.2)
    assert found.measured < found.bound < 100 * found.measured


# --- dead units


def at(cost, **values):
    """Return a position: that of the cost, with some parameters changed."""
    p = cost.model.parameters.copy()
    for name, value in values.items():
        p[name][:] = value
    return p.vector


@pytest.mark.parametrize(
    ("changes", "values", "units", "warning"),
    [
        ({}, {}, 0, ""),
        ({"activation": "sigmoid", "dtype": "float32"}, {}, 0, ""),
        ({}, {"decode_weights": [[1], [0], [1], [0], [1]]}, 2, ""),
        ({}, {"weights": 0}, 5, "all 5 hidden units are dead"),
        ({"dtype": "float32"}, {"hidden_bias": -40}, 5, "all 5 hidden units are dead"),
        ({"output": "linear"}, {"decode_weights": 0}, 5, "all 5 hidden units are dead"),
        (
            {"dtype": "float32"},
            {"hidden_bias": [0, 0, -1e3, 0, 0]},
            1,
            "the cost is infinite",
        ),
    ],
)
def test_dead_units(changes, values, units, warning):
    """Of those that the others outlive nobody is warned."""
    cost = make_cost(settings(**changes), ROWS)
    position = at(cost, **values)
    dead = dead_units(cost, position)
    assert (dead.units, dead.of) == (units, 5)
    assert dead.cost == pytest.approx(ROWS.var(axis=0).sum() / 2, rel=1e-5)
    found = dead.warning(cost.measure(position))
    assert found.startswith(warning)
    assert bool(found) == bool(warning)


@pytest.mark.parametrize("value", [0.0, 0.3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_rows_move_no_unit(value, dtype):
    cost = make_cost(settings(dtype=dtype), np.full((310, 16), value))
    dead = dead_units(cost, at(cost))
    assert (dead.units, dead.of, dead.cost) == (5, 5, 0)
    assert "rows are equal" in dead.warning(cost.measure(at(cost)))


def test_the_cost_of_dead_units_is_that_of_the_mean_row():
    config = settings(output="linear", sparsity_weight=0.0, weight_decay=0.0)
    cost = fresh_cost(config, ROWS + 0.3)
    values = {"weights": 0, "decode_weights": 0}
    position = at(cost, visible_bias=np.mean(ROWS + 0.3, axis=0), **values)
    expected = dead_units(cost, position).cost
    assert cost.measure(position).cost == pytest.approx(expected)
