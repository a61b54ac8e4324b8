"""Optimizers for minibatches: descent with momentum, and Adam.

Each works on flat vectors, in blocks that stay in cache, and keeps its whole state in
named vectors, so that a checkpoint can hold it.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.errors import ConfigError, unknown

# Numbers treated at a time: three or four such blocks fit into a second-level cache.
_BLOCK = 1 << 15


def _blocks(
    parameters: Array32, gradient: Array32, where: slice, *state: Array32
) -> Iterator[tuple[Array32, ...]]:
    """Yield blocks of a part of the parameters, its gradient, and the state there."""
    parts = (parameters[where], gradient, *(vector[where] for vector in state))
    for start in range(0, len(gradient), _BLOCK):
        yield tuple(part[start : start + _BLOCK] for part in parts)


class Optimizer(Protocol):
    """Changes a vector of parameters, given gradients. All calls are local."""

    state: dict[str, Array32]
    """Named vectors as long as the parameters; what a checkpoint needs."""

    steps: int
    """How many minibatches were met."""

    scale: float
    """The factor that gradients must come with: cheaper there than here."""

    def set_rate(self, learning_rate: float) -> None:
        """Change the learning rate, from the next minibatch on."""

    def start_step(self) -> None:
        """Note that a new minibatch begins."""

    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change the part ``where`` of ``parameters`` (size,) in place.

        Once a minibatch for every part; ``gradient``, of that part, may be used up.
        """


class Descent:
    """Descent with momentum: velocity ← m · velocity − g; parameters += velocity.

    Parameters
    ----------
    size : int
        Length of the vectors.
    scale : float
        The learning rate, if it is the same all the time.
    momentum : float
        m, in [0, 1); without it there is no velocity.

    Notes
    -----
    Santara et al. 2016 §2.2. ``momentum`` may be changed between steps.
    """

    def __init__(self, size: int, scale: float = 1.0, momentum: float = 0.0) -> None:
        self.scale = scale
        self.momentum = momentum
        self.steps = 0
        self.state: dict[str, Array32] = {"velocity": np.zeros(size, np.float32)}

    def set_rate(self, learning_rate: float) -> None:
        """Change the scale of the gradients."""
        self.scale = learning_rate

    def start_step(self) -> None:
        """Count the minibatch."""
        self.steps += 1

    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change a part of the parameters."""
        for p, g, v in _blocks(parameters, gradient, where, self.state["velocity"]):
            v *= np.float32(self.momentum)
            v -= g
            p += v


class PlainDescent:
    """Gradient descent without momentum: parameters −= g; ``scale`` is the rate."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.steps = 0
        self.state: dict[str, Array32] = {}

    def set_rate(self, learning_rate: float) -> None:
        """Change the scale of the gradients."""
        self.scale = learning_rate

    def start_step(self) -> None:
        """Count the minibatch."""
        self.steps += 1

    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change a part of the parameters."""
        for p, g in _blocks(parameters, gradient, where):
            p -= g


class Adam:
    """Adam: descent scaled by running moments of the gradient.

    Parameters
    ----------
    size : int
        Length of the vectors.
    learning_rate : float
        Step size α.
    beta1, beta2, epsilon : float
        Decay of the two moments, and the constant that keeps the quotient finite.

    Notes
    -----
    Kingma and Ba 2015, Algorithm 1, with the bias corrections folded into the step size
    (their §2, last paragraph).
    """

    def __init__(
        self,
        size: int,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.learning_rate = learning_rate
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.scale = 1.0
        self.steps = 0
        self.state: dict[str, Array32] = {
            "first_moment": np.zeros(size, np.float32),
            "second_moment": np.zeros(size, np.float32),
        }
        self._scratch: Array32 = np.empty(min(size, _BLOCK), np.float32)

    def set_rate(self, learning_rate: float) -> None:
        """Change the step size."""
        self.learning_rate = learning_rate

    def start_step(self) -> None:
        """Count the minibatch."""
        self.steps += 1

    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change a part of the parameters."""
        correction = np.sqrt(1 - self.beta2**self.steps)
        rate = np.float32(
            self.learning_rate * correction / (1 - self.beta1**self.steps)
        )
        # epsilon is compared with the corrected second moment, as in the paper's text.
        epsilon = np.float32(self.epsilon * correction)
        b1, b2 = np.float32(self.beta1), np.float32(self.beta2)
        moments = (self.state["first_moment"], self.state["second_moment"])
        for p, g, m, v in _blocks(parameters, gradient, where, *moments):
            scratch = self._scratch[: len(g)]
            np.multiply(g, 1 - b1, out=scratch)
            m *= b1
            m += scratch
            g *= g
            g *= 1 - b2
            v *= b2
            v += g
            np.sqrt(v, out=scratch)
            scratch += epsilon
            np.divide(m, scratch, out=scratch)
            scratch *= rate
            p -= scratch


DEFAULT_RATES: Mapping[str, float] = {"sgd": 0.001, "momentum": 0.0002, "adam": 0.001}
"""Names of the fine-tuning optimizers, and their usual learning rates."""


def make_optimizer(name: str, size: int, learning_rate: float) -> Optimizer:
    """Return a fine-tuning optimizer for ``size`` parameters.

    ``sgd`` is plain descent on the summed gradient (Santara et al. 2016 §4),
    ``momentum`` the same with momentum 0.9, ``adam`` Adam.

    Raises
    ------
    ConfigError
        There is no such optimizer.
    """
    if name == "sgd":
        return PlainDescent(learning_rate)
    if name == "momentum":
        return Descent(size, learning_rate, momentum=0.9)
    if name == "adam":
        return Adam(size, learning_rate)
    raise ConfigError(unknown("optimizer", name, DEFAULT_RATES))
