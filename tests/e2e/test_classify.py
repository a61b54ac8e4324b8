"""Classifiers and regressors from end to end: train, evaluate, resume, encode."""

import shutil
import tomllib

import numpy as np
import pytest

from benchmarks.traces import different, weights
from mpilayer.data.dataset import Dataset
from tests.support.command import call, found, refuse, said
from tests.support.small import contents, read_summary, records, write_pixels

SETTINGS = "--optimizer adam --learning-rate 0.01 --minibatch 30 --threads 1"
SETTINGS += " --dropout 0.1 --input-dropout 0.05"
SETTINGS += " --learning-rate-decay 0.98 --weight-decay 0.001"
CLASSIFY = f"finetune run --task classify {SETTINGS}"
REGRESS = f"finetune run --task regress {SETTINGS}"
PRETRAIN = "--layers 14,8 --minibatch 50 --threads 1"
SPLITS = ("train", "validation", "test")
CLASSES = [-4, 7, 8, 30]


def causes(split, x, names=CLASSES):
    """Return a label for each row, by two of its columns."""
    return np.array(names)[(x[:, 0] > 128) + 2 * (x[:, 3] > 128)]


def resized(**known):
    """Return what gives the rows of some splits such labels, those of others none."""
    return lambda split, x: np.resize(known[split], len(x)) if split in known else None


def write(path, labels=causes):
    """Write a data set, whose labels a function of split and rows says."""
    write_pixels(path, n_rows=330, more=(90, 80), labels=labels)


def trained(run):
    """Return all arrays of the classifier's checkpoint."""
    return {k: v for k, v in weights(run).items() if k.startswith("classifier/")}


