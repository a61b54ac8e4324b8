"""The schedule of a pre-training: filled in, made longer, going on after a cut."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpilayer.config import PretrainConfig, as_values, flag
from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.runs.checkpoints import Cut
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.tasks import PRETRAIN
from mpilayer.train.plans import AsyncPlan, Candidate, Plan, TablePlan
from mpilayer.train.schedule import Schedule, greedy, lockstep, simulate


def effective(config: PretrainConfig, table: Schedule | None) -> PretrainConfig:
    """Return the configuration with the defaults that depend on others filled in."""
    activations = config.activations
    if activations == "auto":
        name = config.schedule.partition(":")[0]
        activations = "transformed" if name in ("async", "simulate") else "streamed"
        if name == "replay" and table is not None:
            activations = table.settings.get("activations", activations)
    return replace(config, extra_epochs=config.extra, activations=activations)


def table_of(config: PretrainConfig, shapes: Sequence[LayerShape]) -> Schedule | None:
    """Return the table of the schedule, None if it comes about as outputs arrive."""
    epochs, extra = config.stipulated_epochs, config.extra
    name, _, file = config.schedule.partition(":")
    if name == "async":
        return None
    if name == "replay":
        table = _replayed(Path(file), len(shapes))
    elif name == "greedy":
        table = greedy(epochs, extra)
    elif name == "lockstep":
        lag = config.lag[0] if len(config.lag) == 1 else config.lag
        table = lockstep(epochs, extra, lag, config.refresh_every)
    else:
        costs = [
            given or shape.cost
            for given, shape in zip(config.epoch_costs, shapes, strict=True)
        ]
        n_cores = config.cores or len(shapes)
        table = simulate(epochs, extra, costs, n_cores, config.end, config.cut_short)
    activations = effective(config, table).activations
    return replace(table, settings={**table.settings, "activations": activations})


def _replayed(path: Path, n_layers: int) -> Schedule:
    if not path.is_file():
        raise ConfigError(
            f"--schedule replay:FILE must name the schedule.json of a run; {path} is "
            "not a file. Give another one."
        )
    # Perhaps written by hand: without the seal of a run's own.
    schedule = Schedule.from_json(path.read_text("utf-8", "replace"), str(path))
    if schedule.n_layers != n_layers:
        raise ConfigError(
            f"a schedule must have a row for every layer; {path} has "
            f"{schedule.n_layers}, --layers {n_layers}. Give the same number of layers."
        )
    return schedule


def plan_of(config: PretrainConfig, table: Schedule | None) -> Plan:
    """Return who trains when, and which checkpoints of the layers go together."""
    streamed = config.activations == "streamed"
    if table is not None:
        return TablePlan(table, streamed)
    return AsyncPlan(
        config.stipulated_epochs, config.extra, streamed, config.end, config.cut_short
    )


def lengthen(
    directory: RunDirectory,
    before: PretrainConfig,
    asked: PretrainConfig,
    old: Schedule,
    new: Schedule,
) -> None:
    """Let a run have more epochs: the weights will be those of such a run. Local.

    Raises
    ------
    ConfigError
        What was trained so far would have been trained otherwise: a layer has used
        outputs of another epoch, or one that was the last then and is not now.
    """
    plans = plan_of(before, old), plan_of(before, new)
    cut = Cut.newest(directory, plans[0], old.n_layers)
    for layer, candidate in enumerate(cut.candidates):
        if not _is_same(layer, candidate, (old, new), plans):
            key = "epochs" if before.epochs != asked.epochs else "extra_epochs"
            was, now = (",".join(map(str, getattr(c, key))) for c in (before, asked))
            raise ConfigError(
                f"a longer run must begin as this one did; {flag(key)} was {was}, is "
                f"{now}, and layer {layer + 1} would have been trained on other "
                "outputs. Leave it out, or begin another run."
            )
    # First: in a complete run, checkpoints that are not final would be removed.
    directory.set_complete(PRETRAIN, False)
    for layer, candidate in enumerate(cut.candidates):
        if candidate.final and candidate.epoch < len(new.used[layer]):
            later = replace(candidate, final=False)
            directory.layer_file(layer, candidate).rename(
                directory.layer_file(layer, later)
            )
    directory.write_config({PRETRAIN: as_values(asked)})
    directory.write_table(new)


def _is_same(
    layer: int,
    candidate: Candidate,
    tables: tuple[Schedule, Schedule],
    plans: tuple[Plan, Plan],
) -> bool:
    """Tell whether a layer's epochs so far are the same in both tables."""
    old, new = (table.used[layer][: candidate.epoch] for table in tables)
    if old != new:
        return False
    return layer == 0 or all(
        plans[0].streams(layer - 1, output) == plans[1].streams(layer - 1, output)
        for output in set(old)
    )
