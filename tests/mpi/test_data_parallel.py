"""Fine-tuning and evaluation on several ranks agree with one rank, to rounding."""

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.evaluate import PCA, confusion, reconstruction_error, targets
from mpilayer.train.finetune import FinetuneState, Strata, finetune
from tests.support.together import share, together
from tests.support.toys import randomize, rows

pytestmark = pytest.mark.mpi(min_size=2)
SERIAL = SerialCommunicator()
TRAIN, VALIDATION = rows(230), rows(50, seed=1)
SHAPES = [LayerShape(12, 8), LayerShape(8, 4)]
CLASSES = {"classify": np.array([2, 3, 7]), "regress": np.array([], np.int64)}
# A predictor has everything else, too.
FULL = {"dropout": 0.3, "input_dropout": 0.1, "weight_decay": 0.01}
FULL |= {"learning_rate_decay": 0.8}
TASKS = {"autoencode": {}, "classify": FULL, "regress": FULL}


def wanted(task, v):
    """Return targets that the rows decide: how many of three columns are bright."""
    bright = (v[:, [0, 3, 7]] > 0.5).sum(axis=1)
    return targets(CLASSES["classify"][np.minimum(bright, 2)], CLASSES[task])


def new_stack(task="autoencode"):
    if task == "autoencode":
        return randomize(DeepAutoencoder(SHAPES))
    return randomize(Predictor(SHAPES, CLASSES[task]), deviation=0.3)


def tuned(comm, task="autoencode", validation=VALIDATION, **settings):
    """Return the last parameters, records, best error and final parameters."""
    usual = {"epochs": 3, "minibatch": 20, "optimizer": "sgd", "task": task}
    config = FinetuneConfig(**usual | TASKS[task] | settings)
    state = FinetuneState(new_stack(task), config)
    strata = Strata.of_rank(len(TRAIN), config.minibatch, comm.rank, comm.size)
    mine, tested = TRAIN[slice(*strata.rows)], share(comm, validation)
    labels = (wanted(task, mine), wanted(task, tested)) if task in CLASSES else None
    records, last = [], None
    for record in finetune(state, strata, mine, tested, comm, targets=labels):
        records.append(record)
        last = state.stack.parameters.vector.copy()
    return last, records, state.best_error, state.stack.parameters.vector


# Sums over ranks are taken in another order: a float32 gradient differs in its last
# digits. Adam divides by its size, so that a tiny one may differ by more.
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("optimizer", "minibatch", "rate", "tolerance"),
    [
        ("sgd", 20, 0.01, 1e-5),
        ("momentum", 3, 0.002, 1e-5),
        ("adam", 20, 0.002, 2e-4),
        ("adam", 2, 0.002, 2e-4),  # a rank has no rows
    ],
)
def test_finetuning(world, task, optimizer, minibatch, rate, tolerance):
    rate /= 10 if task == "regress" and optimizer != "adam" else 1
    settings = {"optimizer": optimizer, "learning_rate": rate, "minibatch": minibatch}
    expected, records, best, _ = world.on_root(lambda: tuned(SERIAL, task, **settings))
    found, my_records, my_best, _ = tuned(world, task, **settings)
    vectors = world.allgather(found)
    with together(world):
        assert all((vector == found).all() for vector in vectors)
        assert np.abs(expected - new_stack(task).parameters.vector).max() > 0.01
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        assert my_best == pytest.approx(best, rel=1e-4)
        for mine, other in zip(my_records, records, strict=True):
            assert mine.epoch == other.epoch
            assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            error = pytest.approx(other.validation_error, rel=1e-4)
            assert mine.validation_error == error


@pytest.mark.parametrize("task", ["autoencode", "classify"])
def test_fewer_validation_rows_than_ranks(world, task):
    expected = world.on_root(lambda: tuned(SERIAL, task, VALIDATION[:1]))
    found = tuned(world, task, VALIDATION[:1])
    none = tuned(world, task, VALIDATION[:0])
    with together(world):
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-5)
        assert found[2] == pytest.approx(expected[2], rel=1e-4)
        assert none[2] == float("inf")


def test_patience_ends_all_ranks_together(world):
    found = tuned(world, epochs=30, patience=3, learning_rate=50.0)
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


@pytest.mark.parametrize("n_components", [0, 4, 12])
def test_principal_components(world, n_components):
    alone = PCA([TRAIN], TRAIN.shape, n_components, SERIAL).error([VALIDATION], SERIAL)
    pca = PCA([share(world, TRAIN)], TRAIN.shape, n_components, world)
    found = pca.error([share(world, VALIDATION)], world)
    with together(world):
        assert found == pytest.approx(alone, rel=1e-5, abs=1e-6)
