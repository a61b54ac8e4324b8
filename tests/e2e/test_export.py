"""Models and codes in files of other programs, read there; the examples of the docs."""

import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import Dataset
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import load_predictor
from mpilayer.runs.tasks import TASKS
from tests.e2e.conftest import LAYERS, contents, read_summary
from tests.support import launch
from tests.support.plain import FUNCTIONS

RUNS = ("pretrained", "finetuned", "mixed", "sparse")
PREDICTORS = {"classify": "classifier", "regress": "regressor"}
KINDS = {"pretrained": ["sigmoid"] * 8, "finetuned": ["sigmoid"] * 8}
KINDS |= {"mixed": ["tanh", "linear", "tanh", "sigmoid"], "sparse": ["tanh"] * 2}
OUTPUTS = {"encode": "codes", "reconstruct": "images"}
DOCS = Path(__file__).parents[2] / "docs" / "export.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def runs(tiny, pretrained, tmp_path_factory):
    """Give a folder with runs of all kinds, their codes and reconstructions."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("pretrained", "finetuned"):
        shutil.copytree(pretrained, folder / name)
    mixed = ["--method", "autoencoder", "--hidden", "tanh", "--code", "linear"]
    mixed += ["--layers", "9,3", "--epochs", 1]
    for arguments in (
        ["finetune", "finetuned", "--epochs", 2, "--optimizer", "adam"],
        ["pretrain", tiny, "--run", "mixed", *mixed],
        ["sparse", tiny, "--run", "sparse", "--hidden", 5, "--evaluations", 5],
        *(
            ["finetune", "mixed", "--task", task, "--epochs", 3, "--optimizer", "adam"]
            for task in PREDICTORS
        ),
        *(
            [command, name, tiny, "-o", f"{name}-{OUTPUTS[command]}.npy"]
            for name in RUNS
            for command in OUTPUTS
        ),
    ):
        more = ["--split", "test"] if arguments[0] in OUTPUTS else []
        more += ["--task", "autoencode"] if arguments[0] == "encode" else []
        launch.run(*arguments, *more, cwd=folder).ok()
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
    return [np.load(runs / f"{name}-{what}.npy") for what in OUTPUTS.values()]


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


@pytest.mark.parametrize("name", RUNS)
def test_onnx(exported, runs, rows, name):
    onnx = pytest.importorskip("onnx", reason="needs mpilayer[export]")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    exported(name, ".onnx")
    onnx.checker.check_model("model.onnx", full_check=True)
    session = example("onnxruntime")["session"]
    outputs = session.run(["code", "reconstruction"], {"visible": rows})
    for found, expected in zip(outputs, results(runs, name), strict=True):
        assert_close(found, expected)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["model"] == ("pretrained" if name == "mixed" else name)
    assert facts["part"] == "whole"


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
def test_numpy(exported, runs, rows, name):
    exported(name, ".npz")
    assert_close(example("def predict")["predict"](rows), results(runs, name)[1])


@pytest.mark.parametrize("name", ["pretrained", "finetuned", "sparse"])
def test_scikit_learn(exported, runs, rows, name):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    exported(name, ".npz")
    found = example("MLPRegressor")["model"].predict(rows)
    assert_close(found, results(runs, name)[1])


@pytest.mark.parametrize("name", ["finetuned", "mixed"])
def test_scikit_learn_has_the_encoder(exported, runs, rows, name):
    """Also of a stack with a linear code."""
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    exported(name, ".npz", "--part", "encoder")
    found = example("MLPRegressor")["model"].predict(rows)
    assert_close(found, results(runs, name)[0])


@pytest.mark.parametrize("name", RUNS)
def test_hdf5(exported, runs, rows, tiny, name):
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


def test_the_encoder_alone(exported, runs, rows):
    pytest.importorskip("onnx", reason="needs mpilayer[export]")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    printed = exported("finetuned", ".onnx", "--part", "encoder").stdout
    sizes = "-".join(map(str, (20, *LAYERS)))
    assert printed == (
        f"wrote the encoder of the finetuned autoencoder {sizes} to model.onnx\n"
    )
    session = runtime.InferenceSession("model.onnx")
    assert [output.name for output in session.get_outputs()] == ["code"]
    (found,) = session.run(None, {"visible": rows})
    assert_close(found, results(runs, "finetuned")[0])


# --- classifiers and regressors


@pytest.fixture(params=PREDICTORS)
def predictor(request, exported, runs, rows):
    """Give a function that exports a predictor, and what should come out of it."""
    task = request.param
    model = load_predictor(RunDirectory(runs / "mixed"), TASKS[task])
    values = rows.astype(float)
    for k, (_, _, kind) in enumerate(model.steps):
        weights, bias = (
            model.parameters[f"{name}_{k}"] for name in ("weights", "bias")
        )
        values = FUNCTIONS[kind](values @ weights + bias)
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
    names = example(*["onnxruntime", "classes"][: 1 + (task == "classify")])
    if task == "classify":
        np.testing.assert_array_equal(names["classes"], np.arange(10))
    session = names["session"]
    name = {"classify": "probabilities", "regress": "prediction"}[task]
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


def test_predictors_in_numpy(predictor, rows):
    _, export, expected = predictor
    export(".npz")
    assert_close(example("def predict")["predict"](rows), expected)


def test_predictors_in_scikit_learn(runs, tiny, pretrained, tmp_path, monkeypatch):
    """Of a stack with one activation, as its multilayer perceptrons have."""
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pretrained, "run")
    for task in PREDICTORS:
        options = ["--task", task, "--epochs", 20, "--optimizer", "adam"]
        launch.run("finetune", "run", *options, cwd=tmp_path).ok()
        # What was trained last is the usual one.
        launch.run("export", "run", "-o", f"{task}.npz", cwd=tmp_path).ok()
    with Dataset.open(tiny) as data:
        rows, labels = data.rows("test"), data.labels("test")
    shutil.copy("classify.npz", "model.npz")
    names = example("MLPClassifier")
    found = names["classes"][names["model"].predict_proba(rows).argmax(axis=1)]
    errors = read_summary(Path("run"))["classify_error"]["test"]
    assert 100 * np.mean(found != labels) == pytest.approx(errors)
    shutil.copy("regress.npz", "model.npz")
    found = example("MLPRegressor")["model"].predict(rows)
    errors = read_summary(Path("run"))["regress_error"]["test"]
    assert np.mean((found - labels) ** 2) == pytest.approx(errors, rel=1e-4)


def test_predictors_in_hdf5(predictor, rows):
    task, export, expected = predictor
    printed = export(".h5").stdout
    assert printed.startswith(f"wrote the {PREDICTORS[task]} 20-9-3-")
    with h5py.File("model.h5") as file:
        facts, last = dict(file.attrs), file["steps/2"]
        assert last["bias"].shape == expected.shape[1:]
        kinds = [file[f"steps/{k}"].attrs["activation"] for k in range(3)]
    assert kinds == ["tanh", "linear", {"classify": "softmax"}.get(task, "linear")]
    assert facts["activations"].split(",") == kinds
    assert facts["model"] == PREDICTORS[task]
    assert facts.get("classes", "") == ("0,1,2,3,4,5,6,7,8,9" * (task == "classify"))


def test_the_encoder_of_a_predictor(predictor, runs, rows, tiny, tmp_path):
    task, export, _ = predictor
    printed = export(".npz", "--part", "encoder").stdout
    assert f"wrote the encoder of the {PREDICTORS[task]} 20-9-3 to" in printed
    options = ["-o", "codes.npy", "--split", "test", "--task", task]
    launch.run("encode", runs / "mixed", tiny, *options, cwd=tmp_path).ok()
    assert_close(example("def predict")["predict"](rows), np.load("codes.npy"))


def test_an_export_changes_nothing_else(exported, runs, tmp_path):
    before = contents(runs)
    exported("sparse", ".NPZ")
    assert contents(runs) == before
    assert list(contents(tmp_path)) == ["model.NPZ"]


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


def test_the_only_split_needs_no_name(runs, tmp_path, rows):
    np.save(tmp_path / "rows.npy", rows)
    for arguments in (
        ["data", "prepare", "rows.npy", "-o", "rows.h5"],
        ["encode", runs / "pretrained", "rows.h5", "-o", "codes.csv"],
    ):
        launch.run(*arguments, cwd=tmp_path).ok()
    header, *rows = (tmp_path / "codes.csv").read_text().splitlines()
    assert header == "unit_1,unit_2,unit_3,unit_4"
    found = np.loadtxt(rows, np.float32, delimiter=",")
    np.testing.assert_array_equal(found, results(runs, "pretrained")[0])


# --- mistakes


@pytest.fixture
def folder(tiny, run_copy):
    """Give a folder with a run as ``run``, and its data as ``tiny.h5``."""
    shutil.copy(tiny, run_copy.parent / "tiny.h5")
    return run_copy.parent


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


@pytest.mark.parametrize("out", ["model", "model.h5.bak", ".onnx"])
def test_unknown_endings(refused, out):
    words = ["-o must end in .npz, .safetensors, .onnx, .h5", f"got {out}"]
    refused(words, "export", "run", "-o", out)


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".onnx", ".h5"])
def test_an_older_file_stays_unless_replaced(folder, refused, ending):
    arguments = ["export", "run", "-o", f"model{ending}"]
    launch.run(*arguments, "--part", "encoder", cwd=folder).ok()
    before = (folder / f"model{ending}").read_bytes()
    refused(["must name a new file", f"model{ending} exists", "--replace"], *arguments)
    launch.run(*arguments, "--replace", cwd=folder).ok()
    assert (folder / f"model{ending}").read_bytes() != before


@pytest.mark.parametrize("out", ["tiny.h5", "run/checkpoints/layer-1.h5"])
def test_data_and_checkpoints_are_never_replaced(refused, out):
    words = [out, "must be of kind 'mpilayer-model'", "not replaced"]
    refused(words, "export", "run", "-o", out, "--replace")


def test_unknown_parts(refused):
    words = ["unknown part 'encodr'; choose from whole, encoder", "'encoder'?"]
    refused(words, "export", "run", "-o", "model.npz", "--part", "encodr")


def test_predictors_that_are_not_there(refused):
    words = ["must have a classifier", "--task classify"]
    refused(words, "export", "run", "-o", "model.npz", "--task", "classify")
    words = ["invalid choice: 'clasify'"]
    refused(words, "export", "run", "-o", "model.npz", "--task", "clasify")


def test_exports_that_have_no_run(folder, refused):
    refused(["must be the directory of a run"], "export", "none", "-o", "model.npz")
    (folder / "run" / "checkpoints" / "layer-2.h5").unlink()
    refused(["layer 2 has no checkpoint"], "export", "run", "-o", "model.npz")


@pytest.mark.parametrize("out", ["none/model", "tiny.h5/model"])
@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_places_that_cannot_be_written(refused, out, ending):
    words = [f"{out}{ending} must be writable", "Nothing was written"]
    refused(words, "export", "run", "-o", f"{out}{ending}")


def test_a_folder_in_the_place_of_the_file(folder, refused):
    (folder / "model.npz").mkdir()
    refused(["model.npz exists"], "export", "run", "-o", "model.npz")
    arguments = ["export", "run", "-o", "model.npz", "--replace"]
    refused(["model.npz must be writable"], *arguments)


def test_exports_take_one_process(refused):
    words = ["one process", "2", "without mpiexec"]
    refused(words, "export", "run", "-o", "model.npz", ranks=2)


@pytest.mark.parametrize("name", ["safetensors", "onnx"])
def test_a_missing_library(folder, refused, tmp_path_factory, name):
    hidden = tmp_path_factory.mktemp("hidden")
    text = f"import sys; sys.modules[{name!r}] = None"
    (hidden / "sitecustomize.py").write_text(text)
    paths = os.pathsep.join([str(hidden), launch.environment()["PYTHONPATH"]])
    variables = {"PYTHONPATH": paths}
    words = [f"needs {name}", "not installed", "pip install 'mpilayer[export]'"]
    refused(words, "export", "run", "-o", f"model.{name}", variables=variables)
    arguments = ["export", "run", "-o", "model.npz"]
    launch.run(*arguments, cwd=folder, variables=variables).ok()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out.txt"], ["-o must end in .h5, .hdf5, .npy, .csv; got out.txt"]),
        (["-o", "out"], ["-o must end in", "got out"]),
        (["-o", "out.csv"], ["of one split", "train, validation, test", "--split"]),
        (["-o", "out.npy"], ["of one split", "train, validation, test", "--split"]),
        (["-o", "out.h5", "--split", "test"], ["--split goes with .npy and .csv"]),
        (["-o", "out.csv", "--split", "tset"], ["unknown split 'tset'", "'test'?"]),
        (["-o", "none/out.npy", "--split", "test"], ["out.npy must be writable"]),
        (["-o", "tiny.h5", "--replace"], ["must not name the data themselves"]),
    ],
    ids=lambda value: "_".join(value).replace("/", ":") if value[0] == "-o" else "",
)
def test_tables_that_cannot_be(refused, options, words):
    refused(words, "encode", "run", "tiny.h5", *options)


def test_missing_data_and_splits(folder, refused, rows):
    np.save(folder / "rows.npy", rows)
    launch.run("data", "prepare", "rows.npy", "-o", "rows.h5", cwd=folder).ok()
    arguments = ["encode", "run", "rows.h5", "-o", "out.csv"]
    refused(["no split 'test'", "it has train"], *arguments, "--split", "test")
    (folder / "out.csv").write_text("precious")
    refused(["out.csv exists", "--replace"], *arguments)
    arguments = ["encode", "run", "none.h5", "-o", "out.csv", "--replace"]
    refused(["none.h5 must be an HDF5 file"], *arguments)
    arguments = ["encode", "run", "rows.h5", "-o", "out.csv", "--replace"]
    launch.run(*arguments, cwd=folder).ok()
