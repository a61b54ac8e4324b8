"""What is said of results that could be better, and when nothing is."""

from dataclasses import replace
from shutil import copytree

import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from mpilayer.models.base import LayerShape
from mpilayer.report import build
from mpilayer.report.collect import collect
from mpilayer.runs.advice import (
    after_finetuning,
    after_pretraining,
    costly_allreduce,
    no_better_than_always,
    over_fits,
    worse_than_pca,
)
from mpilayer.runs.use import evaluate
from tests.support.runs import pretrain, run_finetune
from tests.support.toys import rows
from tests.unit.runs.conftest import make_session

STACK = PretrainConfig(layers=(8, 5), epochs=(2,), minibatch=10)
TUNE = FinetuneConfig(epochs=1, minibatch=10, optimizer="sgd")
LINEAR = replace(STACK, code="linear")


# --- worse than PCA


def worse(errors, pca, n_code=5, what="fine-tuned"):
    shapes = [LayerShape(12, 20), LayerShape(20, n_code)]
    return worse_than_pca(what, shapes, errors, pca, ("more coffee", "sleep"))


def test_the_words():
    assert worse({"test": 18.534, "train": 9.0}, {"test": 14.2, "train": 9.0}) == (
        "the fine-tuned stack is worse than PCA on the test rows (18.53 against "
        "14.20). What may help: more coffee; sleep."
    )


def test_over_fitting_is_said():
    assert worse({"test": 3.0, "train": 1.0}, {"test": 2.0, "train": 1.5}).endswith(
        "(3.00 against 2.00). It fits the training rows better than PCA: over-fitting. "
        "What may help: more coffee; sleep."
    )


def test_over_fitting_needs_other_things_than_epochs():
    assert over_fits({"test": 3.0, "train": 1.0}, {"train": 1.5})
    assert not over_fits({"train": 1.0}, {"train": 1.009})  # a hair's breadth
    assert not over_fits({"train": 1.0}, {"train": None})
    decays = "--dropout or --weight-decay"
    rows, units = "more training rows", "fewer units"
    assert after_pretraining(LINEAR, over=True) == (
        "fine-tuning",  # on the sample of MNIST that is enough
        *(rows, f"{decays} in fine-tuning", units),
    )
    tuned = after_finetuning(TUNE, LINEAR, 3, 3, over=True)
    assert tuned == (rows, f"{decays}, with --replace", units)


def test_a_wide_code_makes_pca_perfect():
    assert worse({"test": 3.0}, {"test": 0.0}, n_code=11)
    assert worse({"test": 3.0}, {"test": 0.0}, n_code=12) == ""
    assert worse({"test": 3.0}, {"test": 0.0}, n_code=20) == ""


def test_the_first_split_that_both_have():
    none = {"train": 3.0, "validation": 2.0, "test": None}
    assert "on the validation rows (2.00 against 1.00)" in worse(
        none, {"train": 9.0, "validation": 1.0, "test": 1.0}
    )
    assert "on the train rows (3.00 against 1.00)" in worse(none, {"train": 1.0})


@pytest.mark.parametrize(
    ("errors", "pca"),
    [
        ({"test": 1.0}, {"test": 1.0}),
        ({"test": 1.0, "train": 9.0}, {"test": 2.0, "train": 1.0}),
        ({"test": 1.0}, {}),
        ({"test": 1.0}, {"test": None}),
        ({"test": None, "validation": None, "train": None}, {"test": 0.5}),
    ],
)
def test_nothing_is_said(errors, pca):
    assert worse(errors, pca) == ""


def test_only_what_is_not_set_already():
    code = "--code linear --learning-rate 0.1,0.005"
    longer = "pre-training anew with more --epochs than 2"  # no --resume takes them
    assert after_pretraining(STACK, over=False) == ("fine-tuning", longer, code)
    assert after_pretraining(LINEAR, over=False) == ("fine-tuning", longer)
    adam = replace(TUNE, optimizer="adam")
    assert after_finetuning(TUNE, STACK, 3, 3, over=False) == (
        "--optimizer adam --replace",
        "more --epochs than 3, with --resume auto",
        "a larger --learning-rate, such as 0.003, with --replace",
        f"pre-training with {code}",
    )
    assert after_finetuning(adam, STACK, 3, 2, over=False) == (
        f"pre-training with {code}",
    )
    assert after_finetuning(adam, LINEAR, 3, 3, over=False) == (
        "more --epochs than 3, with --resume auto",
        "a larger --learning-rate, such as 0.003, with --replace",
    )
    assert after_finetuning(
        adam, LINEAR, 3, 2, over=False
    )  # it is not better: something is said


def test_a_lower_rate_of_ones_own_is_kept():
    rates = replace(STACK, learning_rate=(0.1, 0.001))
    assert after_pretraining(rates, over=False)[-1].endswith(
        "--learning-rate 0.1,0.001"
    )
    alone = replace(STACK, layers=(8,))
    assert after_pretraining(alone, over=False)[-1].endswith("--learning-rate 0.005")


def notes(run):
    (found,) = collect([run])
    return str(build.sections_of([found])).count("is worse than PCA")


