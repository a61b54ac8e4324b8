"""Estimators find the weights that training finds, whatever kind their rows are."""

import pickle
from dataclasses import fields

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")

from scipy import sparse as scipy_sparse
from sklearn.exceptions import NotFittedError

import mpilayer
from mpilayer import memory
from mpilayer.arrays import ROW_BLOCK
from mpilayer.config import FinetuneConfig
from mpilayer.errors import DataError, TrainingError
from mpilayer.estimators import InputError, SettingError
from mpilayer.estimators.rows import SparseRows
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.groups import RowGroups
from mpilayer.train.layer import monitored
from mpilayer.train.plans import TablePlan
from mpilayer.train.pretrain import Pipeline
from mpilayer.train.schedule import greedy, lockstep
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.strata import Strata
from tests.support import pipeline, sparse, toys
from tests.support.estimators import NAMES, same_parameters, small

X = toys.rows(90)
SERIAL = SerialCommunicator()


@pytest.mark.parametrize("name", NAMES)
def test_sigmoid_units_need_data_between_0_and_1(name):
    output = {"output": "sigmoid"} if name == "SparseAutoencoder" else {}
    with pytest.raises(InputError, match=r"\[0, 1\]; found .* to 3") as caught:
        small(name, **output).fit(3 * X / X.max())
    assert isinstance(caught.value, DataError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["csr_matrix", "csr_array", "csc_array"])
def test_sparse_rows_give_the_same_bits(name, form):
    rows = np.where(X > 0.5, X, 0)
    matrix = getattr(scipy_sparse, form)(rows)
    dense, found = small(name).fit(rows), small(name).fit(matrix)
    assert same_parameters(found, dense)
    np.testing.assert_array_equal(found.transform(matrix), dense.transform(rows))
    assert found.score(matrix) == dense.score(rows)


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in NAMES), (NAMES[2], {"activations": "transformed"})],
)
def test_sparse_rows_are_never_dense_as_a_whole(name, changes, monkeypatch):
    made = []
    usual = scipy_sparse.csr_array.toarray

    def toarray(self, *arguments, **options):
        made.append(self.shape[0])
        return usual(self, *arguments, **options)

    monkeypatch.setattr(scipy_sparse.csr_array, "toarray", toarray)
    rows = toys.rows(ROW_BLOCK + 7)
    matrix = scipy_sparse.csr_array(np.where(rows > 0.5, rows, 0))
    small(name, **changes).fit(matrix).score(matrix)
    assert 0 < max(made) <= ROW_BLOCK


def test_many_sparse_rows_multiply_block_by_block():
    rows = toys.rows(2 * ROW_BLOCK + 3)
    many = SparseRows(scipy_sparse.csr_array(rows))[:]
    weights = toys.rows(12, 4)
    np.testing.assert_allclose(np.matmul(many, weights), rows @ weights, rtol=1e-6)
    with pytest.raises(TypeError):
        np.add(many, 1)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_fitted(name):
    fitted = small(name).fit(X.astype(np.float64))
    codes = fitted.transform(X.astype(np.float64))
    rebuilt = fitted.inverse_transform(codes)
    assert codes.dtype == rebuilt.dtype == np.float32
    names = fitted.get_feature_names_out()
    assert names[0] == f"{name.lower()}0"
    assert codes.shape == (len(X), len(names))
    error = ((X - rebuilt).astype(float) ** 2).sum(axis=1).mean()
    assert fitted.score(X) == pytest.approx(-error, rel=1e-6)
    with pytest.raises(InputError, match=f"{len(names)} columns; found 12"):
        fitted.inverse_transform(X)
    with pytest.raises(NotFittedError):
        small(name).inverse_transform(codes)


@pytest.mark.parametrize("name", NAMES[:2])
def test_fit_is_so_many_partial_fits(name):
    """Also with a pickle between them."""
    whole, parts = small(name, epochs=7).fit(X), small(name)
    for _ in range(7):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X)))
    assert same_parameters(whole, parts)
    assert parts.n_epochs_ == 7
    assert same_parameters(parts.set_params(epochs=7).fit(X), whole)


@pytest.mark.parametrize("changes", [{"n_hidden": 6}, {"tied": False}])
def test_what_was_fitted_stays_when_arguments_change(changes):
    fitted = small("Autoencoder").fit(X)
    before = fitted.transform(X)
    fitted.set_params(**changes)
    np.testing.assert_array_equal(fitted.set_params(hidden="relu").transform(X), before)
    with pytest.raises(SettingError, match="call fit"):
        fitted.partial_fit(X)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_layer_is_the_first_of_a_stack(name):
    layer = small(name).fit(X)
    options = {"method": "rbm" if name == "RBM" else "autoencoder"}
    stack = small("StackedAutoencoder", layers=(5,), finetune_epochs=0, **options)
    stack.fit(X)
    np.testing.assert_array_equal(layer.transform(X), stack.transform(X))
    np.testing.assert_array_equal(layer.components_, stack.parameters_["weights_0"].T)


