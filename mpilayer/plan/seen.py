"""What a run's own seconds tell of other numbers of ranks; nothing is measured anew.

An epoch, or an evaluation, is one piece here. What more ranks do to it is a model: see
``with_friction``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig
from mpilayer.models.base import LayerShape
from mpilayer.placement import with_friction
from mpilayer.plan.cost import Sparse
from mpilayer.plan.layers import Pretraining, layer_key
from mpilayer.plan.links import links_of
from mpilayer.plan.measured import Curve, Measured
from mpilayer.plan.model import Model, Outlook, outlook
from mpilayer.plan.stack import Finetuning
from mpilayer.train.layer import layer_shapes, most_slices
from mpilayer.train.plans import plan_of, table_of
from mpilayer.train.record import EpochRecord

_RANKS = (1, 2, 4, 8, 16, 32)
_LINKS = links_of("", None, 1e10)
Lines = Sequence[Mapping[str, Any]]
"""Lines of a file of metrics, whole ones."""


def pretraining_seen(
    config: PretrainConfig,
    n_visible: int,
    ranks: int,
    layers: Sequence[Sequence[EpochRecord]],
) -> Outlook:
    """Return what the epochs of all layers tell. Schedules are made, not replayed."""
    config, shapes = replace(config, slices=(0,)), layer_shapes(config, n_visible)
    config = replace(config, monitor_rows=1, monitor_every=-1)
    table, numbers, curves = table_of(config, shapes), dict[str, float](), {}
    plan = plan_of(config, table)
    for layer, (shape, epochs) in enumerate(zip(shapes, layers, strict=True)):
        key, size = layer_key(shape), max(1, len(epochs[0].team))
        most = most_slices(shape.n_hidden)
        taken = median(epoch.training for epoch in epochs)
        curves[f"step {key}"] = _curve(taken, min(size, most), most)
        curves[f"epoch {key}"] = Curve((1,), (1e-9,))
        # All rows of the run count as a minibatch, and the monitored ones as two.
        rows = sum(
            2 + (0 if plan.streams(layer, epoch.epoch) else config.minibatch)
            for epoch in epochs
            if plan.leaves(layer, epoch.epoch)
        )
        encoding = sum(epoch.transform for epoch in epochs)
        numbers[f"encode {key}"] = encoding * size / max(1, rows)
        measuring = median(epoch.monitor for epoch in epochs)
        numbers[f"monitor {key}"] = measuring / (2 if size == 1 else 1)
    found = _measured("pretrain", config.minibatch, n_visible, numbers, curves)
    free = replace(config, layout="auto")
    model = Pretraining(found, _LINKS, free, shapes, table)
    if config.layout != free.layout:  # it may be of no use to other numbers of ranks
        model.options = (f"--layout {config.layout}", *model.options)
    return _look(model, ranks)


def finetuning_seen(
    config: FinetuneConfig, shapes: Sequence[LayerShape], ranks: int, epochs: Lines
) -> Outlook:
    """Return what the epochs of fine-tuning on so many ranks of a host tell."""
    taken = median(epoch["training"] for epoch in epochs)
    most, rows = 64, config.minibatch
    step = _curve(taken, ranks, most)
    curves = {"step": step, "epoch": Curve((1,), (1e-9,))}
    curves["rows"] = Curve((1, rows + 1), (step(1) / rows, step(1)))
    numbers = {"evaluate": median(epoch["evaluating"] for epoch in epochs)}
    found = _measured("finetune", rows, shapes[0].n_visible, numbers, curves)
    config = replace(config, slices=0, epochs=len(epochs))
    return _look(Finetuning(found, _LINKS, config, shapes), ranks)


def sparse_seen(
    config: SparseConfig, shape: tuple[int, int], ranks: int, evaluations: Lines
) -> Outlook:
    """Return what evaluations on so many ranks tell; steps of sgd are every rank's."""
    computing, waiting = (
        median(line[key] for line in evaluations) for key in ("computing", "allreduce")
    )
    every = evaluations[-1]["seconds"] / len(evaluations)
    numbers = {"row": computing * ranks / shape[0], "block": 0.0}
    numbers["evaluation"] = max(1e-9, every - computing - waiting)
    config = replace(config, optimizer="lbfgs", evaluations=len(evaluations), shards=0)
    found = _measured("sparse", *shape, numbers, {})
    return _look(Sparse(found, _LINKS, config), ranks)


def _curve(seconds: float, size: int, most: int) -> Curve:
    """Return the seconds of teams of up to ``most``, given those of one of a size."""
    sizes = sorted({1, *(n for n in _RANKS if n < most), most})
    one = seconds / with_friction(1.0, size)
    return Curve(tuple(sizes), tuple(with_friction(one, n) for n in sizes))


def _measured(
    command: str,
    n_train: int,
    n_visible: int,
    numbers: Mapping[str, float],
    curves: Mapping[str, Curve],
) -> Measured:
    data = {"n_train": n_train, "n_validation": 1, "n_visible": n_visible}
    speeds = (1.0, 1e10, 1e9, 0.1)  # of these only the interval would speak
    cores = max(_RANKS)
    return Measured(command, data, {}, cores, *speeds, 0, numbers, curves)


def _look(model: Model, ranks: int) -> Outlook:
    useful = [n for n in _RANKS if n <= max(1, model.useful())]
    return outlook(model, [ranks, *useful], 1)
