"""The estimators: scikit-learn's conventions, and the weights of the house."""

import inspect
import pickle
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")

from scipy import sparse as scipy_sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import estimator_checks

import mpilayer
from mpilayer.arrays import ROW_BLOCK
from mpilayer.config import (
    PRESETS,
    FinetuneConfig,
    PretrainConfig,
    SparseConfig,
)
from mpilayer.errors import ConfigError, DataError, TrainingError
from mpilayer.estimators import InputError, SettingError
from mpilayer.estimators.layer import train_shared_epoch
from mpilayer.estimators.rows import SparseRows
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.layer import layer_shapes, monitored, new_state
from mpilayer.train.plans import TablePlan
from mpilayer.train.pretrain import Pipeline
from mpilayer.train.schedule import greedy, lockstep
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.strata import Strata
from tests.support import pipeline, sparse, toys

X = toys.rows(90)
SERIAL = SerialCommunicator()
NAMES = ("RBM", "Autoencoder", "StackedAutoencoder", "SparseAutoencoder")


def small(name, **changes):
    """Return a small estimator for rows in [0, 1]."""
    usual = {
        "RBM": {"n_hidden": 5, "epochs": 3, "minibatch": 20},
        "Autoencoder": {"n_hidden": 5, "epochs": 3, "minibatch": 20},
        "StackedAutoencoder": {
            "layers": (8, 3),
            "epochs": 3,
            "minibatch": 20,
            "finetune_epochs": 2,
            "finetune_minibatch": 20,
        },
        "SparseAutoencoder": {
            "hidden": 5,
            "evaluations": 15,
            "sparsity_target": 0.1,
            "initial": "symmetric",
            "measure_every": 0,
        },
    }
    return getattr(mpilayer, name)(**{**usual[name], **changes})


def same_parameters(one, other):
    """Tell whether two fitted estimators have the same bits."""
    return list(one.parameters_) == list(other.parameters_) and all(
        np.array_equal(one.parameters_[k], other.parameters_[k])
        for k in one.parameters_
    )


# --- scikit-learn's own checks -------------------------------------------------------

# Their data are any numbers: sigmoid visible units would refuse them, and linear ones
# need small steps.
LINEAR = {"visible": "linear", "learning_rate": 0.001}
CHECKED = [
    small("RBM", **LINEAR),
    small("Autoencoder", **LINEAR),
    small("StackedAutoencoder", **LINEAR),
    small("SparseAutoencoder", output="linear"),
]
SATURATED = (
    "rows of 100 times a random number drive units so far that some never fire: the "
    "sparsity term is infinite, and fit says so"
)
FAILING = {
    "SparseAutoencoder": dict.fromkeys(
        ("check_fit_idempotent", "check_fit_check_is_fitted", "check_n_features_in"),
        SATURATED,
    )
}


# Before scikit-learn 1.6 exceptions could not be named.
if hasattr(estimator_checks, "estimator_checks_generator"):

    @pytest.mark.filterwarnings("ignore:(finetune_)?minibatch=[0-9]+ is more than")
    @estimator_checks.parametrize_with_checks(
        CHECKED, expected_failed_checks=lambda e: FAILING.get(type(e).__name__, {})
    )
    def test_conventions(estimator, check):
        check(estimator)


# --- arguments -----------------------------------------------------------------------


def arguments(name):
    """Return constructor arguments and their defaults."""
    kind = getattr(mpilayer, name)
    found = inspect.signature(kind).parameters
    return {k: parameter.default for k, parameter in found.items()}


def defaults(config):
    return {item.name: item.default for item in fields(config)}


STACK_ONLY = {"layers", "method", "schedule", "lag", "refresh_every", "extra_epochs"}
STACK_ONLY |= {"activations", "code", "monitor_rows"}
# Of other schedules, and of what a run directory keeps.
NOT_HERE = {"cores", "costs", "end", "cut_short", "monitor_every"}
FINETUNE = {
    "finetune_epochs": "epochs",
    "optimizer": "optimizer",
    "finetune_learning_rate": "learning_rate",
    "finetune_loss": "loss",
    "finetune_minibatch": "minibatch",
    "finetune_learning_rate_decay": "learning_rate_decay",
    "finetune_weight_decay": "weight_decay",
    "dropout": "dropout",
    "input_dropout": "input_dropout",
}


