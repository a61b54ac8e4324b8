"""Models in files of other programs: content, facts, and what is refused."""

import sys
from itertools import pairwise

import h5py
import numpy as np
import pytest

from mpilayer import __version__, hdf5
from mpilayer.errors import ConfigError, DataError
from mpilayer.numerics.activations import ACTIVATIONS
from mpilayer.store import export
from tests.support.plain import FUNCTIONS

SIZES = (6, 5, 3, 5, 6)
KINDS = ("tanh", "linear", "relu", "sigmoid")
ROWS = np.random.default_rng(1).standard_normal((7, 6)).astype(np.float32)
ABOUT = {"model": "finetuned", "data": "Ziffern, größere", "data_digest": "12ab"}
FACTS = {
    **ABOUT,
    "creator": f"mpilayer {__version__}",
    "code_steps": "2",
    "reconstruction_steps": "4",
    "activations": ",".join(KINDS),
}


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def make(kinds=KINDS, sizes=SIZES, outputs=None):
    """Return a model with random weights."""
    rng = np.random.default_rng(0)
    steps = [
        export.Step(
            # Transposed views, as weights that are tied may be.
            rng.standard_normal((n_out, n_in)).astype(np.float32).T,
            rng.standard_normal(n_out).astype(np.float32),
            kind,
        )
        for n_in, n_out, kind in zip(sizes[:-1], sizes[1:], kinds, strict=True)
    ]
    outputs = outputs or {"code": 2, "reconstruction": 4}
    return export.Model(tuple(steps), outputs, ABOUT)


def expected(model, n_steps):
    """Return what the first steps make of the rows, in float64."""
    values = ROWS.astype(float)
    for step in model.steps[:n_steps]:
        function = {**FUNCTIONS, "softmax": softmax}[step.activation]
        values = function(values @ step.weights + step.bias)
    return values


@pytest.fixture
def written(tmp_path):
    """Give a function that writes a model, and returns where it is."""

    def write(ending, model=None):
        path = tmp_path / f"model{ending}"
        export.write(path, ending, model or make())
        return path

    return write


def session(path):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_npz(written):
    model = make()
    assert model.sizes == list(SIZES)
    with np.load(written(".npz")) as file:
        found = {name: file[name] for name in file.files}
    kinds = ["tanh", "identity", "relu", "logistic"]
    assert found.pop("activations").tolist() == kinds
    facts = {k: v.item() for k, v in found.items() if v.ndim == 0}
    assert {**facts, "activations": ",".join(KINDS)} == FACTS
    for k, step in enumerate(model.steps):
        np.testing.assert_array_equal(found[f"coefs_{k}"], step.weights)
        np.testing.assert_array_equal(found[f"intercepts_{k}"], step.bias)
        assert found[f"coefs_{k}"].dtype == np.float32
    assert "coefs_4" not in found


def test_safetensors(written):
    library = pytest.importorskip("safetensors", reason="needs mpilayer[export]")
    with library.safe_open(written(".safetensors"), "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert file.metadata() == FACTS
    for k, step in enumerate(make().steps):
        np.testing.assert_array_equal(found.pop(f"{2 * k}.weight"), step.weights.T)
        np.testing.assert_array_equal(found.pop(f"{2 * k}.bias"), step.bias)
    assert not found


def test_onnx_is_well_formed_and_old(written):
    onnx = pytest.importorskip("onnx", reason="needs mpilayer[export]")
    proto = onnx.load(written(".onnx"))
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.ir_version, proto.opset_import[0].version) == (7, 13)
    assert (proto.producer_name, proto.producer_version) == ("mpilayer", __version__)
    assert {entry.key: entry.value for entry in proto.metadata_props} == FACTS
    operators = [node.op_type for node in proto.graph.node]
    assert operators == ["Gemm", "Tanh", "Gemm", "Gemm", "Relu", "Gemm", "Sigmoid"]


CASES = [((kind,), {"prediction": 1}) for kind in (*ACTIVATIONS, "softmax")]
CASES += [(KINDS, {"code": 2, "reconstruction": 4})]


@pytest.mark.parametrize(("kinds", "outputs"), CASES)
def test_onnx_runs_with_all_activations_and_any_number_of_rows(written, kinds, outputs):
    pytest.importorskip("onnx", reason="needs mpilayer[export]")
    model = make(kinds, SIZES[: len(kinds) + 1], outputs)
    running = session(written(".onnx", model))
    assert [item.name for item in running.get_inputs()] == ["visible"]
    assert [item.name for item in running.get_outputs()] == list(outputs)
    for n in (7, 1):
        found = running.run(None, {"visible": ROWS[:n]})
        for array, n_steps in zip(found, outputs.values(), strict=True):
            np.testing.assert_allclose(array, expected(model, n_steps)[:n], atol=1e-5)


def test_onnx_cannot_hold_more_than_2_gib(written, monkeypatch):
    pytest.importorskip("onnx", reason="needs mpilayer[export]")
    size = 4 * sum(a * b + b for a, b in pairwise(SIZES))
    monkeypatch.setattr(export, "_ONNX_LIMIT", size)
    written(".onnx")
    monkeypatch.setattr(export, "_ONNX_LIMIT", size - 1)
    with pytest.raises(ConfigError, match=rf"2 GiB.*{size} bytes.*\.safetensors"):
        written(".onnx")


def test_hdf5(written):
    path = written(".h5")
    for replaceable in (path, path.with_name("none.h5")):
        export.check_replaceable(replaceable, ".h5")
    with h5py.File(path) as file:
        hdf5.verify_digest(file, path, DataError)
        assert FACTS.items() <= dict(file.attrs).items()
        assert hdf5.text(file, "kind") == export.KIND
        assert file.attrs["format_version"] == 1
        assert len(file["steps"]) == file.attrs["n_steps"] == 4
        for k, step in enumerate(make().steps):
            group = file[f"steps/{k}"]
            np.testing.assert_array_equal(group["weights"], step.weights)
            np.testing.assert_array_equal(group["bias"], step.bias)
            assert group.attrs["activation"] == step.activation

    with hdf5.create(path, kind="mpilayer-dataset", version=1):
        pass
    with pytest.raises(DataError, match=r"found 'mpilayer-dataset'.*not replaced"):
        export.check_replaceable(path, ".h5")


@pytest.mark.parametrize("name", ["safetensors", "onnx"])
def test_a_missing_library(written, monkeypatch, name):
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"{name}.*not installed.*mpilayer\[export"):
        written(f".{name}")
