"""mpilayer beside PyTorch, scikit-learn and plain NumPy, in the same paired timing.

    python -m benchmarks.rivals step|pretrain|finetune|cost [options of mpilayer bench]

Rivals are written as their users would, and do the same arithmetic: of ``cost`` this is
checked first. Those that are not installed (the extra ``bench``) are left out.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mpilayer.arrays import ROW_BLOCK, AnyArray, Array32, Array64, row_blocks
from mpilayer.bench import launches, step
from mpilayer.bench.modes import MODES
from mpilayer.bench.pairs import Candidates, repeated, take_turns
from mpilayer.bench.rows import patches, write_images
from mpilayer.cli import bench, show
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.numerics.losses import kl_divergence, kl_slope
from mpilayer.optim.search import Objective
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.rng import stream
from mpilayer.train.sparse.cost import ShardedCost, make_model, start_weights

KINDS = ("step", "pretrain", "finetune", "cost")
TOLERANCE = 1e-4
"""Relative; all candidates must find the same cost and gradient to this."""


def has(module: str) -> bool:
    """Tell whether a rival is installed."""
    return find_spec(module) is not None


# --- contrastive divergence


class TorchRBM:
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


def torch_epoch(rows: Array32, n_hidden: int, minibatch: int) -> Callable[[], object]:
    """Return a function that passes once over the rows with CD-1 in PyTorch."""
    import torch

    rbm = TorchRBM(rows.shape[1], n_hidden)
    data = torch.from_numpy(rows)
    return lambda: rbm.epoch(data, minibatch, 0.1, 0.9)


def sklearn_epoch(rows: Array32, n_hidden: int, minibatch: int) -> Callable[[], object]:
    """Return a function that passes once over the rows with scikit-learn's RBM.

    Its method is persistent contrastive divergence: one Gibbs step a minibatch, too.
    """
    from sklearn.neural_network import BernoulliRBM

    rbm = BernoulliRBM(n_hidden, learning_rate=0.1, batch_size=minibatch)
    parts = row_blocks(len(rows), minibatch)
    return lambda: [rbm.partial_fit(rows[part]) for part in parts]


def torch_pretrain(
    rows: Array32, layers: Sequence[int], epochs: int, minibatch: int
) -> float:
    """Return the seconds of greedy pre-training in PyTorch."""
    import torch

    began = perf_counter()
    data = torch.from_numpy(rows)
    for n_hidden in layers:
        rbm = TorchRBM(data.shape[1], n_hidden)
        for epoch in range(epochs):
            rbm.epoch(data, minibatch, 0.1, 0.5 if epoch < 5 else 0.9)
        with torch.no_grad():
            data = rbm.encode(data)
    return perf_counter() - began


def torch_finetune(
    rows: Array32, layers: Sequence[int], epochs: int, minibatch: int, optimizer: str
) -> float:
    """Return the seconds of fine-tuning the unrolled stack in PyTorch."""
    import torch

    sizes = [rows.shape[1], *layers]
    sizes += sizes[-2::-1]
    parts: list[Any] = []
    for n_in, n_out in pairwise(sizes):
        parts += [torch.nn.Linear(n_in, n_out), torch.nn.Sigmoid()]
    stack = torch.nn.Sequential(*parts)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    descent = kinds[optimizer](stack.parameters(), lr=1e-3)
    data, began = torch.from_numpy(rows), perf_counter()
    for _ in range(epochs):
        order = torch.randperm(len(data))
        for part in row_blocks(len(data), minibatch):
            visible = data[order[part]]
            descent.zero_grad()
            output = stack(visible)
            torch.nn.functional.mse_loss(output, visible, reduction="sum").backward()
            descent.step()
    return perf_counter() - began


# --- the sparse autoencoder's cost: tanh units, all rows at once


def torch_cost(rows: AnyArray, config: SparseConfig) -> Objective:
    """Return cost and gradient in PyTorch, in the type of the rows."""
    import torch

    x = torch.from_numpy(rows)
    layout = make_model(config, rows.shape[1]).parameters

    def objective(position: Array64) -> tuple[float, Array64]:
        layout.vector[:] = position
        p: list[Any] = [
            torch.tensor(view, dtype=x.dtype, requires_grad=True)
            for _, view in layout.items()
        ]
        cost = torch_forward(x, config, *p)
        cost.backward()
        gradient = torch.cat([part.grad.flatten() for part in p])
        return cost.item(), gradient.numpy().astype(np.float64)

    return objective


def torch_forward(
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
        gradient = p.like()
        gradient["weights"][:] = rows.T @ back / n + decay * w1
        gradient["hidden_bias"][:] = back.mean(axis=0)
        gradient["decode_weights"][:] = hidden.T @ delta / n + decay * w2
        gradient["visible_bias"][:] = delta.mean(axis=0)
        return float(cost), gradient.vector

    return objective


def check_agreement(costs: dict[str, Objective], position: AnyArray) -> None:
    """Check that all compute the same: another one would be timed for other work."""
    first, *_ = costs
    cost, gradient = costs[first](position)
    for name, objective in costs.items():
        other, its_gradient = objective(position)
        difference = np.linalg.norm(its_gradient - gradient)
        distance = float(difference / np.linalg.norm(gradient))
        if not max(abs(other / cost - 1), distance) <= TOLERANCE:
            raise RuntimeError(
                f"{name} must compute what {first} computes; cost {other} against "
                f"{cost}, gradient off by {distance:.1e} of its length"
            )


# --- beside ours


def step_candidates(n_visible: int, n_hidden: int, minibatch: int) -> Candidates:
    """Return all that make steps; seconds of one step."""
    candidates = dict(step.steps(n_visible, n_hidden, minibatch))
    shape = (step.N_STEPS * minibatch, n_visible)
    rows = stream(0, "bench").random(shape, dtype=np.float32)
    rivals = {
        "torch": ("torch", torch_epoch),
        "scikit-learn": ("sklearn", sklearn_epoch),
    }
    for name, (module, epoch) in rivals.items():
        if has(module):
            work = epoch(rows, n_hidden, minibatch)
            candidates[name] = repeated(work, 1, step.N_STEPS)
    return candidates


def own_costs(rows: Array32, config: SparseConfig) -> dict[str, ShardedCost]:
    """Return the sparse autoencoder's cost with each sparsity term, and in float64."""
    found = {f"mpilayer {kl}": own_cost(rows, replace(config, kl=kl)) for kl in MODES}
    wide = replace(config, dtype="float64")
    return found | {"mpilayer float64": own_cost(rows.astype(np.float64), wide)}


