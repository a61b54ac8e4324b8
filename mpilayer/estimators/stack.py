"""The deep autoencoder as an estimator: pre-training of all layers, fine-tuning."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.estimators.arguments import Fields, takes
from mpilayer.estimators.base import Reconstructor
from mpilayer.estimators.rows import Bounds, by_strata, redistribute
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.losses import check_loss
from mpilayer.parallel.comm import Communicator, owned
from mpilayer.parallel.notice import Notice
from mpilayer.parallel.start import hosts
from mpilayer.parallel.team import check_room
from mpilayer.placement import Place
from mpilayer.train.backpropagation import shared_bytes
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.groups import RowGroups, resolved
from mpilayer.train.layer import (
    LayerState,
    check_layer,
    layer_shapes,
    make_layer,
    monitored,
    row_counts,
)
from mpilayer.train.layers import needed_bytes
from mpilayer.train.plans import plan_of, table_of
from mpilayer.train.pretrain import Keeper, Pipeline
from mpilayer.train.schedule import Schedule
from mpilayer.train.sums import EAGER_SECONDS
from mpilayer.train.teams import places_for, team_up, with_slices

_PRETRAINING = Fields(
    PretrainConfig,
    # Of other schedules, of what a run directory keeps, and of so many ranks.
    without={"cores", "costs", "end", "cut_short", "monitor_every", "layout", "memory"},
    choices={
        "schedule": ("lockstep", "greedy"),
        "activations": ("streamed", "transformed"),
    },
    words={
        "schedule": "lockstep: all layers at once; greedy: one after the other",
        "extra_epochs": "more epochs of each layer after its last input; -1: 0",
        "activations": "outputs before a layer's last stipulated epoch: 'streamed' "
        "takes what training computes anyway; 'transformed' encodes all rows after the "
        "epoch, as Santara et al.",
        "monitor_rows": "rows on which layer_errors_ are measured",
    },
)
_FINETUNING = Fields(
    FinetuneConfig,
    without={
        *("task", "from_scratch", "patience", "parallel", "slices", "memory"),
        "augment",
    },
    names={
        name: f"finetune_{name}"
        for name in (
            *("epochs", "learning_rate", "learning_rate_decay", "loss"),
            *("learning_rate_schedule", "warm_up", "weight_decay", "minibatch"),
        )
    },
    words={
        "finetune_epochs": "epochs of fine-tuning; 0: none",
        "finetune_loss": "what fine-tuning minimizes",
    },
)

_Trained: TypeAlias = tuple[int, Array32, list[float]]
"""A layer's index, parameters, and errors."""


@takes(_PRETRAINING, _FINETUNING, activations="streamed")
class StackedAutoencoder(Reconstructor):
    """Deep autoencoder: layers pre-trained by a schedule, unrolled and fine-tuned.

    ``mpilayer pretrain`` and ``finetune`` with the same settings, without validation
    rows, find the same weights. With sigmoid visible units rows must be in [0, 1]. On
    several ranks rank 0 collects the rows for pre-training, with layers on ranks;
    fine-tuning shares the units of a minibatch, or from 1000 rows on, and on hosts of
    unequal numbers of ranks, the rows.

    {parameters}

    Attributes
    ----------
    layer_errors_ : list of list of float
        Reconstruction error of each layer's own input after each of its epochs, on
        ``monitor_rows`` rows.
    finetune_losses_ : list of float
        Loss of each epoch of fine-tuning, as met on the way.
    """

    def _check_configs(self, *configs: Any) -> None:
        pretraining, tuning = configs
        for index, shape in enumerate(layer_shapes(pretraining, 1)):
            check_layer(pretraining, shape, index)
        check_loss(tuning.loss, pretraining.visible)

    def _minibatches(self) -> list[str]:
        tuned = ["finetune_minibatch"] if self.finetune_epochs else []
        return ["minibatch", *tuned]

    def _train(
        self, rows: Any, bounds: Bounds, comm: Communicator, *configs: Any
    ) -> None:
        n_rows = bounds[-1][1]
        if comm.size > 1:
            alone = [(0, n_rows), *[(n_rows, n_rows)] * (comm.size - 1)]
            rows, bounds = redistribute(rows, bounds, alone, comm), alone
        shape = (n_rows, self.n_features_in_)
        stack, self.layer_errors_ = _pretrain(configs[0], rows, shape, comm)
        self.finetune_losses_ = _finetune(stack, configs[1], rows, bounds, comm)
        self._keep(stack.shapes, stack.parameters)


