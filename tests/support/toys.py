"""Tiny data and small helpers around models."""

from itertools import pairwise

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.far import FarRows
from mpilayer.numerics.activations import activation
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


def layer_gradient(
    layer, visible, seed=0, scale: float = 1.0, ends=(), done=lambda *_: None
):
    """Return a layer's gradient and the activations, made slice by slice.

    ``ends`` are the units at which all slices but the last one end; ``seed`` may be a
    generator for each; ``done`` receives each part of a gradient with the slice.
    """
    bounds = pairwise([0, *ends, layer.shape.n_hidden])
    slices = [layer.slice(slice(a, b)) for a, b in bounds]
    if isinstance(seed, int):
        seed = [np.random.default_rng(seed)] * len(slices)
    out, p = layer.parameters.like(), layer.parameters
    out.vector[:] = np.nan
    first = []
    for own in slices:
        for name, view in own.of(p).items():
            own.parameters[name][:] = view
    reconstruction = visible
    for turn in range(layer.n_passes):
        total = np.zeros_like(visible)
        for own, rng in zip(slices, seed, strict=True):
            part = np.empty_like(visible)
            hidden = own.rise(reconstruction, turn == 0, rng, part)
            total += part
            first += [hidden] if turn == 0 else []
        reconstruction = total + p["visible_bias"]
        activation(layer.shape.visible).apply(reconstruction)
    n, width = visible.shape
    contrast = np.empty((layer.phases * n, width), np.float32)
    out["visible_bias"][:] = layer.contrast(visible, reconstruction, scale, contrast)
    for own in slices:

        def keep(part: slice, gradient: np.ndarray, own=own) -> None:
            views = own.parameters.like()
            views.vector[:] = np.nan
            views.vector[part] = gradient
            for name, view in own.of(out).items():
                np.copyto(view, views[name], where=np.isfinite(views[name]))
            done(own, part, gradient)

        own.learn(visible, reconstruction, contrast, scale, keep)
    return out, np.hstack(first)


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
    return gradient, training.loss()


class Far(FarRows):
    """Rows in memory that pass for such that are not."""

    def __init__(self, values: AnyArray, scale: float = 1.0) -> None:
        super().__init__(values.shape, values.dtype, scale)
        self.stored = values

    def read(self, start: int, stop: int) -> AnyArray:
        return self.stored[start:stop]
