"""Cost of a sparse autoencoder over examples and time, of each optimizer, and SciPy's.

    python benchmarks/optimizers.py patches.h5 --output runs/optimizers [--seeds 0,1,2]

As Figure 2.3.2 of Lahiri et al. 2010: three trials, one process, one thread; SGD with
the paper's bias update on single examples, measured every 8,000, and with our gradient
of the running mean. Writes optimizers.json and filters.npz, draws optimizers.png from
them (--draw: only that), and prints a table. SciPy's L-BFGS-B works on the very
objective of the others.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from mpilayer.bench.rows import patches
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.sparse.cost import ShardedCost, make_model, start_weights
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import filters

SCIPY = "SciPy L-BFGS-B"
METHODS = {
    "L-BFGS": {"optimizer": "lbfgs"},
    "CG": {"optimizer": "cg"},
    "SGD (bias)": {
        "optimizer": "sgd",
        "sgd_sparsity": "bias",
        "minibatch": 1,
        "learning_rate": 0.005,
    },
    "SGD (gradient)": {"optimizer": "sgd"},
    SCIPY: {},
}
COLOURS = dict(zip(METHODS, ("C0", "C1", "C2", "C3", "black"), strict=True))


@dataclass
class Curve:
    """The cost of what an optimizer has to show after so many examples and seconds.

    That is the least cost so far of those that search along lines, each evaluation
    being a pass over the rows; and of SGD the latest, which may rise, over the rows its
    steps have met and the seconds they took: measuring is not counted. Seconds are
    those of the processor, on which other programs may run, too.
    """

    examples: list[int]
    seconds: list[float]
    cost: list[float]

    def seconds_to(self, target: float) -> float | None:
        """Return the seconds until the cost is the target or less; None: never."""
        pairs = zip(self.seconds, self.cost, strict=True)
        return next((seconds for seconds, cost in pairs if cost <= target), None)


Curves = dict[str, dict[int, Curve]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--rows", type=int, default=0, help="the first ones; 0: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--draw", action="store_true", help="only draw again")
    args = parser.parse_args()
    if not args.draw:
        rows = patches(args.data, args.rows or n_rows(args.data))
        seeds = [int(seed) for seed in args.seeds.split(",")]
        args.output.mkdir(parents=True, exist_ok=True)
        with threadpool_limits(1):
            measure(
                rows, SparseConfig(evaluations=args.evaluations), seeds, args.output
            )
    curves, title = read(args.output)
    draw(curves, np.load(args.output / "filters.npz"), args.output, title)
    print(table(curves))


def n_rows(data: Path) -> int:
    with Dataset.open(data) as dataset:
        return dataset.n_samples("train")


def measure(
    rows: np.ndarray, config: SparseConfig, seeds: list[int], output: Path
) -> None:
    """Descend from each seed with each method; write what is known after each."""
    curves: Curves = {method: {} for method in METHODS}
    tiles: dict[str, np.ndarray] = {}
    n_visible, n_hidden = rows.shape[1], config.hidden
    title = (
        f"{n_visible}-{n_hidden}-{n_visible}, {len(rows):,} patches, {len(seeds)} "
        "trials, one thread; bias: single examples, rate 0.005 to 0; gradient: "
        "minibatches of 20, rate 0.1 to 0"
    )
    for seed in seeds:
        for method, changes in METHODS.items():
            own = replace(config, seed=seed, **changes)
            curve, weights = descend(method, rows, own)
            curves[method][seed] = curve
            tiles[f"{method} {seed}"] = filters(weights)
            print(f"seed {seed}, {method}: {curve.cost[-1]:.4f}", flush=True)
            content = {"title": title, "curves": curves}
            text = json.dumps(content, default=vars)
            (output / "optimizers.json").write_text(text + "\n")
            np.savez(output / "filters.npz", **tiles)


def read(output: Path) -> tuple[Curves, str]:
    content = json.loads((output / "optimizers.json").read_text())
    curves = {
        method: {int(seed): Curve(**curve) for seed, curve in by_seed.items()}
        for method, by_seed in content["curves"].items()
    }
    return curves, content["title"]


def descend(
    method: str, rows: np.ndarray, config: SparseConfig
) -> tuple[Curve, np.ndarray]:
    """Descend from a seed's start; return the curve, and W₁ at the end."""
    model = make_model(config, rows.shape[1])
    start_weights(model, config)
    cost = TimedCost(model, rows, config, SerialCommunicator())
    by_steps = config.optimizer == "sgd"
    curve, began = Curve([], [], []), process_time()

    def note(found) -> None:
        n = len(curve.cost)
        curve.examples.append(
            n * config.measure_every if by_steps else (n + 1) * len(rows)
        )
        curve.cost.append(min([found.cost, *([] if by_steps else curve.cost[-1:])]))
        until = cost.called - cost.measuring if by_steps else process_time()
        curve.seconds.append(until - began)

    cost.on_evaluation = note
    if method == SCIPY:
        descend_by_scipy(cost, config)
    else:
        for state in Descent(cost, config).states():
            model.parameters.vector[:] = state.position
    # SciPy looks at its limit after an iteration only.
    for values in vars(curve).values():
        del values[config.evaluations :]
    return curve, model.parameters["weights"]


