"""Classifiers and regressors from end to end: train, evaluate, resume, encode."""

import json
import shutil
import tomllib

import numpy as np
import pytest

from benchmarks.traces import different, weights
from mpilayer.data.dataset import PIXEL_SCALE, Dataset, write_dataset
from mpilayer.data.split import Split
from tests.e2e.conftest import contents, pixels, read_summary
from tests.support import launch

SETTINGS = ("--optimizer", "adam", "--learning-rate", "0.01", "--minibatch", 30)
SETTINGS += ("--dropout", "0.1", "--input-dropout", "0.05", "--threads", 1)
SETTINGS += ("--learning-rate-decay", "0.98", "--weight-decay", "0.001")
SIZES = {"train": 330, "validation": 90, "test": 80}
CLASSES = [-4, 7, 8, 30]


def causes(split, x, names=CLASSES):
    """Return a label for each row, by two of its columns."""
    return np.array(names)[(x[:, 0] > 128) + 2 * (x[:, 3] > 128)]


def write(path, labels=causes, seed=0):
    """Write a data set, whose labels a function of split and rows says."""
    splits = {}
    for i, (split, n) in enumerate(SIZES.items()):
        x = pixels(n, 20, seed + i)
        splits[split] = Split(x, labels(split, x))
    write_dataset(path, splits, name="tiny", origin="made up", scale=PIXEL_SCALE)
    return path


def finetune(run, *options, ranks=0, task="classify"):
    arguments = ["finetune", run, "--task", task, *SETTINGS, *options]
    return launch.run(*arguments, ranks=ranks)


def evaluate(run, *options, ranks=0):
    result = launch.run("evaluate", run, "--json", *options, ranks=ranks).ok()
    return json.loads(result.stdout)


def trained(run):
    """Return all arrays of the classifier's checkpoint."""
    return {k: v for k, v in weights(run).items() if k.startswith("classifier/")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("labelled") / "tiny.h5")


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("labelled") / "run"
    options = ["--layers", "14,8", "--epochs", 2, "--minibatch", 50, "--threads", 1]
    launch.run("pretrain", data, "--run", run, *options).ok()
    return run


@pytest.fixture(scope="module")
def classified(pretrained, tmp_path_factory):
    """Give the same run with a classifier, from 1 to 3 ranks, and what was printed."""
    folder = tmp_path_factory.mktemp("classified")
    results = {}
    for ranks in (1, 2, 3):
        run = shutil.copytree(pretrained, folder / f"ranks-{ranks}")
        results[ranks] = (run, finetune(run, "--epochs", 25, ranks=ranks).ok())
    return results


@pytest.fixture
def run_copy(pretrained, tmp_path):
    return shutil.copytree(pretrained, tmp_path / "run")


