"""Reports on data of one's own: tables, small pictures, classes and numbers."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.data.dataset import write_dataset
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split
from mpilayer.errors import DataError
from mpilayer.report import build, images
from mpilayer.report.run import collect
from tests.support.runs import pretrain, run_finetune
from tests.support.toys import rows
from tests.unit.report.conftest import figures_of, text_of
from tests.unit.runs.conftest import make_session

STACK = PretrainConfig(layers=(4, 2), epochs=(1,), minibatch=10)
pytestmark = pytest.mark.usefixtures("drawing")
CSV = "Flowers.CSV (no header, no labels)"


def train(folder, n_visible=9, columns=(), origin="made up", labels=None, **options):
    """Train a run, perhaps for a task and of another stack; return its folder."""
    n_rows = 60 if labels is None else len(labels)
    data, x = folder / "data.h5", rows(n_rows, n_visible)
    splits = {name: Split(x, labels) for name in ("train", "validation", "test")}
    about = Preparation(tuple(columns))
    write_dataset(data, splits, name="own", origin=origin, scale=1.0, preparation=about)
    pretrain(data, folder / "run", options.get("stack", STACK), make_session())
    if task := options.get("task"):
        config = FinetuneConfig(task=task, epochs=20, minibatch=10, learning_rate=0.1)
        run_finetune(folder / "run", config, make_session())
    return folder / "run"


@pytest.mark.parametrize(
    ("n_visible", "columns", "origin", "size"),
    [
        (784, (), "IDX files of the folder mnist", 28),
        (36, (), "pictures of the folder digits", 6),
        (25, (), "pictures of the folder digits", 0),
        (35, (), "x.npy", 0),
        (36, (), CSV, 0),
        (36, map(str, range(36)), "the data set flowers.h5 (0123)", 0),
    ],
)
def test_rows_of_tables_are_no_images(tmp_path, n_visible, columns, origin, size):
    run = train(tmp_path, n_visible, columns, origin)
    (found,) = collect([run])
    assert found.image_size == size
    drawn = figures_of(build.sections_of([found]))
    assert {name in drawn for name in ("reconstructions-1", "filters-run")} == {
        bool(size)
    }
    assert text_of([run]).count("The rows of own are not square images") == (not size)
    # Columns are known without the data set, origins are not.
    (tmp_path / "data.h5").unlink()
    assert collect([run])[0].image_size == (6 if origin == CSV else size)


def test_a_data_set_that_is_gone_or_has_moved(tmp_path):
    run = train(tmp_path)
    (found,) = collect([run])
    assert list(found.sample.reconstructions) == ["pre-trained"]
    moved = (tmp_path / "data.h5").rename(tmp_path / "here.h5")
    (found,) = collect([run])
    (remark,) = found.remarks
    assert "data.h5 is not a file" in remark
    assert "there are no reconstructions and codes" in remark
    made = text_of([run])
    assert "data.h5 is not a file" in made
    assert "spacetime-run" in made
    (found,) = collect([run], moved)
    assert (found.sample.data, found.remarks) == ("own", [])
    splits = {"train": Split(rows(9, 9))}
    write_dataset(tmp_path / "b.h5", splits, name="b", origin="", scale=1.0)
    with pytest.raises(DataError, match=r"the data set of a run; \S*b.h5 is that of n"):
        collect([run], tmp_path / "b.h5")


@pytest.mark.parametrize("n_code", [2, 36])
def test_pca_is_promised_where_it_is_shown(tmp_path, n_code):
    run = train(tmp_path, 36, stack=replace(STACK, layers=(n_code,)))
    (drawn,) = images.reconstructions(collect([run]), "a")
    shown = any(picture.label.startswith("PCA") for picture in drawn.pictures)
    assert shown == ("PCA" in drawn.says) == (n_code == 2)


def test_the_codes_are_those_of_the_newest_model(tmp_path):
    classes = (rows(60, 9).sum(axis=1) > 4).astype(int)  # can be learned
    run = train(tmp_path, labels=classes, task="classify")
    (found,) = collect([run])
    assert found.sample.model == "classifier"
    (drawn,) = images.code_space(found)
    assert "by the encoder of the classifier" in drawn.says
    assert "each drawn as its label" in drawn.says
    for path in (run / "checkpoints").glob("classifier*"):
        path.unlink()
    (other,) = collect([run])
    assert other.sample.model == "pre-trained stack"
    assert not np.array_equal(other.sample.codes, found.sample.codes)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (np.linspace(0.5, 9, 60, dtype=np.float32), ""),
        (np.arange(120), ""),
        (np.arange(60) % 12, "regress"),
    ],
)
def test_labels_that_are_numbers_are_colours(tmp_path, labels, task):
    (found,) = collect([train(tmp_path, labels=labels, task=task)])
    assert found.sample.labels.dtype == np.float32
    (drawn,) = images.code_space(found)
    assert "each coloured by its label, which is a number" in drawn.says
    (picture,) = drawn.pictures
    dots = re.findall(r"<use [^>]*fill: (#\w+)", picture.content)
    assert len(set(dots)) > 5
    assert "data:image" not in picture.content


@pytest.mark.parametrize(
    ("task", "first"),
    [
        ("classify", "wrong classes, test"),
        ("regress", "root mean square error of labels, test"),
    ],
)
def test_what_was_trained_comes_first(tmp_path, task, first):
    run = train(tmp_path, labels=np.arange(60) % 3, task=task)
    (found,) = collect([run])
    made = text_of([run])
    assert re.findall("<dt>([^<]*)", made)[:2] == [first, "reconstruction error, test"]
    (fact, *_) = re.findall("<dd[^>]*>([^<]*)", made)
    error = found.summary[f"{task}_error"]["test"]
    assert fact.startswith(f"{error**0.5:.2f}" if task == "regress" else f"{error:.3g}")
    # Beside the table and curves of all, before the next section.
    assert made.index(f'id="{task}-loss"') < made.index('id="run-run"')
