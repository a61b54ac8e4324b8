"""One layer in training."""

from dataclasses import replace

import numpy as np
import pytest

from mpilayer.config import PretrainConfig
from mpilayer.errors import ConfigError, TrainingError
from mpilayer.models.autoencoder import Autoencoder
from mpilayer.models.base import LayerShape
from mpilayer.models.rbm import RBM
from mpilayer.rng import stream
from mpilayer.train.layer import (
    LayerState,
    check_layer,
    layer_shapes,
    make_layer,
    monitored,
    monitored_error,
    monitored_rows,
    row_counts,
)
from tests.support import plain
from tests.support.toys import layer_gradient, rows

CONFIGS = {
    "rbm": PretrainConfig(layers=(8, 5), minibatch=20, momentum_switch=1),
    "autoencoder": PretrainConfig(
        layers=(8, 5), minibatch=20, method="autoencoder", tied=False, momentum_switch=1
    ),
}


def state_of(config, index=0, n_visible=12):
    return LayerState(config, layer_shapes(config, n_visible), index)


def test_shapes():
    config = PretrainConfig(
        layers=(5, 4, 3), visible="linear", hidden="sigmoid", code="tanh"
    )
    assert layer_shapes(config, 9) == [
        LayerShape(9, 5, "linear", "sigmoid"),
        LayerShape(5, 4, "sigmoid", "sigmoid"),
        LayerShape(4, 3, "sigmoid", "tanh"),
    ]
    assert [shape.cost for shape in layer_shapes(config, 9)] == [45, 20, 12]


def test_methods():
    config = PretrainConfig(layers=(5,), cd_steps=3)
    shape = LayerShape(9, 5)
    rbm = make_layer(config, shape)
    assert isinstance(rbm, RBM)
    assert rbm.n_passes == 3
    other = replace(config, method="autoencoder", tied=False, loss="cross-entropy")
    layer = make_layer(other, shape)
    assert isinstance(layer, Autoencoder)
    assert (layer.tied, layer.loss, layer.shape) == (False, "cross-entropy", shape)


def test_a_layer_that_the_method_lacks():
    huge = LayerShape(10**9, 10**9, "tanh")
    with pytest.raises(ConfigError, match="found tanh"):
        check_layer(PretrainConfig(), huge, 0)
    check_layer(PretrainConfig(method="autoencoder"), huge, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_first_weights(name):
    config = replace(CONFIGS[name], layers=(100, 50), initial_deviation=0.3)
    parameters = state_of(config, 0, 200).layer.parameters
    for key, view in parameters.items():
        if view.ndim == 2:
            assert view.std() == pytest.approx(0.3, rel=0.05)
            assert abs(view.mean()) < 0.01
        else:
            assert not view.any(), key
    again = state_of(config, 0, 200).layer.parameters
    assert again.digest() == parameters.digest()
    other = state_of(replace(config, seed=1), 0, 200).layer.parameters
    assert other.digest() != parameters.digest()


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("ends", [(), (64, 128)])
def test_epochs_are_those_of_the_plain_formulas(name, decay, ends):
    units = 150 if ends else 8
    config = replace(
        CONFIGS[name],
        layers=(units, 5),
        slices=(len(ends) + 1,),
        weight_decay=decay,
        learning_rate=(0.2,),
        seed=3,
    )
    state, twin, v = state_of(config), state_of(config).layer, rows(50)
    # The twin gives gradients at the parameters that the plain formulas reach.
    theta = twin.parameters.vector.astype(float)
    velocity, shapes = np.zeros_like(theta), twin.parameters
    for epoch in range(3):
        state.train_epoch(v)
        order = stream(3, "shuffle", 0, epoch).permutation(50)
        first = stream(3, "sample", 0, epoch)
        others = [
            stream(3, "sample of slice", 0, epoch, s + 1) for s in range(len(ends))
        ]
        for chosen in (order[:20], order[20:40], order[40:]):
            twin.parameters.vector[:] = theta
            found, _ = layer_gradient(
                twin, v[chosen], [first, *others], 0.2 / len(chosen), ends
            )
            gradient = found.vector.astype(float)
            for key, view in plain.named(shapes.shapes, theta).items():
                if view.ndim == 2:
                    gradient[shapes.span(key)] += 0.2 * decay * view.ravel()
            velocity = (0.5 if epoch < 1 else 0.9) * velocity - gradient
            theta = theta + velocity
    found = state.layer.parameters.vector
    np.testing.assert_allclose(found, theta, atol=2e-5)
    assert state.epoch == 3


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_and_activations(name):
    state, v = state_of(CONFIGS[name]), rows(50)
    order = stream(0, "shuffle", 0, 0).permutation(50)
    before = state.layer.encode(v[order[:20]])
    activations, calls = np.full((50, 8), np.nan, np.float32), []
    state.train_epoch(v, activations, lambda: calls.append(0))
    np.testing.assert_array_equal(v, rows(50))
    assert len(calls) == 3
    # The first minibatch was met with the first weights, the others with later ones.
    np.testing.assert_array_equal(activations[order[:20]], before)
    late = activations[order[40:]]
    assert np.isfinite(late).all()
    plainly = state_of(CONFIGS[name])
    plainly.train_epoch(v)
    assert plainly.layer.parameters.digest() == state.layer.parameters.digest()


def test_a_state_goes_on_where_another_stood():
    """Parameters, velocity and epoch are all that a checkpoint needs."""
    config, v = CONFIGS["rbm"], rows(50)
    first, second = state_of(config), state_of(config)
    first.train_epoch(v)
    second.restore(first.arrays(), first.numbers())
    for state in (first, second):
        state.train_epoch(v)
    assert first.layer.parameters.digest() == second.layer.parameters.digest()


def test_monitored_error():
    layer = state_of(CONFIGS["autoencoder"]).layer
    for n_rows, at_most, expected in (
        (5, 9, [0, 1, 2, 3, 4]),
        (9, 5, [0, 2, 4, 6, 8]),
        (1, 3, [0]),
        (10, 1, [0]),
    ):
        assert monitored_rows(n_rows, at_most).tolist() == expected
        v = monitored(rows(n_rows), rows(0), at_most)
        assert row_counts(n_rows, 0, at_most) == tuple(map(len, v.parts))
        train, validation = (
            monitored_error(layer, part) for part in (v.sample, v.validation)
        )
        some = v.train[expected].astype(float)
        output = layer.decode(layer.encode(v.train[expected])).astype(float)
        error = ((some - output) ** 2).sum() / len(some)
        assert train == pytest.approx(error, rel=1e-5)
        assert np.isnan(validation)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_weights_that_become_infinite_are_an_error(config):
    state = state_of(config, index=1)
    state.train_epoch(rows(40, 8))
    state.learning_rate = 1e30
    message = "layer 2 are not after epoch 2: .* below 1e[+]30 .* scale the data"
    with np.errstate(over="raise"), pytest.raises(TrainingError, match=message):
        state.train_epoch(rows(40, 8))
