"""Sparse autoencoders from end to end, and every mistake of a user with them."""

import json
import shutil
import tomllib
from importlib.util import find_spec

import h5py
import numpy as np
import pytest

from mpilayer import hdf5
from mpilayer.config import PRESETS, SparseConfig, as_values
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.models.base import LayerShape
from mpilayer.store import checkpoint
from tests.e2e.conftest import contents, read_summary
from tests.support import launch, sparse
from tests.support.plain import FUNCTIONS, named

RANKS = (0, 1, 2, 3)
SETTINGS = {
    "hidden": 5,
    "output": "linear",
    "sparsity_weight": 0.5,
    "sparsity_target": 0.1,
    "evaluations": 40,
}
OPTIONS = [
    text
    for name, value in SETTINGS.items()
    for text in (f"--{name.replace('_', '-')}", value)
]
SUMMARY_KEYS = {
    "cost",
    "exact_cost",
    "evaluations",
    "iterations",
    "seconds",
    "allreduce_seconds",
    "mean_activation",
    "ranks",
    "kl",
    "optimizer",
}


def write_patches(path, n_train=300, change=lambda x: None):
    """Write a data set of 4 x 4 patches, then change its rows behind its back."""
    sizes = {"train": n_train, "test": 60}
    splits = {
        name: Split(sparse.patches(n, 16, seed).astype(np.float32))
        for seed, (name, n) in enumerate(sizes.items())
    }
    write_dataset(path, splits, name="patches", origin="made up", scale=1.0)
    with h5py.File(path, "r+") as file:
        change(file["train/x"])
    return path


def train(data, run, *options, ranks=0):
    """Train, and return what was printed."""
    arguments = ["sparse", data, "--run", run, *OPTIONS, *options]
    return launch.run(*arguments, ranks=ranks).ok()


