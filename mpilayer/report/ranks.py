"""Would more ranks help? What a run's own seconds tell of other numbers of them.

An epoch, or an evaluation, is one piece here; nothing is measured anew. What more ranks
do to it is a model: see ``with_friction``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, from_values
from mpilayer.errors import MpilayerError
from mpilayer.placement import with_friction
from mpilayer.plan.cost import Sparse
from mpilayer.plan.layers import Pretraining, layer_key
from mpilayer.plan.links import links_of
from mpilayer.plan.measured import Curve, Measured
from mpilayer.plan.model import Model, Outlook, outlook
from mpilayer.plan.stack import Finetuning
from mpilayer.report import html
from mpilayer.report.run import Run, number
from mpilayer.report.words import short
from mpilayer.train.layer import layer_shapes, most_slices
from mpilayer.train.plans import plan_of, table_of

_RANKS = (1, 2, 4, 8, 16, 32)
_LINKS = links_of("", None, 1e10)
_WORTH = 1.1  # times as fast
_MOST_EPOCHS = 10_000
_NOTHING = Curve((1,), (1e-9,))


def would_more_ranks_help(run: Run) -> Iterator[html.Part]:
    """Yield a table for each training of a run that has gone far enough to tell."""
    for title, ranks, look in (
        ("pre-training", run.summary.get("ranks"), pretraining),
        ("fine-tuning", run.summary.get("finetune_ranks"), finetuning),
        ("training", run.summary.get("ranks"), sparse),
    ):
        try:
            found = look(run)
        # Files of former versions, or that others have changed, may lack what is asked.
        except (MpilayerError, ArithmeticError, LookupError, TypeError, ValueError):
            continue
        if found is not None and any(f.ranks == ranks for f in found.forecasts):
            layout = str(run.section("pretrain").get("layout"))
            yield _table(title, int(number(ranks)), layout, found)


def _table(title: str, ranks: int, layout: str, found: Outlook) -> html.Markup:
    own = [f for f in found.forecasts if f.ranks == ranks]
    now = next((f for f in own if f.option.endswith(layout)), own[0])
    speeds = [now.cost.seconds / f.cost.seconds for f in found.forecasts]
    pairs = [*zip(speeds, found.forecasts, strict=True)]
    more = [(s, f) for s, f in pairs if f.ranks > ranks and s > _WORTH]
    answer = f"no: no more than {ranks} would be {_WORTH:g} times as fast"
    if more:
        speed, best = max(more, key=lambda pair: (round(pair[0], 1), -pair[1].ranks))
        told = f" with {best.option}" if best.option else ""
        answer = f"{best.ranks}{told} would be {speed:.1f} times as fast"
    rows = []
    for speed, f in pairs:
        ratios = short(speed, ".2f"), short(f.efficiency, ".2f")
        rows.append([str(f.ranks), f.cost.layout, *ratios, f.cost.bound])
    return html.table(
        f"Would more ranks help {title}? {answer.capitalize()}. Simulated from the "
        f"run's own seconds on {ranks}, for a host with a core for each rank; "
        "'mpilayer plan' measures, and knows several hosts.",
        ("ranks", "who does what", "speed against now", "efficiency", "bound by"),
        rows,
    )


def pretraining(run: Run) -> Outlook | None:
    """Return what the epochs of all layers tell. Schedules are made, not replayed."""
    if run.kind != "deep" or not all(run.layers):
        return None
    config = from_values(PretrainConfig, run.section("pretrain"))
    # Every epoch is an event; 10⁶ of them take minutes for each number of ranks.
    too_many = sum(config.stipulated_epochs) > _MOST_EPOCHS
    if config.schedule.startswith("replay") or too_many:
        return None
    config = replace(config, slices=(0,), monitor_rows=1, monitor_every=-1)
    shapes = layer_shapes(config, run.n_visible)
    table, numbers, curves = table_of(config, shapes), dict[str, float](), {}
    plan = plan_of(config, table)
    for layer, (shape, epochs) in enumerate(zip(shapes, run.layers, strict=True)):
        key, size = layer_key(shape), max(1, len(epochs[0].team))
        most = most_slices(shape.n_hidden)
        taken = median(epoch.training for epoch in epochs)
        curves[f"step {key}"] = _curve(taken, min(size, most), most)
        curves[f"epoch {key}"] = _NOTHING
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
    found = _measured("pretrain", config.minibatch, run.n_visible, numbers, curves)
    free = replace(config, layout="auto")
    model = Pretraining(found, _LINKS, free, shapes, table)
    if config.layout != free.layout:  # it may be of no use to other numbers of ranks
        model.options = (f"--layout {config.layout}", *model.options)
    return _look(model, int(run.summary["ranks"]))


def finetuning(run: Run) -> Outlook | None:
    """Return what the epochs of fine-tuning on ranks of one host tell."""
    lines = run.metrics["finetune"]
    if run.kind != "deep" or not lines or number(run.summary.get("finetune_hosts")) > 1:
        return None
    stack = from_values(PretrainConfig, run.section("pretrain"))
    config = from_values(FinetuneConfig, run.section("finetune"))
    taken, rows = median(line["training"] for line in lines), config.minibatch
    step = _curve(taken, int(run.summary["finetune_ranks"]), 64)
    # Fewer rows take as much less.
    by_rows = Curve((1, rows + 1), (step(1) / rows, step(1)))
    curves = {"step": step, "epoch": _NOTHING, "rows": by_rows}
    numbers = {"evaluate": median(line["evaluating"] for line in lines)}
    found = _measured("finetune", rows, run.n_visible, numbers, curves)
    config = replace(config, slices=0, epochs=len(lines))
    model = Finetuning(found, _LINKS, config, layer_shapes(stack, run.n_visible))
    return _look(model, int(run.summary["finetune_ranks"]))


def sparse(run: Run) -> Outlook | None:
    """Return what evaluations tell; steps of sgd are every rank's."""
    lines, ranks = run.metrics["sparse"], run.summary.get("ranks")
    if run.kind != "sparse" or len(lines) < 2 or ranks is None:
        return None
    config = from_values(SparseConfig, run.section("sparse"))
    computing, waiting = (
        median(line[key] for line in lines) for key in ("computing", "allreduce")
    )
    every, n_rows = lines[-1]["seconds"] / len(lines), int(run.summary["n_rows"])
    numbers = {"row": computing * int(ranks) / n_rows, "block": 0.0}
    numbers["evaluation"] = max(1e-9, every - computing - waiting)
    config = replace(config, optimizer="lbfgs", evaluations=len(lines), shards=0)
    found = _measured("sparse", n_rows, run.n_visible, numbers, {})
    return _look(Sparse(found, _LINKS, config), int(ranks))


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
