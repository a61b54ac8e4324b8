"""The mathematics once more, plainly and slowly, in float64."""

from collections.abc import Callable, Mapping

import numpy as np

FUNCTIONS = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "linear": lambda z: z,
}
SLOPES = {
    "sigmoid": lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2,
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "relu": lambda z: np.where(z > 0, 1.0, 0.0),
    "linear": np.ones_like,
}


def loss(name: str, target, output) -> float:
    """Return the summed loss of a reconstruction."""
    if name == "squared":
        return float(np.sum((target - output) ** 2))
    bits = target * np.log(output) + (1 - target) * np.log(1 - output)
    return -float(np.sum(bits))


def named(shapes: Mapping[str, tuple[int, ...]], vector) -> dict[str, np.ndarray]:
    """Return the arrays that lie in a vector one after the other."""
    stops = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    pieces = np.split(np.asarray(vector, np.float64), stops[:-1])
    return {
        name: piece.reshape(shape)
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def central_differences(cost: Callable, point, step: float = 1e-5) -> np.ndarray:
    """Return the gradient of ``cost`` at a point, one number after the other."""
    point = np.asarray(point, np.float64)
    gradient = np.empty_like(point)
    for i in range(point.size):
        ahead, behind = point.copy(), point.copy()
        ahead.flat[i] += step
        behind.flat[i] -= step
        gradient.flat[i] = (cost(ahead) - cost(behind)) / (2 * step)
    return gradient


def softmax_loss(target, scores) -> float:
    """Return the summed cross entropy of a classifier."""
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return -float(np.sum(target * np.log(chances)))


def forward(p: Mapping[str, np.ndarray], kinds, rows, masks=()) -> list[np.ndarray]:
    """Return the values before and after every step, before they are masked."""
    values = [np.asarray(rows, np.float64)]
    for k, kind in enumerate(kinds):
        enters = values[-1] * masks[k] if masks else values[-1]
        z = enters @ p[f"weights_{k}"] + p[f"bias_{k}"]
        values.append(FUNCTIONS[kind](z))
    return values


def backward(
    p: Mapping[str, np.ndarray], kinds, rows, masks=(), loss="squared", target=None
) -> dict[str, np.ndarray]:
    """Return the gradient of the summed loss by backpropagation."""
    values = forward(p, kinds, rows, masks)
    target, output = values[0] if target is None else target, values[-1]
    if loss == "squared":
        delta = 2 * (output - target)
    elif loss == "softmax":
        delta = np.exp(output) / np.exp(output).sum(axis=1, keepdims=True) - target
    else:
        delta = (output - target) / (output * (1 - output))
    gradient = {}
    for k in reversed(range(len(kinds))):
        enters = values[k] * masks[k] if masks else values[k]
        z = enters @ p[f"weights_{k}"] + p[f"bias_{k}"]
        delta = delta * SLOPES[kinds[k]](z)
        gradient[f"weights_{k}"] = enters.T @ delta
        gradient[f"bias_{k}"] = delta.sum(axis=0)
        delta = delta @ p[f"weights_{k}"].T * (masks[k] if masks else 1)
    return gradient


def contrastive_divergence(
    p: Mapping[str, np.ndarray], visible: str, hidden: str, rows, rng, steps: int
) -> dict[str, np.ndarray]:
    """Return what CD-k descends on, summed over a minibatch."""
    f, g = FUNCTIONS[hidden], FUNCTIONS[visible]
    v0 = v = np.asarray(rows, np.float64)
    p0 = q = f(v0 @ p["weights"] + p["hidden_bias"])
    for _ in range(steps):
        if hidden == "sigmoid":
            h = (rng.random(q.shape, np.float32) < q).astype(float)
        else:
            h = q + rng.standard_normal(q.shape, np.float32)
        v = g(h @ p["weights"].T + p["visible_bias"])
        q = f(v @ p["weights"] + p["hidden_bias"])
    return {
        "weights": v.T @ q - v0.T @ p0,
        "visible_bias": (v - v0).sum(axis=0),
        "hidden_bias": (q - p0).sum(axis=0),
    }
