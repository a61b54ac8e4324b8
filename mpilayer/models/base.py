"""What every layer offers, so that any schedule can train any of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

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


class Layer(ABC):
    """One layer of a stack, with one hidden layer of its own. All calls are local.

    Its parameters are ``weights`` W (n_visible, n_hidden), ``visible_bias`` b and
    ``hidden_bias`` c; ``decode_weights`` (n_hidden, n_visible) if they are not Wᵀ.
    """

    def __init__(self, shape: LayerShape, tied: bool = True) -> None:
        self.shape = shape
        self.tied = tied
        shapes: Shapes = {
            "weights": (shape.n_visible, shape.n_hidden),
            "visible_bias": (shape.n_visible,),
            "hidden_bias": (shape.n_hidden,),
        }
        untied = {} if tied else {"decode_weights": (shape.n_hidden, shape.n_visible)}
        self.parameters = Parameters({**shapes, **untied})
        self.workspace = Workspace()

    @property
    def decode_weights(self) -> Array32:
        """The weights of the decoder, (n_hidden, n_visible)."""
        p = self.parameters
        return p["weights"].T if self.tied else p["decode_weights"]

    def encode(self, visible: Array32, out: Array32 | None = None) -> Array32:
        """Return f(vW + c), (n_samples, n_hidden), of visible rows."""
        p = self.parameters
        return affine(visible, p["weights"], p["hidden_bias"], self.shape.hidden, out)

    def decode(self, hidden: Array32, out: Array32 | None = None) -> Array32:
        """Return g(hWᵀ + b), the reconstruction (n_samples, n_visible)."""
        bias, kind = self.parameters["visible_bias"], self.shape.visible
        return affine(hidden, self.decode_weights, bias, kind, out)

    def minibatch(self, n_samples: int) -> Array32:
        """Return the buffer (n_samples, n_visible) that ``gradient`` likes best."""
        return self.workspace.array("minibatch", (n_samples, self.shape.n_visible))

    @abstractmethod
    def gradient(
        self,
        visible: Array32,
        rng: np.random.Generator,
        scale: float,
        part_done: PartDone,
    ) -> Array32:
        """Compute ``scale`` times the summed gradient of a minibatch, part by part.

        Parameters
        ----------
        visible : ndarray (n_samples, n_visible)
            The minibatch; best in the buffer that ``minibatch`` returns, which may be
            used up. Any other array stays as it is.
        rng : numpy.random.Generator
            For models that sample.
        scale : float
            Such as learning rate / rows.
        part_done : callable
            Receives scale · Σ_rows ∂cost/∂parameters (for contrastive divergence: the
            negative of its ascent direction); see ``PartDone``.

        Returns
        -------
        ndarray (n_samples, n_hidden)
            The hidden activations of the minibatch under the parameters it was met
            with; valid until the next call.
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
