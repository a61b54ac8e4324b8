"""The sparse autoencoder's cost in PyTorch and NumPy, written as their users would.

All rows go through each operation at once. tanh units, as in Lahiri et al. 2010.
"""

from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig
from mpilayer.numerics.losses import kl_divergence, kl_slope
from mpilayer.numerics.parameters import Parameters
from mpilayer.optim.search import Objective
from mpilayer.train.sparse.cost import make_model


def torch_cost(rows: AnyArray, config: SparseConfig, threads: int) -> Objective:
    """Return cost and gradient in PyTorch, by automatic differentiation.

    Parameters
    ----------
    rows : ndarray (n_samples, n_visible)
        All that is computed has their type.
    config : SparseConfig
        Weights of the terms.
    threads : int
        For the whole process.
    """
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(rows)
    layout = make_model(config, rows.shape[1]).parameters

    def objective(position: Array64) -> tuple[float, Array64]:
        layout.vector[:] = position
        p: list[Any] = [
            torch.tensor(view, dtype=x.dtype, requires_grad=True)
            for _, view in layout.items()
        ]
        cost = _torch_forward(x, config, *p)
        cost.backward()
        gradient = torch.cat([part.grad.flatten() for part in p])
        return cost.item(), gradient.numpy().astype(np.float64)

    return objective


def _torch_forward(
    x: Any, config: SparseConfig, w1: Any, b1: Any, w2: Any, b2: Any
) -> Any:
    import torch

    hidden = torch.tanh(torch.addmm(b1, x, w1))
    output = torch.tanh(torch.addmm(b2, hidden, w2))
    squared = torch.nn.functional.mse_loss(output, x, reduction="sum")
    decay = w1.square().sum() + w2.square().sum()
    p, target = (1 + hidden.mean(dim=0)) / 2, config.sparsity_target
    on = target * torch.log(target / p)
    off = (1 - target) * torch.log((1 - target) / (1 - p))
    return (
        squared / (2 * len(x))
        + config.weight_decay / 2 * decay
        + config.sparsity_weight * (on + off).sum()
    )


def numpy_cost(rows: AnyArray, config: SparseConfig) -> Objective:
    """Return cost and gradient in plain NumPy, in the type of the rows."""
    p = make_model(config, rows.shape[1]).parameters
    target, weight = config.sparsity_target, config.sparsity_weight
    n, decay = len(rows), config.weight_decay

    def objective(position: Array64) -> tuple[float, Array64]:
        p.vector[:] = position
        w1, w2 = p["weights"], p["decode_weights"]
        hidden = np.tanh(rows @ w1 + p["hidden_bias"])
        output = np.tanh(hidden @ w2 + p["visible_bias"])
        firing = (1 + hidden.mean(axis=0)) / 2
        error = output - rows
        cost = (
            (error**2).sum() / (2 * n)
            + decay / 2 * ((w1**2).sum() + (w2**2).sum())
            + weight * kl_divergence(target, firing).sum()
        )
        delta = error * (1 - output**2)
        back = delta @ w2.T + weight * kl_slope(target, firing) / 2
        back *= 1 - hidden**2
        gradient = _numpy_gradient(p, rows, hidden, delta, back)
        gradient["weights"][:] += decay * w1
        gradient["decode_weights"][:] += decay * w2
        return float(cost), gradient.vector

    return objective


def _numpy_gradient(
    p: Parameters, rows: AnyArray, hidden: AnyArray, delta: AnyArray, back: AnyArray
) -> Parameters:
    """Return the mean over rows of the gradient without decay."""
    gradient, n = p.like(), len(rows)
    gradient["weights"][:] = rows.T @ back / n
    gradient["hidden_bias"][:] = back.mean(axis=0)
    gradient["decode_weights"][:] = hidden.T @ delta / n
    gradient["visible_bias"][:] = delta.mean(axis=0)
    return gradient
