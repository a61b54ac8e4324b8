"""Trained models in files of other programs: npz, safetensors, ONNX, HDF5.

A model is a row of steps f(x · weights + bias). Nothing here knows what trained them: a
model of another kind needs its steps and the names of its outputs, nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import __version__, files, hdf5
from mpilayer.arrays import AnyArray, Array32
from mpilayer.errors import ConfigError

KIND = "mpilayer-model"
FORMAT_VERSION = 1
_HDF5 = ".h5"

# ONNX 1.8, of 2020: whatever runs models today reads it.
_OPSET = 13
_IR_VERSION = 7
# Protocol buffers hold 2 GiB; names and metadata take less than the difference.
_ONNX_LIMIT = 2**31 - 2**20
# Of the linear function none.
_ONNX_OPERATORS = {k: k.title() for k in ("sigmoid", "tanh", "relu", "softmax")}
_SKLEARN_NAMES = {"sigmoid": "logistic", "linear": "identity"}


@dataclass(frozen=True, eq=False)
class Step:
    """One step f(x · weights + bias): weights (n_in, n_out), bias (n_out,).

    The name of f is that of the configuration, or ``softmax``.
    """

    weights: Array32
    bias: Array32
    activation: str


@dataclass(frozen=True, eq=False)
class Model:
    """Steps, and what is known about them."""

    steps: tuple[Step, ...]  # at least one; each takes what the one before gives
    outputs: Mapping[str, int]  # after how many steps: of ``code``, and others
    about: Mapping[str, str]  # what was trained on what; goes into the file

    @property
    def sizes(self) -> list[int]:
        """Units before the first step and after each one."""
        return [self.steps[0].weights.shape[0], *(len(s.bias) for s in self.steps)]

    def facts(self) -> dict[str, str]:
        """Return what every format tells about the model, as texts."""
        return {
            **self.about,
            "creator": f"mpilayer {__version__}",
            "activations": ",".join(step.activation for step in self.steps),
            **{f"{name}_steps": str(n) for name, n in self.outputs.items()},
        }


def write(path: Path, ending: str, model: Model) -> None:
    """Write a model in the format of an ending, one of ``ENDINGS``. Local.

    ConfigError: a library is not installed, or the format does not hold so much.
    """
    if ending == _HDF5:
        _write_hdf5(path, model)
    else:
        files.write(path, _CONTENTS[ending](model))


def check_replaceable(path: Path, ending: str) -> None:
    """Check that an HDF5 file is a model, and not data or a checkpoint."""
    advice = "It is not replaced: choose another name."
    if ending == _HDF5 and path.exists():
        with hdf5.open_read(
            path, kind=KIND, version=FORMAT_VERSION, advise=lambda _: advice
        ):
            pass


def _npz(model: Model) -> bytes:
    """Return ``coefs_k`` and ``intercepts_k`` as scikit-learn's MLP has them.

    ``activations`` are scikit-learn's names; the other facts are texts of their own.
    """
    names = [_SKLEARN_NAMES.get(s.activation, s.activation) for s in model.steps]
    arrays: dict[str, AnyArray] = {k: np.array(v) for k, v in model.facts().items()}
    arrays["activations"] = np.array(names)
    for k, step in enumerate(model.steps):
        arrays[f"coefs_{k}"] = step.weights
        arrays[f"intercepts_{k}"] = step.bias
    out = BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _safetensors(model: Model) -> bytes:
    """Return a file with the keys of a PyTorch ``Sequential``.

    Its module 2k is the ``Linear`` of step k, whose weights are (n_out, n_in); module
    2k + 1 is the activation.
    """
    tensors = {}
    for k, step in enumerate(model.steps):
        tensors[f"{2 * k}.weight"] = np.ascontiguousarray(step.weights.T)
        tensors[f"{2 * k}.bias"] = np.ascontiguousarray(step.bias)
    library = _library("safetensors.numpy")
    content: bytes = library.save(tensors, metadata=model.facts())
    return content


def _onnx(model: Model) -> bytes:
    """Return a file with the input ``visible``: any number of rows, float32."""
    helper, onnx = _library("onnx.helper"), _library("onnx")
    size = sum(step.weights.nbytes + step.bias.nbytes for step in model.steps)
    if size > _ONNX_LIMIT:
        raise ConfigError(
            f"an .onnx file must be smaller than 2 GiB; this model takes {size} bytes. "
            "Export it to .safetensors, .npz or .h5."
        )

    def value(name: str, width: int) -> Any:
        shape = ["rows", width]
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    names = {n: name for name, n in model.outputs.items()}
    nodes, tensors, before = [], [], "visible"
    for k, step in enumerate(model.steps):
        weights, bias = f"weights_{k}", f"bias_{k}"
        for name, array in ((weights, step.weights), (bias, step.bias)):
            content = np.ascontiguousarray(array)
            tensors.append(onnx.numpy_helper.from_array(content, name))
        operator = _ONNX_OPERATORS.get(step.activation)
        after = names.get(k + 1, f"value_{k}")
        total = f"sum_{k}" if operator else after
        nodes.append(helper.make_node("Gemm", [before, weights, bias], [total]))
        if operator:
            nodes.append(helper.make_node(operator, [total], [after]))
        before = after
    outputs = [value(name, model.sizes[n]) for name, n in model.outputs.items()]
    proto = helper.make_model(
        helper.make_graph(
            nodes, "mpilayer", [value("visible", model.sizes[0])], outputs, tensors
        ),
        producer_name="mpilayer",
        producer_version=__version__,
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    helper.set_model_props(proto, model.facts())
    result: bytes = proto.SerializeToString()
    return result


def _write_hdf5(path: Path, model: Model) -> None:
    """Write a model as docs/formats.md says."""
    with hdf5.create(path, kind=KIND, version=FORMAT_VERSION) as file:
        file.attrs.update({**model.facts(), "n_steps": len(model.steps)})
        for k, step in enumerate(model.steps):
            group = file.create_group(f"steps/{k}")
            group["weights"] = step.weights
            group["bias"] = step.bias
            group.attrs["activation"] = step.activation


_CONTENTS: Mapping[str, Callable[[Model], bytes]] = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".onnx": _onnx,
}

ENDINGS = (*_CONTENTS, _HDF5)
"""What a model can be written to."""


def _library(name: str) -> Any:
    """Return a module that the ``export`` extra brings."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(
            f"a file that ends in .{package} needs {package}, which is not installed. "
            "Install it with: pip install 'mpilayer[export]'"
        ) from error
