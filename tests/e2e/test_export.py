"""Models and codes in files of other programs, read there; the examples of the docs."""

import re
import shutil

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.split import Split
from tests.support import launch
from tests.support.command import refuse, said
from tests.support.small import contents

# Run, task, what it is said to be, and the activations.
MODELS = {
    "pretrained": ("pretrained", "autoencode", "pretrained", ("sigmoid",) * 8),
    "finetuned": ("finetuned", "autoencode", "finetuned", ("sigmoid",) * 8),
    "mixed": ("mixed", "autoencode", "pretrained",
              ("tanh", "linear", "tanh", "sigmoid")),
    "sparse": ("sparse", "autoencode", "sparse", ("tanh",) * 2),
    "classifier": ("mixed", "classify", "classifier", ("tanh", "linear", "softmax")),
    "regressor": ("mixed", "regress", "regressor", ("tanh", "linear", "linear")),
    # With one activation, as scikit-learn's multilayer perceptrons have.
    "sigmoid classifier": ("labelled", "classify", "classifier",
                           ("sigmoid",) * 4 + ("softmax",)),
    "sigmoid regressor": ("labelled", "regress", "regressor",
                          ("sigmoid",) * 4 + ("linear",)),
}  # fmt: skip
WORDS = {"autoencode": "reconstruct", "classify": "predict", "regress": "predict"}
EXAMPLES = re.findall(
    r"```python\n(.*?)```", (launch.ROOT / "docs" / "export.md").read_text(), re.DOTALL
)
PARTS = ("whole", "encoder")