def completed(folder):
    return (folder / "run" / "complete").read_text().split()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Give a folder with data and a pre-trained run, which tests only read."""
    folder = tmp_path_factory.mktemp("labelled")
    write(folder / "tiny.h5")
    said(folder, f"pretrain tiny.h5 --run run --epochs 2 {PRETRAIN}")
    return folder


@pytest.fixture(scope="module")
def classified(pretrained, tmp_path_factory):
    """Give folders of the run with a classifier, from 1 and 2 ranks, and results."""
    results = {}
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
        shutil.copytree(pretrained, folder, dirs_exist_ok=True)
        result = call(folder, f"{CLASSIFY} --epochs 25", ranks=ranks)
        results[ranks] = (folder, result.ok())
    return results


@pytest.fixture
def folder(pretrained, tmp_path):
    return shutil.copytree(pretrained, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def ready(classified, tmp_path):
    return shutil.copytree(classified[1][0], tmp_path, dirs_exist_ok=True)


def pretrain(folder, labels):
    """Pre-train on rows with such labels."""
    write(folder / "some.h5", labels)
    options = "--layers 6,4 --epochs 1 --minibatch 50"
    said(folder, f"pretrain some.h5 --run run {options}")


def test_a_classifier_adds_to_the_run(classified, pretrained):
    folder, result = classified[2]
    new = set(contents(folder / "run")) - set(contents(pretrained / "run"))
    assert new == {"checkpoints/classifier.h5", "metrics/classify.jsonl"}
    assert completed(folder) == ["pretrain", "classify"]
    section = tomllib.loads((folder / "run" / "config.toml").read_text())["classify"]
    assert (section["task"], section["dropout"]) == ("classify", 0.1)
    summary, before = (read_summary(f / "run") for f in (folder, pretrained))
    assert summary["classify_ranks"] == 2
    assert summary["test_error"] == before["test_error"]
    epochs = [line["epoch"] for line in records(folder / "run", "classify")]
    assert epochs == list(range(1, 26))
    assert "Wrong classes, percent" in result.stdout
    assert "classify: 25/25" in result.stderr
    names = trained(folder / "run")["classifier/classes"]
    np.testing.assert_array_equal(names, CLASSES)
    errors = [
        [read_summary(folder / "run")["classify_error"][split] for split in SPLITS]
        for folder, _ in classified.values()
    ]
    assert max(errors[0]) < 25
    # A row whose scores are nearly equal may change sides.
    np.testing.assert_allclose(errors[1], errors[0], atol=2.6)


@pytest.mark.parametrize("ranks", [0, 3])
def test_evaluate(classified, ranks):
    folder, _ = classified[1]
    result = found(folder, "evaluate run", ranks=ranks)
    assert (result["model"], result["split"]) == ("classifier", "test")
    assert result["classes"] == CLASSES
    counts = np.array(result["confusion"])
    with Dataset.open(folder / "tiny.h5") as dataset:
        expected = np.unique(dataset.labels("test"), return_counts=True)[1]
    np.testing.assert_array_equal(counts.sum(axis=1), expected)
    assert result["errors"] == 80 - counts.trace()
    assert result["error"] == pytest.approx(100 * result["errors"] / 80)
    assert result["error"] == read_summary(folder / "run")["classify_error"]["test"]
    assert found(folder, "evaluate run --split validation")["n_samples"] == 90


def test_evaluate_prints_a_table(classified):
    text = said(classified[1][0], "evaluate run")
    assert max(map(len, text.splitlines())) <= 80
    assert "Rows of each class" in text
    assert "wrong," in text.splitlines()[-2]
    assert text.endswith("\n(always the most frequent class: 67.50 %)\n")
    assert all(text.count(f" {name} ") >= 2 for name in CLASSES)


def test_models_stand_side_by_side(ready):
    before = trained(ready / "run")
    said(ready, "encode run tiny.h5 -o newest.h5")
    said(ready, "finetune run --epochs 2 --threads 1")
    assert different(trained(ready / "run"), before) == []
    assert found(ready, "evaluate run")["model"] == "finetuned"
    assert found(ready, "evaluate run --task classify")["model"] == "classifier"
    assert "pca_error" in found(ready, "evaluate run --task autoencode")
    said(ready, f"{REGRESS} --epochs 3 --learning-rate 0.02")
    assert found(ready, "evaluate run")["model"] == "regressor"
    assert completed(ready) == ["pretrain", "classify", "finetune", "regress"]
    codes = {}
    for task in ("classify", "autoencode"):
        said(ready, f"encode run tiny.h5 -o {task}.h5 --task {task}")
    said(ready, "reconstruct run tiny.h5 -o images.h5")
    for name in ("newest", "classify", "autoencode"):
        with Dataset.open(ready / f"{name}.h5") as dataset:
            codes[name] = dataset.rows("test")
    assert codes["newest"].shape == (80, 8)
    np.testing.assert_array_equal(codes["newest"], codes["classify"])
    assert (codes["newest"] != codes["autoencode"]).any()


def test_regress(folder):
    result = said(folder, f"{REGRESS} --epochs 40", ranks=2)
    assert "Squared error of the labels" in result
    told = found(folder, "evaluate run", ranks=2)
    squared = read_summary(folder / "run")["regress_error"]["test"]
    assert told["error"] == pytest.approx(squared**0.5, rel=1e-5)
    # Better than the mean of the labels.
    assert squared < 0.8 * np.var(CLASSES)
    shown = said(folder, "evaluate run")
    assert shown.startswith("regressor on 80 test rows: root mean square error ")
    assert f"always the mean: {told['always_error']:.2f}" in shown
    assert told["error"] < told["always_error"]


@pytest.mark.parametrize("ranks", [0, 2])
def test_resume_goes_on_to_the_same_bits(folder, classified, ranks):
    for line in (f"{CLASSIFY} --epochs 25", "resume run"):
        done = call(folder, f"{line} --max-time 0.01", ranks=ranks)
        assert done.code == 75, str(done)
        assert "classify" not in completed(folder)
    result = call(folder, "resume run", ranks=ranks).ok()
    assert "going on after epoch 2" in result.stderr
    assert "Wrong classes, percent" in result.stdout
    expected = classified[ranks or 1][0]
    assert different(trained(folder / "run"), trained(expected / "run")) == []
    assert len(records(folder / "run", "classify")) == 25
    assert "there is nothing to do" in call(folder, "resume run").ok().stderr


def test_resume_takes_what_is_not_finished(folder):
    said(folder, f"{CLASSIFY} --epochs 2")
    assert call(folder, "finetune run --max-time 0.01").code == 75
    assert "fine-tuned" in said(folder, "resume run")
    assert found(folder, "evaluate run")["model"] == "finetuned"


def test_from_scratch_needs_no_trained_layers(pretrained, tmp_path):
    shutil.copy(pretrained / "tiny.h5", tmp_path)
    line = f"pretrain tiny.h5 --run run --epochs 50 {PRETRAIN} --max-time 0.01"
    assert call(tmp_path, line).code == 75
    refuse(tmp_path, CLASSIFY, "must be pre-trained to the end")
    said(tmp_path, f"{CLASSIFY} --from-scratch --epochs 30")
    assert found(tmp_path, "evaluate run")["error"] < 20
    # What is left to do is pre-training.
    assert "layers 1-2" in call(tmp_path, "resume run --max-time 0.01").stderr


def test_settings_from_a_file(folder, classified):
    expected = classified[1][0] / "run"
    config = expected / "config.toml"
    said(folder, f"finetune run --task classify --config {config} --threads 1")
    assert different(trained(folder / "run"), trained(expected)) == []


def test_many_classes(tmp_path):
    pretrain(tmp_path, lambda _, x: 1000 + np.arange(len(x)) % 24)
    said(tmp_path, "finetune run --task classify --epochs 1")
    text = said(tmp_path, "evaluate run")
    assert "Most frequent mistakes" in text
    assert len(text.splitlines()) < 20


# --- mistakes


@pytest.mark.parametrize(
    ("labels", "line", "words"),
    [
        (resized(), CLASSIFY, ("the train rows must have labels", "some.h5")),
        (resized(), REGRESS, ("the train rows must have labels", "some.h5")),
        (resized(train=[3], test=[3]), CLASSIFY,
         ("at least two different labels", "all are 3")),
        # A label that training rows lack.
        (resized(train=[0, 1, 2], test=[0, 1, 2, 9]), CLASSIFY,
         ("one of the 3", "found 9")),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_learned(tmp_path, labels, line, words):
    pretrain(tmp_path, labels)
    refuse(tmp_path, line, *words)


def test_validation_rows_without_labels(tmp_path):
    labels = lambda s, x: None if s == "validation" else causes(s, x)  # noqa: E731
    pretrain(tmp_path, labels)
    said(tmp_path, f"{CLASSIFY} --epochs 2", ranks=2)
    summary = read_summary(tmp_path / "run")
    assert summary["classify_error"]["validation"] is None
    assert summary["classify_best_epoch"] == 2


def test_evaluating_on_other_labels(ready):
    write(ready / "other.h5", lambda s, x: causes(s, x, [-4, 7, 8, 31]))
    refuse(ready, "evaluate run --data other.h5", "found 31")
    write(ready / "bare.h5", resized())
    words = "the test rows must have labels"
    refuse(ready, "mpiexec -n 2 evaluate run --data bare.h5", words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate run --task regress", "must have a regressor"),
        ("encode run x.h5 -o y.h5 --task regress", "must have a regressor"),
        (CLASSIFY, "must not be a classifier yet"),
        (CLASSIFY, "--replace"),
        (f"{CLASSIFY} --resume auto --dropout 0.2", "--dropout was 0.1, is 0.2"),
        (f"{CLASSIFY} --replace --augment shift:1", "rows must be square images"),
    ],
)  # fmt: skip
def test_what_is_refused(ready, line, words):
    refuse(ready, line, words)
