"""Fine-tuning and evaluation on several ranks, and on one."""

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.errors import ConfigError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.runs.evaluate import local_blocks
from mpilayer.train.backpropagation import shared_bytes
from mpilayer.train.evaluate import PCA, confusion, reconstruction_error, targets
from mpilayer.train.finetune import FinetuneState, finetune, validation_rows
from mpilayer.train.groups import RowGroups
from tests.support.together import caught, share, together
from tests.support.toys import Far, randomize, rows

pytestmark = pytest.mark.mpi(min_size=2)
SERIAL = SerialCommunicator()
# Three blocks of validation rows.
TRAIN, VALIDATION = rows(230), rows(1100, seed=1)
# Five slices of units at most; three and two between other steps.
SHAPES = [LayerShape(12, 330), LayerShape(330, 9), LayerShape(9, 200)]
CLASSES = {"classify": np.array([2, 3, 7]), "regress": np.array([], np.int64)}
# A predictor has everything else, too.
FULL = {"dropout": 0.3, "input_dropout": 0.1, "weight_decay": 0.01}
FULL |= {"learning_rate_decay": 0.8}
# The columns are images of 3 x 4 pixels.
COURSE = {"learning_rate_decay": 1.0, "learning_rate_schedule": "cosine", "warm_up": 1}
COURSE |= {"augment": "shift:1:3x4"}
TASKS = {"autoencode": {}, "classify": FULL, "regress": FULL}
RATES = {"sgd": 0.001, "momentum": 0.0002, "adam": 0.002}


def wanted(task, v):
    """Return targets that the rows decide: how many of three columns are bright."""
    bright = (v[:, [0, 3, 7]] > 0.5).sum(axis=1)
    return targets(CLASSES["classify"][np.minimum(bright, 2)], CLASSES[task])


def new_stack(task="autoencode", n_layers=3):
    shapes = SHAPES[:n_layers]
    if task == "autoencode":
        return randomize(DeepAutoencoder(shapes), deviation=0.2)
    return randomize(Predictor(shapes, CLASSES[task]), deviation=0.1)


def tuned(groups, task="autoencode", validation=VALIDATION, start=None, **settings):
    """Return the last parameters, records, best error and final parameters."""
    n_layers, stop = settings.pop("n_layers", 3), settings.pop("stop", None)
    far = settings.pop("far", False)
    usual = {"epochs": 3, "minibatch": 20, "optimizer": "sgd", "task": task}
    usual |= {"learning_rate": RATES[settings.get("optimizer", "sgd")], "slices": 5}
    config = FinetuneConfig(**usual | TASKS[task] | settings)
    with groups:
        return in_groups(groups, task, validation, start, config, n_layers, stop, far)


def in_groups(groups, task, validation, start, config, n_layers, stop, far):
    state = FinetuneState(new_stack(task, n_layers), config, groups.team)
    if start is not None:
        state.restore(*start)
    strata = groups.strata(len(TRAIN), config.minibatch)
    mine = TRAIN[slice(*strata.rows)]
    tested = validation[slice(*validation_rows(len(validation), groups.comm))]
    labels = (wanted(task, mine), wanted(task, tested)) if task in CLASSES else None
    if far:
        strata = replace(strata, piece=4)
        mine, tested = Far(mine), Far(tested)
    records, last = [], None
    epochs = finetune(state, strata, mine, tested, groups, labels)
    for record in islice(epochs, stop):
        found = {"training": 0, "allreduce": 0, "evaluating": 0}
        records.append(replace(record, **found))
        last = state.arrays(), state.numbers()
    state.leave()
    return last, records, state.best_error, state.stack.parameters.vector


def alone(world, *options, **settings):
    """Return what rank 0 finds by itself."""
    return world.on_root(lambda: tuned(RowGroups(SERIAL), *options, **settings))


def of_one_host(world):
    return RowGroups(world, ["here"] * world.size)


