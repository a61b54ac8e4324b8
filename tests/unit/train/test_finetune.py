"""Fine-tuning on one rank, of autoencoders and predictors."""

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.initial import random_weights
from mpilayer.models.stack import DeepAutoencoder, Predictor
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.backpropagation import Backpropagation
from mpilayer.train.evaluate import prediction_error, reconstruction_error, targets
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.groups import RowGroups
from mpilayer.train.strata import Strata
from tests.support import plain
from tests.support.toys import randomize, rows

SERIAL = SerialCommunicator()
SHAPES = [LayerShape(12, 16), LayerShape(16, 8)]
CLASSES = {"classify": np.array([2, 3, 7]), "regress": np.array([], np.int64)}
TASKS = ("autoencode", *CLASSES)
OPTIMIZERS = {"sgd": 0.01, "momentum": 0.002, "adam": 0.01}
TRAIN, VALIDATION = rows(210), rows(90, seed=1)
FULL = {"dropout": 0.3, "input_dropout": 0.1, "weight_decay": 0.01}
FULL |= {"learning_rate_decay": 0.7}
COURSE = {"learning_rate_schedule": "cosine", "warm_up": 2}
COURSE |= {"augment": "shift:1:3x4", "dropout": 0.1}


def make(task="autoencode", **changes):
    stack = DeepAutoencoder(SHAPES)
    if task != "autoencode":
        stack = Predictor(SHAPES, CLASSES[task])
    settings = {"epochs": 5, "minibatch": 20, "optimizer": "sgd", "seed": 4}
    settings |= {"learning_rate": 0.01, "task": task, **changes}
    return FinetuneState(randomize(stack, deviation=0.3), FinetuneConfig(**settings))


def wanted(state, v):
    """Return targets that the rows decide: how many of three columns are bright."""
    if not isinstance(state.stack, Predictor):
        return v
    bright = np.minimum((v[:, [0, 3, 7]] > 0.5).sum(axis=1), 2)
    return targets(CLASSES["classify"][bright], state.stack.classes)


def epochs(state, validation=VALIDATION):
    strata = Strata.of_rank(len(TRAIN), state.config.minibatch, 0, 1)
    labels = (wanted(state, TRAIN), wanted(state, validation))
    if state.config.task == "autoencode":
        labels = None
    return finetune(state, strata, TRAIN, validation, RowGroups(SERIAL), labels)


def run(state, validation=VALIDATION):
    return list(epochs(state, validation))


def error(state, v=VALIDATION):
    if state.config.task == "autoencode":
        return reconstruction_error(state.stack, [v], SERIAL)
    return prediction_error(state.stack, [(v, wanted(state, v))], SERIAL)


@pytest.mark.parametrize(
    ("task", "loss"),
    [*((task, "squared") for task in TASKS), ("autoencode", "cross-entropy")],
)
@pytest.mark.parametrize(("optimizer", "rate"), OPTIMIZERS.items())
def test_the_error_falls(task, optimizer, rate, loss):
    if task == "regress":
        rate /= 5
    changes = {"optimizer": optimizer, "learning_rate": rate, "loss": loss}
    state = make(task, epochs=40, **changes)
    before = error(state, TRAIN)
    records = run(state)
    assert [r.epoch for r in records] == list(range(1, 41))
    # Cross entropy keeps the data's own entropy.
    assert records[-1].train_loss < 0.95 * records[0].train_loss
    assert error(state, TRAIN) < 0.8 * before
    assert error(state) == pytest.approx(state.best_error, rel=1e-9)
    assert state.best_error == min(r.validation_error for r in records)
    for r in records:
        assert min(r.training, r.allreduce, r.evaluating) >= 0


