"""Data of the user's own: from a table to results, and new rows for a trained run."""

import json
import shutil

import numpy as np
import pytest

from mpilayer.data.dataset import Dataset
from mpilayer.data.preparation import Preparation
from tests.support import launch
from tests.support.launch import here as call

KINDS = ("ash", "beech", "elm")
NAMES = ("height (m)", "leaf, mm", "age")
PREPARE = ("--labels", "kind", "--validation", 24, "--test", 30)
TRAIN = ("--minibatch", 10, "--threads", 1)


def trees(n, seed=0):
    """Return rows whose values tell their kinds, in units of their own."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(n) % 3
    x = rng.random((n, 3)) + 2 * (np.arange(3) == kinds[:, np.newaxis])
    return x * [10, 0.1, 50] + [3, 0.2, -400], np.array(KINDS)[kinds]


def write(path, x, last=None, name="kind"):
    """Write a table as a spreadsheet would, its last column of any kind."""
    names = [f'"{n}"' for n in NAMES] + [name] * (last is not None)
    lines = [",".join(f"{value:.9g}" for value in row) for row in x]
    if last is not None:
        lines = [f"{line},{value}" for line, value in zip(lines, last, strict=True)]
    path.write_text("\n".join([",".join(names), *lines, ""]))
    return path


def prepare(folder, source, *options, out="out.h5"):
    command = ("data", "prepare", source, "-o", out, "--replace", *options)
    return call(*command, cwd=folder)


def train(folder, data, run, task, *options):
    """Pre-train and fine-tune."""
    layers = ("--layers", "9,4", "--code", "linear", "--learning-rate", "0.05,0.005")
    command = ("pretrain", data, "--run", run, *layers, "--epochs", 3, *TRAIN, *options)
    launch.run(*command, cwd=folder).ok()
    descent = ("--optimizer", "adam", "--learning-rate", "0.02", "--epochs", 40)
    command = ("finetune", run, "--task", task, *descent, *TRAIN)
    launch.run(*command, cwd=folder).ok()


def refused(result, *words):
    launch.assert_user_error(result)
    told = " ".join(result.stderr.split())
    for word in words:
        assert word in told, (word, told)


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    """Give a folder with a table of trees, the data set, and a run that knows them."""
    folder = tmp_path_factory.mktemp("forest")
    write(folder / "trees.csv", *trees(180))
    result = prepare(
        folder, "trees.csv", *PREPARE, "--scale", "minmax", out="trees.h5"
    ).ok()
    assert result.stderr == ""
    assert "scaled      minmax" in result.stdout
    train(folder, "trees.h5", "run", "classify")
    return folder


@pytest.fixture(scope="module")
def new(forest):
    """Give a table of trees, without their kinds, and the data set made like it."""
    write(forest / "new.csv", trees(9, seed=1)[0])
    prepare(forest, "new.csv", "--like", "run", out="new.h5").ok()
    return forest / "new.h5"


def test_names_of_classes_are_shown_everywhere(forest):
    facts = json.loads(call("data", "info", "trees.h5", "--json", cwd=forest).stdout)
    assert facts["splits"]["test"]["label_counts"] == dict.fromkeys(KINDS, 10)
    result = call("evaluate", "run", "--json", cwd=forest).ok()
    found = json.loads(result.stdout)
    assert found["classes"] == list(KINDS)
    assert found["errors"] <= 3
    shown = call("evaluate", "run", cwd=forest).ok().stdout
    assert all(kind in shown for kind in KINDS)
    assert max(map(len, shown.splitlines())) <= 80
    summary = json.loads((forest / "run" / "summary.json").read_text())
    assert summary["classes"] == list(KINDS)


def test_the_run_keeps_how_its_data_were_prepared(forest):
    with Dataset.open(forest / "trees.h5") as dataset:
        content = json.loads((forest / "run" / "preparation.json").read_text())
        assert Preparation.from_json(content, 3, "it") == dataset.preparation
        assert dataset.preparation.columns == NAMES
        np.testing.assert_array_equal(dataset.rows("train").min(axis=0), 0)


@pytest.mark.parametrize("like", ["run", "trees.h5"])
def test_new_rows_have_the_codes_that_the_same_rows_have(forest, like):
    """The training table, prepared as if it were new, gives the training codes."""
    prepare(forest, "trees.csv", "--like", like, *PREPARE[2:], out="again.h5").ok()
    for data in ("trees", "again"):
        command = ("encode", "run", f"{data}.h5", "-o", f"{data}.npy", "--replace")
        call(*command, "--split", "test", cwd=forest).ok()
    found = np.load(forest / "again.npy")
    np.testing.assert_array_equal(found, np.load(forest / "trees.npy"))
    assert np.ptp(found) > 0


def test_rows_without_labels_are_encoded_and_those_with_some_evaluated(forest, new):
    call("encode", "run", new, "-o", "new-codes.csv", cwd=forest).ok()
    assert len((forest / "new-codes.csv").read_text().splitlines()) == 10
    x, kinds = trees(60, seed=2)
    elms = kinds != "ash"
    write(forest / "some.csv", x[elms], kinds[elms])
    prepare(forest, "some.csv", "--like", "run", out="some.h5").ok()
    options = ("--data", "some.h5", "--split", "train", "--json")
    found = json.loads(call("evaluate", "run", *options, cwd=forest).ok().stdout)
    assert [sum(row) for row in found["confusion"]] == [0, 20, 20]
    assert found["errors"] <= 4


def test_codes_keep_names_and_labels(forest):
    call("encode", "run", "trees.h5", "-o", "codes.h5", cwd=forest).ok()
    with Dataset.open(forest / "codes.h5") as codes:
        assert codes.preparation.classes == KINDS
        assert codes.preparation.scaling is None
        assert codes.preparation.columns == ()
    command = ("encode", "run", "trees.h5", "-o", "codes.csv", "--split", "test")
    call(*command, cwd=forest).ok()
    lines = (forest / "codes.csv").read_text().splitlines()
    assert {line.rpartition(",")[2] for line in lines[1:]} == set(KINDS)
    # A table that mpilayer wrote needs no options to be read.
    prepare(forest, "codes.csv", out="read.h5").ok()
    with Dataset.open(forest / "read.h5") as dataset:
        assert dataset.preparation.classes == KINDS


def test_reconstructions_have_the_units_of_the_table(forest):
    command = ("reconstruct", "run", "trees.h5", "-o", "back.csv", "--split", "train")
    call(*command, cwd=forest).ok()
    header, *lines = (forest / "back.csv").read_text().splitlines()
    assert header == 'height (m),"leaf, mm",age,label'
    found = np.array([line.split(",")[:3] for line in lines], float)
    low, high = trees(180)[0].min(axis=0), trees(180)[0].max(axis=0)
    assert (found > low).all()
    assert (found < high).all()
    call("reconstruct", "run", "trees.h5", "-o", "back.h5", cwd=forest).ok()
    with Dataset.open(forest / "back.h5") as dataset:
        np.testing.assert_allclose(dataset.stored("train").x, found, rtol=1e-6)
        assert (dataset.rows("train") > 0).all()
        assert (dataset.rows("train") < 1).all()


def test_data_that_were_prepared_otherwise_are_refused(forest):
    write(forest / "raw.csv", *trees(30, seed=3))
    for scale, data, command in (
        ("none", "raw.h5", ("encode", "run", "raw.h5", "-o", "no.npy")),
        ("minmax", "own.h5", ("evaluate", "run", "--data", "own.h5")),
        ("standard", "3.h5", ("reconstruct", "run", "3.h5", "-o", "no.npy")),
    ):
        labels = ("--labels", "kind", "--scale", scale)
        prepare(forest, "raw.csv", *labels, out=data).ok()
        words = (f"{data} must have the scaling of the run's data", "--like run")
        result = call(*command, "--split", "train", cwd=forest)
        refused(result, *words)
    assert not (forest / "no.npy").exists()


@pytest.mark.parametrize("visible", ["sigmoid", "linear"])
def test_an_exported_model_takes_values_as_they_were(forest, tmp_path, visible):
    """An export takes raw values; linear visible units give them back, too."""
    scale = "minmax" if visible == "sigmoid" else "standard"
    write(tmp_path / "trees.csv", *trees(180))
    prepare(tmp_path, "trees.csv", *PREPARE, "--scale", scale, out="trees.h5").ok()
    units = ("--visible", visible, "--learning-rate", "0.005")
    train(tmp_path, "trees.h5", "run", "autoencode", *units)
    call("export", "run", "-o", "model.npz", cwd=tmp_path).ok()
    for command, out in (("encode", "codes"), ("reconstruct", "back")):
        options = ("trees.h5", "-o", f"{out}.npy", "--split", "test")
        call(command, "run", *options, cwd=tmp_path).ok()
    with Dataset.open(tmp_path / "trees.h5") as dataset:
        values, scaling = dataset.stored("test").x, dataset.preparation.scaling
    model = np.load(tmp_path / "model.npz")
    assert model["scaling"] == scale
    functions = {"logistic": lambda v: 1 / (1 + np.exp(-v)), "identity": lambda v: v}
    for k, name in enumerate(model["activations"]):
        values = values.astype(float) @ model[f"coefs_{k}"] + model[f"intercepts_{k}"]
        values = functions[str(name)](values)
        if k == int(model["code_steps"]) - 1:
            codes = np.load(tmp_path / "codes.npy")
            np.testing.assert_allclose(values, codes, rtol=1e-3, atol=1e-4)
    if visible == "sigmoid":
        values = scaling.undo(values.astype(np.float32))
    spans = 1 / np.abs(scaling.factor)
    back = np.load(tmp_path / "back.npy")
    assert (np.abs(values - back) < 1e-3 * spans).all()


def test_real_values_are_learned_from_the_table_on(tmp_path):
    x, _ = trees(200)
    goal = 0.5 * x[:, 0] + 30 * x[:, 1] + 0.25
    write(tmp_path / "trees.csv", x, goal, name="yield")
    write(tmp_path / "new.csv", x[:7], goal[:7], name="Yield")
    options = ("--labels", "yield", *PREPARE[2:], "--scale", "minmax")
    made = prepare(tmp_path, "trees.csv", *options, out="trees.h5").ok()
    assert f"{goal.min():.3g}"[:3] in made.stdout
    train(tmp_path, "trees.h5", "run", "regress")
    found = json.loads(call("evaluate", "run", "--json", cwd=tmp_path).ok().stdout)
    assert found["n_samples"] == 30
    assert found["error"] < 0.5 * goal.std()
    prepare(tmp_path, "new.csv", "--like", "run", out="new.h5").ok()
    options = ("--data", "new.h5", "--split", "train", "--json")
    found = json.loads(call("evaluate", "run", *options, cwd=tmp_path).ok().stdout)
    assert found["error"] < goal.std()
    call("predict", "run", "new.h5", "-o", "goals.csv", cwd=tmp_path).ok()
    header, *lines = (tmp_path / "goals.csv").read_text().splitlines()
    assert header == "prediction"
    distance = np.sqrt(np.mean((np.array(lines, float) - goal[:7]) ** 2))
    assert distance == pytest.approx(found["error"], rel=1e-4)
    command = ("encode", "run", "new.h5", "-o", "codes.csv")
    call(*command, cwd=tmp_path).ok()
    lines = (tmp_path / "codes.csv").read_text().splitlines()[1:]
    labels = [np.float32(line.rpartition(",")[2]) for line in lines]
    np.testing.assert_allclose(labels, goal[:7], rtol=1e-6)
    words = ("whole numbers or texts; found real numbers", "--task regress")
    refused(launch.run("finetune", "run", "--task", "classify", cwd=tmp_path), *words)


def test_texts_are_no_numbers_to_regress(forest):
    result = launch.run("finetune", "run", "--task", "regress", cwd=forest)
    refused(result, "labels must be numbers", "such as 'ash'", "--task classify")


def test_an_experiment_prepares_its_data_alike(forest, tmp_path):
    (tmp_path / "trees.toml").write_text(
        f"""
