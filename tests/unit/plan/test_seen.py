"""What runs tell of other numbers of ranks: their own seconds come out again."""

from dataclasses import replace

import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig
from mpilayer.plan.seen import finetuning_seen, pretraining_seen, sparse_seen
from mpilayer.train.layer import layer_shapes
from mpilayer.train.plans import effective
from mpilayer.train.record import EpochRecord

CONFIG = PretrainConfig(layers=(256, 128), epochs=(4,), schedule="greedy")


def epoch(layer, number, training, team=()):
    taken = {"training": training, "transform": 0.25, "monitor": 0.25}
    rest = {"started": 0.0, "waiting": 0.0, "sending": 0.0}
    errors = {"train_error": 1.0, "validation_error": 1.0}
    taken["transform"] *= layer == 0 and number == 4  # greedy: one output leaves
    return EpochRecord(layer, number, number, **rest, **taken, **errors, team=team)


def seconds(found, ranks):
    return next(f.cost.seconds for f in found.forecasts if f.ranks == ranks)


def test_the_epochs_of_layers_add_up():
    layers = [[epoch(i, n, 3.0 - i) for n in range(1, 5)] for i in range(2)]
    found = pretraining_seen(effective(CONFIG, None), 784, 3, layers)
    assert seconds(found, 1) == pytest.approx(4 * 3.25 + 0.25 + 4 * 2.25, rel=0.01)
    assert seconds(found, 3) < seconds(found, 4) < seconds(found, 1)


def test_a_layout_that_was_given_is_seen_beside_those_of_other_ranks():
    layers = [[epoch(i, n, 3.0 - i) for n in range(1, 5)] for i in range(2)]
    config = replace(effective(CONFIG, None), layout="1:2 2:2")
    found = pretraining_seen(config, 784, 4, layers)
    assert {(4, "1:2 2:2"), (2, "1-2:2")} <= {
        (f.ranks, f.cost.layout) for f in found.forecasts
    }
    assert not found.refused


def test_a_team_of_two_tells_of_one_rank():
    team = ((0, 1.0, 0.0), (1, 1.0, 0.0))
    alone = [[epoch(i, n, 2.0) for n in range(1, 5)] for i in range(2)]
    both = [[epoch(i, n, 1.05, team) for n in range(1, 5)] for i in range(2)]
    config = effective(CONFIG, None)
    found, again = (pretraining_seen(config, 784, 2, own) for own in (alone, both))
    # Two share what one measures and passes on alone.
    more = 8 * 0.25 + 0.25
    assert seconds(again, 1) == pytest.approx(seconds(found, 1) + more, rel=0.01)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_fine_tuning_and_evaluations_come_out_again(ranks):
    lines = [{"training": 2.0, "evaluating": 0.1}] * 3
    shapes = layer_shapes(CONFIG, 784)
    found = finetuning_seen(FinetuneConfig(), shapes, ranks, lines)
    assert seconds(found, ranks) == pytest.approx(6.4, rel=0.1)
    parts = {"computing": 0.02, "allreduce": 0.001}
    told = [{**parts, "seconds": 0.022 * n} for n in range(1, 31)]
    found = sparse_seen(SparseConfig(), (100_000, 64), ranks, told)
    assert seconds(found, ranks) == pytest.approx(30 * 0.021, rel=0.1)
