"""From a command, its settings and a data set to what it will take."""

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpilayer import environment
from mpilayer.arrays import StoredRows
from mpilayer.config import PretrainConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.parallel.start import place
from mpilayer.plan.cost import Sparse, measure_cost
from mpilayer.plan.layers import Pretraining, measure_layers
from mpilayer.plan.links import Links, links_of
from mpilayer.plan.measured import Measured, identity, no_plan, read_measured
from mpilayer.plan.model import Model, Outlook, outlook
from mpilayer.plan.pieces import Pieces, speeds
from mpilayer.plan.stack import Finetuning, measure_stack
from mpilayer.runs.directory import RunDirectory, replayed
from mpilayer.runs.rows import Facts, data_facts, data_of_run, sparse_facts
from mpilayer.runs.tasks import run_shapes
from mpilayer.train.layer import check_layer, layer_shapes
from mpilayer.train.plans import table_of

COMMANDS = ("pretrain", "finetune", "sparse")
MOST_RANKS = 100_000
"""More of them, or hosts, would take long to look at."""
_RANKS_OF_A_HOST = 8  # of a cluster, if nobody says how many


@dataclass(frozen=True)
class Question:
    """What is asked: of which training, on which ranks, hosts and links."""

    command: str
    config: Any
    data: Path  # the data set; of finetune perhaps a pre-trained run
    layers: tuple[int, ...] = PretrainConfig().layers  # to fine-tune, without a run
    ranks: tuple[int, ...] = ()  # none: 1, 2, 4 ..., to the cores here or of a cluster
    hosts: int = 1
    cluster: str = ""
    links: Path | None = None
    measured: Path | None = None


def look_ahead(asked: Question, say: Callable[[str], object]) -> Outlook:
    """Answer it. Local; if nothing measured is given, says that it measures now."""
    links_of(asked.cluster, asked.links, 1.0)  # complains now
    data, shapes, facts = _known(asked)
    place(SerialCommunicator(), 1)
    ranks, usual = asked.ranks, len(environment.cores())
    if asked.cluster or asked.links or asked.hosts > 1:
        usual = asked.hosts * max(usual, _RANKS_OF_A_HOST)
    if asked.measured is not None:
        measured = read_measured(asked.measured, asked.command, asked.config, facts)
    else:
        say("measuring on this machine ...")
        most = max(ranks, default=usual)
        crowd = -(-most // asked.hosts)
        measured = _measure(asked, facts, data, shapes, min(crowd, 512))
    links = links_of(asked.cluster, asked.links, measured.memory)
    model = _model(asked, measured, links, shapes, data)
    if not ranks:
        useful = min(model.useful() * asked.hosts, usual, MOST_RANKS)
        ranks = tuple(2**i for i in range(useful.bit_length()))
    try:
        return outlook(model, ranks, asked.hosts)
    except KeyError as error:
        if asked.measured is None:
            raise
        raise no_plan(asked.measured, f"no piece {error}") from error


def seconds_of(asked: Question, say: Callable[[str], object]) -> float:
    """Return the seconds that its runs take at most, one after the other.

    ConfigError: some of the ranks are refused.
    """
    found = look_ahead(asked, say)
    for why in found.refused.values():
        raise ConfigError(why)
    return sum(f.high for f in found.forecasts if not f.option)


def _known(asked: Question) -> tuple[Path, Sequence[LayerShape], Facts]:
    """Return data set, layers, and facts, checked as the run would check them."""
    data, config = asked.data, asked.config
    if asked.command == "sparse":
        return data, (), sparse_facts(data, config, config.kl == "average")
    if asked.command == "finetune" and data.is_dir():
        directory = RunDirectory.open(data)
        data = data_of_run(directory, None)
        return data, run_shapes(directory)[1], data_facts(data, config.minibatch)
    facts = data_facts(data, config.minibatch)
    stack = config
    if asked.command == "finetune":
        stack = PretrainConfig(layers=asked.layers)
    shapes = layer_shapes(stack, facts.n_visible)
    for index, shape in enumerate(shapes):
        check_layer(stack, shape, index)
    return data, shapes, facts


def _measure(
    asked: Question, facts: Facts, data: Path, shapes: Sequence[LayerShape], most: int
) -> Measured:
    """Return the pieces of a training, for teams of up to so many ranks."""
    base = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cores, config = len(environment.cores()), asked.config
    pieces = Pieces(min(cores, most) - 1)
    grid = sorted({most, *(2**i for i in range(most.bit_length()))})
    with Dataset.open(data) as dataset:
        if asked.command == "pretrain":
            measure_layers(pieces, config, dataset, shapes, grid)
        elif asked.command == "finetune":
            measure_stack(pieces, config, dataset, shapes, grid)
        else:
            measure_cost(pieces, config, dataset)
    about = asked.command, identity(facts), as_values(config), cores
    machine = pieces.crowding, *speeds(), pieces.spread
    return Measured(*about, *machine, base, pieces.numbers, pieces.curves)


def _model(
    asked: Question,
    measured: Measured,
    links: Links,
    shapes: Sequence[LayerShape],
    data: Path,
) -> Model:
    if asked.command == "sparse":
        return Sparse(measured, links, asked.config)
    if asked.command == "finetune":
        return Finetuning(measured, links, asked.config, shapes)
    table = table_of(asked.config, shapes, replayed(asked.config.schedule, len(shapes)))
    with Dataset.open(data) as dataset:
        row = dataset.compact_rows("train", 0, 1)
    kind = row.values.dtype if isinstance(row, StoredRows) else row.dtype
    return Pretraining(measured, links, asked.config, shapes, table, kind)