def records(run):
    """Return the lines of the metrics."""
    text = (run / "metrics" / "sparse.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


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
def toy(tmp_path_factory):
    """Give a data set of patches that tests only read."""
    return write_patches(tmp_path_factory.mktemp("data") / "toy.h5")


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
def test_a_run_leaves_what_it_must(runs, ranks):
    run, _ = runs[ranks]
    names = {name for name in contents(run) if contents(run)[name] != "folder"}
    expected = {"config.toml", "summary.json", "filters.npy", "complete"}
    expected |= {"metrics/sparse.jsonl", "checkpoints/sparse.h5"}
    expected |= {"filters.png"} if find_spec("matplotlib") else set()
    assert names == expected
    filters = np.load(run / "filters.npy")
    assert (filters.shape, filters.dtype) == ((5, 4, 4), np.float32)
    norms = np.linalg.norm(filters.reshape(5, 16), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)


@pytest.mark.parametrize("ranks", RANKS)
def test_summary(runs, ranks):
    summary = read_summary(runs[ranks][0])
    assert set(summary) >= SUMMARY_KEYS
    assert summary["ranks"] == max(ranks, 1)
    assert (summary["kl"], summary["optimizer"]) == ("exact", "lbfgs")
    assert (summary["evaluations"], summary["stopped_by"]) == (40, "evaluations")
    assert 0 < summary["iterations"] < 40
    assert summary["exact_cost"] == summary["cost"]
    assert 0 < summary["allreduce_seconds"] < summary["seconds"]
    mean = np.mean(summary["mean_activations"])
    assert summary["mean_activation"] == pytest.approx(mean)


@pytest.mark.parametrize("ranks", RANKS)
def test_the_weights_have_the_cost_of_the_summary(runs, toy, ranks):
    run, _ = runs[ranks]
    shape, vector = trained(run)
    config = SparseConfig(**SETTINGS)
    cost, gradient = sparse.exact(shape, vector, rows_of(toy), config)
    summary = read_summary(run)
    assert summary["cost"] == pytest.approx(cost, rel=1e-12)
    norm = pytest.approx(np.linalg.norm(gradient), rel=1e-9)
    assert summary["gradient_norm"] == norm


def test_any_number_of_ranks_reaches_the_same_cost(runs):
    costs = [read_summary(run)["cost"] for run, _ in runs.values()]
    assert costs[0] == costs[1]
    np.testing.assert_allclose(costs, costs[0], rtol=1e-6)
    assert costs[0] < 0.9 * records(runs[0][0])[0]["cost"]


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


@pytest.mark.parametrize("ranks", RANKS)
def test_only_rank_0_prints(runs, ranks):
    _, result = runs[ranks]
    assert result.stdout.count("sparsity term exact") == 1
    assert result.stdout.count("40 evaluations") == 1
    assert "sparse: 40/40" in result.stderr
    table = result.stdout.partition("40 evaluations")[0]
    assert max(map(len, table.splitlines())) <= 80


def test_the_configuration_is_effective_and_repeats_the_run(averaged, toy, tmp_path):
    run, _ = averaged
    written = tomllib.loads((run / "config.toml").read_text())
    assert list(written["sparse"]) == list(as_values(SparseConfig()))
    assert written["sparse"] == as_values(SparseConfig(**SETTINGS).resolved())
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


@pytest.mark.parametrize(("optimizer", "ranks"), [("cg", 0), ("sgd", 2)])
def test_other_optimizers(toy, tmp_path, optimizer, ranks):
    options = ["--optimizer", optimizer, "--kl", "exact-fused", "--measure-every", 0]
    train(toy, tmp_path / "run", *options, ranks=ranks)
    summary, lines = read_summary(tmp_path / "run"), records(tmp_path / "run")
    assert (summary["optimizer"], summary["evaluations"]) == (optimizer, 40)
    assert summary["cost"] < 0.9 * lines[0]["cost"]


def test_the_time_is_over(toy, tmp_path):
    run = tmp_path / "run"
    options = ["--max-time", 1.5, "--evaluations", 10**9, "--optimizer", "sgd"]
    options += ["--measure-every", 0]
    arguments = ["sparse", toy, "--run", run, *OPTIONS, *options]
    result = launch.run(*arguments, ranks=2)
    assert result.code == 75, str(result)
    words = f"because of the time limit; go on with 'mpilayer resume {run}'"
    assert result.stderr.count(words) == 1
    _, found = checkpoint.load(run / "checkpoints" / "sparse.h5")
    assert found["optimizer_iteration"] > 0
    assert 0 < found["seconds"] < 3
    assert not (run / "summary.json").exists()


def test_more_ranks_than_rows(tmp_path):
    data = write_patches(tmp_path / "few.h5", n_train=2)
    result = train(data, tmp_path / "run", ranks=3)
    words = "warning: 3 ranks share 2 training rows; 1 have none. Start fewer ranks."
    assert words in result.stderr
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


def test_a_run_that_has_learned_is_not_warned_of(runs):
    run, result = runs[0]
    assert read_summary(run)["warning"] == ""
    assert read_summary(run)["dead_units"] < 5
    assert "dead:" not in result.stderr


@pytest.mark.parametrize("rule", ["bias", "gradient"])
def test_costs_measured_by_two_ranks_as_by_one(toy, tmp_path, rule):
    options = ["--optimizer", "sgd", "--sgd-sparsity", rule, "--dtype", "float64"]
    options += ["--kl", "exact", "--measure-every", 100, "--minibatch", 7]
    found = []
    for ranks in (0, 2):
        run = tmp_path / f"run-{ranks}"
        train(toy, run, *options, "--evaluations", 8, ranks=ranks)
        found.append([line["cost"] for line in records(run)])
    assert len(found[0]) == 8
    assert found[1] == pytest.approx(found[0], rel=1e-9)


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
    run, _ = runs[2]
    for k, command in enumerate(("encode", "reconstruct")):
        out = tmp_path / f"{command}.h5"
        launch.run(command, run, toy, "-o", out).ok()
        for split in ("train", "test"):
            expected = expected_codes(run, rows_of(toy, split))[k]
            np.testing.assert_allclose(rows_of(out, split), expected, atol=1e-5)


# --- mistakes


@pytest.fixture
def folder(toy, tmp_path):
    """Give a folder with the data set as ``toy.h5``."""
    shutil.copy(toy, tmp_path / "toy.h5")
    return tmp_path


@pytest.fixture
def refused(folder):
    """Give a function that demands a refusal which leaves the folder as it was."""

    def check(words, *arguments, ranks=0):
        before = contents(folder)
        result = launch.run(*arguments, ranks=ranks, cwd=folder)
        launch.assert_user_error(result, *words)
        assert result.stdout == ""
        assert contents(folder) == before

    return check


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity-target", "0"], ["sparsity_target must be greater than 0"]),
        (["--sparsity-target", "1"], ["sparsity_target must be less than 1"]),
        (["--sparsity-target", "-0.1"], ["greater than 0; got -0.1"]),
        (["--sparsity-target", "1.5"], ["less than 1; got 1.5"]),
        (["--weight-decay", "-1"], ["weight_decay must be at least 0; got -1"]),
        (["--sparsity-weight", "-1"], ["sparsity_weight must be at least 0"]),
        (["--hidden", "0"], ["hidden must be at least 1; got 0", "--hidden"]),
        (["--kl", "exakt"], ["average, exact, exact-fused", "'exact'?"]),
        (["--optimizer", "adam"], ["unknown optimizer 'adam'", "lbfgs, cg, sgd"]),
        (["--preset", "papper"], ["unknown preset", "paper, ufldl", "'paper'?"]),
        (["--activation", "relu"], ["unknown activation", "tanh, sigmoid"]),
        (["--output", "sigmoid"], ["data in [0, 1]", "--output tanh or linear"]),
        (["--sgd-sparsity", "slope"], ["unknown sgd_sparsity", "bias, gradient"]),
        (["--sgd-bias-weight", "-1"], ["sgd_bias_weight must be at least 0"]),
        (["--measure-every", "-1"], ["measure_every must be at least 0; got -1"]),
        (
            ["--optimizer", "sgd", "--minibatch", "30", "--measure-every", "20"],
            ["at least the rows of a minibatch, 30; got 20", "--measure-every"],
        ),
        (
            ["--optimizer", "sgd", "--minibatch", "301"],
            ["got 301 with 300 training rows", "--minibatch"],
        ),
    ],
    ids=lambda value: "_".join(value) if value[0].startswith("--") else "",
)
def test_bad_options(refused, options, words):
    refused(words, "sparse", "toy.h5", "--run", "run", *options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity-target", "0"], ["sparsity_target must be greater than 0"]),
        (["--output", "sigmoid"], ["data in [0, 1]"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_bad_options_are_reported_once_by_several_ranks(refused, options, words):
    refused(words, "sparse", "toy.h5", "--run", "run", *options, ranks=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sparse]\nhiden = 4", ["unknown key 'hiden'", "'hidden'?"]),
        ("[sparse]\nhidden = 2.5", ["hidden must be of type int; got 2.5"]),
        ("[sparse]\npreset = 3", ["preset must be of type str; got 3"]),
        ("[spars]\nhidden = 3", ["unknown section 'spars'", "'sparse'?"]),
    ],
)
def test_bad_configuration_files(folder, refused, text, words):
    (folder / "config.toml").write_text(text)
    arguments = ["sparse", "toy.h5", "--run", "run", "--config", "config.toml"]
    refused(words, *arguments)


def _checkpoint(path):
    with hdf5.create(path, kind="mpilayer-checkpoint", version=1):
        pass


def _set_nan(x):
    x[41, 7] = np.nan


BAD_DATA = {
    "missing": (lambda path: None, "found nothing there"),
    "other-kind": (_checkpoint, "found 'mpilayer-checkpoint'"),
    "nan": (lambda path: write_patches(path, 60, _set_nan), "row 41, column 7 is nan"),
}


@pytest.mark.parametrize(
    ("case", "ranks"), [("missing", 2), ("other-kind", 0), ("nan", 2)]
)
def test_bad_data(folder, refused, case, ranks):
    make, words = BAD_DATA[case]
    make(folder / "bad.h5")
    arguments = ["sparse", "bad.h5", "--run", "run", *OPTIONS]
    refused(["bad.h5", words], *arguments, ranks=ranks)


def test_run_directories_that_are_taken(folder, refused, runs):
    shutil.copytree(runs[0][0], folder / "run")
    (folder / "file").write_text("precious")
    arguments = ["sparse", "toy.h5", *OPTIONS, "--run"]
    refused(["holds a run already", "--replace"], *arguments, "run", ranks=2)
    words = ["--run must name a folder", "file is a file"]
    refused(words, *arguments, "file", "--replace")


def test_a_run_is_replaced_if_that_was_asked_for(folder, runs):
    run = shutil.copytree(runs[0][0], folder / "run")
    train(folder / "toy.h5", run, "--replace", "--evaluations", 3)
    assert read_summary(run)["evaluations"] == 3
    assert len(records(run)) == 3


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


def test_a_first_cost_that_is_infinite(tmp_path):
    def shift(x):
        x[:] = x[:] - 1e3

    data, run = write_patches(tmp_path / "far.h5", change=shift), tmp_path / "run"
    result = launch.run("sparse", data, "--run", run, *OPTIONS, ranks=2)
    launch.assert_user_error(result, "first cost must be finite", "scale the data")
    # The next try may have the same name.
    assert not run.exists()
    result = launch.run("compare", data, "--run", run, *OPTIONS, ranks=2)
    launch.assert_user_error(result, "first cost must be finite", "scale the data")
    assert not run.exists()


def test_fine_tuning_of_a_sparse_run(folder, refused, runs):
    shutil.copytree(runs[0][0], folder / "run")
    refused(["run", "sparse", "mpilayer pretrain"], "finetune", "run", ranks=2)


def test_an_interrupted_run(folder, refused, runs):
    """With a checkpoint it can be used, without one it must go on first."""
    run = shutil.copytree(runs[0][0], folder / "run")
    for name in ("summary.json", "complete"):
        (run / name).unlink()
    found = launch.run("evaluate", run, "--json", ranks=2).ok()
    assert json.loads(found.stdout)["model"] == "sparse"
    (run / "checkpoints" / "sparse.h5").unlink()
    words = ["must have trained weights", "interrupted", "mpilayer resume run"]
    refused(words, "evaluate", "run", ranks=2)
    refused(words, "encode", "run", "toy.h5", "-o", "out.h5")


def test_a_damaged_checkpoint(folder, refused, runs):
    path = shutil.copytree(runs[0][0], folder / "run") / "checkpoints" / "sparse.h5"
    with h5py.File(path) as file:
        offset = file["parameters/weights"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 5] ^= 1
    path.write_bytes(content)
    refused(["sparse.h5", "damaged"], "evaluate", "run")


def test_data_of_another_width(folder, refused, runs, tiny):
    shutil.copytree(runs[0][0], folder / "run")
    shutil.copy(tiny, folder / "wide.h5")
    words = ["as many columns as the run, 16", "wide.h5 has 20"]
    refused(words, "encode", "run", "wide.h5", "-o", "out.h5")
