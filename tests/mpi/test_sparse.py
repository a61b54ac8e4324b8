"""The sparse autoencoder on several ranks: what one process would compute."""

import hashlib
import time
from dataclasses import astuple, replace

import numpy as np
import pytest

from mpilayer.errors import CommunicationError, TrainingError
from mpilayer.train.sparse import sgd
from mpilayer.train.sparse.cost import DIGEST_EVERY
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import Firing
from tests.support.sparse import (
    MODES,
    SERIAL,
    TOLERANCES,
    dealt,
    fresh_cost,
    make_cost,
    patches,
    settings,
    small_blocks,
)
from tests.support.together import SPLITS, caught, together

__all__ = ["small_blocks"]
pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.usefixtures("small_blocks")]
OPTIMIZERS = ("lbfgs", "cg", "sgd")
# Shards may be more than ranks, or fewer; 0: as many.
CUTS = [("average", 0), ("average", 1), ("average", 4), ("exact", 0)]
CUTS += [("exact-fused", 0)]
CASES = [(97, split, *cut) for split in SPLITS for cut in CUTS]
CASES += [(n, "even", *cut) for n in (1, 7, 4501) for cut in CUTS if cut[1] < 4]


def new_cost(comm, config, x, split="even", make=make_cost):
    """Return the cost of all rows, of which this rank has its blocks."""
    return make(config, dealt(x, config, comm.size, split)[comm.rank], comm)


def digest(state):
    """Return a text that tells the bits of a cost and gradient, or of arrays."""
    return hashlib.sha256(b"".join(np.float64(a).tobytes() for a in state)).hexdigest()


# --- cost and gradient


@pytest.mark.parametrize(("n_rows", "split", "mode", "shards"), CASES)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_bits_are_those_of_one_rank(world, dtype, n_rows, split, mode, shards):
    """Whoever has which blocks; what one rank finds is in ``unit/train``."""
    config, x = settings(kl=mode, dtype=dtype, shards=shards), patches(n_rows)
    one = config
    if mode == "average":
        one = replace(config, shards=shards or min(world.size, n_rows))
    costs = new_cost(world, config, x, split), make_cost(one, x)
    vector = costs[0].model.parameters.vector.copy()
    found, expected = (digest([*c(vector), c.mean_activation]) for c in costs)
    same = set(world.allgather(found))
    with together(world):
        assert same == {expected}
        found, expected = ((c.latest.cost, c.latest.exact_cost) for c in costs)
        assert found == expected
        assert [cost.n_rows for cost in costs] == [n_rows] * 2


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


DESCENTS = [{"optimizer": name, "kl": k} for name in OPTIMIZERS for k in MODES]
DESCENTS += [
    {"optimizer": "sgd", "minibatch": n, "sgd_sparsity": rule, "measure_every": 120}
    for n, rule in ((1, "bias"), (3, "gradient"), (7, "bias"), (120, "gradient"))
]


@pytest.mark.parametrize("changes", DESCENTS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_descents_end_where_one_rank_does(world, changes, dtype):
    """To the bit, until nothing lowers the cost any more or after many evaluations."""
    changes = {"evaluations": 100, "dtype": dtype, "decrease": 1e-9, **changes}
    changes |= {"shards": 4 * (changes.get("kl") == "average")}
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
