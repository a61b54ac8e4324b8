"""Estimators on several ranks, each with rows of its own: what one rank would find."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")

from scipy.sparse import csr_array
from sklearn.model_selection import GridSearchCV

from mpilayer.arrays import Array32
from mpilayer.errors import TrainingError
from mpilayer.estimators import InputError, SettingError
from mpilayer.estimators.rows import SparseRows, current_bounds, on_hosts, redistribute
from tests.support.estimators import small
from tests.support.sparse import patches, small_blocks
from tests.support.together import SPLITS, caught, share, together
from tests.support.toys import rows

__all__ = ["small_blocks"]
pytestmark = [
    pytest.mark.mpi(min_size=2),
    # Where a minibatch is larger than all rows, on purpose.
    pytest.mark.filterwarnings("ignore:(finetune_)?minibatch=[0-9]+ is more than"),
]
X = rows(97)


@pytest.fixture
def on_two_hosts(world, monkeypatch):
    """Let the ranks be of two hosts, with unequal numbers if there are three."""
    names = ["one", *["other"] * (world.size - 1)]
    for room in ("layer", "stack"):
        monkeypatch.setattr(
            f"mpilayer.estimators.{room}.hosts", lambda c: names[: c.size]
        )


def fitted(world, make, tolerance, data=X, split="even", **changes):
    """Fit on all ranks and alone; return both.

    Demand the same bits on all ranks, and one rank's result but for rounding.
    """
    alone = world.on_root(lambda: make(None, **changes).fit(data))
    found = make(world, **changes).fit(share(world, data, split))
    assert_agrees(world, found, alone, tolerance)
    return found, alone


def vector(estimator) -> Array32:
    return np.concatenate([view.ravel() for view in estimator.parameters_.values()])


def assert_agrees(world, found, alone, tolerance):
    vectors = world.allgather(vector(found))
    with together(world):
        assert all(np.array_equal(v, vectors[0]) for v in vectors)
        np.testing.assert_allclose(vectors[0], vector(alone), rtol=0, atol=tolerance)


LAYERS = [
    ("RBM", {"cd_steps": 2}),
    ("RBM", {"hidden": "linear", "learning_rate": 0.01}),
    ("RBM", {"visible": "linear", "learning_rate": 0.01, "weight_decay": 0.01}),
    ("Autoencoder", {}),
    ("Autoencoder", {"tied": False, "loss": "cross-entropy"}),
    ("RBM", {"n_hidden": 200, "slices": 3}),
]


def layer(name, comm=None, **changes):
    return small(name, comm=comm, **{"n_hidden": 7} | changes)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("name", "changes"), LAYERS)
def test_one_layer(world, name, changes, split):
    make = partial(layer, name)
    found, alone = fitted(world, make, 0, split=split, **changes)
    score = found.score(share(world, X, split))
    with together(world):
        assert score == pytest.approx(alone.score(X), rel=1e-5)


@pytest.mark.parametrize("name", ["RBM", "Autoencoder"])
@pytest.mark.usefixtures("on_two_hosts")
def test_slices_of_the_largest_host(world, name):
    """All hosts end with the same bits, those of so many slices."""
    found = layer(name, world, n_hidden=200).fit(share(world, X))
    slices = min(3, world.size - 1)
    assert_agrees(world, found, layer(name, n_hidden=200, slices=slices).fit(X), 0)


@pytest.mark.parametrize("name", ["RBM", "Autoencoder"])
def test_partial_fits_and_sparse_rows(world, name):
    data = np.where(X > 0.5, X, 0)
    alone = world.on_root(lambda: layer(name).fit(data))
    found, mine = layer(name, world), csr_array(share(world, data))
    for _ in range(3):
        found.partial_fit(mine)
    assert_agrees(world, found, alone, 0)


def stack(comm=None, **changes):
    usual = {"layers": (8, 6, 3), "epochs": 4, "finetune_epochs": 0}
    return small("StackedAutoencoder", comm=comm, **usual | changes)


@pytest.mark.parametrize("layers", [(8, 6, 3), (5,)])
@pytest.mark.parametrize("schedule", ["lockstep", "greedy"])
@pytest.mark.parametrize("split", SPLITS)
def test_pretraining_has_the_bits_of_one_rank(world, split, schedule, layers):
    """Also with more ranks than layers."""
    options = {"split": split, "schedule": schedule, "layers": layers}
    found, alone = fitted(world, stack, 0, **options)
    with together(world):
        assert found.layer_errors_ == alone.layer_errors_


@pytest.mark.parametrize("minibatch", [20, 3, 500])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_finetuning_agrees_with_one_rank(world, optimizer, minibatch):
    options = {"finetune_epochs": 3, "finetune_minibatch": minibatch}
    found, alone = fitted(world, stack, 1e-4, optimizer=optimizer, **options)
    with together(world):
        assert found.finetune_losses_ == pytest.approx(alone.finetune_losses_, rel=1e-4)


WIDE = {"layers": (128, 64), "finetune_epochs": 2, "optimizer": "sgd"}


def test_more_ranks_than_slices_of_units(world):
    """Some are idle while two slices are tuned."""
    fitted(world, stack, 0, slices=1, **WIDE)


@pytest.mark.parametrize(
    "changes", [{"layers": (8,), "finetune_epochs": 2}, {"slices": 1, **WIDE}]
)
@pytest.mark.usefixtures("on_two_hosts")
def test_unequal_hosts(world, changes):
    """Also more than layers; in fine-tuning ranks share rows then."""
    found, alone = fitted(world, stack, 1e-4, **changes)
    with together(world):
        assert len(found.finetune_losses_) == len(alone.finetune_losses_) == 2


def test_sparse_rows_in_a_stack(world):
    data = np.where(X > 0.5, X, 0)
    alone = world.on_root(lambda: stack().fit(data))
    assert_agrees(world, stack(world).fit(csr_array(share(world, data))), alone, 0)


tuned = partial(stack, finetune_epochs=1)


def sparse(comm=None, **changes):
    usual = {"dtype": "float64", "sparsity_weight": 0.5, "kl": "exact"}
    return small("SparseAutoencoder", comm=comm, **usual | changes)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "lbfgs"},
        {"optimizer": "cg", "kl": "exact-fused"},
        {"optimizer": "sgd", "minibatch": 20},
        {"kl": "average", "shards": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.usefixtures("small_blocks")
def test_a_sparse_autoencoder_is_that_of_one_rank(world, split, options):
    """To the bit, also on rows that are sparse."""
    found, alone = fitted(world, sparse, 0, patches(97), split, **options)
    matrix = csr_array(share(world, patches(97), split))
    same = np.array_equal(vector(sparse(world, **options).fit(matrix)), vector(found))
    with together(world):
        assert same
        assert (found.cost_, found.exact_cost_) == (alone.cost_, alone.exact_cost_)
        np.testing.assert_array_equal(found.mean_activation_, alone.mean_activation_)


def test_an_average_is_over_as_many_shards_as_ranks(world):
    found = sparse(world, kl="average").fit(share(world, patches(97)))
    alone = sparse(kl="average", shards=world.size).fit(patches(97))
    with together(world):
        np.testing.assert_array_equal(vector(found), vector(alone))
        assert found.cost_ > found.exact_cost_


def test_shards_that_do_not_fit(world):
    wrong = ({"kl": "average", "shards": 21}, {"shards": 2})
    estimators = [sparse(world, **changes) for changes in wrong]
    mine = share(world, patches(20))
    errors = [caught(partial(estimator.fit, mine)) for estimator in estimators]
    with together(world):
        assert [error[::2] for error in errors] == [(SettingError, True)] * 2
        assert "got 21 with 20 rows. Give at most 20" in errors[0][1]
        assert "shards belong to kl='average'" in errors[1][1]


# --- communicators, errors, searches -------------------------------------------------


@pytest.mark.parametrize("make", [partial(layer, "RBM"), stack, sparse])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_bad_on_one_rank_or_none_at_all(world, make, bad):
    mine = share(world, X).copy()
    if world.rank == world.size - 1:
        mine[2, 3] = bad
    found = caught(lambda: make(world).fit(mine))
    with together(world):
        assert found[::2] == (InputError, True)
        assert "Input X contains" in found[1]
    with pytest.raises(InputError, match="no rank has any"):
        make(world).fit(X[:0])


@pytest.mark.parametrize(("more_epochs", "fewer_columns"), [(1, 0), (0, 1)])
def test_other_arguments_or_columns_on_one_rank(world, more_epochs, fewer_columns):
    mine = world.rank == 1
    estimator = layer("RBM", world, epochs=1 + more_epochs * mine)
    with pytest.raises(SettingError, match="rank 1 differs from rank 0"):
        estimator.fit(share(world, X)[:, : 12 - fewer_columns * mine])


def test_arguments_that_no_longer_describe_what_was_fitted(world):
    model = layer("Autoencoder", world).fit(share(world, X)).set_params(tied=False)
    found = caught(lambda: model.partial_fit(share(world, X)))
    with together(world):
        assert found[::2] == (SettingError, True)
        assert "Set them back, or call fit" in found[1]


def test_all_ranks_find_the_same_best_of_a_grid(world):
    grid = {"n_hidden": [1, 6], "learning_rate": [0.01, 0.3]}
    estimator = layer("Autoencoder", world, epochs=10)
    search = GridSearchCV(estimator, grid, cv=2, error_score="raise")
    search.fit(share(world, X))
    scores = world.allgather(search.cv_results_["mean_test_score"].tolist())
    with together(world):
        assert scores[0] == scores[-1]
        assert search.best_params_ == {"n_hidden": 6, "learning_rate": 0.3}


@pytest.mark.parametrize("now", SPLITS)
@pytest.mark.parametrize("wanted", SPLITS)
def test_redistribution(world, now, wanted, monkeypatch):
    monkeypatch.setattr("mpilayer.estimators.rows._MESSAGE_BYTES", 5 * 12 * 4)
    mine = share(world, X, now)
    expected = share(world, X, wanted)
    bounds = (current_bounds(world, len(rows)) for rows in (mine, expected))
    found = redistribute(mine, *bounds, world)
    with together(world):
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def made(monkeypatch):
    """Give a list of all communicators that are made from now on."""
    mpi = pytest.importorskip("mpilayer.parallel.mpi")
    found = []

    class Noted(mpi.MPICommunicator):
        def __init__(self, comm):
            super().__init__(comm)
            found.append(comm)

    monkeypatch.setattr(mpi, "MPICommunicator", Noted)
    return found


@pytest.mark.parametrize("rate", [0.1, 1e30])
@pytest.mark.parametrize("make", [partial(layer, "RBM"), tuned, sparse])
@pytest.mark.usefixtures("on_two_hosts")
def test_communicators_are_given_back(world, made, make, rate):
    """MPICH has some 2,000, as many as partial fits are soon."""
    options = {} if make is sparse else {"visible": "linear", "learning_rate": rate}
    caught(lambda: make(world._comm, **options).fit(share(world, X)))
    with together(world):
        assert made
        assert not any(made)


@pytest.mark.parametrize("kind", [np.asarray, lambda x: SparseRows(csr_array(x))])
def test_a_host_has_all_rows_once(world, kind):
    """They come to where its ranks share them."""
    data = rows(5000, 100)
    mine, names = kind(share(world, data)), ["one"] * world.size
    bounds = current_bounds(world, len(mine))
    tracemalloc.start()
    with on_hosts(mine, bounds, world, names, lambda _: None) as (_, everything):
        peak = tracemalloc.get_traced_memory()[1]
        same = np.array_equal(everything, data)
    tracemalloc.stop()
    with together(world):
        assert same
        assert peak < data.nbytes


LINEAR = {"visible": "linear", "learning_rate": 1e30}
TUNED = {"visible": "linear", "optimizer": "sgd", "finetune_learning_rate": 1e9}
LAYERS_OF_RANKS = {"layers": (8, 6, 5), "finetune_epochs": 0}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RBM", LINEAR),
        ("Autoencoder", LINEAR),
        *(
            ("StackedAutoencoder", {**LAYERS_OF_RANKS, "learning_rate": rates})
            for rates in ((1e30, 0.1, 0.1), (0.1, 1e30, 0.1), (0.1, 0.1, 1e30))
        ),
        ("StackedAutoencoder", {**TUNED, "learning_rate": 0.1}),
    ],
)
def test_divergence_is_an_error_of_all_ranks(world, name, options):
    """With a communicator of mpi4py, as its users have it."""
    model = small(name, **options, comm=world._comm)
    found = caught(lambda: model.fit(share(world, X)))
    everywhere = world.allgather(found)
    with together(world):
        assert found[::2] == (TrainingError, True)
        assert "training diverges" in found[1]
        assert everywhere == [found] * world.size
        assert not hasattr(model, "parameters_")
