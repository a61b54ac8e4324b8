"""What every layer offers, so that any schedule can train any of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.numerics.activations import activation
from mpilayer.numerics.parameters import Parameters, Shapes

PartDone = Callable[[slice, Array32], None]
"""Receives the gradient of each part of the parameter vector: where, and the numbers.

Called as soon as they are complete and the parameters there are no longer needed in
this step, so that they can be used, or sent, while they are in the cache. The array may
be used up; it is valid until the call returns, or longer if the model was given it.
"""


@dataclass(frozen=True)
class LayerShape:
    """Units of a layer and the activations at its two ends.

    ``visible`` is that of the reconstruction. In an RBM ``sigmoid`` means Bernoulli
    units, ``linear`` Gaussian ones of unit variance.
    """

    n_visible: int
    n_hidden: int
    visible: str = "sigmoid"
    hidden: str = "sigmoid"

    @property
    def cost(self) -> int:
        """Multiply-adds of one row through the layer: what an epoch's time follows."""
        return self.n_visible * self.n_hidden


class _Units:
    """Hidden units of a layer, all or some, and their parameters."""

    def __init__(self, shape: LayerShape, tied: bool, parameters: Parameters) -> None:
        self.shape, self.tied, self.parameters = shape, tied, parameters

    @property
    def decode_weights(self) -> Array32:
        """The weights of the decoder, (n_hidden, n_visible)."""
        p = self.parameters
        return p["weights"].T if self.tied else p["decode_weights"]

    def encode(self, visible: Array32, out: Array32 | None = None) -> Array32:
        """Return f(vW + c), (n_samples, n_hidden), of visible rows."""
        p = self.parameters
        return affine(visible, p["weights"], p["hidden_bias"], self.shape.hidden, out)


class Layer(_Units, ABC):
    """One layer of a stack, with one hidden layer of its own. All calls are local.

    Its parameters are ``weights`` W (n_visible, n_hidden), ``visible_bias`` b and
    ``hidden_bias`` c; ``decode_weights`` (n_hidden, n_visible) if they are not Wᵀ.
    They are zeros, unless their ``vector`` is given.
    """

    n_passes = 1
    """How often the visible units are computed in a step."""

    phases = 1
    """Rows of what slices learn from, over those of a minibatch."""

    def __init__(
        self, shape: LayerShape, tied: bool = True, vector: AnyArray | None = None
    ) -> None:
        shapes = parameter_shapes(shape, tied)
        super().__init__(shape, tied, Parameters(shapes, vector=vector))

    def decode(self, hidden: Array32, out: Array32 | None = None) -> Array32:
        """Return g(hWᵀ + b), the reconstruction (n_samples, n_visible)."""
        bias, kind = self.parameters["visible_bias"], self.shape.visible
        return affine(hidden, self.decode_weights, bias, kind, out)

    @abstractmethod
    def slice(self, units: slice) -> "Slice":
        """Return some of the hidden units, for training; their weights are zeros."""

    @abstractmethod
    def contrast(
        self, data: Array32, reconstruction: Array32, scale: float, out: Array32
    ) -> Array32:
        """Write into ``out`` what slices learn from: a step's last visible pass.

        Elementwise on any columns of a minibatch, (n_samples, columns), and of ``out``
        (``phases`` · n_samples, columns). Return scale · Σ_rows ∂cost/∂visible_bias,
        (columns,); for contrastive divergence the negative of its ascent direction.
        """


def parameter_shapes(shape: LayerShape, tied: bool) -> Shapes:
    """Return names and shapes of a layer's parameters, in their order."""
    n_visible, n_hidden = shape.n_visible, shape.n_hidden
    shapes: Shapes = {
        "weights": (n_visible, n_hidden),
        "visible_bias": (n_visible,),
        "hidden_bias": (n_hidden,),
    }
    return shapes if tied else {**shapes, "decode_weights": (n_hidden, n_visible)}


class Slice(_Units, ABC):
    """Some hidden units of a layer in training, with weights of their own, contiguous.

    A step is made slice by slice, each by whoever has it, and the visible units add up
    what all slices put in: so no number depends on who computes what, but the products
    have the shapes of the slices. The parameters are those of a layer of so many hidden
    units, but for ``visible_bias``. All calls are local.
    """

    def __init__(self, layer: Layer, units: slice) -> None:
        shape = replace(layer.shape, n_hidden=units.stop - units.start)
        shapes = dict(parameter_shapes(shape, layer.tied))
        del shapes["visible_bias"]
        super().__init__(shape, layer.tied, Parameters(shapes))
        self.units, self.workspace = units, Workspace()

    def of(self, whole: Parameters) -> dict[str, AnyArray]:
        """Return the views of a layer's parameters that belong to these units."""
        views = {
            "weights": whole["weights"][:, self.units],
            "hidden_bias": whole["hidden_bias"][self.units],
        }
        if not self.tied:
            views["decode_weights"] = whole["decode_weights"][self.units]
        return views

    @abstractmethod
    def rise(
        self, visible: Array32, first: bool, rng: np.random.Generator, out: Array32
    ) -> Array32:
        """Write hW_sᵀ into ``out``: what the units h put into the visible ones.

        ``first``: the visible rows (n_samples, n_visible) are data. ``rng`` is for
        models that sample. Return the activations of the units (n_samples, width);
        valid until the next step.
        """

    @abstractmethod
    def learn(
        self,
        data: Array32,
        reconstruction: Array32,
        contrast: Array32,
        scale: float,
        part_done: PartDone,
    ) -> None:
        """Compute ``scale`` times the summed gradient of a minibatch, part by part.

        After the last ``rise``. ``part_done`` receives scale · Σ_rows ∂cost/∂parameters
        (for contrastive divergence: the negative of its ascent direction); see
        ``PartDone``. ``contrast`` is what ``Layer.contrast`` has written.
        """


_SIZES = 16


class Workspace:
    """Arrays that live from one minibatch to the next; not of too many sizes."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...]], AnyArray] = {}

    def array(
        self, name: str, shape: tuple[int, ...], dtype: type = np.float32
    ) -> AnyArray:
        """Return the array of a name and shape; it keeps what the last use left."""
        key = (name, shape)
        if key not in self._arrays:
            # Where ranks share minibatches their sizes vary all the time.
            if sum(name == other for other, _ in self._arrays) == _SIZES:
                self._arrays.clear()
            self._arrays[key] = np.empty(shape, dtype)
        return self._arrays[key]


def affine(
    rows: Array32, weights: Array32, bias: Array32, kind: str, out: Array32 | None
) -> Array32:
    """Return f(rows · weights + bias), written to ``out`` where given."""
    result: Array32 = np.matmul(rows, weights, out=out)
    result += bias
    activation(kind).apply(result)
    return result
