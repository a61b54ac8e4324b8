"""Rows for the benchmarks, what is timed in this process, and rivals."""

import numpy as np
import pytest

from benchmarks import rivals
from mpilayer.arrays import ROW_BLOCK
from mpilayer.bench import launches, step
from mpilayer.bench.pairs import take_turns
from mpilayer.bench.rows import (
    N_CAUSES,
    patches,
    random_patches,
    write_images,
    write_patches,
)
from mpilayer.config import SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError

CONFIG = SparseConfig(dtype="float64")
ROWS = random_patches(ROW_BLOCK + 300)
WIDE = ROWS.astype(np.float64)


def position() -> np.ndarray:
    """Return a position where every parameter matters, biases too."""
    vector = rivals.start(ROWS.shape[1], CONFIG)
    return vector + 0.05 * np.random.default_rng(0).standard_normal(vector.size)


def test_random_patches_are_correlated():
    x = random_patches(4000)
    assert x.shape == (4000, 64)
    assert x.dtype == np.float32
    assert x.std() == pytest.approx(0.3, rel=0.1)
    spectrum = np.linalg.svd(x, compute_uv=False) ** 2
    assert spectrum[:N_CAUSES].sum() > 0.95 * spectrum.sum()
    np.testing.assert_allclose(random_patches(30), x[:30], rtol=0, atol=1e-6)


def test_the_first_rows_of_real_data(tmp_path):
    source = write_patches(None, 50, tmp_path)
    with Dataset.open(write_patches(source, 20, tmp_path)) as dataset:
        np.testing.assert_array_equal(dataset.rows("train"), random_patches(50)[:20])
    with pytest.raises(ConfigError, match=r"must have 51 training rows; .* has 50"):
        patches(source, 51)


def test_runs_on_ranks_and_threads(tmp_path, monkeypatch):
    """Each is a command line, on as many ranks as its name says."""
    data, started, other = write_images(None, 20, tmp_path), [], tmp_path / "other"
    other.mkdir()

    def launch(run, ranks, arguments):
        started.append((ranks, arguments))
        return {"pretrain_seconds": 2.0, "finetune_seconds": 1.0}

    monkeypatch.setattr(launches, "launch", launch)
    work = launches.Work(data, tmp_path, (8, 4), 3, 10)
    timed = {**launches.pretrainings(work, [0, 2]), **launches.finetunings(work, "sgd")}
    assert started.pop()[1][:2] == ["pretrain", str(data)]
    assert [work() for work in timed.values()] == 5 * [2.0] + 3 * [1.0]
    for name, (ranks, arguments) in zip(timed, started, strict=True):
        threads = arguments[arguments.index("--threads") + 1]
        assert f" {ranks}x{threads}" in name
        assert ("lag 2" in name) == (arguments[-2:] == ["--lag", "2"])
        assert ("team" in name) == (arguments[-2:] == ["--layout", "1-2:2"])
    with Dataset.open(write_images(data, 15, other)) as dataset:
        assert [dataset.n_samples(n) for n in ("train", "validation")] == [15, 3]


@pytest.mark.parametrize(
    ("rival", "rows", "tolerance"),
    [
        (rivals.numpy_cost, WIDE, 1e-12),
        (rivals.torch_cost, WIDE, 1e-12),
        (rivals.torch_cost, ROWS, 1e-5),
    ],
)
def test_a_rival_computes_the_same(rival, rows, tolerance):
    if rival is rivals.torch_cost:
        pytest.importorskip("torch")
    cost, gradient = rivals.own_costs(WIDE, CONFIG)["mpilayer average"](position())
    found, its_gradient = rival(rows, CONFIG)(position())
    assert found == pytest.approx(cost, rel=tolerance)
    bound = tolerance * np.abs(gradient).max()
    np.testing.assert_allclose(its_gradient, gradient, rtol=0, atol=bound)


def test_all_candidates_agree():
    costs = rivals.cost_candidates(ROWS, SparseConfig())
    assert ("torch" in costs) == rivals.has("torch")
    rivals.check_agreement(costs, position())


@pytest.mark.parametrize(
    "other",
    [
        rivals.numpy_cost(WIDE, SparseConfig(dtype="float64", weight_decay=0.0)),
        lambda x: (np.nan, np.ones(x.size)),
    ],
)
def test_a_candidate_that_does_other_work_is_found(other):
    costs = {"one": rivals.numpy_cost(WIDE, CONFIG), "other": other}
    with pytest.raises(RuntimeError, match="other must compute what one computes"):
        rivals.check_agreement(costs, position())


def test_everything_is_timed():
    config, said = SparseConfig(), []
    costs = rivals.own_costs(ROWS[:50], config)
    steps = {f"step {name}": work for name, work in step.steps(64, 5, 1).items()}
    timed = rivals.evaluations(ROWS[:50], costs, config) | steps
    comparison = take_turns(timed, 2, say=said.append)
    assert len(said) == 2
    assert list(comparison.seconds) == ["gemm", *costs, "step gemm", "step mpilayer"]
    for seconds in comparison.seconds.values():
        assert len(seconds) == 2
        assert min(seconds) > 0
