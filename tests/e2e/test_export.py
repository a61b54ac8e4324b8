"""Models and codes in files of other programs, read there; the examples of the docs."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import load_predictor
from mpilayer.runs.tasks import TASKS
from tests.e2e.conftest import contents, read_summary
from tests.support import launch
from tests.support.plain import FUNCTIONS

KINDS = {
    "pretrained": ["sigmoid"] * 8,
    "finetuned": ["sigmoid"] * 8,
    "mixed": ["tanh", "linear", "tanh", "sigmoid"],
    "sparse": ["tanh"] * 2,
}
RUNS = tuple(KINDS)
PREDICTORS = {"classify": "classifier", "regress": "regressor"}
DOCS = Path(__file__).parents[2] / "docs" / "export.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def runs(tiny, pretrained, tmp_path_factory):
    """Give a folder with runs of all kinds, their codes and reconstructions."""
    folder = tmp_path_factory.mktemp("runs")

    def run(*arguments):
        launch.run(*arguments, cwd=folder).ok()

    for name in ("pretrained", "finetuned"):
        shutil.copytree(pretrained, folder / name)
    mixed = ["--method", "autoencoder", "--hidden", "tanh", "--code", "linear"]
    mixed += ["--layers", "9,3", "--epochs", 1]
    run("finetune", "finetuned", "--epochs", 2, "--optimizer", "adam")
    run("pretrain", tiny, "--run", "mixed", *mixed)
    run("sparse", tiny, "--run", "sparse", "--hidden", 5, "--evaluations", 5)
    for task in PREDICTORS:
        options = ["--task", task, "--epochs", 3, "--optimizer", "adam"]
        run("finetune", "mixed", *options)
    for name in RUNS:
        test = ["--split", "test"]
        codes = ["-o", f"{name}-codes.npy", "--task", "autoencode"]
        run("encode", name, tiny, *codes, *test)
        run("reconstruct", name, tiny, "-o", f"{name}-images.npy", *test)
    return folder


@pytest.fixture
def exported(runs, tmp_path, monkeypatch):
    """Give a function that exports to the current folder, as the examples read it."""
    monkeypatch.chdir(tmp_path)

    def run(name, ending, *options, task="autoencode"):
        arguments = ["export", runs / name, "-o", f"model{ending}", "--task", task]
        arguments += options
        return launch.run(*arguments, cwd=tmp_path).ok()

    return run


@pytest.fixture
def rows(tiny):
    """Give the test rows of the small data set."""
    with Dataset.open(tiny) as data:
        return data.rows("test")


def results(runs, name):
    """Return the codes and reconstructions that mpilayer has written."""
    return [np.load(runs / f"{name}-{what}.npy") for what in ("codes", "images")]


def example(*words):
    """Run the first example of the docs that has all the words; return its names."""
    text = next(text for text in EXAMPLES if all(word in text for word in words))
    names = {}
    exec(text, names)
    return names


def assert_close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


# --- each format in its own program


@pytest.mark.parametrize(
    ("name", "part"), [*((name, "whole") for name in RUNS), ("finetuned", "encoder")]
)
def test_onnx(exported, runs, rows, name, part):
    onnx = pytest.importorskip("onnx", reason="needs mpilayer[export]")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    exported(name, ".onnx", "--part", part)
    onnx.checker.check_model("model.onnx", full_check=True)
    session = example("onnxruntime")["session"]
    names = ["code", "reconstruction"][: 1 if part == "encoder" else 2]
    assert [output.name for output in session.get_outputs()] == names
    outputs = session.run(names, {"visible": rows})
    for found, expected in zip(outputs, results(runs, name), strict=False):
        assert_close(found, expected)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["model"] == ("pretrained" if name == "mixed" else name)
    assert facts["part"] == part


@pytest.mark.parametrize("name", RUNS)
def test_pytorch(exported, runs, rows, name):
    pytest.importorskip("safetensors", reason="needs mpilayer[export]")
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    exported(name, ".safetensors")
    words = [["safetensors", "metadata"]]
    words += [["nn.Sigmoid()])"]] if set(KINDS[name]) == {"sigmoid"} else []
    for choice in words:
        found = example(*choice)["model"](torch.from_numpy(rows)).detach().numpy()
        assert_close(found, results(runs, name)[1])


@pytest.mark.parametrize("name", RUNS)
def test_numpy(exported, runs, rows, tiny, tmp_path, name):
    before = contents(runs)
    exported(name, ".npz")
    assert contents(runs) == before
    assert list(contents(tmp_path)) == ["model.npz"]
    assert_close(example("def predict")["predict"](rows), results(runs, name)[1])
    printed = exported(name, ".h5").stdout
    values, codes = rows.astype(float), None
    with h5py.File("model.h5") as file, Dataset.open(tiny) as data:
        facts = dict(file.attrs)
        for k in range(facts["n_steps"]):
            step = file[f"steps/{k}"]
            function = FUNCTIONS[step.attrs["activation"]]
            values = function(values @ step["weights"] + step["bias"])
            codes = values if k + 1 == int(facts["code_steps"]) else codes
        assert facts["data"] == "tiny"
        assert facts["data_digest"] == data.digest
    for found, expected in zip((codes, values), results(runs, name), strict=True):
        assert_close(found, expected)
    assert facts["activations"].split(",") == KINDS[name]
    kind = "pretrained" if name == "mixed" else name
    assert f"wrote the {kind} autoencoder 20-" in printed


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "whole") for name in RUNS if name != "mixed"),
        # Whose code is linear: as a whole it has several activations.
        ("mixed", "encoder"),
        ("finetuned", "encoder"),
    ],
)
def test_scikit_learn(exported, runs, rows, name, part):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    printed = exported(name, ".npz", "--part", part).stdout
    codes, reconstructions = results(runs, name)
    expected = codes if part == "encoder" else reconstructions
    assert_close(example("MLPRegressor")["model"].predict(rows), expected)
    of = "the encoder of " if part == "encoder" else ""
    kind = "pretrained" if name == "mixed" else name
    assert printed.startswith(f"wrote {of}the {kind} autoencoder 20-")


# --- classifiers and regressors


@pytest.fixture(params=PREDICTORS)
def predictor(request, exported, runs, rows):
    """Give a function that exports a predictor, and what should come out of it."""
    task = request.param
    model = load_predictor(RunDirectory(runs / "mixed"), TASKS[task])
    p, values = model.parameters, rows.astype(float)
    for k, (_, _, kind) in enumerate(model.steps):
        values = FUNCTIONS[kind](values @ p[f"weights_{k}"] + p[f"bias_{k}"])
    if task == "classify":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)

    def run(ending, *options):
        return exported("mixed", ending, *options, task=task)

    return task, run, values


def test_predictors_in_onnx(predictor, rows):
    onnx = pytest.importorskip("onnx", reason="needs mpilayer[export]")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    task, export, expected = predictor
    export(".onnx")
    onnx.checker.check_model("model.onnx", full_check=True)
    if task == "classify":
        names, name = example("onnxruntime", "classes"), "probabilities"
        np.testing.assert_array_equal(names["classes"], np.arange(10))
    else:
        names, name = example("onnxruntime"), "prediction"
    session = names["session"]
    assert [output.name for output in session.get_outputs()] == ["code", name]
    (found,) = session.run([name], {"visible": rows})
    assert_close(found, expected)


def test_predictors_in_pytorch(predictor, rows):
    pytest.importorskip("safetensors", reason="needs mpilayer[export]")
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    _, export, expected = predictor
    export(".safetensors")
    model = example("safetensors", "metadata")["model"]
    assert_close(model(torch.from_numpy(rows)).detach().numpy(), expected)


def test_predictors_in_numpy(predictor, runs, rows, tiny, tmp_path):
    task, export, expected = predictor
    export(".npz")
    assert_close(example("def predict")["predict"](rows), expected)
    printed = export(".h5").stdout
    assert printed.startswith(f"wrote the {PREDICTORS[task]} 20-9-3-")
    with h5py.File("model.h5") as file:
        facts = dict(file.attrs)
        assert file["steps/2/bias"].shape == expected.shape[1:]
        kinds = [file[f"steps/{k}"].attrs["activation"] for k in range(3)]
    assert kinds == ["tanh", "linear", "softmax" if task == "classify" else "linear"]
    assert facts["activations"].split(",") == kinds
    assert facts["model"] == PREDICTORS[task]
    classes = "0,1,2,3,4,5,6,7,8,9" if task == "classify" else ""
    assert facts.get("classes", "") == classes
    printed = export(".npz", "--part", "encoder", "--replace").stdout
    assert f"wrote the encoder of the {PREDICTORS[task]} 20-9-3 to" in printed
    options = ["-o", "codes.npy", "--split", "test", "--task", task]
    launch.run("encode", runs / "mixed", tiny, *options, cwd=tmp_path).ok()
    assert_close(example("def predict")["predict"](rows), np.load("codes.npy"))


def test_predictors_in_scikit_learn(runs, tiny, pretrained, tmp_path, monkeypatch):
    """Of a stack with one activation, as its multilayer perceptrons have."""
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pretrained, "run")
    with Dataset.open(tiny) as data:
        rows, labels = data.rows("test"), data.labels("test")
    for task in PREDICTORS:
        options = ["--task", task, "--epochs", 20, "--optimizer", "adam"]
        launch.run("finetune", "run", *options).ok()
        # What was trained last is the usual one.
        launch.run("export", "run", "-o", "model.npz", "--replace").ok()
        if task == "classify":
            names = example("MLPClassifier")
            chosen = names["model"].predict_proba(rows).argmax(axis=1)
            error = 100 * np.mean(names["classes"][chosen] != labels)
        else:
            found = example("MLPRegressor")["model"].predict(rows)
            error = np.mean((found - labels) ** 2)
        expected = read_summary(Path("run"))[f"{task}_error"]["test"]
        assert error == pytest.approx(expected, rel=1e-4)


# --- codes and reconstructions as tables


@pytest.mark.parametrize(
    ("command", "split"), [("encode", "train"), ("reconstruct", "test")]
)
def test_tables(runs, tiny, tmp_path, command, split):
    options = ["--split", split]
    for out in ("a.npy", "a.csv"):
        result = launch.run(
            command, runs / "mixed", tiny, "-o", out, *options, cwd=tmp_path
        ).ok()
        assert f"{split} rows to {out}" in result.stdout
    launch.run(command, runs / "mixed", tiny, "-o", "all.hdf5", cwd=tmp_path).ok()
    launch.run("data", "prepare", "a.csv", "-o", "back.h5", cwd=tmp_path).ok()
    with (
        Dataset.open(tmp_path / "all.hdf5") as all_splits,
        Dataset.open(tmp_path / "back.h5") as back,
    ):
        rows, labels = all_splits.rows(split), all_splits.labels(split)
        np.testing.assert_array_equal(back.rows("train"), rows)
        np.testing.assert_array_equal(back.labels("train"), labels)
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows)
    header = (tmp_path / "a.csv").read_text().splitlines()[0]
    assert header.split(",")[-2:] == [f"unit_{rows.shape[1]}", "label"]


# --- mistakes


@pytest.fixture
def folder(tiny, run_copy, rows):
    """Give a folder with a run, and data of all splits, and of one without labels."""
    folder = run_copy.parent
    shutil.copy(tiny, folder / "tiny.h5")
    splits = {"train": Split(rows)}
    write_dataset(folder / "rows.h5", splits, name="rows", origin="", scale=1.0)
    return folder


@pytest.fixture
def refused(folder):
    """Give a function that demands a refusal which leaves the folder as it was."""

    def check(words, *arguments, **options):
        before = contents(folder)
        result = launch.run(*arguments, cwd=folder, **options)
        launch.assert_user_error(result, *words)
        assert result.stdout == ""
        assert contents(folder) == before

    return check


def test_exports_that_cannot_be(refused, folder):
    (folder / "there.npz").mkdir()
    endings = "-o must end in .npz, .safetensors, .onnx, .h5"
    never = "must be of kind 'mpilayer-model'"
    for options, words in (
        (["-o", "model"], [endings, "got model"]),
        (["-o", "model.h5.bak"], [endings, "got model.h5.bak"]),
        (["-o", ".onnx"], [endings, "got .onnx"]),
        (["-o", "tiny.h5", "--replace"], ["tiny.h5", never, "not replaced"]),
        (["-o", "run/checkpoints/layer-1.h5", "--replace"], ["layer-1.h5", never]),
        (["-o", "a.npz", "--part", "encodr"], ["unknown part 'encodr'", "'encoder'?"]),
        (["-o", "a.npz", "--task", "clasify"], ["invalid choice: 'clasify'"]),
        (["-o", "a.npz", "--task", "classify"],
         ["must have a classifier", "--task classify"]),
        *(
            (["-o", out], [f"{out} must be writable", "Nothing was written"])
            for place in ("none", "tiny.h5")
            for out in (f"{place}/model.npz", f"{place}/model.h5")
        ),
        (["-o", "there.npz"], ["there.npz exists"]),
        (["-o", "there.npz", "--replace"], ["there.npz must be writable"]),
    ):  # fmt: skip
        refused(words, "export", "run", *options)
    refused(["must be the directory of a run"], "export", "none", "-o", "model.npz")
    words = ["one process", "2", "without mpiexec"]
    refused(words, "export", "run", "-o", "model.npz", ranks=2)
    (folder / "run" / "checkpoints" / "layer-2.h5").unlink()
    refused(["layer 2 has no checkpoint"], "export", "run", "-o", "model.npz")


@pytest.mark.parametrize("ending", [".NPZ", ".safetensors", ".onnx", ".h5"])
def test_an_older_file_stays_unless_replaced(folder, refused, ending):
    arguments = ["export", "run", "-o", f"model{ending}"]
    launch.run(*arguments, "--part", "encoder", cwd=folder).ok()
    before = (folder / f"model{ending}").read_bytes()
    refused(["must name a new file", f"model{ending} exists", "--replace"], *arguments)
    launch.run(*arguments, "--replace", cwd=folder).ok()
    assert (folder / f"model{ending}").read_bytes() != before


def test_tables_that_cannot_be(refused, folder, runs):
    several = ["of one split", "train, validation, test", "--split"]
    (folder / "there.csv").write_text("precious")
    for data, options, words in (
        ("tiny.h5", ["-o", "out.txt"],
         ["-o must end in .h5, .hdf5, .npy, .csv; got out.txt"]),
        ("tiny.h5", ["-o", "out"], ["-o must end in", "got out"]),
        ("tiny.h5", ["-o", "out.csv"], several),
        ("tiny.h5", ["-o", "out.npy"], several),
        ("tiny.h5", ["-o", "out.h5", "--split", "test"],
         ["--split goes with .npy and .csv"]),
        ("tiny.h5", ["-o", "out.csv", "--split", "tset"],
         ["unknown split 'tset'", "'test'?"]),
        ("tiny.h5", ["-o", "none/out.npy", "--split", "test"],
         ["out.npy must be writable"]),
        ("tiny.h5", ["-o", "tiny.h5", "--replace"],
         ["must not name the data themselves"]),
        ("rows.h5", ["-o", "out.csv", "--split", "test"],
         ["no split 'test'", "it has train"]),
        ("rows.h5", ["-o", "there.csv"], ["there.csv exists", "--replace"]),
        ("none.h5", ["-o", "there.csv", "--replace"],
         ["none.h5 must be an HDF5 file"]),
    ):  # fmt: skip
        refused(words, "encode", "run", data, *options)
    # The only split needs no name.
    arguments = ["encode", runs / "pretrained", "rows.h5", "-o", "there.csv"]
    launch.run(*arguments, "--replace", cwd=folder).ok()
    header, *rows = (folder / "there.csv").read_text().splitlines()
    assert header == "unit_1,unit_2,unit_3,unit_4"
    found = np.loadtxt(rows, np.float32, delimiter=",")
    np.testing.assert_array_equal(found, results(runs, "pretrained")[0])