@pytest.mark.parametrize(
    ("schedule", "more"),
    [
        (lockstep, {}),
        (greedy, {}),
        (greedy, {"dropout": 0.2, "input_dropout": 0.1, "weight_decay": 0.01}),
        (greedy, {"learning_rate_decay": 0.5}),
        (greedy, {"learning_rate_schedule": "cosine", "warm_up": 1}),
    ],
)
def test_a_stack_is_trained_as_the_command_does(schedule, more):
    options = {"epochs": 4, "minibatch": 20, "finetune_epochs": 3} | {
        key if "dropout" in key else f"finetune_{key}": value
        for key, value in ({"minibatch": 10} | more).items()
    }
    estimator = mpilayer.StackedAutoencoder(
        (9, 8, 6, 4), schedule=schedule.__name__, optimizer="adam", **options
    ).fit(X)
    states, small_rows = pipeline.new_states(), pipeline.data(90, 0)
    rows = monitored(small_rows.train, small_rows.validation, 500)
    plan = TablePlan(schedule((4,) * 4, (0,) * 4), streamed=True)
    records = list(Pipeline(states, rows, (90, 90, 0), SERIAL, plan).run())
    stack = DeepAutoencoder.unroll([state.layer for state in states])
    config = FinetuneConfig(epochs=3, minibatch=10, optimizer="adam", **more)
    state, strata = FinetuneState(stack, config), Strata.of_rank(90, 10, 0, 1)
    tuned = finetune(state, strata, X, rows.validation, RowGroups(SERIAL))
    losses = [record.train_loss for record in tuned]
    for name, view in stack.parameters.items():
        np.testing.assert_array_equal(estimator.parameters_[name], view)
    assert estimator.finetune_losses_ == losses
    first = [record.train_error for s, record in records if s is states[0]]
    assert estimator.layer_errors_[0] == first
    assert [len(errors) for errors in estimator.layer_errors_] == [4] * 4


def test_more_shards_than_fit_into_memory(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda ranks: 70 * 10**6)
    estimator = mpilayer.SparseAutoencoder(hidden=12_000, kl="average", shards=60)
    with pytest.raises(DataError, match="Use fewer shards than 60"):
        estimator.fit(toys.rows(60))


@pytest.mark.parametrize("optimizer", ["lbfgs", "cg", "sgd"])
def test_a_sparse_autoencoder_is_trained_as_the_command_does(optimizer):
    rows = sparse.patches(200).astype(np.float32)
    config = sparse.settings(evaluations=12, optimizer=optimizer, dtype="float32")
    values = {item.name: getattr(config, item.name) for item in fields(config)}
    del values["preset"]
    found = mpilayer.SparseAutoencoder(**values).fit(rows)
    descent = Descent(sparse.fresh_cost(config, rows), config)
    *_, last = descent.states()
    vector = np.concatenate([view.ravel() for view in found.parameters_.values()])
    np.testing.assert_array_equal(vector, last.position)
    assert found.cost_ == pytest.approx(last.cost)
    assert found.n_evaluations_ == 12
    assert found.stopped_by_ == "evaluations"
    assert found.mean_activation_.shape == (5,)


LINEAR = {"visible": "linear", "learning_rate": 0.001}
SGD = {"optimizer": "sgd", "output": "linear"}
STEEP = {"optimizer": "sgd", "finetune_learning_rate": 1e9}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RBM", LINEAR | {"learning_rate": 5.0}),
        ("Autoencoder", LINEAR | {"hidden": "linear", "learning_rate": 5}),
        ("StackedAutoencoder", LINEAR | {"learning_rate": 1e30}),
        ("StackedAutoencoder", LINEAR | STEEP),
        ("SparseAutoencoder", {**SGD, "learning_rate": 9}),
    ],
)
def test_a_fit_that_diverges_is_an_error_and_leaves_what_was_there(name, options):
    """Rows as a StandardScaler leaves them, and too large a learning rate."""
    data = 3 * np.random.default_rng(0).standard_normal((200, 12))
    model = small(name, **options)
    with pytest.raises(TrainingError):
        model.fit(data)
    assert not hasattr(model, "parameters_")
    if name == "RBM":
        model.set_params(**LINEAR).fit(data)
        before = model.parameters_["weights"].copy()
        with pytest.raises(TrainingError):
            model.set_params(learning_rate=1e30).partial_fit(data)
        np.testing.assert_array_equal(model.parameters_["weights"], before)
        assert model.n_epochs_ == 3
