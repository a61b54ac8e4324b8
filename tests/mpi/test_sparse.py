"""The sparse autoencoder on several ranks: what one process would compute."""

import hashlib
import time
from dataclasses import astuple

import numpy as np
import pytest

from mpilayer.errors import CommunicationError, TrainingError
from mpilayer.train.sparse import sgd
from mpilayer.train.sparse.cost import DIGEST_EVERY
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import Firing
from tests.support import sparse
from tests.support.sparse import (
    MODES,
    SERIAL,
    TOLERANCES,
    assert_close,
    dealt,
    fresh_cost,
    make_cost,
    patches,
    plain_descent,
    settings,
    small_blocks,
)
from tests.support.together import SPLITS, caught, together

__all__ = ["small_blocks"]
pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.usefixtures("small_blocks")]
OPTIMIZERS = ("lbfgs", "cg", "sgd")
CASES = [(7, split) for split in SPLITS] + [(1, "even"), (4501, "even")]
UNITS = [("tanh", "tanh"), ("sigmoid", "linear")]


def new_cost(comm, config, x, split="even", make=make_cost):
    """Return the cost of all rows, of which this rank has its blocks."""
    return make(config, dealt(x, config, comm.size, split)[comm.rank], comm)


def digest(state):
    """Return a text that tells the bits of a cost and gradient, or of arrays."""
    return hashlib.sha256(b"".join(np.float64(a).tobytes() for a in state)).hexdigest()


# --- cost and gradient