@pytest.mark.parametrize(
    ("name", "absent", "more"),
    [
        ("RBM", STACK_ONLY | NOT_HERE | {"tied", "loss"}, {"n_hidden"}),
        ("Autoencoder", STACK_ONLY | NOT_HERE | {"cd_steps"}, {"n_hidden"}),
        ("StackedAutoencoder", NOT_HERE, set(FINETUNE)),
    ],
)
def test_arguments_are_those_of_pretraining(name, absent, more):
    found, config = arguments(name), defaults(PretrainConfig)
    assert set(found) == set(config) - absent | more | {"comm"}
    for key in set(found) & set(config):
        if key == "activations":  # here only what streams by default
            assert (config[key], found[key]) == ("auto", "streamed")
        else:
            assert config[key] in (found[key], (found[key],)), key


def test_arguments_are_those_of_finetuning():
    found, config = arguments("StackedAutoencoder"), defaults(FinetuneConfig)
    for argument, field in FINETUNE.items():
        assert found[argument] == config[field]


def test_arguments_are_those_of_the_sparse_mode():
    found, config = arguments("SparseAutoencoder"), defaults(SparseConfig)
    del config["preset"]
    assert found == {**config, "comm": None}


def test_presets_are_arguments():
    assert small("SparseAutoencoder", **PRESETS["ufldl"]).hidden == 25


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("RBM", {"epochs": 0}),
        ("RBM", {"n_hidden": 2.5}),
        ("RBM", {"hidden": "relu"}),
        ("RBM", {"momentum": (0.5,)}),
        ("Autoencoder", {"visible": "tanh", "loss": "cross-entropy"}),
        ("StackedAutoencoder", {"schedule": "async"}),
        ("StackedAutoencoder", {"epochs": (1, 2, 3)}),
        ("StackedAutoencoder", {"finetune_loss": "cross-entropy", "visible": "linear"}),
        ("SparseAutoencoder", {"kl": "exactly"}),
        ("SparseAutoencoder", {"activation": "relu"}),
    ],
)
def test_a_wrong_argument(name, wrong):
    with pytest.raises(SettingError) as caught:
        small(name, **wrong).fit(X)
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, ValueError)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("RBM", {"n_hidden": 0}, "n_hidden must be at least 1; got 0. Change n_hidden"),
        ("RBM", {"n_hidden": (5, 4)}, r"n_hidden must be one number; got \(5, 4\)"),
        ("RBM", {"epochs": 0}, "^epochs must be at least 1; got 0. Change epochs"),
        ("StackedAutoencoder", {"layers": (5, 0)}, "layers must .* Change layers"),
        ("StackedAutoencoder", {"finetune_epochs": -1}, "Change finetune_epochs"),
        ("StackedAutoencoder", {"finetune_loss": "l1"}, "unknown finetune_loss 'l1'"),
    ],
)
def test_a_wrong_argument_has_its_own_name(name, wrong, words):
    with pytest.raises(SettingError, match=words):
        small(name, **wrong).fit(X)


@pytest.mark.parametrize("name", NAMES)
def test_a_minibatch_of_more_than_all_rows_is_warned_of(name):
    changes = {"optimizer": "sgd"} if name == "SparseAutoencoder" else {}
    with pytest.warns(UserWarning, match="minibatch=91 is more than the 90 rows"):
        small(name, minibatch=91, **changes).fit(X)
    small(name, minibatch=90, **changes).fit(X)
    if hasattr(mpilayer, name) and hasattr(getattr(mpilayer, name), "partial_fit"):
        small(name).partial_fit(X[:3])


def test_a_minibatch_of_fine_tuning_has_its_own_name():
    with pytest.warns(UserWarning, match=r"finetune_minibatch=91 .* a smaller finet"):
        small("StackedAutoencoder", finetune_minibatch=91).fit(X)


