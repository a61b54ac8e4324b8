"""Data of the user's own: from a table to results, and new rows for a trained run."""

import shutil

import numpy as np
import pytest

from mpilayer.data.dataset import Dataset
from mpilayer.data.preparation import Preparation
from tests.support.command import call, found, refuse, said, told
from tests.support.plain import FUNCTIONS
from tests.support.small import read_summary

KINDS = ("ash", "beech", "elm")
NAMES = ("height (m)", "leaf, mm", "age")
SPLITS = "--validation 24 --test 30"


def trees(n, seed=0):
    """Return rows whose values tell their kinds, in units of their own."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(n) % 3
    x = rng.random((n, 3)) + 2 * (np.arange(3) == kinds[:, np.newaxis])
    return x * [10, 0.1, 50] + [3, 0.2, -400], np.array(KINDS)[kinds]


def write(path, x, last=None, name="kind", names=NAMES):
    """Write a table as a spreadsheet would, its last column of any kind."""
    header = [f'"{n}"' for n in names] + [name] * (last is not None)
    lines = [",".join(f"{value:.9g}" for value in row) for row in x]
    if last is not None:
        lines = [f"{line},{value}" for line, value in zip(lines, last, strict=True)]
    path.write_text("\n".join([",".join(header), *lines, ""]))


def prepare(folder, source, out, options):
    """Make a data set of a table; return what was warned of."""
    return told(folder, f"data prepare {source} -o {out} --replace {options}")


def train(folder, task, options=""):
    """Pre-train and fine-tune."""
    more = "--minibatch 10 --threads 1"
    layers = "--layers 9,4 --code linear --learning-rate 0.05,0.005 --epochs 3"
    said(folder, f"pretrain trees.h5 --run run {layers} {more} {options}")
    descent = "--optimizer adam --learning-rate 0.02 --epochs 40"
    said(folder, f"finetune run --task {task} {descent} {more}")


def cells(path):
    """Return the header of a table and its rows of texts."""
    header, *lines = path.read_text().splitlines()
    return header, np.array([line.split(",") for line in lines])


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    """Give a folder with a table of trees, the data set, and a run that knows them."""
    folder = tmp_path_factory.mktemp("forest")
    write(folder / "trees.csv", *trees(180))
    options = f"--labels kind {SPLITS} --scale minmax"
    made = call(folder, f"data prepare trees.csv -o trees.h5 {options}").ok()
    assert made.stderr == ""
    assert "scaled      minmax" in made.stdout
    train(folder, "classify")
    return folder


def test_names_of_classes_are_shown_everywhere(forest):
    facts = found(forest, "data info trees.h5")
    assert facts["splits"]["test"]["label_counts"] == dict.fromkeys(KINDS, 10)
    result = found(forest, "evaluate run")
    assert result["classes"] == read_summary(forest / "run")["classes"] == list(KINDS)
    assert result["errors"] <= 3
    shown = said(forest, "evaluate run")
    assert all(kind in shown for kind in KINDS)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("like", ["run", "trees.h5"])
def test_new_rows_have_the_codes_that_the_same_rows_have(forest, like):
    """The training table, prepared as if it were new, gives the training codes."""
    prepare(forest, "trees.csv", "again.h5", f"--like {like} {SPLITS}")
    for name in ("trees", "again"):
        options = f"-o {name}.npy --replace --split test"
        said(forest, f"encode run {name}.h5 {options}")
    codes, again = (np.load(forest / f"{name}.npy") for name in ("trees", "again"))
    np.testing.assert_array_equal(again, codes)
    assert np.ptp(codes) > 0


def test_codes_keep_names_and_labels(forest):
    said(forest, "encode run trees.h5 -o codes.h5")
    with Dataset.open(forest / "codes.h5") as codes:
        assert codes.preparation == Preparation(classes=KINDS, labels="kind")
    said(forest, "encode run trees.h5 -o codes.csv --split test")
    assert set(cells(forest / "codes.csv")[1][:, -1]) == set(KINDS)
    # A table that mpilayer wrote needs no options to be read.
    prepare(forest, "codes.csv", "read.h5", "")
    with Dataset.open(forest / "read.h5") as dataset:
        assert dataset.preparation.classes == KINDS


def test_reconstructions_have_the_units_of_the_table(forest):
    said(forest, "reconstruct run trees.h5 -o back.csv --split train")
    header, rows = cells(forest / "back.csv")
    assert header == 'height (m),"leaf, mm",age,label'
    values, table = rows[:, :3].astype(float), trees(180)[0]
    assert (values > table.min(axis=0)).all()
    assert (values < table.max(axis=0)).all()
    said(forest, "reconstruct run trees.h5 -o back.h5")
    with Dataset.open(forest / "back.h5") as dataset:
        np.testing.assert_allclose(dataset.stored("train").x, values, rtol=1e-6)
        assert (dataset.rows("train") > 0).all()
        assert (dataset.rows("train") < 1).all()


@pytest.mark.parametrize("visible", ["sigmoid", "linear"])
def test_an_exported_model_takes_values_as_they_were(tmp_path, visible):
    """An export takes raw values; linear visible units give them back, too."""
    scale = "minmax" if visible == "sigmoid" else "standard"
    write(tmp_path / "trees.csv", *trees(180))
    options = f"--labels kind {SPLITS} --scale {scale}"
    prepare(tmp_path, "trees.csv", "trees.h5", options)
    train(tmp_path, "autoencode", f"--visible {visible} --learning-rate 0.005")
    said(tmp_path, "export run -o model.npz")
    for command, out in (("encode", "codes"), ("reconstruct", "back")):
        said(tmp_path, f"{command} run trees.h5 -o {out}.npy --split test")
    codes, back = (np.load(tmp_path / f"{name}.npy") for name in ("codes", "back"))
    with Dataset.open(tmp_path / "trees.h5") as dataset:
        values, scaling = dataset.stored("test").x[:], dataset.preparation.scaling
    model = np.load(tmp_path / "model.npz")
    assert model["scaling"] == scale
    kinds = {"logistic": "sigmoid", "identity": "linear"}
    for k, name in enumerate(model["activations"]):
        values = values.astype(float) @ model[f"coefs_{k}"] + model[f"intercepts_{k}"]
        values = FUNCTIONS[kinds[str(name)]](values)
        if k == int(model["code_steps"]) - 1:
            np.testing.assert_allclose(values, codes, rtol=1e-3, atol=1e-4)
    if visible == "sigmoid":
        values = scaling.undo(values.astype(np.float32))
    assert (np.abs(values - back) < 1e-3 / np.abs(scaling.factor)).all()


def test_real_values_are_learned_from_the_table_on(tmp_path):
    x, _ = trees(200)
    goal = 0.5 * x[:, 0] + 30 * x[:, 1] + 0.25
    write(tmp_path / "trees.csv", x, goal, name="yield")
    write(tmp_path / "new.csv", x[:7], goal[:7], name="Yield")
    options = f"--labels yield {SPLITS} --scale minmax"
    made = said(tmp_path, f"data prepare trees.csv -o trees.h5 {options}")
    assert f"{goal.min():.3g}"[:3] in made
    train(tmp_path, "regress")
    result = found(tmp_path, "evaluate run")
    assert result["n_samples"] == 30
    assert result["error"] < 0.5 * goal.std()
    prepare(tmp_path, "new.csv", "new.h5", "--like run")
    result = found(tmp_path, "evaluate run --data new.h5 --split train")
    assert result["error"] < goal.std()
    said(tmp_path, "predict run new.h5 -o goals.csv")
    header, rows = cells(tmp_path / "goals.csv")
    assert header == "prediction"
    distance = np.sqrt(np.mean((rows[:, 0].astype(float) - goal[:7]) ** 2))
    assert distance == pytest.approx(result["error"], rel=1e-4)
    said(tmp_path, "encode run new.h5 -o codes.csv")
    labels = cells(tmp_path / "codes.csv")[1][:, -1].astype(np.float32)
    np.testing.assert_allclose(labels, goal[:7], rtol=1e-6)
    words = ("whole numbers or texts; found real numbers", "--task regress")
    refuse(tmp_path, "finetune run --task classify", *words)


def test_predictions_of_new_rows(forest):
    """The classes that ``evaluate`` counts; of rows that have no labels, too."""
    x, kinds = trees(40, seed=5)
    write(forest / "felled.csv", x)
    prepare(forest, "felled.csv", "felled.h5", "--like run")
    said(forest, "encode run felled.h5 -o felled-codes.csv")
    assert len(cells(forest / "felled-codes.csv")[1]) == 40
    said(forest, "predict run felled.h5 -o felled-kinds.csv")
    header, rows = cells(forest / "felled-kinds.csv")
    assert header == "ash,beech,elm,label"
    chances, chosen = rows[:, :3].astype(float), rows[:, 3]
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.array(KINDS)[chances.argmax(axis=1)], chosen)
    # Of known rows, whose classes are not all there, too.
    there = kinds != "ash"
    write(forest / "known.csv", x[there], kinds[there])
    prepare(forest, "known.csv", "known.h5", "--like run")
    result = found(forest, "evaluate run --data known.h5 --split train")
    assert result["errors"] == np.sum((chosen != kinds)[there])
    counts = [np.sum(kinds == kind) * (kind != "ash") for kind in KINDS]
    assert [sum(row) for row in result["confusion"]] == counts
    said(forest, "predict run known.h5 -o kinds.h5")
    with Dataset.open(forest / "kinds.h5") as told:
        np.testing.assert_allclose(told.rows("train"), chances[there], atol=1e-8)
        assert told.preparation.classes == KINDS
        names = np.array(KINDS)[told.labels("train")]
    np.testing.assert_array_equal(names, chosen[there])


# --- what is refused, and what is told


@pytest.fixture(scope="module")
def others(forest):
    """Give the folder with tables and data that do not go with the run."""
    x, kinds = trees(30, seed=3)
    write(forest / "raw.csv", x, kinds)
    for scale in ("none", "minmax", "standard"):
        prepare(forest, "raw.csv", f"{scale}.h5", f"--labels kind --scale {scale}")
    (forest / "less.csv").write_text("a,b\n1,2\n")
    write(forest / "turned.csv", x, names=("age", "leaf, mm", "height (m)"))
    write(forest / "oak.csv", x, ["oak"] * 30)
    run = shutil.copytree(forest / "run", forest / "damaged")
    text = (run / "preparation.json").read_text()
    (run / "preparation.json").write_text(text.replace('"elm"', '"oak"'))
    return forest


NEW = "data prepare trees.csv -o no.h5"
LABELLED = f"{NEW} --labels kind"
BALANCED = "14 test rows must be balanced over 3 labels", "5 of label ash; found 5"
AGAIN = "is, by minmax", "scales what is not scaled yet"
UNLIKE = "must have the scaling of the run's data", "--like run"
NO_TABLE = "as many columns of samples as run, 3; found 2"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{LABELLED} --validation 165 --test 14", BALANCED),
        (f"{LABELLED} --test 179", ("60 of label ash; found 60", "Take fewer",
                                    "--unbalanced")),
        (f"{NEW} --scale minmax --like run", ("exclude one another",)),
        (f"{NEW} --like nothing", ("--like must name a run or a data set",)),
        (f"{NEW} --like .", ("must be the directory of a run",)),
        (f"{NEW} --like damaged", ("preparation.json must be as it was written",)),
        ("data prepare trees.h5 -o no.h5 --scale standard", ("--scale", *AGAIN)),
        ("data prepare trees.h5 -o no.h5 --like run", ("--like", *AGAIN)),
        ("data prepare less.csv -o no.h5 --like run", (NO_TABLE,)),
        ("data prepare turned.csv -o no.h5 --like run",
         ("in the same order; found 'age' instead of 'height (m)'",)),
        ("data prepare oak.csv -o no.h5 --like run",
         ("one of the 3 of run; found 'oak'",)),
        ("encode run none.h5 -o no.npy --split train", ("none.h5", *UNLIKE)),
        ("evaluate run --data minmax.h5 --split train", ("minmax.h5", *UNLIKE)),
        ("reconstruct run standard.h5 -o no.npy --split train",
         ("standard.h5", *UNLIKE)),
        ("predict run trees.h5 -o no.csv --split test --task autoencode",
         ("must have a classifier or regressor",)),
        ("predict run trees.h5 -o no.csv --split test --task regress",
         ("must have a regressor; it has none",)),
        ("finetune run --task regress",
         ("labels must be numbers", "such as 'ash'", "--task classify")),
    ],
)  # fmt: skip
def test_what_is_refused(others, line, words):
    refuse(others, line, *words)


def test_columns_that_are_likely_to_be_mistakes_are_told(tmp_path):
    x, kinds = trees(30)
    x[:, 1] = 0.1
    for last, name, options, words in (
        (kinds, "kind", "--labels kind --scale minmax",
         ("1 of 3 columns are the same in all", "become 0: leaf, mm. ")),
        (x[:, 0], "target", "", ("the column 'target' is taken", "--labels target")),
    ):  # fmt: skip
        write(tmp_path / "trees.csv", x, last, name)
        warned = " ".join(prepare(tmp_path, "trees.csv", "out.h5", options).split())
        assert all(word in warned.partition("warning: ")[2] for word in words)