class TimedCost(ShardedCost):
    """Knows when it was called last, and how long all calls before have taken."""

    called = measuring = 0.0

    def __call__(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        self.called = process_time()
        found = super().__call__(position)
        self.measuring += process_time() - self.called
        return found


def descend_by_scipy(cost: ShardedCost, config: SparseConfig) -> None:
    limits = {"maxfun": config.evaluations, "maxiter": config.evaluations}
    never = {"ftol": 0.0, "gtol": 0.0}
    minimize(
        cost,
        cost.model.parameters.vector.copy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": config.corrections, **limits, **never},
    )


def table(curves: Curves) -> str:
    """Return a row a method and seed."""
    lines = [
        "| optimizer | seed | examples | seconds | cost | seconds to SciPy's cost |",
        "|---|---|---|---|---|---|",
    ]
    for method, by_seed in curves.items():
        for seed, curve in by_seed.items():
            scipys = curves[SCIPY].get(seed)
            seconds = curve.seconds_to(scipys.cost[-1]) if scipys else None
            lines.append(
                f"| {method} | {seed} | {curve.examples[-1]:,} | "
                f"{curve.seconds[-1]:.1f} | {curve.cost[-1]:.4f} | "
                f"{'–' if seconds is None else f'{seconds:.1f}'} |"
            )
    return "\n".join(lines)


def draw(curves: Curves, tiles, output: Path, title: str) -> None:
    """Draw cost over examples and seconds, and the first seed's filters beside it."""
    from matplotlib.figure import Figure

    figure = Figure((11, 6.5), dpi=100, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    left, right = above.subplots(1, 2, sharey=True)
    for method, by_seed in curves.items():
        trials = list(by_seed.values())
        draw_mean(left, [(c.examples, c.cost) for c in trials], method)
        draw_mean(right, [(c.seconds, c.cost) for c in trials], method)
    least = min(min(c.cost) for by_seed in curves.values() for c in by_seed.values())
    left.set_yscale("log")
    # The start is far above: what differs lies near the end.
    left.set_ylim(0.98 * least, 2.2 * least)
    ticks = [round(factor * least, 1) for factor in (1, 1.1, 1.25, 1.5, 1.75, 2)]
    left.set_yticks(ticks, [str(tick) for tick in ticks])
    left.minorticks_off()
    left.set_ylabel("cost")
    left.set_xlabel("examples met")
    right.set_xlabel("seconds of one core (of SGD: without measuring)")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
    left.set_xlim(left=1e4)
    right.set_xlim(left=0.05)
    left.legend()
    for axes, method in zip(below.subplots(1, 4), list(METHODS)[:4], strict=True):
        seed = next(iter(curves[method]))
        axes.imshow(sheet(tiles[f"{method} {seed}"]), cmap="gray", vmin=-1, vmax=1)
        axes.set_title(f"{method}, {curves[method][seed].cost[-1]:.3f}", fontsize=10)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9)
    figure.savefig(output / "optimizers.png")


def sheet(images: np.ndarray, columns: int = 6) -> np.ndarray:
    """Return filters as one picture, each by its own scale, with lines between."""
    size = images.shape[1]
    rows = -(-len(images) // columns)
    paper = np.full((rows * (size + 1) + 1, columns * (size + 1) + 1), 1.0)
    for place, image in enumerate(images):
        top, left = (1 + (size + 1) * k for k in divmod(place, columns))
        scaled = image / np.abs(image).max()
        paper[top : top + size, left : left + size] = scaled
    return paper


def draw_mean(axes, lines: list, label: str) -> None:
    """Draw lines (x, y) faintly, and their mean where all of them have values."""
    colour = COLOURS[label]
    for x, y in lines:
        axes.plot(x, y, color=colour, alpha=0.3, linewidth=0.7)
    first, last = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    first = max(first, 1e-3)  # SGD begins at 0 on a logarithmic axis
    grid = np.geomspace(first, max(last, first), 400)
    mean = np.mean([np.interp(grid, x, y) for x, y in lines], axis=0)
    dashes = "--" if label == SCIPY else "-"
    axes.plot(grid, mean, dashes, color=colour, linewidth=1.6, label=label)


if __name__ == "__main__":
    main()
