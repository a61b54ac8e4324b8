"""Activation functions, in place, with derivatives from the output."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.errors import ConfigError, unknown


@dataclass(frozen=True)
class Activation:
    """An activation function y = f(z), on arrays of any shape, float32 or float64.

    ``apply(z)`` replaces z by f(z), in place; ``times_slope(y, delta)`` multiplies
    ``delta`` by f′(z), given y; ``spend(y, delta)`` does the same and uses ``y`` up:
    nothing is allocated.
    """

    apply: Callable[[AnyArray], None]
    times_slope: Callable[[AnyArray, AnyArray], None]
    spend: Callable[[AnyArray, AnyArray], None]


def _sigmoid(z: AnyArray) -> None:
    # 1 / (1 + exp(-z)); for very negative z the exponential overflows to infinity and
    # the quotient is the right zero.
    with np.errstate(over="ignore"):
        np.negative(z, out=z)
        np.exp(z, out=z)
    z += 1
    np.divide(1, z, out=z)  # NumPy divides faster than it takes reciprocals


def _sigmoid_slope(y: AnyArray, delta: AnyArray) -> None:
    delta *= y
    delta *= 1 - y


def _sigmoid_spend(y: AnyArray, delta: AnyArray) -> None:
    delta *= y
    np.subtract(1, y, out=y)
    delta *= y


def _tanh(z: AnyArray) -> None:
    np.tanh(z, out=z)


def _tanh_slope(y: AnyArray, delta: AnyArray) -> None:
    delta *= 1 - y * y


def _tanh_spend(y: AnyArray, delta: AnyArray) -> None:
    y *= y
    np.subtract(1, y, out=y)
    delta *= y


def _relu(z: AnyArray) -> None:
    np.maximum(z, 0, out=z)


def _relu_slope(y: AnyArray, delta: AnyArray) -> None:
    delta *= y > 0


def _linear(*_: AnyArray) -> None:
    """Leave everything as it is."""


ACTIVATIONS = {
    "sigmoid": Activation(_sigmoid, _sigmoid_slope, _sigmoid_spend),
    "tanh": Activation(_tanh, _tanh_slope, _tanh_spend),
    "relu": Activation(_relu, _relu_slope, _relu_slope),
    "linear": Activation(_linear, _linear, _linear),
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
