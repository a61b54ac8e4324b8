"""Cost of a sparse autoencoder over time, of each optimizer, and SciPy's L-BFGS-B.

    python benchmarks/optimizers.py patches.h5 --output runs/optimizers [--seeds 0,1,2]

As Figure 2.3.2 of Lahiri et al. 2010: mean of three starts, one process, one thread.
Writes optimizers.json, the curves, and optimizers.png; prints what each optimizer needs
to get as far as SciPy's does. SciPy's works on the very objective of the others.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from mpilayer.bench.patches import patches
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.descent import Descent
from mpilayer.train.sparse import ShardedCost, make_model, start_weights

SCIPY = "SciPy L-BFGS-B"
METHODS = ("lbfgs", "cg", "sgd", SCIPY)
COLOURS = dict(zip(METHODS, ("C0", "C1", "C2", "black"), strict=True))


@dataclass
class Curve:
    """The cost of what an optimizer has to show after each evaluation.

    That is the least cost so far of those that search along lines, and of ``sgd`` the
    latest, which may rise. Its passes over the rows count as seconds, not evaluations.
    """

    seconds: list[float]
    cost: list[float]

    def evaluations_to(self, target: float) -> int | None:
        """Return the evaluations until the cost is the target or less; None: never."""
        return next((i + 1 for i, c in enumerate(self.cost) if c <= target), None)

    def seconds_to(self, target: float) -> float | None:
        n = self.evaluations_to(target)
        return None if n is None else self.seconds[n - 1]


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
    parser.add_argument("--minibatch", type=int, default=100, help="of sgd")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="of sgd")
    args = parser.parse_args()
    rows = patches(args.data, args.rows or n_rows(args.data))
    config = SparseConfig(
        evaluations=args.evaluations,
        minibatch=args.minibatch,
        learning_rate=args.learning_rate,
    )
    seeds = [int(seed) for seed in args.seeds.split(",")]
    with threadpool_limits(1):
        curves = measure(rows, config, seeds)
    args.output.mkdir(parents=True, exist_ok=True)
    title = (
        f"{rows.shape[1]}-{config.hidden}-{rows.shape[1]}, {len(rows):,} patches, "
        f"{len(seeds)} starts; sgd: {config.minibatch} rows a step, rate "
        f"{config.learning_rate:g}"
    )
    text = json.dumps(record(curves, title))
    (args.output / "optimizers.json").write_text(text + "\n")
    draw_costs(curves, args.output / "optimizers.png", title)
    print(table(curves))


def n_rows(data: Path) -> int:
    with Dataset.open(data) as dataset:
        return dataset.n_samples("train")


def measure(rows: np.ndarray, config: SparseConfig, seeds: list[int]) -> Curves:
    """Return the curves: method to seed to curve. Methods take turns at every seed."""
    curves: Curves = {method: {} for method in METHODS}
    for seed in seeds:
        for method in METHODS:
            curves[method][seed] = descend(method, rows, replace(config, seed=seed))
            print(f"seed {seed}, {method}: {curves[method][seed].cost[-1]:.4f}")
    return curves


def descend(method: str, rows: np.ndarray, config: SparseConfig) -> Curve:
    """Descend from a seed's start; return the curve of the first evaluations."""
    model = make_model(config, rows.shape[1])
    start_weights(model, config)
    cost = ShardedCost(model, rows, config, SerialCommunicator())
    curve, began = Curve([], []), perf_counter()

    def note(found) -> None:
        before = [] if method == "sgd" else curve.cost[-1:]
        curve.cost.append(min([found.cost, *before]))
        curve.seconds.append(perf_counter() - began)

    cost.on_evaluation = note
    if method == SCIPY:
        descend_by_scipy(cost, config)
    else:
        for _ in Descent(cost, replace(config, optimizer=method)).states():
            pass
    # SciPy looks at its limit after an iteration only.
    n = config.evaluations
    return Curve(curve.seconds[:n], curve.cost[:n])


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


def record(curves: Curves, title: str) -> dict:
    return {
        "title": title,
        "curves": {
            method: {seed: vars(curve) for seed, curve in by_seed.items()}
            for method, by_seed in curves.items()
        },
        "to_scipys_cost": {
            method: {
                seed: {
                    "evaluations": curve.evaluations_to(curves[SCIPY][seed].cost[-1]),
                    "seconds": curve.seconds_to(curves[SCIPY][seed].cost[-1]),
                }
                for seed, curve in by_seed.items()
            }
            for method, by_seed in curves.items()
        },
    }


def table(curves: Curves) -> str:
    """Return a row a method and seed."""
    lines = [
        "| optimizer | seed | evaluations | seconds | cost | least cost "
        "| evaluations to SciPy's cost | seconds to it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, by_seed in curves.items():
        for seed, curve in by_seed.items():
            target = curves[SCIPY][seed].cost[-1]
            seconds = curve.seconds_to(target)
            lines.append(
                f"| {method} | {seed} | {len(curve.cost)} | {curve.seconds[-1]:.1f} | "
                f"{curve.cost[-1]:.4f} | {min(curve.cost):.4f} | "
                f"{curve.evaluations_to(target) or '–'} | "
                f"{'–' if seconds is None else f'{seconds:.1f}'} |"
            )
    return "\n".join(lines)


def draw_costs(curves: Curves, path: Path, title: str) -> None:
    """Draw cost over seconds and over evaluations: means bold, each start faint."""
    from matplotlib.figure import Figure

    figure = Figure((9, 4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for method, by_seed in curves.items():
        seeds = list(by_seed.values())
        over_time = [(curve.seconds, curve.cost) for curve in seeds]
        over_evaluations = [(range(1, len(c.cost) + 1), c.cost) for c in seeds]
        draw_mean(left, over_time, method)
        draw_mean(right, over_evaluations, method)
    least = min(min(c.cost) for by_seed in curves.values() for c in by_seed.values())
    left.set_yscale("log")
    # The start is far above: what differs lies near the end.
    left.set_ylim(0.98 * least, 2.2 * least)
    ticks = [round(factor * least, 1) for factor in (1, 1.1, 1.25, 1.5, 1.75, 2)]
    left.set_yticks(ticks, [str(tick) for tick in ticks])
    left.minorticks_off()
    left.set_ylabel("cost")
    left.set_xlabel("seconds")
    right.set_xlabel("evaluations of the cost (sgd: after a pass each)")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
    right.legend()
    figure.suptitle(title, fontsize=9)
    figure.savefig(path)


def draw_mean(axes, lines: list, label: str) -> None:
    """Draw lines (x, y) faintly, and their mean where all of them have values."""
    colour = COLOURS[label]
    for x, y in lines:
        axes.plot(x, y, color=colour, alpha=0.3, linewidth=0.7)
    first, last = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.geomspace(first, max(last, first), 400)
    mean = np.mean([np.interp(grid, x, y) for x, y in lines], axis=0)
    dashes = "--" if label == SCIPY else "-"
    axes.plot(grid, mean, dashes, color=colour, linewidth=1.6, label=label)


if __name__ == "__main__":
    main()