[experiment]
steps = ["data", "pretrain", "finetune", "evaluate"]
[data]
source = "{forest / "trees.csv"}"
labels = "kind"
validation = 24
test = 30
scale = "minmax"
[pretrain]
layers = [5, 3]
epochs = 1
minibatch = 10
[finetune]
task = "classify"
epochs = 1
minibatch = 10
"""
    )
    launch.run("run", "trees.toml", "--threads", 1, cwd=tmp_path).ok()
    with (
        Dataset.open(tmp_path / "runs" / "trees" / "data.h5") as made,
        Dataset.open(forest / "trees.h5") as before,
    ):
        assert made.digest == before.digest


REFUSED = {
    "rows": (("--validation", 100, "--test", 80), "asked for 100 and 80 of 180"),
    "rows of a class": (
        ("--validation", 165, "--test", 14),
        "14 test rows must be balanced over 3 labels",
        "5 of label ash; found 5",
    ),
    "a class too small": (
        ("--test", 179),
        "60 of label ash; found 60",
        "Take fewer",
        "--unbalanced",
    ),
    "scale and like": (("--scale", "minmax", "--like", "run"), "exclude one another"),
    "like nothing": (("--like", "none.h5"), "--like must name a run or a data set"),
    "like a folder": (("--like", "."), "must be the directory of a run"),
    "an unknown scale": (("--scale", "max"), "unknown scale 'max'"),
    "test rows": (("--test", -1), "must be at least 0; got -1. Change --test"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_options(forest, case):
    options, *words = REFUSED[case]
    if "--like" not in options:
        options = (*options, "--labels", "kind")
    refused(prepare(forest, "trees.csv", *options, out="no.h5"), *words)
    assert not (forest / "no.h5").exists()


def test_what_is_scaled_is_not_scaled_again(forest):
    for option in (("--scale", "standard"), ("--like", "run")):
        result = prepare(forest, "trees.h5", *option, out="no.h5")
        refused(result, "is, by minmax", f"{option[0]} scales what is not scaled yet")
    prepare(forest, "trees.h5", out="same.h5").ok()
    with (
        Dataset.open(forest / "same.h5") as same,
        Dataset.open(forest / "trees.h5") as before,
    ):
        np.testing.assert_array_equal(same.rows("test"), before.rows("test"))
        assert same.preparation == before.preparation


def test_other_columns_than_those_of_the_run(forest, tmp_path):
    x, _ = trees(9)
    write(tmp_path / "less.csv", x[:, :2])
    (tmp_path / "less.csv").write_text("a,b\n1,2\n")
    result = prepare(forest, tmp_path / "less.csv", "--like", "run", out="no.h5")
    refused(result, "as many columns of samples as run, 3; found 2")
    write(tmp_path / "turned.csv", x)
    text = (tmp_path / "turned.csv").read_text()
    text = text.replace("height (m)", "?").replace("age", "height (m)")
    (tmp_path / "turned.csv").write_text(text.replace("?", "age"))
    result = prepare(forest, tmp_path / "turned.csv", "--like", "run", out="no.h5")
    refused(result, "in the same order; found 'age' instead of 'height (m)'")
    write(tmp_path / "oak.csv", x, ["oak"] * 9)
    result = prepare(forest, tmp_path / "oak.csv", "--like", "run", out="no.h5")
    refused(result, "one of the 3 of run; found 'oak'")


def test_columns_that_never_change_are_told(tmp_path):
    x, kinds = trees(30)
    x[:, 1] = 0.1
    write(tmp_path / "trees.csv", x, kinds)
    for scale in ("minmax", "standard"):
        options = ("--labels", "kind", "--scale", scale)
        result = prepare(tmp_path, "trees.csv", *options).ok()
        assert "warning: 1 of 3 columns are the same in all" in result.stderr
        assert "become 0: leaf, mm. " in " ".join(result.stderr.split())
        with Dataset.open(tmp_path / "out.h5") as dataset:
            np.testing.assert_array_equal(dataset.rows("train")[:, 1], 0)


def test_a_column_that_is_likely_to_be_labels_is_told(tmp_path):
    x, _ = trees(30)
    write(tmp_path / "trees.csv", x, x[:, 0], name="target")
    result = prepare(tmp_path, "trees.csv").ok()
    assert "warning: the column 'target' is taken" in result.stderr
    assert "--labels target" in result.stderr


def test_a_damaged_preparation_is_noticed(forest, tmp_path):
    run = shutil.copytree(forest / "run", tmp_path / "run")
    text = (run / "preparation.json").read_text()
    (run / "preparation.json").write_text(text.replace('"elm"', '"oak"'))
    result = prepare(forest, "trees.csv", "--like", run, out="no.h5")
    refused(result, "preparation.json must be as it was written")


def test_predictions_of_new_rows(forest):
    """The classes that ``evaluate`` counts; of rows that have no labels, too."""
    x, kinds = trees(40, seed=5)
    write(forest / "felled.csv", x)
    prepare(forest, "felled.csv", "--like", "run", out="felled.h5").ok()
    call("predict", "run", "felled.h5", "-o", "felled-kinds.csv", cwd=forest).ok()
    header, *rows = (forest / "felled-kinds.csv").read_text().splitlines()
    assert header == "ash,beech,elm,label"
    cells = [row.split(",") for row in rows]
    chances = np.array([row[:3] for row in cells], float)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    assert [KINDS[k] for k in chances.argmax(axis=1)] == [row[3] for row in cells]
    wrong = sum(row[3] != kind for row, kind in zip(cells, kinds, strict=True))
    write(forest / "known.csv", x, kinds)
    prepare(forest, "known.csv", "--like", "run", out="known.h5").ok()
    looked = ("evaluate", "run", "--data", "known.h5", "--split", "train", "--json")
    assert json.loads(call(*looked, cwd=forest).ok().stdout)["errors"] == wrong
    call("predict", "run", "known.h5", "-o", "kinds.h5", cwd=forest).ok()
    with Dataset.open(forest / "kinds.h5") as found:
        np.testing.assert_allclose(found.rows("train"), chances, atol=1e-8)
        assert found.preparation.classes == KINDS
        assert [KINDS[k] for k in found.labels("train")] == [row[3] for row in cells]


def test_only_predictors_predict(forest):
    arguments = ("predict", "run", "trees.h5", "-o", "none.csv", "--split", "test")
    refused(
        call(*arguments, "--task", "autoencode", cwd=forest),
        "must have a classifier or regressor",
    )
    refused(
        call(*arguments, "--task", "regress", cwd=forest),
        "must have a regressor; it has none",
    )
    assert not (forest / "none.csv").exists()
