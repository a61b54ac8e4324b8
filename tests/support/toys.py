"""Tiny data and small helpers around models."""

import numpy as np

from mpilayer.optim.minibatch import PlainDescent
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.backpropagation import Backpropagation
from mpilayer.train.groups import RowGroups
from mpilayer.train.slices import OwnSlices


def rows(n_rows: int, n_columns: int = 12, seed: int = 0) -> np.ndarray:
    """Return float32 rows in (0, 1) that a few hidden causes explain."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).random((3, n_columns)) < 0.4
    causes = rng.random((n_rows, 3)) < 0.5
    bright = causes.astype(int) @ patterns.astype(int) > 0
    noise = 0.2 * rng.random((n_rows, n_columns))
    return np.where(bright, 0.95 - noise, 0.05 + noise).astype(np.float32)


def randomize(model, seed: int = 0, deviation: float = 0.5):
    """Give a model random parameters, biases too, and return it."""
    vector = model.parameters.vector
    vector[:] = deviation * np.random.default_rng(seed).standard_normal(vector.size)
    return model


def ignore(part: slice, gradient: np.ndarray) -> None:
    """Do nothing with a finished part of a gradient."""


def layer_gradient(layer, visible, seed: int = 0, scale: float = 1.0, done=ignore):
    """Return a layer's gradient and the activations, both copied."""
    out = layer.parameters.like()
    out.vector[:] = np.nan

    def keep(part: slice, gradient: np.ndarray) -> None:
        out.vector[part] = gradient
        done(part, gradient)

    hidden = layer.gradient(visible, np.random.default_rng(seed), scale, keep)
    return out, hidden.copy()


def stack_gradient(
    stack, visible, loss="squared", scale=1.0, target=None, masks=(), slices=1
):
    """Return a stack's gradient times ``scale``, and the loss: a step of descent."""
    target = visible if target is None else target
    groups, before = RowGroups(SerialCommunicator()), stack.parameters.copy()
    own = OwnSlices(
        stack, PlainDescent(scale), lambda _: PlainDescent(scale), groups, slices
    )
    training = Backpropagation(stack, own, groups, loss, len(visible))
    factors = dict(enumerate(masks))
    now = training.meet(0, len(visible), 0, (visible, target), factors.get)
    own.take()
    training.step(now, lambda: None)
    own.give()
    gradient = stack.parameters.like()
    gradient.vector[:] = before.vector - stack.parameters.vector
    stack.parameters.vector[:] = before.vector
    return gradient, float(training.losses.sum())
