"""Sparse autoencoders from end to end."""

import shutil
import tomllib
from importlib.util import find_spec

import numpy as np
import pytest

from mpilayer.config import PRESETS, SparseConfig, as_values, flag
from mpilayer.data.dataset import Dataset
from mpilayer.models.base import LayerShape
from mpilayer.store import checkpoint
from tests.support import launch, sparse
from tests.support.breaks import assert_same
from tests.support.command import call, found, said
from tests.support.plain import FUNCTIONS, named
from tests.support.small import contents, read_summary, records, write_patches

RANKS = (0, 1, 3)
SETTINGS = {
    "hidden": 5,
    "output": "linear",
    "sparsity_weight": 0.5,
    "sparsity_target": 0.1,
    "evaluations": 40,
}
OPTIONS = " ".join(f"{flag(name)}={value}" for name, value in SETTINGS.items())
TRAIN = f"sparse toy.h5 --run run {OPTIONS}"


def trained(run):
    """Return the shape and the parameter vector of a run."""
    arrays, facts = checkpoint.load(run / "checkpoints" / "sparse.h5")
    keys = ("n_visible", "n_hidden", "visible", "hidden")
    shape = LayerShape(*(facts[key] for key in keys))
    parts = [arrays[f"parameters/{name}"].ravel() for name in sparse.shapes(shape)]
    return shape, np.concatenate(parts)


def written(run):
    return tomllib.loads((run / "config.toml").read_text())["sparse"]


def rows_of(path, split="train"):
    with Dataset.open(path) as dataset:
        return dataset.rows(split).astype(float)


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory):
    """Give an exact run for each number of ranks, in a folder, and what was printed.

    ``averaged`` has all defaults of the mode, on 2 ranks.
    """
    folder, results = tmp_path_factory.mktemp("sparse"), {}
    shutil.copy(toy, folder / "toy.h5")
    for ranks in RANKS:
        line = f"sparse toy.h5 --run exact-{ranks} --kl exact --dtype float64 {OPTIONS}"
        results[f"exact-{ranks}"] = call(folder, line, ranks=ranks).ok()
    line = f"mpiexec -n 2 sparse toy.h5 --run averaged {OPTIONS}"
    results["averaged"] = call(folder, line).ok()
    return folder, results


@pytest.fixture
def folder(toy, tmp_path):
    """Give a folder with the data."""
    shutil.copy(toy, tmp_path / "toy.h5")
    return tmp_path


# --- a run


@pytest.mark.parametrize("ranks", RANKS)
def test_a_run_leaves_what_it_must(runs, toy, ranks):
    run, result = runs[0] / f"exact-{ranks}", runs[1][f"exact-{ranks}"]
    names = {name for name, digest in contents(run).items() if digest != "folder"}
    expected = {"config.toml", "summary.json", "filters.npy", "complete"}
    expected |= {"metrics/sparse.jsonl", "checkpoints/sparse.h5"}
    expected |= {"filters.png"} if find_spec("matplotlib") else set()
    assert names == expected
    filters = np.load(run / "filters.npy")
    assert (filters.shape, filters.dtype) == ((5, 4, 4), np.float32)
    norms = np.linalg.norm(filters.reshape(5, 16), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)
    # Only rank 0 prints.
    assert result.stdout.count("sparsity term exact") == 1
    assert result.stdout.count("40 evaluations") == 1
    assert "sparse: 40/40" in result.stderr
    assert "dead:" not in result.stderr
    table = result.stdout.partition("40 evaluations")[0]
    assert max(map(len, table.splitlines())) <= 80
    summary, lines = read_summary(run), records(run)
    assert summary["ranks"] == max(ranks, 1)
    assert (summary["kl"], summary["optimizer"]) == ("exact", "lbfgs")
    assert (summary["evaluations"], summary["stopped_by"]) == (40, "evaluations")
    assert 0 < summary["iterations"] <= lines[-1]["iteration"] + 1 < 41
    assert 0 < summary["allreduce_seconds"] < summary["seconds"]
    mean = np.mean(summary["mean_activations"])
    assert summary["mean_activation"] == pytest.approx(mean)
    assert summary["warning"] == ""
    assert summary["dead_units"] < 5
    shape, vector = trained(run)
    cost, gradient = sparse.exact(shape, vector, rows_of(toy), SparseConfig(**SETTINGS))
    assert summary["cost"] == pytest.approx(cost, rel=1e-12)
    norm = pytest.approx(np.linalg.norm(gradient), rel=1e-9)
    assert summary["gradient_norm"] == norm
    # Any number of ranks reaches the same cost.
    assert summary["cost"] == read_summary(runs[0] / "exact-0")["cost"]
    assert summary["cost"] == summary["exact_cost"] < 0.9 * lines[0]["cost"]
    assert [line["evaluation"] for line in lines] == list(range(1, 41))
    assert summary["cost"] == min(line["cost"] for line in lines)
    for line in lines:
        parts = line["reconstruction"] + line["decay"] + line["sparsity"]
        assert parts == pytest.approx(line["cost"], rel=1e-14)
        assert min(line["computing"], line["allreduce"], line["seconds"]) >= 0


@pytest.fixture(scope="module")
def many_patches(tmp_path_factory):
    """Give a data set of some blocks of rows."""
    return write_patches(tmp_path_factory.mktemp("many") / "many.h5", n_train=4501)


