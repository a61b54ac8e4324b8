"""Tiny data and small helpers around models."""

import numpy as np


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


def stack_gradient(stack, visible, loss="squared", scale: float = 1.0, done=ignore):
    """Return a stack's gradient and the loss."""
    out = stack.parameters.like()
    out.vector[:] = np.nan
    return out, stack.gradient(visible, loss, out, scale, done)
