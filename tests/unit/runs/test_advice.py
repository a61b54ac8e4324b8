"""What is said of results that could be better, and when nothing is."""

from dataclasses import replace
from shutil import copytree

import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from mpilayer.models.base import LayerShape
from mpilayer.report import build
from mpilayer.report.run import collect
from mpilayer.runs.evaluate import (
    ALWAYS,
    after_finetuning,
    after_pretraining,
    evaluate,
    no_better_than_always,
    over_fits,
    worse_than_pca,
)
from mpilayer.train.record import mostly_at_barriers
from mpilayer.train.sums import costly_allreduce
from tests.support.runs import pretrain, run_finetune
from tests.support.toys import rows
from tests.unit.runs.conftest import STACK, make_session

TUNE = FinetuneConfig(epochs=1, minibatch=10, optimizer="sgd")
ADAM = replace(TUNE, optimizer="adam")
LINEAR = replace(STACK, code="linear")

CODE = "--code linear --learning-rate 0.1,0.005"
ANEW = "more --epochs than 3, with --replace"
LONGER = (
    "more --epochs than 3, with --resume auto",
    "a larger --learning-rate, such as 0.003, with --replace",
)
AGAINST = (
    "more training rows",
    "--dropout or --weight-decay, with --replace",
    "fewer units",
)


# --- worse than PCA


@pytest.mark.parametrize(
    ("errors", "pca", "n_code", "words"),
    [
        ({"test": 18.534, "train": 9.0}, {"test": 14.2, "train": 9.0}, 5,
         "test rows (18.53 against 14.20). What may"),
        ({"test": 3.0, "train": 1.0}, {"test": 2.0, "train": 1.5}, 5,
         "test rows (3.00 against 2.00). It fits the training rows better than PCA: "
         "over-fitting. What may"),
        # The first split that both have.
        ({"train": 3.0, "validation": 2.0, "test": None},
         {"train": 9.0, "validation": 1.0, "test": 1.0}, 5,
         "validation rows (2.00 against 1.00)"),
        ({"train": 3.0, "test": 2.0}, {"train": 1.0}, 5,
         "train rows (3.00 against 1.00)"),
        ({"test": 1.0}, {"test": 1.0}, 5, ""),
        ({"test": 1.0, "train": 9.0}, {"test": 2.0, "train": 1.0}, 5, ""),
        ({"test": 1.0}, {}, 5, ""),
        ({"test": 1.0}, {"test": None}, 5, ""),
        ({"test": None, "validation": None, "train": None}, {"test": 0.5}, 5, ""),
        # A wide code makes PCA perfect.
        ({"test": 3.0}, {"test": 0.0}, 11, "test rows (3.00 against 0.00)"),
        ({"test": 3.0}, {"test": 0.0}, 12, ""),
        ({"test": 3.0}, {"test": 0.0}, 20, ""),
    ],
)  # fmt: skip
def test_worse_than_pca(errors, pca, n_code, words):
    shapes = [LayerShape(12, 20), LayerShape(20, n_code)]
    found = worse_than_pca("tuned", shapes, errors, pca, ("more coffee", "sleep"))
    assert bool(found) == bool(words)
    if words:
        assert found.startswith(f"the tuned stack is worse than PCA on the {words}")
        assert found.endswith("What may help: more coffee; sleep.")


def test_over_fitting_is_clear():
    assert over_fits({"test": 3.0, "train": 1.0}, {"train": 1.5})
    assert not over_fits({"train": 1.0}, {"train": 1.009})  # a hair's breadth
    assert not over_fits({"train": 1.0}, {"train": None})


def test_what_may_help_a_pretrained_stack():
    """Only what is not set already; of the sample of MNIST fine-tuning is enough."""
    longer = "pre-training anew with more --epochs than 2"  # no --resume takes them
    assert after_pretraining(STACK, over=False) == ("fine-tuning", longer, CODE)
    assert after_pretraining(LINEAR, over=False) == ("fine-tuning", longer)
    decays = "--dropout or --weight-decay in fine-tuning"
    against = ("fine-tuning", "more training rows", decays, "fewer units")
    assert after_pretraining(LINEAR, over=True) == against
    # A lower rate of one's own is kept.
    for changes, rates in (
        ({"learning_rate": (0.1, 0.001)}, "0.1,0.001"),
        ({"layers": (8,)}, "0.005"),
    ):
        *_, code = after_pretraining(replace(STACK, **changes), over=False)
        assert code == f"--code linear --learning-rate {rates}"