@pytest.fixture(scope="module")
def runs(tiny, pretrained, tmp_path_factory):
    """Give a folder with runs of all kinds, and what mpilayer itself makes of them."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(tiny, folder / "tiny.h5")
    for name in ("pretrained", "finetuned", "labelled"):
        shutil.copytree(pretrained, folder / name)
    kinds = "--method autoencoder --hidden tanh --code linear"
    descent = "--epochs 3 --optimizer adam"
    for line in (
        f"finetune finetuned {descent}",
        f"pretrain tiny.h5 --run mixed {kinds} --layers 9,3 --epochs 1",
        "sparse tiny.h5 --run sparse --hidden 5 --evaluations 5",
        *(f"finetune {run} --task {task} {descent}"
          for run in ("mixed", "labelled") for task in ("classify", "regress")),
    ):  # fmt: skip
        said(folder, line)
    for model, (run, task, *_) in MODELS.items():
        out = model.replace(" ", "-")
        for part, command in zip(PARTS, (WORDS[task], "encode"), strict=True):
            given = "" if command == "reconstruct" else f"--task {task}"
            line = f"{command} {run} tiny.h5 -o {out}-{part}.npy --split test"
            said(folder, f"{line} {given}")
    return folder


@pytest.fixture
def exported(runs, tmp_path, monkeypatch):
    """Give a function that exports to the current folder, as the examples read it."""
    monkeypatch.chdir(tmp_path)

    def export(model, ending, part="whole"):
        run, task, *_ = MODELS[model]
        line = f"export {runs / run} -o model{ending} --task {task} --part {part}"
        assert said(tmp_path, line).startswith("wrote the ")

    return export


@pytest.fixture
def rows(tiny):
    """Give the test rows of the small data set."""
    with Dataset.open(tiny) as data:
        return data.rows("test")


def example(*words):
    """Run the first example of the docs that has all the words; return its names."""
    text = next(text for text in EXAMPLES if all(word in text for word in words))
    names = {}
    exec(text, names)
    return names


def assert_right(values, runs, model, part="whole"):
    """Demand what mpilayer has written itself."""
    expected = np.load(runs / f"{model.replace(' ', '-')}-{part}.npy")
    assert values.shape == expected.shape
    np.testing.assert_allclose(values, expected, atol=1e-5)


# --- each format in its own program


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("model", list(MODELS)[:6])
def test_onnx(exported, runs, rows, model, part):
    onnx = pytest.importorskip("onnx", reason="needs mpilayer[export]")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    exported(model, ".onnx", part)
    onnx.checker.check_model("model.onnx", full_check=True)
    if (model, part) == ("classifier", "whole"):
        names = example("onnxruntime", "classes")
        np.testing.assert_array_equal(names["classes"], np.arange(10))
    else:
        names = example("onnxruntime")
    session = names["session"]
    last = {"classifier": "probabilities", "regressor": "prediction"}
    outputs = ["code", last.get(model, "reconstruction")]
    outputs = outputs if part == "whole" else outputs[:1]
    assert [output.name for output in session.get_outputs()] == outputs
    values = session.run(outputs, {"visible": rows})
    for found, made in zip(values, ("encoder", "whole"), strict=False):
        assert_right(found, runs, model, made)
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["model"], facts["part"]) == (MODELS[model][2], part)


@pytest.mark.parametrize("model", list(MODELS)[:6])
def test_pytorch(exported, runs, rows, model):
    pytest.importorskip("safetensors", reason="needs mpilayer[export]")
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    exported(model, ".safetensors")
    choices = [["safetensors", "metadata"]]
    choices += [["nn.Sigmoid()])"]] * (set(MODELS[model][3]) == {"sigmoid"})
    for words in choices:
        found = example(*words)["model"](torch.from_numpy(rows)).detach().numpy()
        assert_right(found, runs, model)


@pytest.mark.parametrize("model", list(MODELS)[:6])
def test_numpy(exported, runs, rows, tiny, tmp_path, model):
    before = contents(runs)
    exported(model, ".npz")
    assert contents(runs) == before
    assert list(contents(tmp_path)) == ["model.npz"]
    assert_right(example("def predict")["predict"](rows), runs, model)
    exported(model, ".h5")
    with h5py.File("model.h5") as file, Dataset.open(tiny) as data:
        facts = dict(file.attrs)
        assert facts["data_digest"] == data.digest
    assert (facts["data"], facts["model"]) == ("tiny", MODELS[model][2])
    assert tuple(facts["activations"].split(",")) == MODELS[model][3]
    classes = "0,1,2,3,4,5,6,7,8,9" if model == "classifier" else ""
    assert facts.get("classes", "") == classes


@pytest.mark.parametrize(
    ("model", "part"),
    [
        *((model, "whole") for model in MODELS if "tanh" not in MODELS[model][3]),
        ("sparse", "whole"),
        # Whose code is linear: as a whole they have several activations.
        *((model, "encoder") for model in ("mixed", "finetuned", "regressor")),
    ],
)
def test_scikit_learn(exported, runs, rows, model, part):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    exported(model, ".npz", part)
    if model == "sigmoid classifier":
        names = example("MLPClassifier")
        np.testing.assert_array_equal(names["classes"], np.arange(10))
        found = names["model"].predict_proba(rows)
    else:
        found = example("MLPRegressor")["model"].predict(rows)
    if model == "sigmoid regressor":
        found = found[:, np.newaxis]
    assert_right(found, runs, model, part)


@pytest.mark.parametrize(
    ("command", "split"), [("encode", "train"), ("reconstruct", "test")]
)
def test_tables(runs, tiny, tmp_path, command, split):
    task = "--task autoencode" if command == "encode" else ""
    line = f"{command} {runs / 'mixed'} {tiny} {task} -o"
    for out in ("a.npy", "a.csv"):
        assert f"{split} rows to {out}" in said(
            tmp_path, f"{line} {out} --split {split}"
        )
    said(tmp_path, f"{line} all.hdf5")
    said(tmp_path, "data prepare a.csv -o back.h5")
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


def test_the_only_split_needs_no_name(folder, runs):
    said(folder, "encode run rows.h5 -o there.csv --replace")
    header, *lines = (folder / "there.csv").read_text().splitlines()
    assert header == "unit_1,unit_2,unit_3,unit_4"
    assert_right(np.loadtxt(lines, delimiter=","), runs, "pretrained", "encoder")


# --- mistakes


@pytest.fixture
def folder(tiny, run_copy, rows):
    """Give a folder with a run, and data of all splits, and of one without labels."""
    folder = run_copy.parent
    shutil.copy(tiny, folder / "tiny.h5")
    splits = {"train": Split(rows)}
    write_dataset(folder / "rows.h5", splits, name="rows", origin="", scale=1.0)
    shutil.copytree(run_copy, folder / "half")
    (folder / "half" / "checkpoints" / "layer-2.h5").unlink()
    (folder / "there.npz").mkdir()
    (folder / "there.csv").write_text("precious")
    return folder


ENDINGS = "-o must end in .npz, .safetensors, .onnx, .h5"
TABLES = "-o must end in .h5, .hdf5, .npy, .csv"
NEVER = "must be of kind 'mpilayer-model'"
SEVERAL = ("of one split", "train, validation, test", "--split")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mpiexec -n 2 export run -o model.npz",
         ("one process", "2", "without mpiexec")),
        ("export run -o model", (ENDINGS, "got model")),
        ("export run -o .onnx", (ENDINGS, "got .onnx")),
        ("export run -o tiny.h5 --replace", ("tiny.h5", NEVER, "not replaced")),
        ("export run -o run/checkpoints/layer-1.h5 --replace", ("layer-1.h5", NEVER)),
        ("export run -o a.npz --part encodr", ("unknown part 'encodr'", "'encoder'?")),
        ("export run -o a.npz --task clasify", ("invalid choice: 'clasify'",)),
        ("export run -o a.npz --task classify",
         ("must have a classifier", "--task classify")),
        *((f"export run -o {place}/m{ending}",
           (f"{place}/m{ending} must be writable", "Nothing was written"))
          for place in ("none", "tiny.h5") for ending in (".npz", ".h5")),
        ("export run -o there.npz", ("there.npz exists",)),
        ("export run -o there.npz --replace", ("there.npz must be writable",)),
        ("export half -o model.npz", ("layer 2 has no checkpoint",)),
        ("encode run tiny.h5 -o out", (TABLES, "got out")),
        ("encode run tiny.h5 -o out.csv", SEVERAL),
        ("encode run tiny.h5 -o out.h5 --split test",
         ("--split goes with .npy and .csv",)),
        ("encode run tiny.h5 -o out.csv --split tset",
         ("unknown split 'tset'", "'test'?")),
        ("encode run tiny.h5 -o none/out.npy --split test",
         ("out.npy must be writable",)),
        ("encode run tiny.h5 -o tiny.h5 --replace",
         ("must not name the data themselves",)),
        ("encode run rows.h5 -o out.csv --split test",
         ("no split 'test'", "it has train")),
        ("encode run rows.h5 -o there.csv", ("there.csv exists", "--replace")),
        ("encode run none.h5 -o there.csv --replace",
         ("none.h5 must be an HDF5 file",)),
    ],
)  # fmt: skip
def test_what_is_refused(folder, line, words):
    refuse(folder, line, *words)


@pytest.mark.parametrize("ending", [".NPZ", ".safetensors", ".onnx", ".h5"])
def test_an_older_file_stays_unless_replaced(folder, ending):
    line, path = f"export run -o model{ending}", folder / f"model{ending}"
    said(folder, f"{line} --part encoder")
    before = path.read_bytes()
    words = ("must name a new file", f"model{ending} exists", "--replace")
    refuse(folder, line, *words)
    said(folder, f"{line} --replace")
    assert path.read_bytes() != before
