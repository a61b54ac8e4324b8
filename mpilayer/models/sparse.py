"""Sparse autoencoder: sums over a shard, in the two steps that the exact KL needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpilayer.arrays import ROW_BLOCK, AnyArray, Array64, row_blocks
from mpilayer.errors import ConfigError, unknown
from mpilayer.models.base import LayerShape
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import kl_curvature, kl_divergence, kl_slope
from mpilayer.numerics.parameters import Parameters

# tanh z = 2σ(2z) − 1: firing probabilities are σ(gain · z), also for tanh.
_GAINS = {"sigmoid": 1, "tanh": 2}


@dataclass(frozen=True)
class Sparsity:
    """The sparsity term λ_ρ Σ_j KL(ρ‖p_j) of firing probabilities p.

    Lahiri et al. 2010 §2; λ_ρ is ``weight``, 0 for no such term, ρ is ``target``.
    """

    weight: float
    target: float

    def cost(self, p: Array64) -> float:
        """Return the term; infinite if a unit never or always fires."""
        if not self.weight:
            return 0.0
        return self.weight * float(kl_divergence(self.target, p).sum())

    def slope(self, p: Array64) -> Array64:
        """Return the derivative by each p_j."""
        if not self.weight:
            return np.zeros_like(p)
        return self.weight * kl_slope(self.target, p)

    def curvature(self, p: Array64) -> Array64:
        """Return the second derivative by each p_j."""
        if not self.weight:
            return np.zeros_like(p)
        return self.weight * kl_curvature(self.target, p)


class _Block(NamedTuple):
    """Room for a block of rows; NumPy adds tables faster than it repeats biases."""

    ones: AnyArray
    output: AnyArray
    delta: AnyArray
    out_bias: AnyArray
    firing: AnyArray
    spread: AnyArray
    back: AnyArray
    up_bias: AnyArray
    pull: AnyArray

    @staticmethod
    def of(n_rows: int, n_visible: int, n_hidden: int, dtype: type) -> "_Block":
        columns = [n_visible] * 3 + [n_hidden] * 5
        tables: list[AnyArray] = [np.empty((n_rows, n), dtype) for n in columns]
        return _Block(np.ones(n_rows, dtype), *tables)

    def first(self, n_rows: int) -> "_Block":
        """Return views of the first rows."""
        return _Block(*(array[:n_rows] for array in self))


class SparseAutoencoder:
    """One hidden layer with a firing probability of each unit: y = g(f(xW₁+b₁)W₂+b₂).

    f is ``shape.hidden``, sigmoid or tanh; g is ``shape.visible``, sigmoid, tanh or
    linear; ``dtype`` is that of the rows and all products.

    Attributes
    ----------
    parameters : Parameters
        float64: ``weights`` W₁ (n_visible, n_hidden), ``hidden_bias`` b₁,
        ``decode_weights`` W₂ (n_hidden, n_visible), ``visible_bias`` b₂.
    gain : int
        ∂a/∂s of the hidden activations a: 1 of sigmoid, 2 of tanh units.
    firing : ndarray (n_samples, n_hidden)
        The firing probabilities that ``fire`` has kept.

    Raises
    ------
    ConfigError
        Units that have no firing probability, or an output that does not exist.

    Notes
    -----
    Lahiri et al. 2010 §2. A unit fires with probability s = σ(z), or ½(1 + tanh z) =
    σ(2z) of tanh units; everything is computed from s, because in float32 the sum
    ½(1 + tanh z) is 0 for units that are nearly off, and the KL term infinite.

    All calls are local. Rows go through in blocks that stay in the cache.
    """

    def __init__(self, shape: LayerShape, dtype: type = np.float32) -> None:
        if shape.hidden not in _GAINS:
            raise ConfigError(unknown("hidden activation", shape.hidden, _GAINS))
        outputs = ("sigmoid", "tanh", "linear")
        if shape.visible not in outputs:
            raise ConfigError(unknown("output activation", shape.visible, outputs))
        self.shape = shape
        self.dtype = dtype
        self.parameters = Parameters(
            {
                "weights": (shape.n_visible, shape.n_hidden),
                "hidden_bias": (shape.n_hidden,),
                "decode_weights": (shape.n_hidden, shape.n_visible),
                "visible_bias": (shape.n_visible,),
            },
            np.float64,
        )
        self.gain = _GAINS[shape.hidden]
        self._output = activation(shape.visible)
        self.firing: AnyArray = np.empty((0, shape.n_hidden), dtype)
        n_visible, n_hidden = shape.n_visible, shape.n_hidden
        whole = _Block.of(ROW_BLOCK, n_visible, n_hidden, dtype)
        self._blocks = {ROW_BLOCK: whole}
        # The weights as the products use them: gains folded in.
        self._up: AnyArray = np.empty((n_visible, n_hidden), dtype)
        self._out: AnyArray = np.empty((n_hidden, n_visible), dtype)
        self._up_product, self._out_product = self._up.copy(), self._out.copy()

    def fire(self, rows: AnyArray) -> Array64:
        """Compute and keep the firing probabilities of all rows of the shard.

        Return their sums over the rows, (n_hidden,), float64.
        """
        if len(self.firing) != len(rows):
            self.firing = np.empty((len(rows), self.shape.n_hidden), self.dtype)
        self._fold(len(rows))
        sums = np.zeros(self.shape.n_hidden)
        for where in row_blocks(len(rows)):
            sums += self._fire_block(rows[where], self.firing[where])
        return sums

    def backpropagate(
        self, rows: AnyArray, slope: Callable[[], Array64], sums: Parameters
    ) -> float:
        """Add up the gradient over rows whose firing ``fire`` has kept.

        Return Σ_rows ½‖y − x‖².

        Parameters
        ----------
        rows : ndarray (n_samples, n_visible)
            As given to ``fire``, with the same parameters.
        slope : callable
            Returns the derivative of the sparsity term by each firing probability,
            (n_hidden,). Called once, after the output layer of the first block: what it
            waits for may travel meanwhile.
        sums : Parameters
            Its views of the names of ``parameters`` are overwritten with
            Σ_rows (∂½‖y − x‖²/∂parameters + Σ_j slope_j ∂p_j/∂parameters).
        """
        if len(self.firing) != len(rows):
            raise RuntimeError("fire comes before backpropagate")
        sums.vector[sums.span("weights", "visible_bias")] = 0
        squared, pull = 0.0, None
        for where in row_blocks(len(rows)):
            x, firing = rows[where], self.firing[where]
            block = self._block(len(x))
            squared += self._output_block(x, firing, block)
            if pull is None:
                # Once for all blocks, of which none is longer.
                pull = block.pull
                pull[:] = slope()
            np.add(block.back, block.pull, out=block.back)
            self._add_gradients(x, firing, block, sums)
        self._apply_gain(sums)
        return squared / 2

    def backpropagate_fused(
        self, rows: AnyArray, sums: Parameters
    ) -> tuple[float, Array64]:
        """Add up all that the gradient needs in one pass, before any p is known.

        The sparsity part of the gradient is linear in the slopes k_j = ∂KL/∂p_j:
        everybody can multiply by them after the sums over all ranks are known. ``sums``
        become those of ``backpropagate`` with slopes of 0, and ``firing_weights``
        (n_visible, n_hidden) and ``firing_bias`` (n_hidden,) Σ_rows ∂p_j/∂weights and
        ∂p_j/∂hidden_bias. Return Σ_rows ½‖y − x‖², and the sums of the firing
        probabilities (n_hidden,).
        """
        sums.vector[sums.span("weights", "visible_bias")] = 0
        sums["firing_weights"][:] = sums["firing_bias"][:] = 0
        self._fold(len(rows))
        squared, fired = 0.0, np.zeros(self.shape.n_hidden)
        for where in row_blocks(len(rows)):
            x = rows[where]
            block = self._block(len(x))
            fired += self._fire_block(x, block.firing)
            squared += self._output_block(x, block.firing, block)
            self._add_gradients(x, block.firing, block, sums)
            sums["firing_weights"][:] += np.dot(x.T, block.spread, self._up_product)
            sums["firing_bias"][:] += self._column_sums(block.spread, block)
        self._apply_gain(sums)
        sums["firing_weights"][:] *= self.gain
        sums["firing_bias"][:] *= self.gain
        return squared / 2, fired

    def _block(self, n_rows: int) -> _Block:
        """Return room for so many rows; shorter blocks share that of the whole one."""
        if n_rows not in self._blocks:
            self._blocks[n_rows] = self._blocks[ROW_BLOCK].first(n_rows)
        return self._blocks[n_rows]

    def _fold(self, n_rows: int) -> None:
        """Bring the weights into the form and type that the products need."""
        p, gain = self.parameters, self.gain
        block = self._block(min(n_rows, ROW_BLOCK))
        np.multiply(p["weights"], -gain, out=self._up)
        np.multiply(p["hidden_bias"], -gain, out=block.up_bias)
        np.multiply(p["decode_weights"], gain, out=self._out)
        # a = gain·s − (gain − 1), whether units are sigmoid (a = s) or tanh (2s − 1).
        shift = (gain - 1) * p["decode_weights"].sum(axis=0)
        np.subtract(p["visible_bias"], shift, out=block.out_bias)

    def _fire_block(self, x: AnyArray, out: AnyArray) -> AnyArray:
        """Write 1 / (1 + exp(−gain · z)) into ``out``; return the sums over rows."""
        block = self._block(len(x))
        np.dot(x, self._up, out)  # with the sign; on few rows faster than matmul
        out += block.up_bias
        # Overflow gives infinity, and the quotient the right zero.
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        np.divide(1, out, out=out)
        return self._column_sums(out, block)

    def _output_block(self, x: AnyArray, firing: AnyArray, block: _Block) -> float:
        """Fill ``delta``, and ``back`` with gain · delta W₂ᵀ; return Σ ‖y − x‖²."""
        # δ = (y − x) g′, y = g(aW₂ + b₂)
        y, delta = block.output, block.delta
        np.dot(firing, self._out, y)
        y += block.out_bias
        self._output.apply(y)
        np.subtract(y, x, out=delta)
        squared = float(np.vdot(delta, delta))
        self._output.spend(y, delta)
        np.dot(delta, self._out.T, block.back)
        return squared

    def _add_gradients(
        self, x: AnyArray, firing: AnyArray, block: _Block, sums: Parameters
    ) -> None:
        """Add what a block gives, but for the gain, which comes once for all."""
        # ∂/∂W₁ = xᵀ((δW₂ᵀ + k) f′), ∂/∂W₂ = aᵀδ; f′ of s is gain · s(1 − s)
        spread, back, delta = block.spread, block.back, block.delta
        np.multiply(firing, firing, out=spread)
        np.subtract(firing, spread, out=spread)  # s (1 − s) = s − s²
        back *= spread
        up, down = sums["weights"], sums["decode_weights"]
        up += np.dot(x.T, back, self._up_product)
        down += np.dot(firing.T, delta, self._out_product)
        sums["hidden_bias"][:] += self._column_sums(back, block)
        sums["visible_bias"][:] += self._column_sums(delta, block)

    def _apply_gain(self, sums: Parameters) -> None:
        gain = self.gain
        if gain != 1:
            sums.vector[sums.span("weights", "decode_weights")] *= gain
            sums["decode_weights"][:] -= (gain - 1) * sums["visible_bias"]

    def _column_sums(self, array: AnyArray, block: _Block) -> AnyArray:
        """Return the sums over rows: BLAS takes a quarter of NumPy's time."""
        sums: AnyArray = np.dot(block.ones, array)
        return sums
