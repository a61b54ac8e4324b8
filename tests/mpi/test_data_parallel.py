"""Fine-tuning and evaluation on several ranks agree with one rank, to rounding."""

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.partition import shard_bounds
from mpilayer.train.evaluate import PCA, reconstruction_error
from mpilayer.train.finetune import FinetuneState, Strata, finetune
from tests.support.together import together
from tests.support.toys import randomize, rows

pytestmark = pytest.mark.mpi(min_size=2)
SERIAL = SerialCommunicator()
TRAIN, VALIDATION = rows(230), rows(50, seed=1)


def share(comm, v):
    """Return this rank's rows."""
    start, stop = shard_bounds(len(v), comm.size)[comm.rank]
    return v[start:stop]


def new_stack():
    return randomize(DeepAutoencoder([LayerShape(12, 8), LayerShape(8, 4)]))


def tuned(comm, validation=VALIDATION, **settings):
    """Return final parameters, records, and best error after fine-tuning."""
    usual = {"epochs": 3, "minibatch": 20, "optimizer": "sgd"}
    config = FinetuneConfig(**usual | settings)
    state = FinetuneState(new_stack(), config)
    strata = Strata.of_rank(len(TRAIN), config.minibatch, comm.rank, comm.size)
    start, stop = strata.rows
    mine = share(comm, validation)
    records = list(finetune(state, strata, TRAIN[start:stop], mine, comm))
    return state.stack.parameters.vector.copy(), records, state.best_error


# Sums over ranks are taken in another order: a float32 gradient differs in its last
# digits. Adam divides by its size, so that a tiny one may differ by more.
@pytest.mark.parametrize("minibatch", [20, 3])
@pytest.mark.parametrize(
    ("optimizer", "rate", "tolerance"),
    [("sgd", 0.01, 1e-5), ("momentum", 0.002, 1e-5), ("adam", 0.002, 1e-4)],
)
def test_finetuning(world, optimizer, rate, tolerance, minibatch):
    settings = {"optimizer": optimizer, "learning_rate": rate, "minibatch": minibatch}
    expected, records, best = world.on_root(lambda: tuned(SERIAL, **settings))
    found, my_records, my_best = tuned(world, **settings)
    vectors = world.allgather(found)
    with together(world):
        assert all((vector == found).all() for vector in vectors)
        assert np.abs(expected - new_stack().parameters.vector).max() > 0.01
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        assert my_best == pytest.approx(best, rel=1e-4)
        assert len(my_records) == len(records)
        for mine, other in zip(my_records, records, strict=True):
            assert mine.epoch == other.epoch
            assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            error = pytest.approx(other.validation_error, rel=1e-4)
            assert mine.validation_error == error


def test_fewer_validation_rows_than_ranks(world):
    expected = world.on_root(lambda: tuned(SERIAL, VALIDATION[:1]))
    found = tuned(world, VALIDATION[:1])
    none = tuned(world, VALIDATION[:0])
    with together(world):
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-5)
        assert found[2] == pytest.approx(expected[2], rel=1e-4)
        assert none[2] == float("inf")


def test_patience_ends_all_ranks_together(world):
    found = tuned(world, epochs=30, patience=3, learning_rate=50.0)
    counts = world.allgather(len(found[1]))
    with together(world):
        assert counts == [3] * world.size
        np.testing.assert_array_equal(found[0], new_stack().parameters.vector)


def test_reconstruction_error(world):
    stack = new_stack()
    expected = reconstruction_error(stack, [TRAIN], SERIAL)
    parts = np.array_split(share(world, TRAIN), 3)
    found = reconstruction_error(stack, parts, world)
    few = reconstruction_error(stack, [share(world, TRAIN[:1])], world)
    none = reconstruction_error(stack, [], world)
    with together(world):
        assert found == pytest.approx(expected, rel=1e-6)
        assert few == pytest.approx(
            reconstruction_error(stack, [TRAIN[:1]], SERIAL), rel=1e-6
        )
        assert np.isnan(none)


@pytest.mark.parametrize("n_components", [0, 4, 12])
def test_principal_components(world, n_components):
    alone = PCA([TRAIN], TRAIN.shape, n_components, SERIAL).error([VALIDATION], SERIAL)
    pca = PCA([share(world, TRAIN)], TRAIN.shape, n_components, world)
    found = pca.error([share(world, VALIDATION)], world)
    with together(world):
        assert found == pytest.approx(alone, rel=1e-5, abs=1e-6)