def test_a_classifier_adds_to_the_run(classified, pretrained):
    run, result = classified[2]
    new = set(contents(run)) - set(contents(pretrained))
    assert new == {"checkpoints/classifier.h5", "metrics/classify.jsonl"}
    assert (run / "complete").read_text().split() == ["pretrain", "classify"]
    section = tomllib.loads((run / "config.toml").read_text())["classify"]
    assert (section["task"], section["dropout"]) == ("classify", 0.1)
    summary, before = read_summary(run), read_summary(pretrained)
    assert summary["classify_ranks"] == 2
    assert summary["test_error"] == before["test_error"]
    assert set(summary["classify_error"]) == set(SIZES)
    lines = (run / "metrics" / "classify.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 26))
    assert "Wrong classes, percent" in result.stdout
    assert "classify: 25/25" in result.stderr
    np.testing.assert_array_equal(trained(run)["classifier/classes"], CLASSES)


def test_it_learns_and_ranks_agree(classified):
    errors = [
        [read_summary(run)["classify_error"][split] for split in SIZES]
        for run, _ in classified.values()
    ]
    assert max(errors[0]) < 25
    # A row whose scores are nearly equal may change sides.
    np.testing.assert_allclose(errors[1:], [errors[0]] * 2, atol=2.6)


@pytest.mark.parametrize("ranks", [0, 3])
def test_evaluate(classified, data, ranks):
    run, _ = classified[1]
    result = evaluate(run, ranks=ranks)
    assert (result["model"], result["split"]) == ("classifier", "test")
    assert result["classes"] == CLASSES
    counts = np.array(result["confusion"])
    with Dataset.open(data) as dataset:
        expected = np.unique(dataset.labels("test"), return_counts=True)[1]
    np.testing.assert_array_equal(counts.sum(axis=1), expected)
    assert result["errors"] == 80 - counts.trace()
    assert result["error"] == pytest.approx(100 * result["errors"] / 80)
    assert result["error"] == read_summary(run)["classify_error"]["test"]
    assert evaluate(run, "--split", "validation")["n_samples"] == 90


def test_evaluate_prints_a_table(classified):
    result = launch.run("evaluate", classified[1][0]).ok()
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "Rows of each class" in result.stdout
    assert "wrong," in result.stdout.splitlines()[-2]
    assert result.stdout.endswith("\n(always the most frequent class: 67.50 %)\n")
    for name in CLASSES:
        assert result.stdout.count(f" {name} ") >= 2


def test_models_stand_side_by_side(classified, data, tmp_path):
    run = shutil.copytree(classified[1][0], tmp_path / "run")
    pretrained_codes, codes, own = (tmp_path / f"{name}.h5" for name in "abc")
    launch.run("encode", run, data, "-o", codes).ok()
    before = trained(run)
    launch.run("finetune", run, "--epochs", 2, "--threads", 1).ok()
    assert different(trained(run), before) == []
    assert evaluate(run)["model"] == "finetuned"
    assert evaluate(run, "--task", "classify")["model"] == "classifier"
    assert "pca_error" in evaluate(run, "--task", "autoencode")
    finetune(run, "--epochs", 3, "--learning-rate", "0.02", task="regress").ok()
    assert evaluate(run)["model"] == "regressor"
    done = (run / "complete").read_text().split()
    assert done == ["pretrain", "classify", "finetune", "regress"]
    launch.run("encode", run, data, "-o", own, "--task", "classify").ok()
    launch.run("encode", run, data, "-o", pretrained_codes, "--task", "autoencode").ok()
    launch.run("reconstruct", run, data, "-o", tmp_path / "images.h5").ok()
    with (
        Dataset.open(codes) as first,
        Dataset.open(own) as second,
        Dataset.open(pretrained_codes) as other,
    ):
        assert first.n_visible == 8
        np.testing.assert_array_equal(first.rows("test"), second.rows("test"))
        assert (first.rows("test") != other.rows("test")).any()


def test_regress(run_copy):
    result = finetune(run_copy, "--epochs", 40, task="regress", ranks=2).ok()
    assert "Squared error of the labels" in result.stdout
    found = evaluate(run_copy, ranks=2)
    squared = read_summary(run_copy)["regress_error"]["test"]
    assert found["error"] == pytest.approx(squared**0.5, rel=1e-5)
    # Better than the mean of the labels.
    assert squared < 0.8 * np.var(CLASSES)
    shown = launch.run("evaluate", run_copy).ok().stdout
    assert shown.startswith("regressor on 80 test rows: root mean square error ")
    assert f"always the mean: {found['always_error']:.2f}" in shown
    assert found["error"] < found["always_error"]


@pytest.mark.parametrize("ranks", [0, 2])
def test_resume_goes_on_to_the_same_bits(run_copy, classified, ranks):
    done = finetune(run_copy, "--epochs", 25, "--max-time", "0.01", ranks=ranks)
    assert done.code == 75, str(done)
    assert "classify" not in (run_copy / "complete").read_text().split()
    limited = launch.run("resume", run_copy, "--max-time", "0.01", ranks=ranks)
    assert limited.code == 75, str(limited)
    result = launch.run("resume", run_copy, ranks=ranks).ok()
    assert "going on after epoch 2" in result.stderr
    assert "Wrong classes, percent" in result.stdout
    expected = classified[ranks or 1][0]
    assert different(trained(run_copy), trained(expected)) == []
    lines = (run_copy / "metrics" / "classify.jsonl").read_text().splitlines()
    assert len(lines) == 25
    again = launch.run("resume", run_copy).ok()
    assert "there is nothing to do" in again.stderr


def test_resume_takes_what_is_not_finished(run_copy):
    finetune(run_copy, "--epochs", 2).ok()
    assert launch.run("finetune", run_copy, "--max-time", "0.01").code == 75
    result = launch.run("resume", run_copy).ok()
    assert "fine-tuned" in result.stdout
    assert evaluate(run_copy)["model"] == "finetuned"


def test_from_scratch_needs_no_trained_layers(data, tmp_path):
    run = tmp_path / "run"
    options = ["--layers", "14,8", "--epochs", 50, "--minibatch", 50, "--threads", 1]
    stopped = launch.run("pretrain", data, "--run", run, *options, "--max-time", "0.01")
    assert stopped.code == 75
    launch.assert_user_error(finetune(run), "must be pre-trained to the end")
    finetune(run, "--from-scratch", "--epochs", 30).ok()
    assert evaluate(run)["error"] < 20
    # What is left to do is pre-training.
    assert "layers 1-2" in launch.run("resume", run, "--max-time", "0.01").stderr


def test_from_scratch_is_another_start(run_copy):
    finetune(run_copy, "--from-scratch", "--epochs", 0).ok()
    assert not trained(run_copy)["classifier/best/bias_0"].any()
    launch.run("finetune", run_copy, "--from-scratch", "--epochs", 1).ok()
    assert evaluate(run_copy)["model"] == "finetuned"


def test_settings_from_a_file(run_copy, classified, tmp_path):
    config = classified[1][0] / "config.toml"
    options = ["--task", "classify", "--config", config, "--threads", 1]
    launch.run("finetune", run_copy, *options).ok()
    assert different(trained(run_copy), trained(classified[1][0])) == []
    own = tmp_path / "own.toml"
    own.write_text('[finetune]\ntask = "classify"\nepochs = 1\n')
    launch.run("finetune", run_copy, "--config", own, "--replace").ok()
    assert read_summary(run_copy)["classify_epochs"] == 1


def test_many_classes(tmp_path):
    run = pretrain(tmp_path, lambda _, x: 1000 + np.arange(len(x)) % 24)
    launch.run("finetune", run, "--task", "classify", "--epochs", 1).ok()
    result = launch.run("evaluate", run).ok()
    assert "Most frequent mistakes" in result.stdout
    assert len(result.stdout.splitlines()) < 20


def test_a_job_waits_for_its_own_mark(tmp_path):
    (tmp_path / "a.toml").write_text('[finetune]\ntask = "classify"\n')
    marks = 'attend --mark classify --requeues 5 "$run"'
    job = ["job", "finetune", "a.h5", "--run", "run", "-o", "-"]
    for options in (["--task", "classify"], ["--config", "a.toml"]):
        assert marks in launch.run(*job, *options, cwd=tmp_path).ok().stdout
    chain = ["job", "pretrain", "a.h5", "--run", "run", "-o", "chain"]
    chain += ["--then", "finetune", "--config", "a.toml"]
    launch.run(*chain, cwd=tmp_path).ok()
    assert marks in (tmp_path / "chain" / "finetune.sh").read_text()


# --- mistakes


def refused(run, *options, words, task="classify"):
    before = contents(run)
    launch.assert_user_error(finetune(run, *options, task=task), *words)
    assert contents(run) == before


def pretrain(folder, labels):
    """Pre-train on rows with such labels; return the run."""
    data, run = write(folder / "some.h5", labels), folder / "run"
    options = ["--layers", "6,4", "--epochs", 1, "--minibatch", 50]
    launch.run("pretrain", data, "--run", run, *options).ok()
    return run


@pytest.mark.parametrize(
    ("known", "task", "words"),
    [
        ({}, "classify", ["the train rows must have labels", "some.h5"]),
        ({}, "regress", ["the train rows must have labels", "some.h5"]),
        ({"train": [3], "test": [3]}, "classify",
         ["at least two different labels", "all are 3"]),
        # A label that training rows lack.
        ({"train": [0, 1, 2], "test": [0, 1, 2, 9]}, "classify",
         ["one of the 3", "found 9"]),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_learned(tmp_path, known, task, words):
    def labels(split, x):
        return np.resize(known[split], len(x)) if split in known else None

    refused(pretrain(tmp_path, labels), words=words, task=task)


def test_validation_rows_without_labels(tmp_path):
    def labels(split, x):
        return None if split == "validation" else causes(split, x)

    run = pretrain(tmp_path, labels)
    finetune(run, "--epochs", 2, ranks=2).ok()
    summary = read_summary(run)
    assert summary["classify_error"]["validation"] is None
    assert summary["classify_best_epoch"] == 2


def test_evaluating_on_other_labels(classified, tmp_path):
    run, _ = classified[1]
    names = [-4, 7, 8, 31]
    other = write(tmp_path / "other.h5", lambda s, x: causes(s, x, names), seed=4)
    result = launch.run("evaluate", run, "--data", other)
    launch.assert_user_error(result, "found 31")
    bare = write(tmp_path / "bare.h5", lambda _, __: None)
    result = launch.run("evaluate", run, "--data", bare, ranks=2)
    launch.assert_user_error(result, "the test rows must have labels")


def test_what_is_not_there_or_there_already(classified, run_copy):
    for command in (
        ["evaluate", run_copy, "--task", "regress"],
        ["encode", run_copy, "x.h5", "-o", "y.h5", "--task", "regress"],
    ):
        launch.assert_user_error(launch.run(*command), "must have a regressor")
    run, _ = classified[1]
    refused(run, words=["must not be a classifier yet", "--replace"])
    going_on = ("--resume", "auto", "--dropout", "0.2")
    refused(run, *going_on, words=["--dropout was 0.1, is 0.2"])


def test_wrong_settings(run_copy):
    for options, task, words in (
        (["--dropout", "1.0"], "classify", "dropout must be less than 1"),
        (["--learning-rate-decay", "1.5"], "classify",
         "learning_rate_decay must be at most 1; got 1.5"),
        (["--loss", "cross-entropy"], "regress",
         "regress minimizes the squared error; got cross-entropy"),
        ([], "clasify", "Did you mean 'classify'?"),
    ):  # fmt: skip
        refused(run_copy, *options, words=[words], task=task)
