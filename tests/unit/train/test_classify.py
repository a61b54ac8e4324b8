"""Training a predictor on one rank; dropout, decay, random weights."""

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.finetune import FinetuneState, Strata, finetune, random_weights
from mpilayer.train.labels import prediction_error, targets
from tests.support import plain
from tests.support.toys import randomize, rows

SERIAL = SerialCommunicator()
SHAPES = [LayerShape(12, 16), LayerShape(16, 8)]
CLASSES = np.array([2, 3, 7])
TRAIN, VALIDATION = rows(210), rows(90, seed=1)
FULL = {
    "dropout": 0.3,
    "input_dropout": 0.1,
    "weight_decay": 0.01,
    "learning_rate_decay": 0.7,
}


def labels(v):
    """Return labels that the rows decide: how many of three columns are bright."""
    return CLASSES[np.minimum((v[:, [0, 3, 7]] > 0.5).sum(axis=1), 2)]


def make(task="classify", **changes):
    settings = {"epochs": 6, "minibatch": 20, "learning_rate": 0.01, "seed": 5}
    settings["optimizer"] = "sgd"
    classes = CLASSES if task == "classify" else CLASSES[:0]
    model = randomize(Predictor(SHAPES, classes), deviation=0.3)
    return FinetuneState(model, FinetuneConfig(task=task, **(settings | changes)))


def epochs(state, validation=VALIDATION):
    classes = state.stack.classes
    wanted = [targets(labels(v), classes) for v in (TRAIN, validation)]
    strata = Strata.of_rank(len(TRAIN), state.config.minibatch, 0, 1)
    return finetune(
        state, strata, TRAIN, validation, SERIAL, targets=(wanted[0], wanted[1])
    )


def error(state, v=VALIDATION):
    block = (v, targets(labels(v), state.stack.classes))
    return prediction_error(state.stack, [block], SERIAL)


@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.parametrize(
    ("optimizer", "rate"), [("sgd", 0.01), ("momentum", 0.002), ("adam", 0.01)]
)
def test_the_error_falls(task, optimizer, rate):
    if task == "regress":
        rate /= 5
    state = make(task, optimizer=optimizer, learning_rate=rate, epochs=40)
    before = error(state)
    records = list(epochs(state))
    assert records[-1].train_loss < 0.7 * records[0].train_loss
    assert error(state) < 0.5 * before
    assert error(state) == pytest.approx(state.best_error, rel=1e-9)
    assert state.best_error == min(r.validation_error for r in records)


def test_without_labelled_validation_rows_the_last_weights_are_kept():
    state = make(epochs=3)
    assert all(np.isnan(r.validation_error) for r in epochs(state, VALIDATION[:0]))
    assert state.best_epoch == 3


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_sgd_is_the_plain_one(task):
    """Softmax or squared error, masks, decays: against central differences."""
    state = make(task, epochs=2, learning_rate=0.004, **FULL)
    state.stack = Predictor([LayerShape(12, 3)], state.stack.classes)
    state = FinetuneState(randomize(state.stack, deviation=0.3), state.config)
    shapes, vector = state.stack.parameters.shapes, state.stack.parameters.vector
    expected, wanted = vector.astype(float), targets(labels(TRAIN), state.stack.classes)
    decayed = np.concatenate(
        [np.full(np.prod(s), len(s) == 2) for s in shapes.values()]
    )
    strata = Strata.of_rank(len(TRAIN), 20, 0, 1)
    for epoch, rate in enumerate([0.004, 0.004 * 0.7]):
        for step, chosen in enumerate(strata.minibatches(5, epoch, 20)):
            masks = state.dropout.masks(epoch, step, 0, len(chosen))

            def cost(v, chosen=chosen, masks=masks):
                p = plain.named(shapes, v)
                out = plain.forward(p, ("sigmoid", "linear"), TRAIN[chosen], masks)[-1]
                if task == "classify":
                    return plain.softmax_loss(wanted[chosen], out)
                return plain.loss("squared", wanted[chosen], out)

            slope = plain.central_differences(cost, expected)
            expected = expected * (1 - rate * 0.01 * decayed) - rate * slope
    list(epochs(state, VALIDATION[:0]))
    np.testing.assert_allclose(state.stack.parameters.vector, expected, atol=2e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_state_goes_on_where_another_stood(optimizer):
    """What a checkpoint holds is enough: rates and masks have addresses."""
    settings = {"optimizer": optimizer, "learning_rate": 0.002, **FULL}
    whole, first, second = (make(**settings) for _ in range(3))
    list(epochs(whole))
    course = epochs(first)
    next(course)
    next(course)
    second.stack.parameters.vector[:] = first.stack.parameters.vector
    for key, vector in first.optimizer.state.items():
        second.optimizer.state[key][:] = vector
    second.optimizer.steps = first.optimizer.steps
    second.epoch, second.best[:] = first.epoch, first.best
    second.best_error, second.best_epoch = first.best_error, first.best_epoch
    assert [r.epoch for r in epochs(second)] == [3, 4, 5, 6]
    assert second.stack.parameters.digest() == whole.stack.parameters.digest()


def test_the_learning_rate_decays():
    state = make(learning_rate=0.5, learning_rate_decay=0.5)
    rates = []
    for epoch in range(4):
        state.epoch = epoch
        rates.append(state.learning_rate)
    assert rates == [0.5, 0.25, 0.125, 0.0625]


@pytest.mark.parametrize("first", [0, 2])
def test_random_weights(first):
    shapes = [LayerShape(300, 200), LayerShape(200, 400, hidden="relu")]
    stack = DeepAutoencoder(shapes)
    stack.parameters.vector[:] = 9
    random_weights(stack, 1, first)
    gains = [4, 2**0.5, 4, 4]
    for k, ((n_in, n_out, _), gain) in enumerate(zip(stack.steps, gains, strict=True)):
        weights, bias = (
            stack.parameters[f"{name}_{k}"] for name in ("weights", "bias")
        )
        if k < first:
            assert (weights == 9).all()
            continue
        assert weights.std() == pytest.approx(
            gain * (2 / (n_in + n_out)) ** 0.5, rel=0.02
        )
        assert not bias.any()
    again = DeepAutoencoder(shapes)
    random_weights(again, 1)
    np.testing.assert_array_equal(
        again.parameters["weights_3"], stack.parameters["weights_3"]
    )
    random_weights(again, 2)
    assert (again.parameters["weights_3"] != stack.parameters["weights_3"]).any()