def test_console_summary_and_report(small, tmp_path):
    run, session = tmp_path / "run", make_session()
    summary = pretrain(small, run, STACK, session)
    said = [line for line in session.said if "worse than PCA" in line]
    assert said == [f"warning: {summary['worse_than_pca']}"]
    assert said[0].startswith("warning: the pre-trained stack")
    assert notes(run) == 1
    session = make_session()
    summary = run_finetune(run, TUNE, session)
    said = [line for line in session.said if "worse than PCA" in line]
    assert said == [f"warning: {summary['worse_than_pca']}"]
    assert said[0].startswith("warning: the fine-tuned stack")
    assert notes(run) == 1


def test_a_wide_code_hears_nothing(small, tmp_path):
    """Of rows of 12 columns; before any fine-tuning, and after it."""
    run, session = tmp_path / "run", make_session()
    summary = pretrain(small, run, replace(STACK, layers=(8, 12)), session)
    assert summary["validation_error"] > summary["pca"]["validation"]
    summary = run_finetune(run, TUNE, session)
    assert summary["validation_error"] > summary["pca"]["validation"]
    assert summary["worse_than_pca"] == ""
    assert not [line for line in session.said if "PCA" in line]
    assert notes(run) == 0


def test_who_is_better_hears_nothing(small, tmp_path):
    run, session = tmp_path / "run", make_session(checkpoint_every=0)
    pretrain(small, run, replace(LINEAR, layers=(16, 1)), make_session())
    config = FinetuneConfig(
        epochs=200, minibatch=10, optimizer="adam", learning_rate=0.01
    )
    summary = run_finetune(run, config, session)
    assert summary["validation_error"] < summary["pca"]["validation"]
    assert summary["worse_than_pca"] == ""
    assert not [line for line in session.said if "PCA" in line]
    assert notes(run) == 0


# --- no better than a constant


@pytest.mark.parametrize(
    ("model", "rival"),
    [
        ("classifier", "always the most frequent class"),
        ("regressor", "always the mean"),
    ],
)
def test_no_better_than_a_constant(model, rival):
    equal = {"test": 66.667, "train": 66.667}
    adam = replace(TUNE, optimizer="adam")
    assert no_better_than_always(model, equal, equal, adam, 10) == (
        f"the {model} is no better than {rival} on the test rows (66.67 against "
        "66.67). What may help: more --epochs than 10, with --resume auto; a larger "
        "--learning-rate, such as 0.003, with --replace; a --minibatch smaller than "
        "10, with --replace."
    )
    found = no_better_than_always(model, {"test": 70, "train": 1}, equal, adam, 10)
    assert "It fits the training rows better than that: over-fitting." in found
    assert "more training rows" in found
    assert "epochs" not in found
    single = replace(adam, minibatch=1)
    assert "minibatch" not in no_better_than_always(model, equal, equal, single, 10)


def test_hardly_better_than_a_constant():
    """As a regressor of 442 patients is that has seen too few epochs."""
    errors = {"train": 5707.64, "test": 6307.77}
    usual = {"train": 5719.81, "test": 6350.75}
    found = no_better_than_always("regressor", errors, usual, TUNE, 20)
    assert found.startswith(
        "the regressor is hardly better than always the mean on the test rows "
        "(6307.77 against 6350.75). What may help: more --epochs"
    )


def test_a_predictor_that_is_better_hears_nothing():
    usual, none = {"test": 2.0}, {"test": None}
    assert no_better_than_always("regressor", {"test": 1.9}, usual, TUNE, 1) == ""
    assert no_better_than_always("regressor", none, usual, TUNE, 1) == ""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Give a data set whose first column says the label, and a pre-trained run."""
    folder = tmp_path_factory.mktemp("labelled")
    x = {"train": rows(60), "test": rows(20, seed=1)}
    splits = {k: Split(v, (v[:, 0] > 0.5).astype(int)) for k, v in x.items()}
    write_dataset(folder / "data.h5", splits, name="", origin="", scale=1.0)
    pretrain(folder / "data.h5", folder / "run", STACK, make_session())
    return folder / "run"


@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.parametrize("rate", [1e-9, 0.03])
def test_a_predictor_of_a_run(labelled, tmp_path, task, rate):
    """One that has learned nothing is told of; one that has learned is not."""
    run, session = tmp_path / "run", make_session(checkpoint_every=0)
    copytree(labelled, run)
    config = FinetuneConfig(
        epochs=1 if rate < 1e-3 else 60,
        minibatch=10,
        optimizer="adam",
        learning_rate=rate,
        task=task,
    )
    summary = run_finetune(run, config, session)
    words = summary[f"{task}_no_better"]
    told = [line for line in session.said if "no better than always" in line]
    assert told == [f"warning: {words}"] * bool(words)
    assert bool(words) == (rate < 1e-3)
    (found,) = collect([run])
    page = str(build.sections_of([found]))
    assert page.count("is no better than always") == bool(words)
    result = evaluate(run, "test", make_session())
    assert (result["error"] < result["always_error"]) == (not words)


# --- Allreduce


def test_costly_allreduce():
    assert costly_allreduce(3.0, 4.0, 2, "10 rows") == (
        "Allreduce took 75% of the time: fewer ranks than 2 may be faster for 10 rows"
    )
    assert costly_allreduce(1.0, 4.0, 2, "10 rows") == ""
    assert costly_allreduce(3.0, 4.0, 1, "10 rows") == ""  # there are no fewer
    assert costly_allreduce(0.0, 0.0, 2, "10 rows") == ""