def evaluations(
    rows: Array32, costs: dict[str, Objective], config: SparseConfig
) -> Candidates:
    """Return evaluations to compare, of their products (``gemm``) and of the costs.

    Seconds of one evaluation of cost and gradient, where training starts.
    """
    position = start(rows.shape[1], config)
    n = min(max(10, 1_000_000 // len(rows)), 100)
    products = cost_products(rows, config.hidden)
    timed = {"gemm": repeated(products, n)}
    for name, cost in costs.items():
        timed[name] = repeated(partial(cost, position), n)
    return timed


def start(n_visible: int, config: SparseConfig) -> AnyArray:
    """Return where training starts, as one vector."""
    model = make_model(config, n_visible)
    start_weights(model, config)
    return model.parameters.vector


def own_cost(rows: AnyArray, config: SparseConfig) -> ShardedCost:
    model = make_model(config, rows.shape[1])
    return ShardedCost(model, rows, config, SerialCommunicator())


def cost_products(rows: Array32, n_hidden: int) -> Callable[[], object]:
    """Return the five products of cost and gradient, block by block."""
    n_visible = rows.shape[1]
    up, down = random_array(n_visible, n_hidden), random_array(n_hidden, n_visible)
    hidden, back = random_array(ROW_BLOCK, n_hidden), random_array(ROW_BLOCK, n_hidden)
    output = random_array(ROW_BLOCK, n_visible)
    up_gradient, down_gradient = np.empty_like(up), np.empty_like(down)

    def products() -> None:
        for where in row_blocks(len(rows)):
            x = rows[where]
            h, b, y = hidden[: len(x)], back[: len(x)], output[: len(x)]
            np.matmul(x, up, out=h)
            np.matmul(h, down, out=y)
            np.matmul(y, down.T, out=b)
            np.matmul(x.T, b, out=up_gradient)
            np.matmul(h.T, y, out=down_gradient)

    return products


def random_array(*shape: int) -> Array32:
    return stream(0, "bench", 0).random(shape, dtype=np.float32)


def cost_candidates(rows: Array32, config: SparseConfig) -> dict[str, Objective]:
    """Return all that compute cost and gradient of the same rows in this process."""
    wide = rows.astype(np.float64)
    found: dict[str, Objective] = {**own_costs(rows, config)}
    if has("torch"):
        found["torch"] = torch_cost(rows, config)
        found["torch float64"] = torch_cost(wide, config)
    return found | {"numpy float64": numpy_cost(wide, config)}


def in_torch(work: launches.Work, kind: str, optimizer: str) -> Candidates:
    """Return PyTorch's run with 2 threads, in a process of its own."""
    if not has("torch"):
        return {}
    program = [sys.executable, "-m", "benchmarks.rivals", f"torch-{kind}"]
    layers = ",".join(map(str, work.layers))
    arguments = ["--layers", layers, "--epochs", str(work.epochs), "--threads", "2"]
    arguments += ["--minibatch", str(work.minibatch), "--data", str(work.data)]
    command = [*program, *arguments, "--optimizer", optimizer]
    return {"torch 1x2": lambda: float(launches.run_command(command))}


def compare(args: argparse.Namespace, folder: Path) -> tuple[Any, str]:
    """Return the comparison of a kind, and the candidate that ratios are to."""
    if args.kind in ("pretrain", "finetune"):
        data = write_images(args.data, args.rows, folder)
        work = launches.Work(data, folder, args.layers, args.epochs, args.minibatch)
        if args.kind == "pretrain":
            ours = launches.pretrainings(work, args.lags)
        else:
            ours = launches.finetunings(work, args.optimizer)
        everybody = {**ours, **in_torch(work, args.kind, args.optimizer)}
        return take_turns(everybody, args.rounds, 0, show.say), next(iter(ours))
    if args.kind == "step":
        candidates = step_candidates(784, args.layers[0], args.minibatch)
    else:
        config, rows = SparseConfig(), patches(args.data, args.rows)
        costs = cost_candidates(rows, config)
        check_agreement(costs, start(rows.shape[1], config))
        candidates = evaluations(rows, costs, config)
    return take_turns(candidates, args.rounds, say=show.say), "gemm"


def main() -> None:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    kind = next(action for action in parser._actions if action.dest == "kind")
    kind.choices = (*KINDS, "torch-pretrain", "torch-finetune")
    parser.epilog = parser.usage = None
    parser.description = __doc__
    args = parser.parse_args()
    args.rounds = args.rounds or 5
    bench.set_defaults(args)
    if has("torch"):
        import torch

        torch.set_num_threads(args.threads)
    if args.kind.startswith("torch-"):
        with Dataset.open(args.data) as dataset:
            rows = np.ascontiguousarray(dataset.rows("train"))
        work = rows, args.layers, args.epochs, args.minibatch
        if args.kind == "torch-pretrain":
            print(torch_pretrain(*work))
        else:
            print(torch_finetune(*work, args.optimizer))
        return
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(args.threads):
        bench.print_comparison(*compare(args, Path(folder)), args)


if __name__ == "__main__":
    main()
