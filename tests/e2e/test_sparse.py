"""Sparse autoencoders from end to end."""

import json
import tomllib
from importlib.util import find_spec

import numpy as np
import pytest

from mpilayer.config import PRESETS, SparseConfig, as_values, flag
from mpilayer.data.dataset import Dataset
from mpilayer.models.base import LayerShape
from mpilayer.store import checkpoint
from tests.e2e.conftest import contents, read_summary, records, write_patches
from tests.support import launch, sparse
from tests.support.breaks import assert_same
from tests.support.plain import FUNCTIONS, named

RANKS = (0, 1, 3)
SETTINGS = {
    "hidden": 5,
    "output": "linear",
    "sparsity_weight": 0.5,
    "sparsity_target": 0.1,
    "evaluations": 40,
}
OPTIONS = [f"{flag(name)}={value}" for name, value in SETTINGS.items()]


def train(data, run, *options, ranks=0):
    """Train, and return what was printed."""
    arguments = ["sparse", data, "--run", run, *OPTIONS, *options]
    return launch.run(*arguments, ranks=ranks).ok()


def trained(run):
    """Return the shape and the parameter vector of a run."""
    arrays, found = checkpoint.load(run / "checkpoints" / "sparse.h5")
    keys = ("n_visible", "n_hidden", "visible", "hidden")
    shape = LayerShape(*(found[key] for key in keys))
    parts = [arrays[f"parameters/{name}"].ravel() for name in sparse.shapes(shape)]
    return shape, np.concatenate(parts)


def rows_of(path, split="train"):
    with Dataset.open(path) as dataset:
        return dataset.rows(split).astype(float)


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory):
    """Give an exact run for each number of ranks, and what was printed."""
    folder, results = tmp_path_factory.mktemp("sparse"), {}
    for ranks in RANKS:
        run = folder / f"ranks-{ranks}"
        options = ["--kl", "exact", "--dtype", "float64"]
        results[ranks] = run, train(toy, run, *options, ranks=ranks)
    return results


@pytest.fixture(scope="module")
def averaged(toy, tmp_path_factory):
    """Give a run with all defaults of the mode, on 2 ranks."""
    run = tmp_path_factory.mktemp("average") / "run"
    return run, train(toy, run, ranks=2)


# --- a run


@pytest.mark.parametrize("ranks", RANKS)
def test_a_run_leaves_what_it_must(runs, toy, ranks):
    run, result = runs[ranks]
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


@pytest.mark.parametrize("ranks", RANKS)
def test_summary(runs, toy, ranks):
    run, _ = runs[ranks]
    summary = read_summary(run)
    assert summary["ranks"] == max(ranks, 1)
    assert (summary["kl"], summary["optimizer"]) == ("exact", "lbfgs")
    assert (summary["evaluations"], summary["stopped_by"]) == (40, "evaluations")
    assert 0 < summary["iterations"] < 40
    assert summary["exact_cost"] == summary["cost"]
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


def test_any_number_of_ranks_reaches_the_same_cost(runs):
    costs = [read_summary(run)["cost"] for run, _ in runs.values()]
    assert len(set(costs)) == 1
    assert costs[0] < 0.9 * records(runs[0][0])[0]["cost"]


@pytest.mark.parametrize(
    "options",
    [
        "--kl exact",
        "--kl exact-fused --optimizer cg",
        "--shards 4",
        "--kl exact --optimizer sgd --evaluations 4 --measure-every 900",
    ],
)
def test_seven_ranks_and_one_find_the_same_bits(many_patches, tmp_path, options):
    """Some ranks have a block of rows, others two."""
    runs = [tmp_path / "one", tmp_path / "seven"]
    for run, ranks in zip(runs, (0, 7), strict=True):
        train(many_patches, run, *options.split(), ranks=ranks)
    assert read_summary(runs[1])["ranks"] == 7
    settings = [tomllib.loads((run / "config.toml").read_text()) for run in runs]
    assert settings[0]["sparse"] == settings[1]["sparse"]
    assert_same(*runs)


@pytest.fixture(scope="module")
def many_patches(tmp_path_factory):
    """Give a data set of some blocks of rows."""
    return write_patches(tmp_path_factory.mktemp("many") / "many.h5", n_train=4501)


@pytest.mark.parametrize("ranks", RANKS)
def test_metrics_have_a_line_an_evaluation(runs, ranks):
    run, _ = runs[ranks]
    lines = records(run)
    assert [line["evaluation"] for line in lines] == list(range(1, 41))
    assert lines[-1]["iteration"] + 1 >= read_summary(run)["iterations"]
    assert read_summary(run)["cost"] == min(line["cost"] for line in lines)
    for line in lines:
        parts = line["reconstruction"] + line["decay"] + line["sparsity"]
        assert parts == pytest.approx(line["cost"], rel=1e-14)
        assert min(line["computing"], line["allreduce"], line["seconds"]) >= 0


def test_the_average_of_two_ranks(averaged, toy):
    run, result = averaged
    summary, (shape, vector) = read_summary(run), trained(run)
    config, x = SparseConfig(**SETTINGS), rows_of(toy)
    halves = np.split(x, 2)
    average, _ = sparse.average(shape, vector, halves, config)
    exact, _ = sparse.exact(shape, vector, x, config)
    assert summary["kl"] == "average"
    assert summary["cost"] == pytest.approx(average, rel=1e-5)
    assert summary["exact_cost"] == pytest.approx(exact, rel=1e-5)
    assert summary["cost"] > summary["exact_cost"]
    assert "cost with the exact sparsity term" in result.stdout


