"""Autoencoder with one hidden layer, trained by backpropagation."""

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.models.base import LayerShape, PartDone, Workspace, affine
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import check_loss, loss_value, output_delta
from mpilayer.numerics.parameters import Parameters


class Autoencoder:
    """One hidden layer: x̂ = g(f(xW + c) Wᵀ + b), or with decode weights of its own.

    Parameters
    ----------
    shape : LayerShape
        Sizes and activations: f is ``shape.hidden``, g is ``shape.visible``.
    tied : bool
        The decoder uses Wᵀ; else ``decode_weights`` (n_hidden, n_visible).
    loss : str
        ``squared`` or ``cross-entropy``.

    Raises
    ------
    ConfigError
        Cross entropy of an output that is not a probability.

    Notes
    -----
    A method of pre-training of Santara et al. 2016 §2.3.
    """

    def __init__(
        self, shape: LayerShape, tied: bool = True, loss: str = "squared"
    ) -> None:
        check_loss(loss, shape.visible)
        self.shape = shape
        self.tied = tied
        self.loss = loss
        shapes: dict[str, tuple[int, ...]] = {
            "weights": (shape.n_visible, shape.n_hidden),
            "visible_bias": (shape.n_visible,),
            "hidden_bias": (shape.n_hidden,),
        }
        if not tied:
            shapes["decode_weights"] = (shape.n_hidden, shape.n_visible)
        self.parameters = Parameters(shapes)
        self._gradient = self.parameters.like()
        self._workspace = Workspace()

    def encode(self, visible: Array32, out: Array32 | None = None) -> Array32:
        """Return f(xW + c), (n_samples, n_hidden)."""
        p = self.parameters
        return affine(visible, p["weights"], p["hidden_bias"], self.shape.hidden, out)

    def decode(self, hidden: Array32, out: Array32 | None = None) -> Array32:
        """Return the reconstruction, (n_samples, n_visible)."""
        p = self.parameters
        weights = p["weights"].T if self.tied else p["decode_weights"]
        return affine(hidden, weights, p["visible_bias"], self.shape.visible, out)

    def minibatch(self, n_samples: int) -> Array32:
        """Return a buffer (n_samples, n_visible) for minibatches."""
        shape = (n_samples, self.shape.n_visible)
        buffer: Array32 = self._workspace.array("minibatch", shape)
        return buffer

    def cost(self, visible: Array32) -> float:
        """Return the loss summed over rows and columns."""
        return loss_value(self.loss, visible, self.decode(self.encode(visible)))

    def gradient(
        self,
        visible: Array32,
        rng: np.random.Generator,  # noqa: ARG002  (nothing is sampled)
        scale: float,
        part_done: PartDone,
    ) -> Array32:
        """Compute scale · Σ_rows ∂loss/∂parameters; see ``Layer.gradient``."""
        n, shape, p, out = len(visible), self.shape, self.parameters, self._gradient
        hidden: Array32 = self._workspace.array("hidden", (n, shape.n_hidden))
        output: Array32 = self._workspace.array("output", (n, shape.n_visible))
        delta: Array32 = self._workspace.array("delta", (n, shape.n_visible))
        back: Array32 = self._workspace.array("back", (n, shape.n_hidden))

        self.decode(self.encode(visible, hidden), output)
        output_delta(self.loss, visible, output, activation(shape.visible), out=delta)
        delta *= np.float32(scale)
        np.sum(delta, axis=0, out=out["visible_bias"])
        decode_weights = p["weights"].T if self.tied else p["decode_weights"]
        np.matmul(delta, decode_weights.T, out=back)
        activation(shape.hidden).times_slope(hidden, back)
        np.sum(back, axis=0, out=out["hidden_bias"])
        np.matmul(visible.T, back, out=out["weights"])
        if self.tied:
            out["weights"][:] += delta.T @ hidden
        else:
            np.matmul(hidden.T, delta, out=out["decode_weights"])
        part_done(slice(0, out.vector.size), out.vector)
        return hidden
