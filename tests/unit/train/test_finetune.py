"""Fine-tuning on one rank, and the shares of several."""

from itertools import pairwise

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.evaluate import reconstruction_error
from mpilayer.train.finetune import FinetuneState, Strata, finetune
from tests.support import plain
from tests.support.toys import randomize, rows

SERIAL = SerialCommunicator()
SHAPES = [LayerShape(12, 8), LayerShape(8, 4)]
NONE = rows(0)


def minibatches(n_rows, minibatch, n_ranks, epoch=0, seed=0):
    """Return for each step the ranks' shares, as rows of the whole data set."""
    ranks = [Strata.of_rank(n_rows, minibatch, r, n_ranks) for r in range(n_ranks)]
    shares = [
        [strata.rows[0] + part for part in strata.minibatches(seed, epoch, minibatch)]
        for strata in ranks
    ]
    return list(zip(*shares, strict=True))


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(
    ("n_rows", "minibatch"), [(100, 10), (103, 10), (57, 7), (5, 8), (40, 6), (9, 1)]
)
def test_minibatches(n_rows, minibatch, n_ranks):
    steps = minibatches(n_rows, minibatch, n_ranks)
    together = [np.concatenate(shares) for shares in steps]
    assert sorted(np.concatenate(together)) == list(range(n_rows))
    sizes = [len(rows) for rows in together]
    assert sizes[:-1] == [minibatch] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= minibatch
    for shares in steps[:-1]:
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 1
    alone = [shares[0] for shares in minibatches(n_rows, minibatch, 1)]
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_every_epoch_has_its_order():
    orders = [
        np.concatenate([shares[0] for shares in minibatches(60, 10, 1, *address)])
        for address in [(0, 0), (1, 0), (0, 1)]
    ]
    for one, other in pairwise([*orders, orders[0]]):
        assert (one != other).any()


@pytest.mark.parametrize("n_ranks", [1, 3, 9])
def test_a_rank_holds_its_rows_alone(n_ranks):
    held = [Strata.of_rank(40, 6, rank, n_ranks).rows for rank in range(n_ranks)]
    spans = [span for span in held if span != (0, 0)]
    assert (spans[0][0], spans[-1][1]) == (0, 40)
    assert all(one[1] == other[0] for one, other in pairwise(spans))
    assert len(spans) == min(n_ranks, 6)


def make(**changes):
    usual = {"epochs": 5, "minibatch": 20, "optimizer": "sgd", "learning_rate": 0.01}
    settings = usual | changes
    stack = randomize(DeepAutoencoder(SHAPES), deviation=0.3)
    return FinetuneState(stack, FinetuneConfig(**settings))


def run(state, train=None, validation=None):
    train = rows(110) if train is None else train
    validation = rows(40, seed=1) if validation is None else validation
    strata = Strata.of_rank(len(train), state.config.minibatch, 0, 1)
    return list(finetune(state, strata, train, validation, SERIAL))


def error(state, v):
    return reconstruction_error(state.stack, [v], SERIAL)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
@pytest.mark.parametrize(
    ("optimizer", "rate"), [("sgd", 0.01), ("momentum", 0.002), ("adam", 0.01)]
)
def test_the_error_falls(optimizer, rate, loss):
    state = make(optimizer=optimizer, learning_rate=rate, loss=loss, epochs=20)
    before = error(state, rows(110))
    records = run(state)
    assert [r.epoch for r in records] == list(range(1, 21))
    # Cross entropy keeps the data's own entropy.
    assert records[-1].train_loss < 0.95 * records[0].train_loss
    assert error(state, rows(110)) < 0.7 * before
    for r in records:
        assert min(r.training, r.allreduce, r.evaluating) >= 0


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_sgd_is_the_plain_one(n_epochs):
    state, v = make(epochs=n_epochs, seed=4), rows(110)
    shapes, kinds = state.stack.parameters.shapes, ("sigmoid",) * 4
    p = plain.named(shapes, state.stack.parameters.vector)
    strata, loss = Strata.of_rank(110, 20, 0, 1), 0.0
    for epoch in range(n_epochs):
        loss = 0.0
        for chosen in strata.minibatches(4, epoch, 20):
            x = v[chosen].astype(float)
            loss += plain.loss("squared", x, plain.forward(p, kinds, x)[-1])
            gradient = plain.backward(p, kinds, x)
            p = {name: p[name] - 0.01 * gradient[name] for name in p}
    record = run(state, v, NONE)[-1]
    for name, expected in p.items():
        found = state.stack.parameters[name]
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert record.train_loss == pytest.approx(loss / 110, rel=1e-5)