@pytest.mark.parametrize(("n_rows", "split"), CASES)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("hidden", "output"), UNITS)
def test_cost_and_gradient(world, hidden, output, mode, dtype, n_rows, split):
    config = settings(activation=hidden, output=output, kl=mode, dtype=dtype)
    x = patches(n_rows).astype(dtype)
    cost = new_cost(world, config, x, split)
    shape, vector = cost.model.shape, cost.model.parameters.vector.copy()
    found = cost(vector)
    same = len(set(world.allgather(digest(found))))
    plain = [x[a:b].astype(float) for a, b in cost.cut.shards]
    with together(world):
        assert len(plain) == (min(world.size, n_rows) if mode == "average" else 1)
        assert same == 1
        assert cost.n_rows == n_rows
        expected = sparse.average(shape, vector, plain, config)
        assert_close(found, expected, TOLERANCES[dtype])
        together_cost, _ = sparse.exact(shape, vector, x.astype(float), config)
        exact_cost = pytest.approx(together_cost, rel=TOLERANCES[dtype])
        assert cost.latest.exact_cost == exact_cost
        firing = sparse.firing(shape, vector, x.astype(float)).mean(axis=0)
        np.testing.assert_allclose(cost.mean_activation, firing, rtol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shards", [0, 1, 4])
@pytest.mark.parametrize("mode", MODES)
def test_the_bits_are_those_of_one_rank(world, mode, shards, dtype, split):
    """Whoever has which blocks; shards may be more than ranks, or fewer."""
    if mode == "average":
        shards = shards or 3
    config, x = settings(kl=mode, dtype=dtype, shards=shards), patches(97)
    if mode != "average":
        config = settings(kl=mode, dtype=dtype)
    alone, cost = make_cost(config, x), new_cost(world, config, x, split)
    vector = alone.model.parameters.vector.copy()
    found = [digest([*c(vector), c.mean_activation]) for c in (alone, cost)]
    costs = [(c.latest.cost, c.latest.exact_cost) for c in (alone, cost)]
    with together(world):
        assert found[0] == found[1]
        assert costs[0] == costs[1]


def test_rows_that_are_no_whole_blocks(world):
    x, config = patches(97), settings(kl="exact")
    mine = [x[:5], x[5:], *[x[:0]] * world.size][world.rank]
    with pytest.raises(RuntimeError, match="must be whole blocks"):
        make_cost(config, mine, world)


@pytest.mark.parametrize("mode", MODES)
def test_a_unit_that_is_off_on_one_rank(world, mode):
    """Its rows have p = 0; together with the others' p is above 0."""
    x = np.zeros((world.size, 16))
    x[0] = -1e3
    cost = new_cost(world, settings(kl=mode), x)
    cost.model.parameters["weights"][:] = 1.0
    found, _ = cost(cost.model.parameters.vector.copy())
    values = world.allgather(repr(found))
    with together(world):
        assert len(set(values)) == 1
        assert np.isinf(found) == (mode == "average")
        assert np.isfinite(cost.latest.exact_cost)


@pytest.mark.parametrize("split", SPLITS)
def test_the_gap_of_any_cut_is_that_of_one_process(world, split):
    config, x = settings(), patches(400)
    cost, alone = new_cost(world, config, x, split), make_cost(config, x)
    vector = cost.model.parameters.vector.copy()
    found, expected = (Firing(c, vector).gap(3) for c in (cost, alone))
    with together(world):
        assert astuple(found) == astuple(expected)
        assert 0 < found.measured < found.bound < np.inf


# --- ranks that differ


def test_a_rank_with_another_bit_is_noticed(world):
    cost = new_cost(world, settings(), patches(30))
    vector = cost.model.parameters.vector.copy()
    other = vector.copy()
    other[3] = np.nextafter(other[3], 1)
    mine = other if world.rank == world.size - 1 else vector
    found = caught(lambda: cost(mine))
    for _ in range(DIGEST_EVERY):
        cost(vector)
    later = caught(lambda: cost(mine))
    with together(world):
        for error, number in ((found, 1), (later, DIGEST_EVERY + 1)):
            kind, text, collective = error
            assert (kind, collective) == (CommunicationError, True)
            assert f"evaluation {number} rank {world.size - 1} has others" in text


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mode", MODES)
def test_one_rank_s_bad_number_stops_all(world, mode, optimizer):
    descent = new_descent(world, optimizer=optimizer, kl=mode)

    def descend():
        for state in descent.states():
            if state.iteration == 2 and world.rank == world.size - 1:
                descent.cost.rows[:] = np.nan

    found = caught(descend)
    evaluations = world.allgather(descent.cost.evaluations)
    states = world.allgather(digest(descent.state.arrays().values()))
    with together(world):
        kind, text, collective = found
        assert (kind, collective) == (TrainingError, True)
        assert f"evaluation {evaluations[0]} found NaN" in text
        assert len(set(evaluations)) == len(set(states)) == 1
        assert descent.state.iteration == 2
        assert np.isfinite(descent.state.position).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mode", MODES)
def test_one_rank_s_clock_stops_all(world, mode, optimizer):
    descent = new_descent(world, optimizer=optimizer, kl=mode)
    cost, last = descent.cost, world.size - 1
    cost.time_over = lambda: world.rank == last and cost.evaluations >= 5
    states = len(list(descent.states()))
    found = world.allgather((states, cost.evaluations, descent.stopped_by))
    with together(world):
        assert found == [(states, 5, "time")] * world.size


# --- descent


def new_descent(comm, x=None, **changes):
    """Return a descent from the first weights."""
    usual = {"memory": 0.99, "minibatch": 20, "kl": "exact", "output": "linear"}
    config = settings(**usual | changes)
    x = patches(120) if x is None else x
    return Descent(new_cost(comm, config, x, make=fresh_cost), config)


def alone(world, **changes):
    """Return the last state of one rank, on all."""

    def descend():
        *_, last = new_descent(SERIAL, **changes).states()
        return last

    return world.on_root(descend)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_descents_end_where_one_rank_does(world, optimizer, mode, dtype):
    """To the bit, until nothing lowers the cost any more or after many evaluations."""
    changes = {"optimizer": optimizer, "kl": mode, "evaluations": 100, "dtype": dtype}
    changes |= {"shards": 4 * (mode == "average"), "decrease": 1e-9}
    expected = alone(world, **changes)
    *_, last = new_descent(world, **changes).states()
    same = set(world.allgather(digest(last.arrays().values())))
    with together(world):
        assert same == {digest(expected.arrays().values())}
        assert last.numbers() == expected.numbers()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_descents_that_change_their_ranks(world, optimizer, mode):
    """Interrupted on one rank, resumed on all: as if nothing had been."""
    changes = {"optimizer": optimizer, "kl": mode, "evaluations": 30}
    changes |= {"shards": 3 * (mode == "average")}
    expected = alone(world, **changes)

    def begin():
        first = new_descent(SERIAL, **changes)
        for state in first.states():
            if state.iteration == 7:
                return first.arrays(), first.numbers()
        raise AssertionError("no seventh iteration")

    saved, later = world.on_root(begin), new_descent(world, **changes)
    later.restore(*saved)
    *_, last = later.states()
    same = set(world.allgather(digest(last.arrays().values())))
    with together(world):
        assert same == {digest(expected.arrays().values())}


@pytest.mark.parametrize("n_rows", [7, 120])
def test_a_descent_of_the_average(world, n_rows):
    changes = {"kl": "average", "evaluations": 60, "x": patches(n_rows)}
    expected = alone(world, **changes | {"kl": "exact"})
    descent = new_descent(world, **changes)
    states = list(descent.states())
    same = set(world.allgather(digest(states[-1].arrays().values())))
    with together(world):
        assert len(same) == 1
        assert states[-1].cost < 0.9 * states[0].cost
        assert states[-1].cost > 0.99 * expected.cost


@pytest.mark.parametrize(
    ("minibatch", "rule", "dtype", "tolerance"),
    [
        (1, "bias", "float64", 1e-11),
        (3, "gradient", "float64", 1e-11),
        (7, "bias", "float64", 1e-11),
        (7, "gradient", "float32", 1e-4),
        (120, "gradient", "float64", 1e-11),
    ],
)
def test_stochastic_descent(world, minibatch, rule, dtype, tolerance):
    """The steps of one rank, to the bit; beside plain ones."""
    changes = {"optimizer": "sgd", "minibatch": minibatch, "sgd_sparsity": rule}
    changes |= {"measure_every": max(50, minibatch), "evaluations": 6, "dtype": dtype}
    expected = alone(world, **changes)
    descent = new_descent(world, **changes)
    first, *later = descent.states()
    last = later[-1]
    same = set(world.allgather(digest(last.arrays().values())))
    begin = descent.cost.model.shape, first.position, first.mean_activation
    plain = list(plain_descent(*begin, patches(120), descent.config))
    plain.append((expected.position, expected.mean_activation, last.examples))
    with together(world):
        assert same == {digest(expected.arrays().values())}
        for state, (position, mean, done) in zip([*later, last], plain, strict=True):
            assert state.examples == done
            np.testing.assert_allclose(state.position, position, atol=tolerance)
            np.testing.assert_allclose(state.mean_activation, mean, atol=tolerance)


def test_a_clock_stops_all_within_a_pass(world, monkeypatch):
    monkeypatch.setattr(sgd, "_AHEAD", 2)
    descent = new_descent(world, optimizer="sgd", minibatch=1)
    cost, calls = descent.cost, []
    cost.time_over = lambda: calls.append(0) or (world.rank == 1 and len(calls) > 20)
    states = list(descent.states())
    found = world.allgather((len(states), len(calls), descent.stopped_by))
    with together(world):
        assert set(found) == {(1, 21, "time")}


def test_a_slow_rank_is_waited_for(world):
    """Its seconds are the others' waiting."""
    cost = new_cost(world, settings(kl="exact"), patches(30))
    vector = cost.model.parameters.vector.copy()
    fire = cost.model.fire

    def slowly(*arguments):
        time.sleep(0.1)
        return fire(*arguments)

    if world.rank == 0:
        cost.model.fire = slowly
    cost(vector)
    found = cost.latest
    with together(world):
        assert (found.computing if world.rank == 0 else found.allreduce) > 0.08
