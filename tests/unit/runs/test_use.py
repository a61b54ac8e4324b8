"""Using a run on data that are not its own."""

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig
from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split
from mpilayer.errors import DataError
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.runs.evaluate import evaluate
from mpilayer.runs.use import write_rows
from mpilayer.train.evaluate import PCA
from tests.support import launch
from tests.support.runs import pretrain, run_finetune
from tests.support.toys import rows
from tests.unit.runs.conftest import STACK, make_session


def made(path, x, labels=None, **options):
    splits = {"train": Split(x, labels)}
    write_dataset(path, splits, name="", origin="", scale=1.0, **options)
    return path


@pytest.fixture
def run(tmp_path):
    """Give a run whose data set lies beside it."""
    data = made(tmp_path / "own.h5", rows(60))
    pretrain(data, tmp_path / "run", STACK, make_session())
    return tmp_path / "run"


# --- PCA beside the error


def pca_error(fitted, judged):
    serial = SerialCommunicator()
    return PCA([fitted], fitted.shape, 5, serial).error([judged], serial)


def test_pca_is_fitted_on_the_rows_of_the_run(run, tmp_path):
    """Six rows have five components: those of their own would leave nothing."""
    other, session = made(tmp_path / "few.h5", rows(6, seed=3)), make_session()
    with Dataset.open(other) as few, Dataset.open(tmp_path / "own.h5") as own:
        judged, train = few.rows("train"), own.rows("train")
    found = evaluate(run, "train", session, data=other)["pca_error"]
    assert found == pytest.approx(pca_error(train, judged), rel=1e-6)
    assert found > 1e3 * abs(pca_error(judged, judged))
    assert session.said == []


def test_no_pca_without_the_rows_of_the_run(run, tmp_path):
    other, session = made(tmp_path / "few.h5", rows(6, seed=3)), make_session()
    own = (tmp_path / "own.h5").rename(tmp_path / "moved.h5")
    result = evaluate(run, "train", session, data=other)
    assert result["pca_error"] is None
    assert result["error"] > 0
    (said,) = session.said
    assert said.startswith("PCA is left out: it needs the training rows of the run")
    moved = evaluate(run, "train", make_session(), data=own)
    assert moved["pca_error"] > 0


# --- data that are not like those of the run


@pytest.fixture
def classifier(tmp_path):
    """Give a run with a classifier of classes with names."""
    x, named = rows(60), Preparation(classes=("no", "yes"))
    labels = (x[:, 0] > 0.5).astype(int)
    data = made(tmp_path / "named.h5", x, labels, preparation=named)
    pretrain(data, tmp_path / "run", STACK, make_session())
    config = FinetuneConfig(epochs=1, minibatch=10, task="classify")
    run_finetune(tmp_path / "run", config, make_session())
    return tmp_path / "run"


def test_rows_without_labels_have_no_classes(classifier, tmp_path):
    bare = made(tmp_path / "bare.h5", rows(6))
    rows_of, kind = write_rows("codes", classifier, bare, tmp_path / "codes.csv")
    assert (rows_of, kind) == ({"train": 6}, "classifier")
    numbered = made(tmp_path / "numbered.h5", rows(6), np.arange(6) % 2)
    words = "the classes must be those of the run, no, yes; .* has numbers"
    with pytest.raises(DataError, match=words):
        write_rows("codes", classifier, numbered, tmp_path / "others.csv")


def test_what_is_no_data_set(run, tmp_path):
    """A table is to be prepared like the run, and a run is to be looked at."""
    table = tmp_path / "table.csv"
    table.write_text("1,2\n")
    words = f"data prepare {table} --like {run} -o {tmp_path / 'table.h5'}"
    with pytest.raises(DataError, match=words):
        write_rows("codes", run, table, tmp_path / "codes.csv")
    with pytest.raises(DataError, match=words):
        evaluate(run, "train", make_session(), data=table)
    words = f"It is a run: look at it with 'mpilayer evaluate {run}' or 'mpilayer repor"
    with pytest.raises(DataError, match=words):
        Dataset.open(run)


# --- who has made it


def test_the_model_is_named(classifier, tmp_path):
    own, out = tmp_path / "named.h5", tmp_path / "out.csv"
    for command, options, model in (
        ("encode", [], "the encoder of the classifier"),
        ("encode", ["--task", "autoencode"],
         "the encoder of the pretrained autoencoder"),
        ("reconstruct", [], "the pretrained autoencoder"),
        ("predict", [], "the classifier"),
    ):  # fmt: skip
        arguments = (classifier, own, "-o", out, "--replace", *options)
        found = launch.run(command, *arguments).ok().stdout
        assert found == f"wrote 60 train rows to {out}, by {model}\n"