@pytest.mark.parametrize(
    ("config", "pretraining", "best", "over", "remedies"),
    [
        (TUNE, STACK, 3, False,
         ("--optimizer adam --replace", *LONGER, f"pre-training with {CODE}")),
        (ADAM, STACK, 2, False, (f"pre-training with {CODE}",)),
        (ADAM, LINEAR, 3, False, LONGER),
        (TUNE, LINEAR, 3, True, AGAINST),
        (replace(ADAM, learning_rate_schedule="cosine"), LINEAR, 3, False,
         (ANEW, LONGER[1])),
        # It is not better: something is said.
        (ADAM, LINEAR, 2, False, ("pre-training for longer", "smaller minibatches")),
    ],
)  # fmt: skip
def test_what_may_help_a_finetuned_stack(config, pretraining, best, over, remedies):
    assert after_finetuning(config, pretraining, 3, best, over) == remedies


def notes(run):
    (found,) = collect([run])
    return str(build.sections_of([found])).count("is worse than PCA")


def test_console_summary_and_report(small, tmp_path):
    run = tmp_path / "run"
    for what, train in (
        ("pre-trained", lambda session: pretrain(small, run, STACK, session)),
        ("fine-tuned", lambda session: run_finetune(run, TUNE, session)),
    ):
        session = make_session()
        summary = train(session)
        said = [line for line in session.said if "worse than PCA" in line]
        assert said == [f"warning: {summary['worse_than_pca']}"]
        assert said[0].startswith(f"warning: the {what} stack")
        assert notes(run) == 1


def test_who_is_better_hears_nothing(small, tmp_path):
    run, session = tmp_path / "run", make_session(checkpoint_every=0)
    pretrain(small, run, replace(LINEAR, layers=(16, 1)), make_session())
    config = replace(ADAM, epochs=200, learning_rate=0.01)
    summary = run_finetune(run, config, session)
    assert summary["validation_error"] < summary["pca"]["validation"]
    assert summary["worse_than_pca"] == ""
    assert not [line for line in session.said if "PCA" in line]
    assert notes(run) == 0


# --- no better than a constant


EQUAL = {"test": 66.667, "train": 66.667}
PATIENTS = {"train": 5719.81, "test": 6350.75}


@pytest.mark.parametrize(
    ("model", "errors", "usual", "minibatch", "words"),
    [
        *(
            (model, EQUAL, EQUAL, 10,
             f"the {model} is no better than {constant} on the test rows (66.67 "
             f"against 66.67). What may help: {'; '.join(LONGER)}; a --minibatch "
             "smaller than 10, with --replace.")
            for model, constant in ALWAYS.items()
        ),
        ("regressor", {"test": 70, "train": 1}, EQUAL, 10,
         "It fits the training rows better than that: over-fitting. What may help: "
         f"{'; '.join(AGAINST)}."),
        ("classifier", EQUAL, EQUAL, 1, f"What may help: {'; '.join(LONGER)}."),
        # A regressor of 442 patients that has seen too few epochs.
        ("regressor", {"train": 5707.64, "test": 6307.77}, PATIENTS, 10,
         "the regressor is hardly better than always the mean on the test rows "
         "(6307.77 against 6350.75). What may help: more --epochs"),
        ("regressor", {"test": 6200.0}, PATIENTS, 10, ""),
        ("regressor", {"test": None}, PATIENTS, 10, ""),
    ],
)  # fmt: skip
def test_no_better_than_a_constant(model, errors, usual, minibatch, words):
    config = replace(ADAM, minibatch=minibatch)
    found = no_better_than_always(model, errors, usual, config, 3)
    assert words in found
    assert bool(found) == bool(words)


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
    epochs = 1 if rate < 1e-3 else 60
    config = replace(ADAM, epochs=epochs, learning_rate=rate, task=task)
    words = run_finetune(run, config, session)[f"{task}_no_better"]
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
    # There are no fewer than 1.
    for allreduce, seconds, ranks in ((1.0, 4.0, 2), (3.0, 4.0, 1), (0.0, 0.0, 2)):
        assert costly_allreduce(allreduce, seconds, ranks, "10 rows") == ""


# --- barriers


def test_mostly_at_barriers():
    idle, busy = ((3, 1.0, 1.0), (4, 0.5, 1.5)), ((5, 3.0, 1.0), (6, 3.0, 1.0))
    assert ": 62% in layer 2 of" in mostly_at_barriers([(), idle, busy])
    assert mostly_at_barriers([(), busy]) == ""
