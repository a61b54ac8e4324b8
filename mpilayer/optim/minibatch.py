"""Optimizers for minibatches. All calls are local.

Each works on flat vectors, in blocks that stay in cache, and keeps its whole state in
named vectors, so that a checkpoint can hold it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

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


class Optimizer(ABC):
    """Changes a vector of parameters, given gradients.

    These must come with the factor ``scale``: cheaper there than here. ``steps``, the
    minibatches that were met, and the vectors of ``state`` are all that a checkpoint
    needs.
    """

    def __init__(self, scale: float, **state: Array32) -> None:
        self.scale = scale
        self.steps = 0
        self.state = state

    def set_rate(self, learning_rate: float) -> None:
        """Change the learning rate, from the next minibatch on."""
        self.scale = learning_rate

    def start_step(self) -> None:
        """Note that a new minibatch begins."""
        self.steps += 1

    @abstractmethod
    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change the part ``where`` of ``parameters`` (size,) in place.

        Once a minibatch for every part; ``gradient``, of that part, may be used up.
        """


class PlainDescent(Optimizer):
    """Parameters −= g; ``scale`` is the learning rate."""

    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change a part of the parameters."""
        for p, g in _blocks(parameters, gradient, where):
            p -= g


class Momentum(Optimizer):
    """Descent with momentum: velocity ← m · velocity − g; parameters += velocity.

    Santara et al. 2016 §2.2. m, in [0, 1), may be changed between steps; ``scale`` is
    the learning rate.
    """

    def __init__(
        self,
        size: int,
        scale: float = 1.0,
        momentum: float = 0.0,
        velocity: Array32 | None = None,
    ) -> None:
        own = np.zeros(size, np.float32) if velocity is None else velocity
        super().__init__(scale, velocity=own)
        self.momentum = momentum

    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change a part of the parameters."""
        for p, g, v in _blocks(parameters, gradient, where, self.state["velocity"]):
            v *= np.float32(self.momentum)
            v -= g
            p += v


class Adam(Optimizer):
    """Descent scaled by running moments of the gradient, with step size α.

    Kingma and Ba 2015, Algorithm 1 and its constants, with the bias corrections folded
    into the step size (their §2, last paragraph).
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, size: int, learning_rate: float = 1e-3) -> None:
        first, second = np.zeros(size, np.float32), np.zeros(size, np.float32)
        super().__init__(1.0, first_moment=first, second_moment=second)
        self.learning_rate = learning_rate
        self._scratch: Array32 = np.empty(min(size, _BLOCK), np.float32)

    def set_rate(self, learning_rate: float) -> None:
        """Change the step size."""
        self.learning_rate = learning_rate

    def update(self, parameters: Array32, gradient: Array32, where: slice) -> None:
        """Change a part of the parameters."""
        # α_t = α √(1 − β₂ᵗ) / (1 − β₁ᵗ)
        correction = np.sqrt(1 - self.beta2**self.steps)
        rate = np.float32(
            self.learning_rate * correction / (1 - self.beta1**self.steps)
        )
        # ε is compared with the corrected second moment, as in the paper's text.
        epsilon = np.float32(self.epsilon * correction)
        b1, b2 = np.float32(self.beta1), np.float32(self.beta2)
        for p, g, m, v in _blocks(parameters, gradient, where, *self.state.values()):
            scratch = self._scratch[: len(g)]
            np.multiply(g, 1 - b1, out=scratch)  # m ← β₁ m + (1 − β₁) g
            m *= b1
            m += scratch
            g *= g  # v ← β₂ v + (1 − β₂) g²
            g *= 1 - b2
            v *= b2
            v += g
            np.sqrt(v, out=scratch)  # p ← p − α_t m / (√v + ε)
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
        return Momentum(size, learning_rate, momentum=0.9)
    if name == "adam":
        return Adam(size, learning_rate)
    raise ConfigError(unknown("optimizer", name, DEFAULT_RATES))