def test_numbers_of_numpy_and_lists_are_arguments():
    found = small("StackedAutoencoder", layers=[np.int64(8), 3], seed=np.int64(0))
    assert same_parameters(found.fit(X), small("StackedAutoencoder").fit(X))


# --- rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES[:3])
def test_sigmoid_units_need_data_between_0_and_1(name):
    with pytest.raises(InputError, match=r"\[0, 1\]; found .* to 3") as caught:
        small(name).fit(3 * X / X.max())
    assert isinstance(caught.value, DataError)
    assert isinstance(caught.value, ValueError)


def test_a_sigmoid_output_needs_data_between_0_and_1():
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        small("SparseAutoencoder", output="sigmoid").fit(-X)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_refused(name):
    rows = X.copy()
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        small(name).fit(rows)
    with pytest.raises(ValueError, match="NaN"):
        small(name).fit(X).transform(rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["csr_matrix", "csr_array", "csc_array"])
def test_sparse_rows_give_the_same_bits(name, form):
    rows = np.where(X > 0.5, X, 0)
    matrix = getattr(scipy_sparse, form)(rows)
    dense, found = small(name).fit(rows), small(name).fit(matrix)
    assert same_parameters(found, dense)
    np.testing.assert_array_equal(found.transform(matrix), dense.transform(rows))
    assert found.score(matrix) == dense.score(rows)


@pytest.mark.parametrize("activations", ["streamed", "transformed"])
@pytest.mark.parametrize("name", NAMES)
def test_sparse_rows_are_never_dense_as_a_whole(name, activations, monkeypatch):
    made = []
    usual = scipy_sparse.csr_array.toarray

    def toarray(self, *arguments, **options):
        made.append(self.shape[0])
        return usual(self, *arguments, **options)

    monkeypatch.setattr(scipy_sparse.csr_array, "toarray", toarray)
    rows = toys.rows(ROW_BLOCK + 7)
    matrix = scipy_sparse.csr_array(np.where(rows > 0.5, rows, 0))
    changes = {"activations": activations} if name == "StackedAutoencoder" else {}
    small(name, **changes).fit(matrix).score(matrix)
    assert made
    assert max(made) <= ROW_BLOCK


def test_many_sparse_rows_multiply_block_by_block():
    rows = toys.rows(2 * ROW_BLOCK + 3)
    many = SparseRows(scipy_sparse.csr_array(rows))[:]
    weights = toys.rows(12, 4)
    np.testing.assert_allclose(np.matmul(many, weights), rows @ weights, rtol=1e-6)
    with pytest.raises(TypeError):
        np.add(many, 1)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_float32(name):
    fitted = small(name).fit(X.astype(np.float64))
    codes = fitted.transform(X.astype(np.float64))
    assert codes.dtype == fitted.inverse_transform(codes).dtype == np.float32
    names = fitted.get_feature_names_out()
    assert names[0] == f"{name.lower()}0"
    assert codes.shape == (len(X), len(names))


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_minus_the_error(name):
    fitted = small(name).fit(X)
    rebuilt = fitted.inverse_transform(fitted.transform(X))
    error = ((X - rebuilt).astype(float) ** 2).sum(axis=1).mean()
    assert fitted.score(X) == pytest.approx(-error, rel=1e-6)


def test_codes_of_another_width():
    fitted = small("RBM").fit(X)
    with pytest.raises(InputError, match="5 columns; found 12"):
        fitted.inverse_transform(X)


@pytest.mark.parametrize("method", ["transform", "inverse_transform", "score"])
def test_unfitted(method):
    with pytest.raises(NotFittedError):
        getattr(small("Autoencoder"), method)(X)


# --- the weights are those of training -----------------------------------------------


@pytest.mark.parametrize("name", NAMES[:2])
def test_fit_is_so_many_partial_fits(name):
    whole, parts = small(name, epochs=7).fit(X), small(name, epochs=7)
    for _ in range(7):
        parts.partial_fit(X)
    assert same_parameters(whole, parts)
    assert parts.n_epochs_ == 7
    assert same_parameters(parts.fit(X), whole)


