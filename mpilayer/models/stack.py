"""Layers unrolled: a deep autoencoder."""

from collections.abc import Sequence

import numpy as np

from mpilayer.arrays import Array32, row_blocks
from mpilayer.models.base import Layer, LayerShape, PartDone, Workspace, affine
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import loss_value, output_delta
from mpilayer.numerics.parameters import Parameters


class DeepAutoencoder:
    """Encoder and mirrored decoder, each step with weights and biases of its own.

    Parameters
    ----------
    shapes : sequence of LayerShape
        The layers, first layer first.

    Attributes
    ----------
    parameters : Parameters
        ``weights_k`` (n_in, n_out) and ``bias_k`` (n_out,) of step k; the L encoding
        steps come first, then the L decoding ones.

    Notes
    -----
    Hinton and Salakhutdinov 2006; Santara et al. 2016 §2.2 and Figure 2.
    """

    def __init__(self, shapes: Sequence[LayerShape]) -> None:
        self.shapes = tuple(shapes)
        down = [(s.n_visible, s.n_hidden, s.hidden) for s in shapes]
        up = [(s.n_hidden, s.n_visible, s.visible) for s in reversed(shapes)]
        self._steps = [*down, *up]
        names: dict[str, tuple[int, ...]] = {}
        for k, (n_in, n_out, _) in enumerate(self._steps):
            names[f"weights_{k}"] = (n_in, n_out)
            names[f"bias_{k}"] = (n_out,)
        self.parameters = Parameters(names)
        self._workspace = Workspace()

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
            untied = "decode_weights" in own.shapes
            back = own["decode_weights"] if untied else own["weights"].T
            p[f"weights_{last - k}"][:] = back
            p[f"bias_{last - k}"][:] = own["visible_bias"]
        return stack

    @property
    def n_steps(self) -> int:
        """Steps from the data to their reconstruction, twice the layers."""
        return len(self._steps)

    def encode(self, visible: Array32) -> Array32:
        """Return the codes (n_samples, n_code) of rows (n_samples, n_visible)."""
        return self._through(visible, range(len(self.shapes)))

    def decode(self, codes: Array32) -> Array32:
        """Return the rows (n_samples, n_visible) of codes (n_samples, n_code)."""
        return self._through(codes, range(len(self.shapes), self.n_steps))

    def reconstruct(self, visible: Array32) -> Array32:
        """Return decode(encode(visible))."""
        return self.decode(self.encode(visible))

    def gradient(
        self,
        visible: Array32,
        loss: str,
        out: Parameters,
        scale: float,
        part_done: PartDone,
    ) -> float:
        """Write scale · Σ_rows ∂loss/∂parameters into ``out``; return the summed loss.

        Parameters
        ----------
        visible : ndarray (n_samples, n_visible)
            A minibatch, or a rank's part of it; it may have no rows.
        loss : str
            ``squared`` or ``cross-entropy``.
        out : Parameters
            Of the layout of ``parameters``.
        scale : float
            Factor on the gradient, not on the returned loss.
        part_done : callable
            Receives the weights and biases of every step, last step first, as parts of
            ``out``; see ``PartDone``.
        """
        if not len(visible):
            out.vector[:] = 0
            for k in reversed(range(self.n_steps)):
                part_done(self._part(k), out.vector[self._part(k)])
            return 0.0
        values = [visible]
        for k in range(self.n_steps):
            values.append(self._step(k, values[-1]))
        delta = self._workspace.array("delta", values[-1].shape)
        last = activation(self._steps[-1][2])
        output_delta(loss, visible, values[-1], last, out=delta)
        delta *= np.float32(scale)
        total = loss_value(loss, visible, values[-1])
        for k in reversed(range(self.n_steps)):
            above = delta
            if k > 0:
                delta = self._workspace.array(f"delta_{k}", values[k].shape)
                np.matmul(above, self.parameters[f"weights_{k}"].T, out=delta)
                activation(self._steps[k - 1][2]).times_slope(values[k], delta)
            np.matmul(values[k].T, above, out=out[f"weights_{k}"])
            np.sum(above, axis=0, out=out[f"bias_{k}"])
            part_done(self._part(k), out.vector[self._part(k)])
        return total

    def _part(self, k: int) -> slice:
        """Return where the weights and biases of step k lie in the vector."""
        return self.parameters.span(f"weights_{k}", f"bias_{k}")

    def _step(self, k: int, rows: Array32) -> Array32:
        _, n_out, kind = self._steps[k]
        p = self.parameters
        out = self._workspace.array(f"value_{k}", (len(rows), n_out))
        return affine(rows, p[f"weights_{k}"], p[f"bias_{k}"], kind, out)

    def _through(self, rows: Array32, steps: range) -> Array32:
        p = self.parameters
        result = np.empty((len(rows), self._steps[steps[-1]][1]), np.float32)
        for where in row_blocks(len(rows)):
            values = rows[where]
            for k in steps:
                values = affine(
                    values, p[f"weights_{k}"], p[f"bias_{k}"], self._steps[k][2], None
                )
            result[where] = values
        return result
