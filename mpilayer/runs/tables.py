"""The schedule of a run: filled in or read back; how it goes on after a cut."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpilayer import files
from mpilayer.config import PretrainConfig
from mpilayer.errors import CheckpointError, ConfigError, ScheduleError
from mpilayer.models.base import LayerShape
from mpilayer.runs.directory import RunDirectory
from mpilayer.train.plans import AsyncPlan, Plan, TablePlan
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
    table = _table_of(config, shapes)
    if table is None:
        return None
    activations = effective(config, table).activations
    return replace(table, settings={**table.settings, "activations": activations})


def _table_of(config: PretrainConfig, shapes: Sequence[LayerShape]) -> Schedule | None:
    epochs, extra = config.stipulated_epochs, config.extra
    name, _, file = config.schedule.partition(":")
    if name == "replay":
        return _read_schedule(Path(file), len(shapes))
    if name == "greedy":
        return greedy(epochs, extra)
    if name == "lockstep":
        lag = config.lag[0] if len(config.lag) == 1 else config.lag
        return lockstep(epochs, extra, lag, config.refresh_every)
    if name == "simulate":
        costs = [
            given or shape.cost
            for given, shape in zip(config.epoch_costs, shapes, strict=True)
        ]
        n_cores = config.cores or len(shapes)
        return simulate(epochs, extra, costs, n_cores, config.end, config.cut_short)
    return None


def stored_table(directory: RunDirectory) -> Schedule:
    """Return the table of a run.

    Raises
    ------
    CheckpointError
        It is missing.
    ScheduleError
        It is not as it was written.
    """
    path = directory.schedule
    if not path.exists():
        raise CheckpointError(
            f"{path} must be there to go on; it is missing. Restore it, or train again."
        )
    content = files.read_json(path, ScheduleError)
    return Schedule.from_json(json.dumps(content), str(path))


def write_table(directory: RunDirectory, table: Schedule) -> None:
    """Write the table of a run. Local."""
    files.write_json(directory.schedule, json.loads(table.to_json()))


def _read_schedule(path: Path, n_layers: int) -> Schedule:
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