def _pretrain(
    config: PretrainConfig, rows: Any, shape: tuple[int, int], comm: Communicator
) -> tuple[DeepAutoencoder, list[list[float]]]:
    """Return the unrolled stack, and the errors of each layer. Collective.

    Rank 0 has all rows, of that shape.
    """
    names, shapes = hosts(comm), layer_shapes(config, shape[1])
    # Teams are on one host: where there are more hosts than layers, some have none.
    busy = list(dict.fromkeys(names))[: len(shapes)]
    there = [name for name in names if name in busy]
    table = table_of(config, shapes)
    places = places_for(config, there, shape[1], table, idle=True)
    config = with_slices(config, places)
    idle = names[comm.rank] not in busy
    with owned(comm.split(idle)) as part:
        task = config, table, rows, shape, part, places
        mine = comm.everywhere(lambda: [] if idle else _train_layers(*task))
    found = sorted(chain(*comm.allgather(mine)), key=itemgetter(0))
    layers = [
        make_layer(config, one, vector)
        for one, (_, vector, _) in zip(shapes, found, strict=True)
    ]
    return DeepAutoencoder.unroll(layers), [own for _, _, own in found]


def _train_layers(
    config: PretrainConfig,
    table: Schedule | None,
    rows: Any,
    shape: tuple[int, int],
    comm: Communicator,
    places: Sequence[Place],
) -> list[_Trained]:
    """Return this rank's layers if it is a head. Collective on those with layers."""
    shapes = layer_shapes(config, shape[1])
    none: Array32 = np.empty((0, shape[1]), np.float32)
    data = monitored(rows, none, config.monitor_rows) if comm.rank == 0 else None
    counts = row_counts(shape[0], 0, config.monitor_rows)
    where = config, shape[1], places, comm.rank
    need = needed_bytes(*where, data, counts, replace=False)
    check_room(comm, need, "fit on fewer ranks")
    with team_up(comm, places, EAGER_SECONDS) as (team, own, heads):
        states = [LayerState(config, shapes, index, team) for index in own]
        errors: dict[LayerState, list[float]] = {state: [] for state in states}

        def run() -> None:
            notice, plan = Notice(comm), plan_of(config, table)
            pipeline = Pipeline(states, data, counts, heads, plan, Keeper(notice))
            for state, record in pipeline.run():
                errors[state].append(record.train_error)
            notice.close()
            pipeline.check()

        comm.everywhere(run)
        if not team.is_head:
            return []
        return [
            # A copy: the team's memory is given back.
            (s.index, s.layer.parameters.vector.copy(), errors[s])
            for s in states
        ]


def _finetune(
    stack: DeepAutoencoder,
    config: FinetuneConfig,
    rows: Any,
    bounds: Bounds,
    comm: Communicator,
) -> list[float]:
    """Train the stack in place; return the losses. Collective."""
    if not config.epochs:
        return []
    config, names = resolved(config, stack.shapes), hosts(comm)
    # Teams of units must be of one size; more ranks than slices are idle.
    if len(set(Counter(names).values())) > 1:
        config = replace(config, parallel="rows", slices=1)
    groups = RowGroups(comm, names if config.parallel == "units" else ())
    batch = config.minibatch
    none: Array32 = np.empty((0, stack.shapes[0].n_visible), np.float32)
    with groups:
        rows, share = by_strata(rows, bounds, batch, comm, groups.numbers)
        need = shared_bytes(stack, config, groups) if groups.team.is_head else 0
        check_room(comm, need, "fit on one rank of each host")
        state = FinetuneState(stack, config, groups.team)
        losses = [one.train_loss for one in finetune(state, share, rows, none, groups)]
        state.leave()
    return losses
