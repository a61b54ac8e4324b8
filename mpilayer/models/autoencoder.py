"""Autoencoder with one hidden layer, trained by backpropagation."""

import numpy as np

from mpilayer.arrays import AnyArray, Array32
from mpilayer.models.base import Layer, LayerShape, PartDone, Slice
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import check_loss, output_delta


class Autoencoder(Layer):
    """One hidden layer: x̂ = g(f(xW + c) Wᵀ + b), or with decode weights of its own.

    A method of pre-training of Santara et al. 2016 §2.3. f is ``shape.hidden``, g is
    ``shape.visible``; the loss is ``squared`` or ``cross-entropy``. ConfigError: cross
    entropy of an output that is not a probability.
    """

    def __init__(
        self,
        shape: LayerShape,
        tied: bool = True,
        loss: str = "squared",
        vector: AnyArray | None = None,
    ) -> None:
        check_loss(loss, shape.visible)
        super().__init__(shape, tied, vector)
        self.loss = loss

    def slice(self, units: slice) -> "Slice":
        """Return some of the hidden units."""
        return _AutoencoderSlice(self, units)

    def contrast(
        self, data: Array32, reconstruction: Array32, scale: float, out: Array32
    ) -> Array32:
        """Write δ = scale · ∂loss/∂z of the output, z = hWᵀ + b; return Σ_rows δ."""
        slope = activation(self.shape.visible)
        output_delta(self.loss, data, reconstruction, slope, out=out)
        out *= np.float32(scale)
        sums: Array32 = out.sum(axis=0)
        return sums


class _AutoencoderSlice(Slice):
    def rise(
        self,
        visible: Array32,
        first: bool,  # noqa: ARG002
        rng: np.random.Generator,  # noqa: ARG002
        out: Array32,
    ) -> Array32:
        shape = (len(visible), self.shape.n_hidden)
        self._hidden = self.encode(visible, self.workspace.array("hidden", shape))
        np.matmul(self._hidden, self.decode_weights, out=out)
        return self._hidden

    def learn(
        self,
        data: Array32,
        reconstruction: Array32,  # noqa: ARG002
        contrast: Array32,
        scale: float,  # noqa: ARG002
        part_done: PartDone,
    ) -> None:
        hidden, delta, p = self._hidden, contrast, self.parameters
        # Of the hidden layer: δ(Wᵀ)ᵀ f′.
        back = self.workspace.array("back", hidden.shape)
        np.matmul(delta, self.decode_weights.T, out=back)
        activation(self.shape.hidden).times_slope(hidden, back)
        weights = self.workspace.array("gradient", p.shapes["weights"])
        np.matmul(data.T, back, out=weights)
        part_done(p.span("hidden_bias"), back.sum(axis=0))
        if self.tied:  # W stands in both steps
            weights += delta.T @ hidden
        else:
            part_done(p.span("decode_weights"), (hidden.T @ delta).reshape(-1))
        part_done(p.span("weights"), weights.reshape(-1))
