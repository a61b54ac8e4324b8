"""The same arithmetic in PyTorch and scikit-learn, written as their users would.

Both are in the ``bench`` extra only. ``python -m mpilayer.bench.rivals DATA.h5 ...``
pre-trains a stack in PyTorch and prints the seconds.
"""

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer.arrays import Array32, row_blocks
from mpilayer.data.dataset import Dataset


def has(module: str) -> bool:
    """Tell whether a rival is installed."""
    return find_spec(module) is not None


def torch_steps(
    rows: Array32, n_hidden: int, minibatch: int, threads: int
) -> Callable[[], None]:
    """Return a function that passes once over the rows with CD-1 in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    rbm = _TorchRBM(rows.shape[1], n_hidden)
    data = torch.from_numpy(rows)
    return lambda: rbm.epoch(data, minibatch, 0.1, 0.9)


def sklearn_steps(rows: Array32, n_hidden: int, minibatch: int) -> Callable[[], None]:
    """Return a function that passes once over the rows with scikit-learn's RBM.

    Its method is persistent contrastive divergence: one Gibbs step a minibatch, too.
    """
    from sklearn.neural_network import BernoulliRBM

    rbm = BernoulliRBM(n_hidden, learning_rate=0.1, batch_size=minibatch)
    parts = row_blocks(len(rows), minibatch)

    def work() -> None:
        for part in parts:
            rbm.partial_fit(rows[part])

    return work


class _TorchRBM:
    """A Bernoulli RBM with momentum; accumulates into the velocity inside GEMM."""

    def __init__(self, n_visible: int, n_hidden: int) -> None:
        import torch

        self.weights = 0.1 * torch.randn(n_visible, n_hidden)
        self.visible_bias = torch.zeros(n_visible)
        self.hidden_bias = torch.zeros(n_hidden)
        self.velocity = [
            torch.zeros_like(p)
            for p in (self.weights, self.visible_bias, self.hidden_bias)
        ]

    def encode(self, visible: Any) -> Any:
        import torch

        return torch.addmm(self.hidden_bias, visible, self.weights).sigmoid_()

    def epoch(
        self, data: Any, minibatch: int, learning_rate: float, momentum: float
    ) -> None:
        import torch

        with torch.no_grad():
            order = torch.randperm(len(data))
            for part in row_blocks(len(data), minibatch):
                chosen = order[part]
                self._step(data[chosen], learning_rate / len(chosen), momentum)

    def _step(self, v0: Any, rate: float, momentum: float) -> None:
        import torch

        w, b, c = self.weights, self.visible_bias, self.hidden_bias
        p0 = self.encode(v0)
        v1 = torch.addmm(b, torch.bernoulli(p0), w.t()).sigmoid_()
        p1 = self.encode(v1)
        dw, db, dc = self.velocity
        dw.addmm_(v0.t(), p0, beta=momentum, alpha=rate).addmm_(v1.t(), p1, alpha=-rate)
        db.mul_(momentum).add_((v0 - v1).sum(0), alpha=rate)
        dc.mul_(momentum).add_((p0 - p1).sum(0), alpha=rate)
        w.add_(dw)
        b.add_(db)
        c.add_(dc)


def torch_pretrain(
    rows: Array32, layers: Sequence[int], epochs: int, minibatch: int, threads: int
) -> float:
    """Return the seconds of greedy pre-training in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    began = perf_counter()
    data = torch.from_numpy(rows)
    for n_hidden in layers:
        rbm = _TorchRBM(data.shape[1], n_hidden)
        for epoch in range(epochs):
            rbm.epoch(data, minibatch, 0.1, 0.5 if epoch < 5 else 0.9)
        with torch.no_grad():
            data = rbm.encode(data)
    return perf_counter() - began


def main() -> None:
    """Pre-train in PyTorch and print the seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--layers", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--minibatch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    with Dataset.open(args.data) as dataset:
        rows = np.ascontiguousarray(dataset.rows("train"))
    layers = [int(n) for n in args.layers.split(",")]
    seconds = torch_pretrain(rows, layers, args.epochs, args.minibatch, args.threads)
    print(seconds)  # noqa: T201  (a program of its own)


if __name__ == "__main__":
    main()