@pytest.mark.parametrize("task", TASKS)
def test_sgd_is_the_plain_one(task):
    """Squared error or softmax, masks, decays: against central differences."""
    state = make(task, epochs=2, learning_rate=0.004, **FULL)
    shape = [LayerShape(12, 3)]
    stack = DeepAutoencoder(shape)
    if task != "autoencode":
        stack = Predictor(shape, state.stack.classes)
    state = FinetuneState(randomize(stack, deviation=0.3), state.config)
    shapes, kinds = stack.parameters.shapes, tuple(kind for *_, kind in stack.steps)
    expected, losses = stack.parameters.vector.astype(float), []
    decayed = [np.full(np.prod(s), len(s) == 2) for s in shapes.values()]
    strata = Strata.of_rank(len(TRAIN), 20, 0, 1)
    for epoch, rate in enumerate([0.004, 0.004 * 0.7]):
        losses.append(0)
        for step, chosen in enumerate(strata.minibatches(4, epoch, 20)):
            masks = [state.dropout.mask(k, epoch, step) for k in range(len(kinds))]
            masks = [m[: len(chosen)] for m in masks]
            target = wanted(state, TRAIN[chosen])

            def cost(v, visible=TRAIN[chosen], target=target, masks=masks):
                out = plain.forward(plain.named(shapes, v), kinds, visible, masks)[-1]
                if task == "classify":
                    return plain.softmax_loss(target, out)
                return plain.loss("squared", target, out)

            losses[-1] += cost(expected)
            slope = plain.central_differences(cost, expected)
            decay = 1 - rate * 0.01 * np.concatenate(decayed)
            expected = expected * decay - rate * slope
    records = run(state, VALIDATION[:0])
    np.testing.assert_allclose(stack.parameters.vector, expected, atol=2e-5)
    found = [record.train_loss * len(TRAIN) for record in records]
    assert found == pytest.approx(losses, rel=1e-5)


def test_the_best_weights_are_kept():
    # The rate is too high: the error goes up and down.
    state = make(optimizer="adam", learning_rate=0.3, epochs=12)
    errors = [r.validation_error for r in run(state)]
    assert errors != sorted(errors, reverse=True)
    assert state.best_epoch == 1 + errors.index(min(errors)) < 12
    assert error(state) == pytest.approx(min(errors), rel=1e-9)


def test_nothing_better_than_the_start():
    state = make(learning_rate=50.0, epochs=30, patience=3)
    start, before = state.stack.parameters.digest(), error(state)
    assert len(run(state)) == 3
    assert (state.best_epoch, state.best_error) == (0, before)
    assert state.stack.parameters.digest() == start


@pytest.mark.parametrize(
    ("changes", "n_epochs"),
    [
        ({"epochs": 6, "patience": 3}, 6),  # not lost while the error falls
        ({"minibatch": 500}, 5),  # larger than the data
        ({"epochs": 0}, 0),
    ],
)
def test_so_many_epochs(changes, n_epochs):
    state = make(**changes)
    before = state.stack.parameters.digest()
    assert len(run(state)) == n_epochs
    assert (state.stack.parameters.digest() == before) == (not n_epochs)


@pytest.mark.parametrize("task", ["autoencode", "classify"])
def test_without_validation_rows_the_last_weights_are_kept(task):
    state, stepped = make(task, learning_rate=0.1, epochs=4, patience=1), []
    for record in epochs(state, VALIDATION[:0]):
        assert np.isnan(record.validation_error)
        stepped.append(state.stack.parameters.digest())
    assert (state.best_epoch, state.best_error) == (4, float("inf"))
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("schedule", "plain"),
    [
        ("constant", np.ones_like),
        ("exponential", lambda done: 0.5 ** np.floor(done)),
        ("linear", lambda done: 1 - done / 2),
        ("cosine", lambda done: np.cos(np.pi * done / 4) ** 2),
    ],
)
def test_every_step_has_its_rate(monkeypatch, schedule, plain, optimizer):
    """At its middle, for the decay of the weights as well."""
    decay = 0.5 if schedule == "exponential" else 1.0
    settings = {"learning_rate_schedule": schedule, "learning_rate_decay": decay}
    settings |= {"warm_up": 1, "weight_decay": 0.5, "learning_rate": 0.004, "epochs": 3}
    take, found = Backpropagation.step, []

    def step(training, *arguments):
        take(training, *arguments)
        found.append((training._own.decay, training._own.optimizer.scale))

    monkeypatch.setattr(Backpropagation, "step", step)
    run(make(optimizer=optimizer, **settings))
    done = (np.arange(33) + 0.5) / 11
    expected = 0.004 * np.where(done < 1, done, plain(done - 1))
    decays, scales = zip(*found, strict=True)
    assert decays == pytest.approx(0.5 * expected, rel=1e-12)
    if optimizer != "adam":  # which has a step size instead
        assert scales == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("task", ["autoencode", "classify"])
