"""Autoencoder with one hidden layer, trained by backpropagation."""

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.models.base import Layer, LayerShape, PartDone
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import check_loss, output_delta


class Autoencoder(Layer):
    """One hidden layer: x̂ = g(f(xW + c) Wᵀ + b), or with decode weights of its own.

    A method of pre-training of Santara et al. 2016 §2.3. f is ``shape.hidden``, g is
    ``shape.visible``; the loss is ``squared`` or ``cross-entropy``.

    Raises
    ------
    ConfigError
        Cross entropy of an output that is not a probability.
    """

    def __init__(
        self, shape: LayerShape, tied: bool = True, loss: str = "squared"
    ) -> None:
        check_loss(loss, shape.visible)
        super().__init__(shape, tied)
        self.loss = loss
        self._gradient = self.parameters.like()

    def gradient(
        self,
        visible: Array32,
        rng: np.random.Generator,  # noqa: ARG002  (nothing is sampled)
        scale: float,
        part_done: PartDone,
    ) -> Array32:
        """Compute scale · Σ_rows ∂loss/∂parameters; see ``Layer.gradient``."""
        n, shape, out = len(visible), self.shape, self._gradient
        hidden: Array32 = self.workspace.array("hidden", (n, shape.n_hidden))
        output: Array32 = self.workspace.array("output", (n, shape.n_visible))
        delta: Array32 = self.workspace.array("delta", (n, shape.n_visible))
        back: Array32 = self.workspace.array("back", (n, shape.n_hidden))

        self.decode(self.encode(visible, hidden), output)
        # ∂loss/∂z of the output, z = hWᵀ + b, and of the hidden layer: δWᵀᵀ f′.
        output_delta(self.loss, visible, output, activation(shape.visible), out=delta)
        delta *= np.float32(scale)
        np.sum(delta, axis=0, out=out["visible_bias"])
        np.matmul(delta, self.decode_weights.T, out=back)
        activation(shape.hidden).times_slope(hidden, back)
        np.sum(back, axis=0, out=out["hidden_bias"])
        np.matmul(visible.T, back, out=out["weights"])
        if self.tied:  # W stands in both steps
            out["weights"][:] += delta.T @ hidden
        else:
            np.matmul(hidden.T, delta, out=out["decode_weights"])
        part_done(slice(0, out.vector.size), out.vector)
        return hidden
