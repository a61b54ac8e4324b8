"""Layers put together: the deep autoencoder, and the predictor on its encoder."""

from collections.abc import Sequence

import numpy as np

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.models.base import Layer, LayerShape, affine
from mpilayer.numerics.losses import softmax
from mpilayer.numerics.parameters import Parameters

Step = tuple[int, int, str]
"""Inputs, outputs and activation of a step."""


class Stack:
    """Steps f(x W + b): the layers of ``shapes``, and ``after`` the code.

    ``parameters`` has ``weights_k`` (n_in, n_out) and ``bias_k`` (n_out,) of step k.
    """

    def __init__(self, shapes: Sequence[LayerShape], after: Sequence[Step]) -> None:
        self.shapes = tuple(shapes)
        down = [(s.n_visible, s.n_hidden, s.hidden) for s in shapes]
        self.steps: tuple[Step, ...] = (*down, *after)
        names: dict[str, tuple[int, ...]] = {}
        for k, (n_in, n_out, _) in enumerate(self.steps):
            names[f"weights_{k}"] = (n_in, n_out)
            names[f"bias_{k}"] = (n_out,)
        self.parameters = Parameters(names)

    def encode(self, visible: Array32) -> Array32:
        """Return the codes (n_samples, n_code) of rows (n_samples, n_visible)."""
        return self._through(visible, range(len(self.shapes)))

    def apply(self, visible: Array32) -> Array32:
        """Return the outputs (n_samples, n_out) of rows (n_samples, n_visible)."""
        return self._through(visible, range(len(self.steps)))

    def move(self, vector: AnyArray) -> None:
        """Let the parameters lie in a vector, which holds them already."""
        self.parameters = Parameters(self.parameters.shapes, vector=vector)

    def _through(self, rows: Array32, steps: range) -> Array32:
        p = self.parameters
        result = np.empty((len(rows), self.steps[steps[-1]][1]), np.float32)
        for where in row_blocks(len(rows)):
            values = rows[where]
            for k in steps:
                values = affine(
                    values, p[f"weights_{k}"], p[f"bias_{k}"], self.steps[k][2], None
                )
            result[where] = values
        return result


class DeepAutoencoder(Stack):
    """Encoder and mirrored decoder, each step with weights and biases of its own.

    The L encoding steps come first, then the L decoding ones. Hinton and Salakhutdinov
    2006; Santara et al. 2016 §2.2 and Figure 2.
    """

    def __init__(self, shapes: Sequence[LayerShape]) -> None:
        up = [(s.n_hidden, s.n_visible, s.visible) for s in reversed(shapes)]
        super().__init__(shapes, up)

    @staticmethod
    def unroll(layers: Sequence[Layer]) -> "DeepAutoencoder":
        """Return the stack of trained layers; the decoder mirrors the encoder.

        The decoder starts with the transposed weights and the visible biases, or with
        the layers' own decode weights where they have some.
        """
        stack = DeepAutoencoder([layer.shape for layer in layers])
        p, last = stack.parameters, 2 * len(layers) - 1
        for k, layer in enumerate(layers):
            own = layer.parameters
            p[f"weights_{k}"][:] = own["weights"]
            p[f"bias_{k}"][:] = own["hidden_bias"]
            # Step 2L − 1 − k undoes step k: x̂_k = g(x̂_{k+1} Wᵀ + b).
            p[f"weights_{last - k}"][:] = layer.decode_weights
            p[f"bias_{last - k}"][:] = own["visible_bias"]
        return stack

    def decode(self, codes: Array32) -> Array32:
        """Return the rows (n_samples, n_visible) of codes (n_samples, n_code)."""
        return self._through(codes, range(len(self.shapes), len(self.steps)))

    def reconstruct(self, visible: Array32) -> Array32:
        """Return decode(encode(visible))."""
        return self.decode(self.encode(visible))


class Predictor(Stack):
    """An encoder with a linear output layer: scores of classes, or a number.

    The largest score names the class; ``classes`` (n_classes,), int64, has the label of
    each output, ascending, and is empty for a regressor, whose one output is a number.
    Santara et al. 2016 §3.1. The softmax belongs to the loss, whose logarithm it meets.
    """

    def __init__(self, shapes: Sequence[LayerShape], classes: AnyArray) -> None:
        n_out = max(len(classes), 1)
        super().__init__(shapes, [(shapes[-1].n_hidden, n_out, "linear")])
        self.classes = classes

    def predict(self, visible: Array32) -> Array32:
        """Return the probability of each class (n, n_classes), or the number (n, 1)."""
        result = self.apply(visible)
        if len(self.classes):
            softmax(result, result)
        return result

    def take_encoder(self, stack: Stack) -> None:
        """Take over the first steps of another stack of the same layers."""
        for k in range(len(self.shapes)):
            for name in (f"weights_{k}", f"bias_{k}"):
                self.parameters[name][:] = stack.parameters[name]