def test_the_best_weights_are_kept():
    # The rate is too high: the error goes up and down.
    state, v = make(learning_rate=0.5, epochs=12), rows(40, seed=1)
    records = run(state)
    errors = [r.validation_error for r in records]
    assert errors != sorted(errors, reverse=True)
    assert state.best_error == min(errors)
    assert state.best_epoch == 1 + errors.index(min(errors))
    assert state.best_epoch < 12
    assert error(state, v) == pytest.approx(state.best_error, rel=1e-9)


def test_nothing_better_than_the_start():
    state, v = make(learning_rate=50.0, epochs=3), rows(40, seed=1)
    start, before = state.stack.parameters.digest(), error(state, v)
    run(state)
    assert (state.best_epoch, state.best_error) == (0, before)
    assert state.stack.parameters.digest() == start


def test_patience():
    state = make(learning_rate=50.0, epochs=30, patience=3)
    assert len(run(state)) == 3
    patient = make(learning_rate=0.01, epochs=6, patience=3)
    assert len(run(patient)) == 6


def test_without_validation_rows_the_last_weights_are_kept():
    state = make(learning_rate=0.5, epochs=4, patience=1)
    records = run(state, validation=NONE)
    assert len(records) == 4
    assert all(np.isnan(r.validation_error) for r in records)
    assert (state.best_epoch, state.best_error) == (4, float("inf"))
    again = make(learning_rate=0.5, epochs=4)
    stepped = []
    strata = Strata.of_rank(110, 20, 0, 1)
    for _ in finetune(again, strata, rows(110), NONE, SERIAL):
        stepped.append(again.stack.parameters.digest())
    assert state.stack.parameters.digest() == stepped[-1] != stepped[-2]


def test_divergence_is_never_best():
    state = make()
    state.note(3.0)
    good = state.best.copy()
    for epoch, bad in enumerate((float("nan"), float("inf"), 3.0), start=1):
        state.epoch = epoch
        state.stack.parameters.vector[:] = np.nan
        state.note(bad)
        assert (state.best_error, state.best_epoch) == (3.0, 0)
        np.testing.assert_array_equal(state.best, good)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_state_goes_on_where_another_stood(optimizer):
    """What a checkpoint holds is enough."""
    whole = make(optimizer=optimizer, learning_rate=0.002)
    run(whole)
    first = make(optimizer=optimizer, learning_rate=0.002)
    strata = Strata.of_rank(110, 20, 0, 1)
    epochs = finetune(first, strata, rows(110), rows(40, seed=1), SERIAL)
    next(epochs)
    next(epochs)
    second = make(optimizer=optimizer, learning_rate=0.002)
    second.stack.parameters.vector[:] = first.stack.parameters.vector
    for key, vector in first.optimizer.state.items():
        second.optimizer.state[key][:] = vector
    second.optimizer.steps = first.optimizer.steps
    second.epoch, second.best[:] = first.epoch, first.best
    second.best_error, second.best_epoch = first.best_error, first.best_epoch
    assert [r.epoch for r in run(second)] == [3, 4, 5]
    assert second.stack.parameters.digest() == whole.stack.parameters.digest()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_usual_learning_rates(optimizer):
    given = make(optimizer=optimizer, learning_rate=0.0)
    usual = {"sgd": 0.001, "momentum": 0.0002, "adam": 0.001}[optimizer]
    named = make(optimizer=optimizer, learning_rate=usual)
    run(given)
    run(named)
    assert given.stack.parameters.digest() == named.stack.parameters.digest()


def test_no_epochs():
    state = make(epochs=0)
    before = state.stack.parameters.digest()
    assert run(state) == []
    assert state.stack.parameters.digest() == before


def test_minibatches_larger_than_the_data():
    assert len(run(make(minibatch=500))) == 5
