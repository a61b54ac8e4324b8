"""Layers put together: the deep autoencoder, and the predictor on its encoder."""

from collections.abc import Sequence

import numpy as np

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.models.base import Layer, LayerShape, PartDone, Workspace, affine
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import loss_value, output_delta, softmax
from mpilayer.numerics.parameters import Parameters

Step = tuple[int, int, str]
"""Inputs, outputs and activation of a step."""

Masks = Sequence[Array32 | None]
"""Factors (n_samples, n_in) on what enters each step; None or no entry leaves it."""


class Stack:
    """Steps f(x W + b), one after the other, and their gradient.

    The layers of ``shapes`` are the first steps, ``after`` is what comes after the
    code. ``parameters`` has ``weights_k`` (n_in, n_out) and ``bias_k`` (n_out,) of step
    k.
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
        self._workspace = Workspace()

    def encode(self, visible: Array32) -> Array32:
        """Return the codes (n_samples, n_code) of rows (n_samples, n_visible)."""
        return self._through(visible, range(len(self.shapes)))

    def apply(self, visible: Array32) -> Array32:
        """Return the outputs (n_samples, n_out) of rows (n_samples, n_visible)."""
        return self._through(visible, range(len(self.steps)))

    def gradient(
        self,
        visible: Array32,
        loss: str,
        out: Parameters,
        scale: float,
        part_done: PartDone,
        target: Array32 | None = None,
        masks: Masks = (),
    ) -> float:
        """Write scale · Σ_rows ∂loss/∂parameters into ``out``; return the summed loss.

        Parameters
        ----------
        visible : ndarray (n_samples, n_visible)
            A minibatch, or a rank's part of it; it may have no rows.
        loss : str
            ``squared``, ``cross-entropy`` or ``softmax``.
        out : Parameters
            Of the layout of ``parameters``.
        scale : float
            Factor on the gradient, not on the returned loss.
        part_done : callable
            Receives the weights and biases of every step, last step first, as parts of
            ``out``; see ``PartDone``.
        target : ndarray (n_samples, n_out), optional
            What should come out; the rows themselves by default.
        masks : sequence of ndarray
            Factors on what enters each step: dropout.
        """
        target = visible if target is None else target
        masks = [*masks, *[None] * (len(self.steps) - len(masks))]
        # x_{k+1} = f(x_k W_k + b_k)
        values, inputs = [visible], []
        for k in range(len(self.steps)):
            inputs.append(self._masked(k, values[k], masks[k]))
            values.append(self._step(k, inputs[k]))
        delta = self._workspace.array("delta", values[-1].shape)
        last = activation(self.steps[-1][2])
        output_delta(loss, target, values[-1], last, out=delta)
        delta *= np.float32(scale)
        total = loss_value(loss, target, values[-1])
        # ∂loss/∂W_k = x_kᵀ δ_k, ∂loss/∂b_k = Σ δ_k, δ_{k−1} = (δ_k W_kᵀ) f′(x_k)
        for k in reversed(range(len(self.steps))):
            above = delta
            if k > 0:
                delta = self._workspace.array(f"delta_{k}", values[k].shape)
                np.matmul(above, self.parameters[f"weights_{k}"].T, out=delta)
                mask = masks[k]
                if mask is not None:
                    delta *= mask
                activation(self.steps[k - 1][2]).times_slope(values[k], delta)
            np.matmul(inputs[k].T, above, out=out[f"weights_{k}"])
            np.sum(above, axis=0, out=out[f"bias_{k}"])
            part_done(self._part(k), out.vector[self._part(k)])
        return total

    def _masked(self, k: int, rows: Array32, mask: Array32 | None) -> Array32:
        """Return what enters step k; the rows stay as they are, for the slope."""
        if mask is None:
            return rows
        out: Array32 = self._workspace.array(f"masked_{k}", rows.shape)
        return np.multiply(rows, mask, out=out)

    def _part(self, k: int) -> slice:
        """Return where the weights and biases of step k lie in the vector."""
        return self.parameters.span(f"weights_{k}", f"bias_{k}")

    def _step(self, k: int, rows: Array32) -> Array32:
        _, n_out, kind = self.steps[k]
        p = self.parameters
        out = self._workspace.array(f"value_{k}", (len(rows), n_out))
        return affine(rows, p[f"weights_{k}"], p[f"bias_{k}"], kind, out)

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