def assert_same(found, expected):
    """Demand equal bytes, and equal sums, of all that ``tuned`` returns."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_equal(one, other)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        *(("autoencode", {"optimizer": name}) for name in RATES),
        *(("classify", {"optimizer": name}) for name in RATES),
        ("regress", {"learning_rate": 0.0001}),
        ("regress", {"n_layers": 2, "learning_rate": 0.0001}),
        ("classify", {"n_layers": 2, "optimizer": "adam"}),
        ("autoencode", {"loss": "cross-entropy", "dropout": 0.2, "n_layers": 2}),
        ("autoencode", {"minibatch": 3, "epochs": 1}),  # a rank has no rows
        ("autoencode", {"learning_rate": 0.5, "patience": 2, "epochs": 9}),
        ("autoencode", {"n_layers": 1}),
        ("autoencode", {"slices": 1}),
        ("autoencode", {"far": True, "optimizer": "momentum"}),
        *(("autoencode", {"optimizer": name, **COURSE}) for name in RATES),
        ("classify", {"optimizer": "momentum", **COURSE}),
        ("autoencode", {"minibatch": 3, "epochs": 2, **COURSE}),
    ],
)
def test_units_of_a_host_give_the_same_bytes(world, task, settings):
    expected = alone(world, task, **settings)
    found = tuned(of_one_host(world), task, **settings)
    with together(world):
        assert_same(found, expected)
        before = new_stack(task, settings.get("n_layers", 3)).parameters.vector
        after = np.concatenate(
            [v.ravel() for k, v in found[0][0].items() if k.startswith("parameters/")]
        )
        assert np.abs(after - before).max() > 0.001


@pytest.mark.parametrize("task", ["autoencode", "classify"])
@pytest.mark.parametrize("more", [{}, COURSE], ids=["usual", "course"])
def test_ranks_go_on_where_one_was(world, task, more):
    settings = {"optimizer": "adam", "epochs": 4, **more}
    start, *_ = alone(world, task, stop=2, **settings)
    expected = alone(world, task, **settings)
    found = tuned(of_one_host(world), task, start=start, **settings)
    with together(world):
        assert_same((found[0], *found[2:]), (expected[0], *expected[2:]))
        assert found[1] == expected[1][2:]


def assert_near(found, expected, tolerance):
    for name, array in expected[0][0].items():
        np.testing.assert_allclose(found[0][0][name], array, rtol=0, atol=tolerance)
    assert found[2] == pytest.approx(expected[2], rel=1e-4)
    for mine, other in zip(found[1], expected[1], strict=True):
        assert mine.epoch == other.epoch
        assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        error = pytest.approx(other.validation_error, rel=1e-4)
        assert mine.validation_error == error


# Sums over ranks are taken in another order: a float32 gradient differs in its last
# digits. Adam divides by its size, so that a tiny one may differ by more.
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("optimizer", "minibatch", "tolerance"),
    [
        ("sgd", 20, 1e-5),
        ("momentum", 3, 1e-5),
        ("adam", 20, 5e-4),
        ("adam", 2, 5e-4),  # a rank has no rows
    ],
)
@pytest.mark.parametrize("hosts", [1, 2])
def test_row_groups_agree(world, task, optimizer, minibatch, tolerance, hosts):
    """Every rank has its rows, or every one of two hosts, whose ranks take turns."""
    if hosts == 2 and world.size % 2:
        pytest.skip("two hosts with as many ranks each")
    settings = {"optimizer": optimizer, "minibatch": minibatch, "epochs": 1}
    if task != "classify":
        settings |= {**COURSE, "warm_up": 0}
    if task == "regress" and optimizer != "adam":
        settings["learning_rate"] = RATES[optimizer] / 10
    expected = alone(world, task, **settings)
    names = [rank % hosts for rank in range(world.size)] if hosts > 1 else ()
    found = tuned(RowGroups(world, names), task, **settings)
    vectors = world.allgather(found[3])
    with together(world):
        assert all((vector == found[3]).all() for vector in vectors)
        assert_near(found, expected, tolerance)


def test_row_groups_with_rows_in_files(world):
    expected = alone(world, far=True)
    found = tuned(RowGroups(world), far=True)
    with together(world):
        assert_near(found, expected, 1e-4)


def test_hosts_with_unequal_numbers_of_ranks(world):
    hosts = ["one", *["other"] * (world.size - 1)]
    if world.size == 2:
        hosts = ["one", "one"]
    found = caught(lambda: RowGroups(world, hosts))
    with together(world):
        if world.size == 2:
            assert found is None
        else:
            assert found[::2] == (ConfigError, True)
            assert f"1 on one, {world.size - 1} on other. Start 1 on each" in found[1]


@pytest.mark.parametrize("task", ["autoencode", "classify"])
def test_fewer_validation_rows_than_ranks(world, task):
    expected = alone(world, task, VALIDATION[:1])
    found = tuned(of_one_host(world), task, VALIDATION[:1])
    none = tuned(of_one_host(world), task, VALIDATION[:0])
    with together(world):
        assert_same(found, expected)
        assert none[2] == float("inf")


def test_patience_ends_all_ranks_together(world):
    found = tuned(RowGroups(world), epochs=30, patience=3, learning_rate=50.0)
    counts = world.allgather(len(found[1]))
    with together(world):
        assert counts == [3] * world.size
        np.testing.assert_array_equal(found[3], new_stack().parameters.vector)


def test_reconstruction_error_and_confusion(world):
    stack = new_stack()
    for whole in (TRAIN, TRAIN[:1], TRAIN[:0]):
        expected = reconstruction_error(stack, [whole], SERIAL)
        parts = np.array_split(share(world, whole), 3)
        found = reconstruction_error(stack, parts, world)
        with together(world):
            assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
    model, labels = new_stack("classify"), wanted("classify", TRAIN)
    expected = confusion(model, [(TRAIN, labels)], SERIAL)
    found = confusion(model, [(share(world, TRAIN), share(world, labels))], world)
    with together(world):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(1700, 12), (700, 900)], ids=["columns", "rows"])
def test_errors_are_the_same_to_the_bit_on_any_number_of_ranks(world, shape):
    x = np.tile(VALIDATION, (2, -(-shape[1] // 12)))[: shape[0], : shape[1]]
    x = x + rows(*shape, seed=2) ** 3
    data = SimpleNamespace(
        n_samples=lambda split: len(x), rows=lambda split, *part: x[slice(*part)]
    )
    stack = randomize(DeepAutoencoder([LayerShape(shape[1], 4)]))

    def found(comm):
        pca = PCA(local_blocks(data, "train", comm), shape, 4, comm)
        judged = (local_blocks(data, "train", comm) for _ in range(2))
        errors = pca.error(next(judged), comm)
        return errors, reconstruction_error(stack, next(judged), comm)

    everywhere, alone = world.allgather(found(world)), found(SERIAL)
    with together(world):
        assert set(everywhere) == {alone}


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("task", ["autoencode", "classify"])
def test_what_a_team_shares_is_known_before(world, task, optimizer):
    taken, groups = [], of_one_host(world)
    allocate = groups.team._memory.allocate
    groups.team._memory.allocate = lambda n: taken.append(n) or allocate(n)
    config = FinetuneConfig(minibatch=20, task=task, slices=5, optimizer=optimizer)
    expected = shared_bytes(new_stack(task), config, groups)
    tuned(groups, task, optimizer=optimizer)
    with together(world):
        assert 0 <= expected - sum(taken) < 2**15 * len(taken)
