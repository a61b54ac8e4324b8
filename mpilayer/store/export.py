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

from mpilayer import __version__, hdf5
from mpilayer.arrays import AnyArray, Array32
from mpilayer.errors import ConfigError

KIND = "mpilayer-model"
FORMAT_VERSION = 1
HDF5 = ".h5"

# ONNX 1.8, of 2020: whatever runs models today reads it.
_OPSET = 13
_IR_VERSION = 7
# Protocol buffers hold 2 GiB; names and metadata take less than the difference.
_ONNX_LIMIT = 2**31 - 2**20
_ONNX_OPERATORS = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "linear": "",  # none is needed
    "softmax": "Softmax",
}
_SKLEARN_NAMES = {"sigmoid": "logistic", "linear": "identity"}


@dataclass(frozen=True, eq=False)
class Step:
    """One step f(x · weights + bias).

    Attributes
    ----------
    weights : ndarray of float32, (n_in, n_out)
    bias : ndarray of float32, (n_out,)
    activation : str
        Name of f, as in the configuration, or ``softmax``.
    """

    weights: Array32
    bias: Array32
    activation: str


@dataclass(frozen=True, eq=False)
class Model:
    """Steps, first one first, and what is known about them.

    Attributes
    ----------
    steps : tuple of Step
        At least one; each takes what the one before gives.
    outputs : mapping of str to int
        Name of an output to the number of steps that make it; the last is that of all
        steps. An autoencoder has ``code`` and ``reconstruction``.
    about : mapping of str to str
        What was trained on what; goes into the file.
    """

    steps: tuple[Step, ...]
    outputs: Mapping[str, int]
    about: Mapping[str, str]

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


def npz(model: Model) -> bytes:
    """Return a .npz file: ``coefs_k``, ``intercepts_k`` as scikit-learn's MLP has them.

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


def safetensors(model: Model) -> bytes:
    """Return a .safetensors file, with the keys of a PyTorch ``Sequential``.

    Its module 2k is the ``Linear`` of step k, whose weights are (n_out, n_in); module
    2k + 1 is the activation.

    Raises
    ------
    ConfigError
        The library is not installed.
    """
    tensors = {}
    for k, step in enumerate(model.steps):
        tensors[f"{2 * k}.weight"] = np.ascontiguousarray(step.weights.T)
        tensors[f"{2 * k}.bias"] = np.ascontiguousarray(step.bias)
    library = _library("safetensors.numpy")
    content: bytes = library.save(tensors, metadata=model.facts())
    return content


def onnx(model: Model) -> bytes:
    """Return an .onnx file: input ``visible``, any number of rows, float32.

    Its outputs are those of the model.

    Raises
    ------
    ConfigError
        The library is not installed, or the weights are more than the format holds.
    """
    helper = _library("onnx.helper")
    size = sum(step.weights.nbytes + step.bias.nbytes for step in model.steps)
    if size > _ONNX_LIMIT:
        raise ConfigError(
            f"an .onnx file must be smaller than 2 GiB; this model takes {size} bytes. "
            "Export it to .safetensors, .npz or .h5."
        )
    graph = helper.make_graph(
        _onnx_nodes(model),
        "mpilayer",
        [_onnx_value("visible", model.sizes[0])],
        [_onnx_value(name, model.sizes[n]) for name, n in model.outputs.items()],
        _onnx_weights(model),
    )
    proto = helper.make_model(
        graph,
        producer_name="mpilayer",
        producer_version=__version__,
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    helper.set_model_props(proto, model.facts())
    content: bytes = proto.SerializeToString()
    return content


def _onnx_nodes(model: Model) -> list[Any]:
    make = _library("onnx.helper").make_node
    outputs = {n: name for name, n in model.outputs.items()}
    nodes, before = [], "visible"
    for k, step in enumerate(model.steps):
        operator = _ONNX_OPERATORS[step.activation]
        value = outputs.get(k + 1, f"value_{k}")
        total = f"sum_{k}" if operator else value
        nodes.append(make("Gemm", [before, f"weights_{k}", f"bias_{k}"], [total]))
        if operator:
            nodes.append(make(operator, [total], [value]))
        before = value
    return nodes


def _onnx_weights(model: Model) -> list[Any]:
    tensor = _library("onnx.numpy_helper").from_array
    return [
        tensor(np.ascontiguousarray(array), f"{name}_{k}")
        for k, step in enumerate(model.steps)
        for name, array in (("weights", step.weights), ("bias", step.bias))
    ]


def _onnx_value(name: str, width: int) -> Any:
    library = _library("onnx")
    return library.helper.make_tensor_value_info(
        name, library.TensorProto.FLOAT, ["rows", width]
    )


def write_hdf5(path: Path, model: Model) -> None:
    """Write a model as HDF5, see docs/formats.md; local.

    Raises
    ------
    DataError
        The folder cannot be written, or the disk is full; an old file is untouched.
    """
    with hdf5.create(path, kind=KIND, version=FORMAT_VERSION) as file:
        for name, text in model.facts().items():
            file.attrs[name] = text
        file.attrs["n_steps"] = len(model.steps)
        for k, step in enumerate(model.steps):
            group = file.create_group(f"steps/{k}")
            group["weights"] = step.weights
            group["bias"] = step.bias
            group.attrs["activation"] = step.activation


def check_hdf5(path: Path) -> None:
    """Check that a file holds a model, and not data or a checkpoint.

    Raises
    ------
    DataError
        It does not.
    """
    with hdf5.open_read(
        path,
        kind=KIND,
        version=FORMAT_VERSION,
        advise=lambda _: "It is not replaced: choose another name.",
    ):
        pass


CONTENTS: Mapping[str, Callable[[Model], bytes]] = {
    ".npz": npz,
    ".safetensors": safetensors,
    ".onnx": onnx,
}
"""Ending to what makes the bytes of such a file."""

ENDINGS = (*CONTENTS, HDF5)
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
