"""A classifier and a regressor on several ranks agree with one rank, to rounding."""

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import Predictor
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.partition import shard_bounds
from mpilayer.train.finetune import FinetuneState, Strata, finetune
from mpilayer.train.labels import confusion, targets
from tests.support.together import together
from tests.support.toys import randomize, rows

pytestmark = pytest.mark.mpi(min_size=2)
SERIAL = SerialCommunicator()
TRAIN, VALIDATION = rows(230), rows(50, seed=1)
CLASSES = {"classify": np.array([2, 3, 7]), "regress": np.array([], np.int64)}
SETTINGS = {
    "epochs": 3,
    "minibatch": 20,
    "optimizer": "sgd",
    "dropout": 0.3,
    "input_dropout": 0.1,
    "weight_decay": 0.01,
    "learning_rate_decay": 0.8,
}


def wanted(task, v):
    bright = (v[:, [0, 3, 7]] > 0.5).sum(axis=1)
    return targets(CLASSES["classify"][np.minimum(bright, 2)], CLASSES[task])


def new_model(task):
    return randomize(
        Predictor([LayerShape(12, 8), LayerShape(8, 4)], CLASSES[task]), deviation=0.3
    )


def tuned(comm, task, n_validation=50, **settings):
    """Return the last parameters, records and best error."""
    config = FinetuneConfig(task=task, **(SETTINGS | settings))
    state = FinetuneState(new_model(task), config)
    strata = Strata.of_rank(len(TRAIN), config.minibatch, comm.rank, comm.size)
    mine = slice(*strata.rows)
    share = slice(*shard_bounds(n_validation, comm.size)[comm.rank])
    targets = (wanted(task, TRAIN)[mine], wanted(task, VALIDATION)[share])
    course = finetune(
        state, strata, TRAIN[mine], VALIDATION[share], comm, targets=targets
    )
    records, last = [], None
    for record in course:
        records.append(record)
        last = state.stack.parameters.vector.copy()
    return last, records, state.best_error


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize(
    ("optimizer", "rate", "tolerance"),
    [("sgd", 0.01, 1e-5), ("momentum", 0.002, 1e-5), ("adam", 0.002, 1e-4)],
)
def test_any_number_of_ranks(world, task, optimizer, rate, tolerance):
    rate /= 10 if task == "regress" and optimizer != "adam" else 1
    settings = {"optimizer": optimizer, "learning_rate": rate}
    expected, records, best = world.on_root(lambda: tuned(SERIAL, task, **settings))
    found, my_records, my_best = tuned(world, task, **settings)
    vectors = world.allgather(found)
    with together(world):
        assert all((vector == found).all() for vector in vectors)
        assert np.abs(expected - new_model(task).parameters.vector).max() > 0.01
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        assert my_best == pytest.approx(best, rel=1e-4)
        for mine, other in zip(my_records, records, strict=True):
            assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            error = pytest.approx(other.validation_error, rel=1e-4)
            assert mine.validation_error == error


def test_ranks_without_rows(world):
    settings = {"minibatch": 2, "optimizer": "adam", "learning_rate": 0.002}
    expected = world.on_root(lambda: tuned(SERIAL, "classify", 1, **settings))
    found = tuned(world, "classify", 1, **settings)
    with together(world):
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=2e-4)
        assert found[2] == expected[2]


def test_confusion(world):
    model, all_wanted = new_model("classify"), wanted("classify", TRAIN)
    expected = confusion(model, [(TRAIN, all_wanted)], SERIAL)
    mine = slice(*shard_bounds(len(TRAIN), world.size)[world.rank])
    found = confusion(model, [(TRAIN[mine], all_wanted[mine])], world)
    with together(world):
        np.testing.assert_array_equal(found, expected)