@pytest.mark.parametrize("more", [FULL, COURSE], ids=["full", "course"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_goes_on_where_another_stood(optimizer, more, task):
    """What a checkpoint holds is enough: rates and masks have addresses."""
    settings = {"optimizer": optimizer, "learning_rate": 0.002, **more}
    whole, first, second = (make(task, **settings) for _ in range(3))
    run(whole)
    course = epochs(first)
    next(course)
    next(course)
    second.restore(first.arrays(), first.numbers())
    assert [r.epoch for r in run(second)] == [3, 4, 5]
    assert second.stack.parameters.digest() == whole.stack.parameters.digest()
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(second.arrays()[name], array)


@pytest.mark.parametrize("task", TASKS)
def test_images_move_as_they_would_before(task):
    """One epoch with shifts is one on rows that were moved beforehand."""
    moved = np.empty_like(TRAIN)
    state = make(task, epochs=1, augment="shift:1:3x4", minibatch=21)
    strata = Strata.of_rank(len(TRAIN), 21, 0, 1)
    for step, chosen in enumerate(strata.minibatches(4, 0, 21)):
        moved[chosen] = state.shifts.moved(TRAIN[chosen], 0, 0, step)
    labels = (wanted(state, TRAIN), wanted(state, VALIDATION))
    still = make(task, epochs=1, minibatch=21)
    for one, rows_, target in ((state, TRAIN, labels), (still, moved, labels)):
        own = None if task == "autoencode" else target
        list(finetune(one, strata, rows_, VALIDATION, RowGroups(SERIAL), own))
    assert state.stack.parameters.digest() == still.stack.parameters.digest()


@pytest.mark.parametrize(
    ("optimizer", "usual"), [("sgd", 0.001), ("momentum", 0.0002), ("adam", 0.001)]
)
def test_learning_rates(optimizer, usual):
    falling = {"learning_rate": 0.0, "learning_rate_decay": 0.5}
    state = make(optimizer=optimizer, **falling)
    rates = [state.rate_after(epochs) for epochs in (0, 0.99, 1, 2.5)]
    assert rates == [usual, usual, usual / 2, usual / 4]


@pytest.mark.parametrize("first", [0, 2])
def test_random_weights(first):
    shapes = [LayerShape(300, 200), LayerShape(200, 400, hidden="relu")]
    stack, again, other = (DeepAutoencoder(shapes) for _ in range(3))
    stack.parameters.vector[:] = 9
    for one, seed, start in ((stack, 1, first), (again, 1, 0), (other, 2, 0)):
        random_weights(one, seed, start)
    gains = [4, 2**0.5, 4, 4]
    for k, ((n_in, n_out, _), gain) in enumerate(zip(stack.steps, gains, strict=True)):
        names = (f"weights_{k}", f"bias_{k}")
        weights, bias = (stack.parameters[name] for name in names)
        if k < first:
            assert (weights == 9).all()
            continue
        deviation = gain * (2 / (n_in + n_out)) ** 0.5
        assert weights.std() == pytest.approx(deviation, rel=0.02)
        assert not bias.any()
        np.testing.assert_array_equal(again.parameters[names[0]], weights)
        assert (other.parameters[names[0]] != weights).any()