@pytest.mark.parametrize(
    "options",
    [
        "--shards 4",
        "--kl exact --optimizer sgd --evaluations 4 --measure-every 900",
    ],
)
def test_seven_ranks_and_one_find_the_same_bits(many_patches, tmp_path, options):
    """Some ranks have a block of rows, others two."""
    line = f"sparse {many_patches} {OPTIONS} {options} --run"
    said(tmp_path, f"{line} one")
    said(tmp_path, f"mpiexec -n 7 {line} seven")
    assert read_summary(tmp_path / "seven")["ranks"] == 7
    assert written(tmp_path / "one") == written(tmp_path / "seven")
    assert_same(tmp_path / "one", tmp_path / "seven")


def test_the_configuration_is_effective_and_repeats_the_run(runs, folder):
    run, summary = runs[0] / "averaged", read_summary(runs[0] / "averaged")
    assert summary["cost"] > summary["exact_cost"]
    assert "cost with the exact sparsity term" in runs[1]["averaged"].stdout
    assert list(written(run)) == list(as_values(SparseConfig()))
    expected = SparseConfig(**SETTINGS, shards=2).resolved()
    assert written(run) == as_values(expected)
    line = f"sparse toy.h5 --run again --config {run / 'config.toml'}"
    said(folder, line, ranks=2)
    assert read_summary(folder / "again")["digest"] == summary["digest"]
    # The output is resolved, and flags count more than the file.
    settings = '[sparse]\nhidden = 3\nkl = "exact"\nactivation = "tanh"\n'
    (folder / "own.toml").write_text(settings)
    line = "sparse toy.h5 --run own --config own.toml --hidden 4 --evaluations 3"
    said(folder, line)
    expected = {"hidden": 4, "kl": "exact", "output": "tanh"}
    assert written(folder / "own").items() >= expected.items()


def test_the_preset_ufldl(tiny, tmp_path):
    """Also rows that are not square patches."""
    run = tmp_path / "run"
    line = f"mpiexec -n 2 sparse {tiny} --run run --preset ufldl --evaluations 20"
    assert "filters.npy" in said(tmp_path, line)
    expected = {**PRESETS["ufldl"], "preset": "ufldl", "output": "sigmoid"}
    assert written(run).items() >= expected.items()
    assert np.load(run / "filters.npy").shape == (25, 20)
    assert not (run / "filters.png").exists()


def test_what_is_likely_to_be_a_mistake_is_told(folder):
    result = call(folder, f"{TRAIN} --kl exact --sparsity-weight 0").ok()
    words = "warning: --kl exact makes no difference: --sparsity-weight is 0"
    assert words in result.stderr
    assert read_summary(folder / "run")["sparsity"] == 0
    write_patches(folder / "toy.h5", n_train=2)
    result = call(folder, f"mpiexec -n 3 {TRAIN} --replace").ok()
    words = "3 ranks share 2 training rows in 2 blocks; 1 have none. Start fewer ranks."
    assert f"warning: {words}" in result.stderr
    assert "sparsity term averaged over 2 shards of 2 rows" in result.stderr
    assert read_summary(folder / "run")["n_rows"] == 2


# A mean that forgets nothing drives the biases on and on.
ON = "--optimizer sgd --sgd-sparsity bias --memory 0.999999"


@pytest.mark.parametrize(
    ("options", "ranks", "words"),
    [
        ("--weight-decay 10", 2, "all 5 hidden units are dead"),
        (ON, 0, "the cost is infinite: a hidden unit never fires"),
    ],
)
def test_a_run_that_has_learned_nothing(folder, options, ranks, words):
    """The console, the summary and the report say so."""
    result = call(folder, f"{TRAIN} {options}", ranks=ranks).ok()
    assert result.stderr.count(f"warning: {words}") == 1
    summary = read_summary(folder / "run")
    assert summary["warning"].startswith(words)
    assert summary["dead_units"] == 5
    assert "5 of 5" in result.stdout
    said(folder, "report run")
    assert (folder / "report.html").read_text().count(f"Warning: {words}") == 1


def test_a_cost_that_is_no_number(folder):
    """The rate is far too high: the error says where the last good weights are."""
    run = folder / "run"
    result = call(folder, f"mpiexec -n 2 {TRAIN} --optimizer sgd --learning-rate 1e10")
    lines = records(run)
    words = f"evaluation {len(lines)} found NaN", "--learning-rate", "sparse.h5"
    launch.assert_user_error(result, *words)
    assert [line["evaluation"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["cost"] is None
    assert np.isfinite(trained(run)[1]).all()
    assert not (run / "summary.json").exists()


def test_a_run_is_used(runs, folder, toy):
    run = runs[0] / "exact-3"
    shape, vector = trained(run)
    p = named(sparse.shapes(shape), vector)
    for command in ("encode", "reconstruct"):
        said(folder, f"{command} {run} toy.h5 -o {command}.h5")
    for split in ("train", "test"):
        x = rows_of(toy, split)
        codes = FUNCTIONS[shape.hidden](x @ p["weights"] + p["hidden_bias"])
        output = codes @ p["decode_weights"] + p["visible_bias"]
        output = FUNCTIONS[shape.visible](output)
        for command, expected in (("encode", codes), ("reconstruct", output)):
            made = rows_of(folder / f"{command}.h5", split)
            np.testing.assert_allclose(made, expected, atol=1e-5)
    result = found(folder, f"mpiexec -n 2 evaluate {run}")
    error = np.mean(np.sum((x - output) ** 2, axis=1))
    assert result["error"] == pytest.approx(error, rel=1e-5)
    facts = (result["model"], result["n_code"], result["n_samples"])
    assert facts == ("sparse", 5, 60)
