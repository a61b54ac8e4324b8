"""Activation functions, in place, with derivatives from the output."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.errors import ConfigError, unknown


@dataclass(frozen=True)
class Activation:
    """An activation function y = f(z).

    Attributes
    ----------
    name : str
        As in the configuration.
    apply : callable
        Replaces z by f(z), in place; z of any shape, float32 or float64.
    times_slope : callable
        ``times_slope(y, delta)`` multiplies ``delta`` by f′(z), in place; ``y`` = f(z).
    """

    name: str
    apply: Callable[[Array32], None]
    times_slope: Callable[[Array32, Array32], None]


def _sigmoid(z: Array32) -> None:
    # 1 / (1 + exp(-z)); for very negative z the exponential overflows to infinity and
    # the quotient is the right zero.
    with np.errstate(over="ignore"):
        np.negative(z, out=z)
        np.exp(z, out=z)
    z += 1
    np.divide(1, z, out=z)  # NumPy divides faster than it takes reciprocals


def _sigmoid_slope(y: Array32, delta: Array32) -> None:
    delta *= y
    delta *= 1 - y


def _tanh(z: Array32) -> None:
    np.tanh(z, out=z)


def _tanh_slope(y: Array32, delta: Array32) -> None:
    delta *= 1 - y * y


def _relu(z: Array32) -> None:
    np.maximum(z, 0, out=z)


def _relu_slope(y: Array32, delta: Array32) -> None:
    delta *= y > 0


def _linear(z: Array32) -> None:
    """Leave z as it is."""


def _linear_slope(y: Array32, delta: Array32) -> None:
    """Leave delta as it is."""


ACTIVATIONS = {
    "sigmoid": Activation("sigmoid", _sigmoid, _sigmoid_slope),
    "tanh": Activation("tanh", _tanh, _tanh_slope),
    "relu": Activation("relu", _relu, _relu_slope),
    "linear": Activation("linear", _linear, _linear_slope),
}


def activation(name: str) -> Activation:
    """Return the activation of a name.

    Raises
    ------
    ConfigError
        There is no such activation.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(unknown("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]
