"""Restricted Boltzmann machine, trained by contrastive divergence."""

from collections.abc import Iterator

import numpy as np

from mpilayer.arrays import Array32, row_blocks
from mpilayer.errors import ConfigError
from mpilayer.models.base import Layer, LayerShape, PartDone

# The statistics of the weights are one product, made in parts that fit into a
# second-level cache and are used there: with all cores busy, memory is the bottleneck,
# and this is 5 to 8 % of a step of 784 x 1000 units.
_PART_BYTES = 800_000


class RBM(Layer):
    """A restricted Boltzmann machine with Bernoulli or Gaussian units on either side.

    Parameters
    ----------
    shape : LayerShape
        Sizes; each side ``sigmoid`` (Bernoulli) or ``linear`` (Gaussian, variance 1).
    cd_steps : int
        Gibbs steps k of CD-k, at least 1.

    Raises
    ------
    ConfigError
        Units of another kind.

    Notes
    -----
    Hinton 2002 for contrastive divergence; Hinton and Salakhutdinov 2006 for the linear
    code layer. Probabilities are used for the visible units, samples for the hidden
    units that drive them (Santara et al. 2016 §2.2).
    """

    def __init__(self, shape: LayerShape, cd_steps: int = 1) -> None:
        for side in (shape.visible, shape.hidden):
            if side not in ("sigmoid", "linear"):
                raise ConfigError(
                    "an RBM has sigmoid (Bernoulli) or linear (Gaussian) units; found "
                    f"{side}. Choose one of the two, or --method autoencoder."
                )
        super().__init__(shape)
        self.cd_steps = cd_steps

    def minibatch(self, n_samples: int) -> Array32:
        """Return the upper half of the buffer that holds both phases."""
        return self._phases(n_samples)[0][:n_samples]

    def gradient(
        self,
        visible: Array32,
        rng: np.random.Generator,
        scale: float,
        part_done: PartDone,
    ) -> Array32:
        """Compute scale · Σ_rows (v¹p¹ − v⁰p⁰); see ``Layer.gradient``.

        Both phases lie in one buffer, the data above the reconstruction, so that the
        statistics of both are one matrix product, Σ v¹p¹ − v⁰p⁰ = [−v⁰; v¹]ᵀ [p⁰; p¹],
        and a sum over 2B rows is written only once.
        """
        n = len(visible)
        both_v, both_h = self._phases(n)
        if visible.base is not both_v:
            both_v[:n] = visible
        v0, v1, p0, p1 = both_v[:n], both_v[n:], both_h[:n], both_h[n:]

        # Santara et al. 2016 §2.2: p⁰ = σ(v⁰W + c); h⁰ ~ p⁰; v¹ = σ(h⁰Wᵀ + b);
        # p¹ = σ(v¹W + c); of k steps the last one counts.
        self.encode(v0, p0)
        driving = p0
        for _ in range(self.cd_steps):
            self.decode(self._sample(driving, rng), v1)
            driving = self.encode(v1, p1)

        hidden_bias = np.float32(scale) * (p1.sum(axis=0) - p0.sum(axis=0))
        # The scale goes into the smaller factor, its sign makes an ascent a descent;
        # the hidden activations stay as they are, for the caller.
        v0 *= np.float32(-scale)
        v1 *= np.float32(scale)
        span = self.parameters.span
        part_done(span("hidden_bias"), hidden_bias)
        part_done(span("visible_bias"), both_v.sum(axis=0))
        for rows, where in self._weight_parts():
            part = self.workspace.array("part", (rows.stop - rows.start, p0.shape[1]))
            np.matmul(both_v.T[rows], both_h, out=part)
            part_done(where, part.reshape(-1))
        return p0

    def _weight_parts(self) -> Iterator[tuple[slice, slice]]:
        """Yield rows of the weights, and where they lie in the vector."""
        n_visible, n_hidden = self.parameters.shapes["weights"]
        n_parts = -(-4 * n_visible * n_hidden // _PART_BYTES)
        origin = self.parameters.span("weights").start
        for rows in row_blocks(n_visible, -(-n_visible // n_parts)):
            start, stop = rows.start * n_hidden, rows.stop * n_hidden
            yield rows, slice(origin + start, origin + stop)

    def _phases(self, n: int) -> tuple[Array32, Array32]:
        shape, array = self.shape, self.workspace.array
        visible = array("visible", (2 * n, shape.n_visible))
        return visible, array("hidden", (2 * n, shape.n_hidden))

    def _sample(self, mean: Array32, rng: np.random.Generator) -> Array32:
        sample: Array32 = self.workspace.array("sample", mean.shape)
        if self.shape.hidden == "linear":
            rng.standard_normal(out=sample, dtype=np.float32)
            sample += mean
            return sample
        uniform = self.workspace.array("uniform", mean.shape)
        below = self.workspace.array("below", mean.shape, np.bool_)
        rng.random(out=uniform, dtype=np.float32)
        np.less(uniform, mean, out=below)
        np.copyto(sample, below)
        return sample
