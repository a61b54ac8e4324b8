"""More epochs for a run that follows a table, where that changes nothing before."""

from dataclasses import replace

from mpilayer.config import PretrainConfig, as_values, flag
from mpilayer.errors import ConfigError
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.keeping import Cut
from mpilayer.runs.tables import write_table
from mpilayer.train.plans import Candidate, TablePlan
from mpilayer.train.schedule import Schedule

LENGTHS = frozenset({"epochs", "extra_epochs"})
"""Settings that make a run longer or shorter."""


def lengthen(
    directory: RunDirectory,
    name: str,
    before: PretrainConfig,
    asked: PretrainConfig,
    old: Schedule,
    new: Schedule,
) -> None:
    """Let a run have more epochs: the weights will be those of such a run. Local.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    name : str
        Its mark of completion and its section of ``config.toml``.
    before, asked : PretrainConfig
        Settings of the run, and of the longer one.
    old, new : Schedule
        Their tables.

    Raises
    ------
    ConfigError
        What was trained so far would have been trained otherwise: a layer has used
        outputs of another epoch, or one that was the last then and is not now.
    """
    streamed = before.activations == "streamed"
    plans = TablePlan(old, streamed), TablePlan(new, streamed)
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
    directory.set_complete(name, False)
    for layer, candidate in enumerate(cut.candidates):
        if candidate.final and candidate.epoch < len(new.used[layer]):
            later = replace(candidate, final=False)
            directory.layer_file(layer, candidate).rename(
                directory.layer_file(layer, later)
            )
    directory.write_config({name: as_values(asked)})
    write_table(directory, new)


def _is_same(
    layer: int,
    candidate: Candidate,
    tables: tuple[Schedule, Schedule],
    plans: tuple[TablePlan, TablePlan],
) -> bool:
    """Tell whether a layer's epochs so far are the same in both tables."""
    old, new = (table.used[layer][: candidate.epoch] for table in tables)
    if old != new:
        return False
    return layer == 0 or all(
        plans[0].streams(layer - 1, output) == plans[1].streams(layer - 1, output)
        for output in set(old)
    )
