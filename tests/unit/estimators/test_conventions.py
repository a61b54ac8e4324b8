"""The estimators have scikit-learn's conventions, and arguments of the commands."""

import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")

from sklearn.base import clone
from sklearn.utils import estimator_checks

import mpilayer
from mpilayer.config import PRESETS
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
CHECKED = [small(name, **LINEAR) for name in NAMES[:3]]
CHECKED += [small("SparseAutoencoder", output="linear")]
SATURATED = (
    "rows of 100 times a random number drive units so far that some never fire: the "
    "sparsity term is infinite, and fit says so"
)
FAILING = ("check_fit_idempotent", "check_fit_check_is_fitted", "check_n_features_in")


def expected_failures(estimator):
    """Return the checks that fail, and why."""
    sparse = type(estimator).__name__ == "SparseAutoencoder"
    return dict.fromkeys(FAILING, SATURATED) if sparse else {}


# Before scikit-learn 1.6 exceptions could not be named.
if hasattr(estimator_checks, "estimator_checks_generator"):

    @pytest.mark.filterwarnings("ignore:(finetune_)?minibatch=[0-9]+ is more than")
    @estimator_checks.parametrize_with_checks(
        CHECKED, expected_failed_checks=expected_failures
    )
    def test_conventions(estimator, check):
        check(estimator)


@pytest.mark.parametrize("name", NAMES)
def test_arguments(name):
    """All are documented, and given by name but for the first one."""
    kind = getattr(mpilayer, name)
    first, *others = inspect.signature(kind).parameters.values()
    assert getattr(kind(7), first.name) == 7
    assert all(argument.kind == argument.KEYWORD_ONLY for argument in others)
    assert all(f"\n{other.name} : " in kind.__doc__ for other in (first, *others))
    assert " --" not in kind.__doc__
    with pytest.raises(TypeError, match="'epoch'"):
        kind(epoch=3)


def test_what_arguments_may_be():
    assert small("SparseAutoencoder", **PRESETS["ufldl"]).hidden == 25
    found = small("StackedAutoencoder", layers=[np.int64(8), 3], seed=np.int64(0))
    assert same_parameters(found.fit(X), small("StackedAutoencoder").fit(X))
    assert not same_parameters(found, clone(found).set_params(seed=1).fit(X))


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
        ("StackedAutoencoder", {"finetune_loss": "cross-entropy", "visible": "linear"},
         "cross entropy"),
        ("SparseAutoencoder", {"kl": "exactly"}, "unknown kl 'exactly'"),
        ("SparseAutoencoder", {"activation": "relu"}, "unknown activation 'relu'"),
    ],
)  # fmt: skip
def test_a_wrong_argument(name, wrong, words):
    with pytest.raises(SettingError, match=words) as caught:
        small(name, **wrong).fit(X)
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, ValueError)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "argument", "changes"),
    [
        ("RBM", "minibatch", {}),
        ("StackedAutoencoder", "minibatch", {}),
        ("StackedAutoencoder", "finetune_minibatch", {}),
        ("SparseAutoencoder", "minibatch", {"optimizer": "sgd"}),
    ],
)
def test_a_minibatch_of_more_than_all_rows_is_warned_of(name, argument, changes):
    words = rf"{argument}=91 is more than the 90 rows.* a smaller"
    with pytest.warns(UserWarning, match=f"^{words}"):
        small(name, **{argument: 91}, **changes).fit(X)
    small(name, **{argument: 90}, **changes).fit(X)
    if name == "RBM":
        small(name).partial_fit(X[:3])  # parts may have few rows


def test_clones_keep_the_communicator_and_pickles_do_not():
    estimator = small("RBM", comm=SERIAL).fit(X)
    twin = clone(estimator)
    assert twin.comm is SERIAL
    assert not hasattr(twin, "parameters_")
    assert pickle.loads(pickle.dumps(estimator)).comm is None
    assert estimator.comm is SERIAL


LOADED = """
import sys, mpilayer
print([name for name in ("numpy", "scipy", "sklearn", "mpi4py") if name in sys.modules])
mpilayer.RBM()
print("sklearn" in sys.modules, "mpi4py" in sys.modules)
"""
WITHOUT = """
import sys
sys.modules["sklearn"] = None
import mpilayer
try:
    mpilayer.RBM
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("program", "words"),
    [(LOADED, "[]\nTrue False\n"), (WITHOUT, "pip install 'mpilayer[sklearn]'")],
)
def test_importing_mpilayer_is_light_and_needs_no_scikit_learn(program, words):
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert words in done.stdout


def test_other_names():
    with pytest.raises(AttributeError, match="no attribute 'RMB'"):
        mpilayer.RMB  # noqa: B018
    assert set(NAMES) < set(dir(mpilayer))
