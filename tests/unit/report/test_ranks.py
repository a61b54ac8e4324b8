"""What runs tell of other numbers of ranks: their own seconds come out again."""

import pytest

from mpilayer.report import ranks
from mpilayer.report.run import collect
from tests.unit.report.conftest import EPOCH, EVALUATION, TUNING, deep_run, sparse_run

STACK = {"layers": [256, 128], "epochs": [4], "schedule": "greedy"}


def seconds(found, n):
    return next(f.cost.seconds for f in found.forecasts if f.ranks == n)


def trained(path, training, team=(), n_ranks=3, layout="auto"):
    """Return the run of two layers whose epochs took so many seconds."""
    lines = [
        [
            {**EPOCH, "epoch": n, "used": n, "training": took, "team": team}
            # Greedy: one output leaves.
            | {"monitor": 0.25, "transform": 0.25 * (layer == 0 and n == 4)}
            for n in range(1, 5)
        ]
        for layer, took in enumerate(training)
    ]
    named = {f"layer_{layer}": own for layer, own in enumerate(lines, 1)}
    summary, stack = {"ranks": n_ranks}, {**STACK, "layout": layout}
    (run,) = collect([deep_run(path, summary, 784, stack, **named)])
    return ranks.pretraining(run)


def test_the_epochs_of_layers_add_up(tmp_path):
    found = trained(tmp_path / "run", (3.0, 2.0))
    assert seconds(found, 1) == pytest.approx(4 * 3.25 + 0.25 + 4 * 2.25, rel=0.01)
    assert seconds(found, 3) < seconds(found, 4) < seconds(found, 1)


def test_a_layout_that_was_given_is_seen_beside_those_of_other_ranks(tmp_path):
    found = trained(tmp_path / "run", (3.0, 2.0), (), 4, "1:2 2:2")
    layouts = {(f.ranks, f.cost.layout) for f in found.forecasts}
    assert {(4, "1:2 2:2"), (2, "1-2:2")} <= layouts
    assert not found.refused


def test_a_team_of_two_tells_of_one_rank(tmp_path):
    alone = trained(tmp_path / "alone", (2.0, 2.0))
    team = trained(tmp_path / "team", (1.05, 1.05), [[0, 1.0, 0.0], [1, 1.0, 0.0]])
    # Two share what one measures and passes on alone.
    more = 8 * 0.25 + 0.25
    assert seconds(team, 1) == pytest.approx(seconds(alone, 1) + more, rel=0.01)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fine_tuning_and_evaluations_come_out_again(tmp_path, n):
    lines = [{**TUNING, "training": 2.0, "evaluating": 0.1}] * 3
    summary = {"finetune_ranks": n}
    tuned = deep_run(tmp_path / "a", summary, 784, STACK, {}, finetune=lines)
    parts = {**EVALUATION, "computing": 0.02, "allreduce": 0.001}
    told = [
        {**parts, "evaluation": i, "cost": 1, "seconds": 0.022 * i}
        for i in range(1, 31)
    ]
    path = sparse_run(tmp_path / "b", n, n_visible=64, rows=100_000, lines=told)
    tuned, descended = collect([tuned, path])
    assert seconds(ranks.finetuning(tuned), n) == pytest.approx(6.4, rel=0.1)
    assert seconds(ranks.sparse(descended), n) == pytest.approx(30 * 0.021, rel=0.1)
