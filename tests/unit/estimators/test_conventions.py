"""The estimators have scikit-learn's conventions, and arguments of the commands."""

import inspect
import pickle
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import estimator_checks

import mpilayer
from mpilayer.config import (
    PRESETS,
    SparseConfig,
)
from mpilayer.errors import ConfigError
from mpilayer.estimators import SettingError
from mpilayer.parallel.comm import SerialCommunicator
from tests.support import toys
from tests.support.estimators import NAMES, same_parameters, small

X = toys.rows(90)
SERIAL = SerialCommunicator()


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


ONE_LAYER = (
    "n_hidden epochs minibatch learning_rate momentum momentum_switch weight_decay "
    "initial_deviation visible hidden seed comm "
)
STACK = (
    "layers method schedule lag refresh_every epochs extra_epochs activations "
    "minibatch learning_rate momentum momentum_switch weight_decay cd_steps seed "
    "initial_deviation visible hidden code tied loss monitor_rows finetune_epochs "
    "optimizer finetune_learning_rate finetune_loss finetune_minibatch dropout comm "
    "input_dropout finetune_learning_rate_decay finetune_weight_decay"
)
SPARSE = {item.name for item in fields(SparseConfig)} - {"preset"} | {"comm"}


@pytest.mark.parametrize(
    ("name", "arguments", "defaults"),
    [
        ("RBM", ONE_LAYER + "cd_steps", {"n_hidden": 256, "epochs": 20}),
        ("Autoencoder", ONE_LAYER + "tied loss", {"learning_rate": 0.1, "tied": True}),
        ("StackedAutoencoder", STACK, {"epochs": (20,), "finetune_minibatch": 20}),
        ("SparseAutoencoder", " ".join(SPARSE), {"hidden": 30, "comm": None}),
    ],
)
def test_arguments(name, arguments, defaults):
    """Those of the commands, by name but for the first one, with their defaults."""
    kind = getattr(mpilayer, name)
    found = inspect.signature(kind).parameters
    assert set(found) == set(arguments.split())
    assert {key: found[key].default for key in defaults} == defaults
    first, *others = found.values()
    assert getattr(kind(7), first.name) == 7
    assert all(argument.kind == argument.KEYWORD_ONLY for argument in others)
    for key in found:
        assert f"\n{key} : " in kind.__doc__
    assert " --" not in kind.__doc__
    with pytest.raises(TypeError, match="'epoch'"):
        kind(epoch=3)


def test_presets_are_arguments():
    assert small("SparseAutoencoder", **PRESETS["ufldl"]).hidden == 25


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("RBM", {"n_hidden": 0}, "n_hidden must be at least 1; got 0. Change n_hidden"),
        ("RBM", {"n_hidden": (5, 4)}, r"n_hidden must be one number; got \(5, 4\)"),
        ("RBM", {"n_hidden": 2.5}, "n_hidden must be of type int; got 2.5"),
        ("RBM", {"epochs": 0}, "^epochs must be at least 1; got 0. Change epochs"),
        ("RBM", {"hidden": "relu"}, "relu"),
        ("RBM", {"momentum": (0.5,)}, "momentum needs two numbers"),
        ("Autoencoder", {"visible": "tanh", "loss": "cross-entropy"}, "cross entropy"),
        ("StackedAutoencoder", {"schedule": "async"}, "schedule 'async'; choose from"),
        ("StackedAutoencoder", {"epochs": (1, 2, 3)}, "epochs needs one number, or"),
        ("StackedAutoencoder", {"layers": (5, 0)}, "layers must .* Change layers"),
        ("StackedAutoencoder", {"finetune_epochs": -1}, "Change finetune_epochs"),
        ("StackedAutoencoder", {"finetune_loss": "l1"}, "unknown finetune_loss 'l1'"),
        (
            "StackedAutoencoder",
            {"finetune_loss": "cross-entropy", "visible": "linear"},
            "cross entropy",
        ),
        ("SparseAutoencoder", {"kl": "exactly"}, "unknown kl 'exactly'"),
        ("SparseAutoencoder", {"activation": "relu"}, "unknown activation 'relu'"),
    ],
)
def test_a_wrong_argument(name, wrong, words):
    with pytest.raises(SettingError, match=words) as caught:
        small(name, **wrong).fit(X)
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, ValueError)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("RBM", {"minibatch": 91}),
        ("StackedAutoencoder", {"minibatch": 91}),
        ("StackedAutoencoder", {"finetune_minibatch": 91}),
        ("SparseAutoencoder", {"minibatch": 91, "optimizer": "sgd"}),
    ],
)
def test_a_minibatch_of_more_than_all_rows_is_warned_of(name, changes):
    words = rf"{next(iter(changes))}=91 is more than the 90 rows.* a smaller"
    with pytest.warns(UserWarning, match=f"^{words}"):
        small(name, **changes).fit(X)
    small(name, **changes | dict.fromkeys([next(iter(changes))], 90)).fit(X)


def test_a_partial_fit_may_have_few_rows():
    small("RBM").partial_fit(X[:3])


def test_numbers_of_numpy_and_lists_are_arguments():
    found = small("StackedAutoencoder", layers=[np.int64(8), 3], seed=np.int64(0))
    assert same_parameters(found.fit(X), small("StackedAutoencoder").fit(X))


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
    long = {} if name == "SparseAutoencoder" else {"learning_rate": 0.3, "epochs": 40}
    search = GridSearchCV(small(name, **long), grid, cv=2, error_score="raise").fit(X)
    assert search.best_index_ == 1
    assert search.best_score_ < 0


def test_clones_keep_the_communicator_and_pickles_do_not():
    estimator = small("RBM", comm=SERIAL).fit(X)
    twin = clone(estimator)
    assert twin.comm is SERIAL
    assert not hasattr(twin, "parameters_")
    assert pickle.loads(pickle.dumps(estimator)).comm is None
    assert estimator.comm is SERIAL


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
