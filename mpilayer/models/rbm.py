"""Restricted Boltzmann machine, trained by contrastive divergence."""

from collections.abc import Iterator

import numpy as np

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.errors import ConfigError
from mpilayer.models.base import Layer, LayerShape, PartDone, Slice

# The statistics of the weights are one product, made in parts that fit into a
# second-level cache and are used there: with all cores busy, memory is the bottleneck,
# and this is 5 to 8 % of a step of 784 x 1000 units.
_PART_BYTES = 800_000


class RBM(Layer):
    """A restricted Boltzmann machine, trained by CD-k of ``cd_steps`` Gibbs steps.

    Each side is ``sigmoid`` (Bernoulli) or ``linear`` (Gaussian, variance 1), else it
    is a ConfigError. Hinton 2002 for contrastive divergence; Hinton and Salakhutdinov
    2006 for the linear code layer. Probabilities are used for the visible units,
    samples for the hidden units that drive them (Santara et al. 2016 §2.2).
    """

    phases = 2

    def __init__(
        self, shape: LayerShape, cd_steps: int = 1, vector: AnyArray | None = None
    ) -> None:
        for side in (shape.visible, shape.hidden):
            if side not in ("sigmoid", "linear"):
                raise ConfigError(
                    "an RBM has sigmoid (Bernoulli) or linear (Gaussian) units; found "
                    f"{side}. Choose one of the two, or --method autoencoder."
                )
        super().__init__(shape, vector=vector)
        self.n_passes = cd_steps

    def slice(self, units: slice) -> Slice:
        """Return some of the hidden units."""
        return _RBMSlice(self, units)

    def contrast(
        self, data: Array32, reconstruction: Array32, scale: float, out: Array32
    ) -> Array32:
        """Write [−v⁰; v¹] · scale: then the statistics are one product.

        The scale goes into the smaller factor, its sign makes an ascent a descent.
        """
        n = len(data)
        np.multiply(data, np.float32(-scale), out=out[:n])
        np.multiply(reconstruction, np.float32(scale), out=out[n:])
        sums: Array32 = out.sum(axis=0)
        return sums


class _RBMSlice(Slice):
    # Santara et al. 2016 §2.2: p⁰ = σ(v⁰W + c); h⁰ ~ p⁰; v¹ = σ(h⁰Wᵀ + b);
    # p¹ = σ(v¹W + c); of k steps the last one counts.

    def rise(
        self, visible: Array32, first: bool, rng: np.random.Generator, out: Array32
    ) -> Array32:
        _, p0, p1 = self._phases(len(visible))
        mean = self.encode(visible, p0 if first else p1)
        np.matmul(self._sample(mean, rng), self.decode_weights, out=out)
        return p0

    def learn(
        self,
        data: Array32,
        reconstruction: Array32,
        contrast: Array32,
        scale: float,
        part_done: PartDone,
    ) -> None:
        """Compute scale · Σ_rows (v¹p¹ − v⁰p⁰).

        Both phases lie in one buffer, the data above the reconstruction, so that the
        statistics of both are one matrix product, Σ v¹p¹ − v⁰p⁰ = [−v⁰; v¹]ᵀ [p⁰; p¹],
        and a sum over 2B rows is written only once.
        """
        both, p0, p1 = self._phases(len(data))
        self.encode(reconstruction, p1)
        hidden_bias = np.float32(scale) * (p1.sum(axis=0) - p0.sum(axis=0))
        part_done(self.parameters.span("hidden_bias"), hidden_bias)
        for rows, where in self._weight_parts():
            shape = (rows.stop - rows.start, self.shape.n_hidden)
            part = self.workspace.array("part", shape)
            np.matmul(contrast.T[rows], both, out=part)
            part_done(where, part.reshape(-1))

    def _weight_parts(self) -> Iterator[tuple[slice, slice]]:
        """Yield rows of the weights, and where they lie in the vector."""
        n_visible, n_hidden = self.parameters.shapes["weights"]
        n_parts = -(-4 * n_visible * n_hidden // _PART_BYTES)
        origin = self.parameters.span("weights").start
        for rows in row_blocks(n_visible, -(-n_visible // n_parts)):
            start, stop = rows.start * n_hidden, rows.stop * n_hidden
            yield rows, slice(origin + start, origin + stop)

    def _phases(self, n: int) -> tuple[Array32, Array32, Array32]:
        """Return p⁰ above p¹ of n rows, and each of them."""
        both: Array32 = self.workspace.array("hidden", (2 * n, self.shape.n_hidden))
        return both, both[:n], both[n:]

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