def test_the_configuration_is_effective_and_repeats_the_run(averaged, toy, tmp_path):
    run, _ = averaged
    written = tomllib.loads((run / "config.toml").read_text())
    assert list(written["sparse"]) == list(as_values(SparseConfig()))
    expected = SparseConfig(**SETTINGS, shards=2).resolved()
    assert written["sparse"] == as_values(expected)
    assert written["data"]["n_visible"] == 16
    again = tmp_path / "again"
    arguments = ["sparse", toy, "--run", again, "--config", run / "config.toml"]
    launch.run(*arguments, ranks=2).ok()
    assert read_summary(again)["digest"] == read_summary(run)["digest"]


def test_the_output_is_resolved_and_flags_count_more_than_the_file(toy, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[sparse]\nhidden = 3\nkl = "exact"\nactivation = "tanh"\n')
    arguments = ["sparse", toy, "--run", tmp_path / "run", "--config", file]
    launch.run(*arguments, "--hidden", 4, "--evaluations", 3).ok()
    written = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["sparse"]
    assert (written["hidden"], written["kl"], written["output"]) == (4, "exact", "tanh")


def test_the_preset_ufldl(tiny, tmp_path):
    """Also rows that are not square patches."""
    run = tmp_path / "run"
    arguments = ["sparse", tiny, "--run", run, "--preset", "ufldl"]
    result = launch.run(*arguments, "--evaluations", 20, ranks=2).ok()
    written = tomllib.loads((run / "config.toml").read_text())["sparse"]
    expected = {**PRESETS["ufldl"], "preset": "ufldl", "output": "sigmoid"}
    assert {key: written[key] for key in expected} == expected
    assert np.load(run / "filters.npy").shape == (25, 20)
    assert not (run / "filters.png").exists()
    assert "filters.npy" in result.stdout


def test_more_ranks_than_rows(tmp_path):
    data = write_patches(tmp_path / "few.h5", n_train=2)
    result = train(data, tmp_path / "run", ranks=3)
    words = "3 ranks share 2 training rows in 2 blocks; 1 have none. Start fewer ranks."
    assert f"warning: {words}" in result.stderr
    assert "sparsity term averaged over 2 shards of 2 rows" in result.stderr
    assert read_summary(tmp_path / "run")["n_rows"] == 2


def test_a_mode_that_makes_no_difference(toy, tmp_path):
    result = train(toy, tmp_path / "run", "--kl", "exact", "--sparsity-weight", 0)
    words = "warning: --kl exact makes no difference: --sparsity-weight is 0"
    assert words in result.stderr
    assert read_summary(tmp_path / "run")["sparsity"] == 0


@pytest.mark.parametrize(
    ("options", "ranks", "words"),
    [
        (["--weight-decay", 10], 2, "all 5 hidden units are dead"),
        (
            # A mean that forgets nothing drives the biases on and on.
            ["--optimizer=sgd", "--sgd-sparsity=bias", "--memory=0.999999"],
            0,
            "the cost is infinite: a hidden unit never fires",
        ),
    ],
)
def test_a_run_that_has_learned_nothing(toy, tmp_path, options, ranks, words):
    """The console, the summary and the report say so."""
    run, page = tmp_path / "run", tmp_path / "report.html"
    result = train(toy, run, *options, ranks=ranks)
    assert result.stderr.count(f"warning: {words}") == 1
    summary = read_summary(run)
    assert summary["warning"].startswith(words)
    assert summary["dead_units"] == 5
    assert "5 of 5" in result.stdout
    launch.run("report", run, "-o", page).ok()
    assert page.read_text().count(f"Warning: {words}") == 1


def test_a_cost_that_is_no_number(toy, tmp_path):
    """The rate is far too high: the error says where the last good weights are."""
    run = tmp_path / "run"
    options = ["--optimizer", "sgd", "--learning-rate", "1e10"]
    arguments = ["sparse", toy, "--run", run, *OPTIONS, *options]
    result = launch.run(*arguments, ranks=2)
    lines = records(run)
    number = len(lines)
    launch.assert_user_error(
        result, f"evaluation {number} found NaN", "--learning-rate", "sparse.h5"
    )
    assert [line["evaluation"] for line in lines] == list(range(1, number + 1))
    assert lines[-1]["cost"] is None
    _, vector = trained(run)
    assert np.isfinite(vector).all()
    assert not (run / "summary.json").exists()


# --- using a run


def expected_codes(run, x):
    """Return codes and reconstructions."""
    shape, vector = trained(run)
    p = named(sparse.shapes(shape), vector)
    codes = FUNCTIONS[shape.hidden](x @ p["weights"] + p["hidden_bias"])
    output = codes @ p["decode_weights"] + p["visible_bias"]
    return codes, FUNCTIONS[shape.visible](output)


def test_evaluate(runs, toy):
    run, _ = runs[3]
    found = launch.run("evaluate", run, "--json", ranks=2).ok()
    found, x = json.loads(found.stdout), rows_of(toy, "test")
    _, output = expected_codes(run, x)
    error = np.mean(np.sum((x - output) ** 2, axis=1))
    assert found["error"] == pytest.approx(error, rel=1e-5)
    assert (found["model"], found["n_code"], found["n_samples"]) == ("sparse", 5, 60)


def test_encode_and_reconstruct(runs, toy, tmp_path):
    run, _ = runs[1]
    for k, command in enumerate(("encode", "reconstruct")):
        out = tmp_path / f"{command}.h5"
        launch.run(command, run, toy, "-o", out).ok()
        for split in ("train", "test"):
            expected = expected_codes(run, rows_of(toy, split))[k]
            np.testing.assert_allclose(rows_of(out, split), expected, atol=1e-5)