@pytest.mark.parametrize("name", NAMES[:2])
def test_partial_fit_goes_on_after_pickling(name):
    whole, half = small(name, epochs=4).fit(X), small(name, epochs=2).fit(X)
    half = pickle.loads(pickle.dumps(half))
    assert same_parameters(half.partial_fit(X).partial_fit(X), whole)


@pytest.mark.parametrize("changes", [{"n_hidden": 6}, {"tied": False}])
def test_partial_fit_needs_the_same_layer(changes):
    fitted = small("Autoencoder").fit(X).set_params(**changes)
    with pytest.raises(SettingError, match="call fit"):
        fitted.partial_fit(X)


def test_what_was_fitted_stays_when_arguments_change():
    fitted = small("Autoencoder").fit(X)
    before = fitted.transform(X)
    fitted.set_params(hidden="relu", n_hidden=3)
    np.testing.assert_array_equal(fitted.transform(X), before)


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
        ("lockstep", {}),
        ("greedy", {}),
        ("greedy", {"dropout": 0.2, "input_dropout": 0.1, "weight_decay": 0.01}),
        ("greedy", {"learning_rate_decay": 0.5}),
    ],
)
def test_a_stack_is_trained_as_the_command_does(schedule, more):
    names = {field: name for name, field in FINETUNE.items()}
    estimator = mpilayer.StackedAutoencoder(
        (9, 8, 6, 4),
        schedule=schedule,
        epochs=4,
        minibatch=20,
        finetune_epochs=3,
        finetune_minibatch=10,
        optimizer="adam",
        **{names[field]: value for field, value in more.items()},
    ).fit(X)
    kind = greedy if schedule == "greedy" else lockstep
    states, small_rows = pipeline.new_states(), pipeline.data(90, 0)
    rows = monitored(small_rows.train, small_rows.validation, 500)
    plan = TablePlan(kind((4,) * 4, (0,) * 4), streamed=True)
    records = list(Pipeline(states, rows, (90, 90, 0), SERIAL, plan).run())
    stack = DeepAutoencoder.unroll([state.layer for state in states])
    config = FinetuneConfig(epochs=3, minibatch=10, optimizer="adam", **more)
    state, strata = FinetuneState(stack, config), Strata.of_rank(90, 10, 0, 1)
    losses = [
        record.train_loss
        for record in finetune(state, strata, X, rows.validation, SERIAL)
    ]
    for name, view in stack.parameters.items():
        np.testing.assert_array_equal(estimator.parameters_[name], view)
    assert estimator.finetune_losses_ == losses
    first = [record.train_error for s, record in records if s is states[0]]
    assert estimator.layer_errors_[0] == first
    assert [len(errors) for errors in estimator.layer_errors_] == [4] * 4


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


@pytest.mark.parametrize("method", ["rbm", "autoencoder"])
@pytest.mark.parametrize("code", ["sigmoid", "linear"])
def test_shared_training_of_one_rank_is_training(method, code):
    config = PretrainConfig(layers=(5,), minibatch=20, method=method, code=code)
    shapes = layer_shapes(config, 12)
    usual, shared = (new_state(config, shapes, 0) for _ in range(2))
    for _ in range(3):
        usual.train_epoch(X)
        train_shared_epoch(shared, X, [(0, 90)], SERIAL)
    assert usual.layer.parameters.digest() == shared.layer.parameters.digest()


def test_one_seed_one_result():
    one, same, other = (small("RBM", seed=seed).fit(X) for seed in (1, 1, 2))
    assert same_parameters(one, same)
    assert not same_parameters(one, other)


# --- within scikit-learn -------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_in_a_pipeline(name):
    rows = 5 * X - 2
    found = make_pipeline(MinMaxScaler(), small(name)).fit(rows)
    alone = small(name).fit(MinMaxScaler().fit_transform(rows))
    assert same_parameters(found[-1], alone)
    assert found.transform(rows).shape == (len(X), alone.shapes_[-1].n_hidden)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("RBM", {"n_hidden": np.array([1, 6])}),
        ("Autoencoder", {"n_hidden": [1, 6]}),
        ("StackedAutoencoder", {"layers": [(8, 1), (8, 4)]}),
        ("SparseAutoencoder", {"hidden": [1, 6], "sparsity_weight": [0.0]}),
    ],
)
def test_in_a_grid_search(name, grid):
    options = {} if name == "SparseAutoencoder" else {"learning_rate": 0.3}
    more = {} if name == "SparseAutoencoder" else {"epochs": 40}
    estimator = small(name, **options, **more)
    search = GridSearchCV(estimator, grid, cv=2, error_score="raise").fit(X)
    assert search.best_index_ == 1
    assert search.best_score_ < 0


def test_a_grid_search_over_a_pipeline():
    model = make_pipeline(MinMaxScaler(), small("StackedAutoencoder", epochs=40))
    grid = {"stackedautoencoder__layers": [(8, 1), (8, 4)]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(7 * X - 3)
    assert search.best_params_ == {"stackedautoencoder__layers": (8, 4)}
    assert search.transform(7 * X - 3).shape == (len(X), 4)


def test_clones_keep_the_communicator_and_pickles_do_not():
    estimator = small("RBM", comm=SERIAL).fit(X)
    twin = clone(estimator)
    assert twin.comm is SERIAL
    assert not hasattr(twin, "parameters_")
    assert pickle.loads(pickle.dumps(estimator)).comm is None
    assert estimator.comm is SERIAL


# --- importing -----------------------------------------------------------------------


def printed(program):
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_importing_mpilayer_stays_light():
    program = (
        "import sys, mpilayer\n"
        "names = ('numpy', 'scipy', 'sklearn', 'mpi4py')\n"
        "print([name for name in names if name in sys.modules])\n"
        "mpilayer.RBM()\nprint('sklearn' in sys.modules, 'mpi4py' in sys.modules)"
    )
    assert printed(program) == "[]\nTrue False\n"


def test_without_scikit_learn():
    program = (
        "import sys\nsys.modules['sklearn'] = None\nimport mpilayer\n"
        "try: mpilayer.RBM\nexcept ImportError as error: print(error)"
    )
    assert "pip install 'mpilayer[sklearn]'" in printed(program)


def test_other_names():
    with pytest.raises(AttributeError, match="no attribute 'RMB'"):
        mpilayer.RMB  # noqa: B018
    assert set(NAMES) < set(dir(mpilayer))


@pytest.mark.parametrize(
    "model",
    [
        mpilayer.RBM(8, visible="linear", learning_rate=5, minibatch=20),
        mpilayer.Autoencoder(
            8, visible="linear", hidden="linear", learning_rate=5, minibatch=20
        ),
        mpilayer.StackedAutoencoder((8,), learning_rate=1e30, minibatch=20),
        mpilayer.StackedAutoencoder(
            (8,),
            visible="linear",
            learning_rate=0.001,
            optimizer="sgd",
            finetune_learning_rate=1e9,
        ),
        mpilayer.SparseAutoencoder(
            4, optimizer="sgd", output="linear", learning_rate=9
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_fit_that_diverges_is_an_error_and_leaves_nothing(model):
    """Rows as a StandardScaler leaves them, and too large a learning rate."""
    data = 3 * np.random.default_rng(0).standard_normal((200, 12))
    if getattr(model, "visible", "") == "sigmoid":
        data = np.clip(data, 0, 1)
    with pytest.raises(TrainingError):
        model.fit(data)
    assert not hasattr(model, "parameters_")


def test_a_partial_fit_that_diverges_leaves_what_was_there():
    model = mpilayer.RBM(8, visible="linear", learning_rate=0.001, minibatch=20)
    data = np.random.default_rng(0).standard_normal((200, 12))
    before = model.fit(data).parameters_["weights"].copy()
    model.set_params(learning_rate=1e30)
    with pytest.raises(TrainingError):
        model.partial_fit(data)
    np.testing.assert_array_equal(model.parameters_["weights"], before)
    assert model.n_epochs_ == 20
