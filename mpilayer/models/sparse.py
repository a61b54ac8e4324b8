"""Sparse autoencoder: sums over a shard, in the two steps that the exact KL needs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpilayer.arrays import ROW_BLOCK, AnyArray, Array64, row_blocks
from mpilayer.errors import ConfigError, unknown
from mpilayer.models.base import LayerShape, Workspace
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import kl_curvature, kl_divergence, kl_slope
from mpilayer.numerics.parameters import Parameters

# tanh z = 2σ(2z) − 1: firing probabilities are σ(gain · z), also for tanh.
_GAINS = {"sigmoid": 1, "tanh": 2}


@dataclass(frozen=True)
class Sparsity:
    """The sparsity term λ_ρ Σ_j KL(ρ‖p_j) of firing probabilities p.

    Attributes
    ----------
    weight : float
        λ_ρ, 0 for no such term.
    target : float
        ρ, in (0, 1).

    Notes
    -----
    Lahiri et al. 2010 §2.
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


@dataclass(frozen=True)
class _Folded:
    """Weights as the products use them: gains and biases folded in, one type."""

    up: AnyArray
    up_bias: AnyArray
    out: AnyArray
    out_bias: AnyArray
    back: AnyArray


class SparseAutoencoder:
    """One hidden layer with a firing probability of each unit: y = g(f(xW₁+b₁)W₂+b₂).

    Parameters
    ----------
    shape : LayerShape
        Sizes; f is ``shape.hidden``, sigmoid or tanh; g is ``shape.visible``, sigmoid,
        tanh or linear.
    dtype : type
        Of the rows and all products; sums over rows are float64.

    Attributes
    ----------
    parameters : Parameters
        float64: ``weights`` W₁ (n_visible, n_hidden), ``hidden_bias`` b₁,
        ``decode_weights`` W₂ (n_hidden, n_visible), ``visible_bias`` b₂.

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
        self._gain = _GAINS[shape.hidden]
        self._output = activation(shape.visible)
        self._folded: _Folded | None = None
        self._firing: AnyArray = np.empty((0, shape.n_hidden), dtype)
        self._ones: AnyArray = np.ones(ROW_BLOCK, dtype)
        self._workspace = Workspace()

    @property
    def firing(self) -> AnyArray:
        """Firing probabilities (n_samples, n_hidden) that ``fire`` has kept."""
        return self._firing

    def fire(self, rows: AnyArray) -> Array64:
        """Compute all firing probabilities and keep them; return their sums.

        Parameters
        ----------
        rows : ndarray (n_samples, n_visible)
            All rows of the shard. *Local.*

        Returns
        -------
        ndarray (n_hidden,), float64
            Σ over the rows of each unit's firing probability.
        """
        if self._firing.shape[0] != len(rows):
            self._firing = np.empty((len(rows), self.shape.n_hidden), self.dtype)
        folded = self._fold(min(len(rows), ROW_BLOCK))
        sums = np.zeros(self.shape.n_hidden)
        for where in row_blocks(len(rows)):
            firing = self._firing[where]
            self._fire_block(rows[where], folded, firing)
            sums += self._column_sums(firing)
        return sums

    def backpropagate(
        self, rows: AnyArray, slope: Callable[[], Array64], sums: Parameters
    ) -> float:
        """Add up the gradient over rows whose firing ``fire`` has kept.

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

        Returns
        -------
        float
            Σ_rows ½‖y − x‖².
        """
        self._clear(sums)
        squared, pull = 0.0, None
        for where in row_blocks(len(rows)):
            x, firing = rows[where], self._firing[where]
            delta, back, error = self._output_block(x, firing)
            squared += error
            if pull is None:
                # Once for all blocks, as a table: NumPy adds tables faster than rows.
                pull = self._table("pull", self._gain * slope(), len(back))
            back += pull[: len(back)]
            back *= self._spread(firing)
            self._add_gradients(x, firing, delta, back, sums)
        return squared / 2

    def backpropagate_fused(
        self, rows: AnyArray, sums: Parameters
    ) -> tuple[float, Array64]:
        """Add up all that the gradient needs in one pass, before any p is known.

        The sparsity part of the gradient is linear in the slopes k_j = ∂KL/∂p_j:
        everybody can multiply by them after the sums over all ranks are known.

        Parameters
        ----------
        rows : ndarray (n_samples, n_visible)
            All rows of the shard.
        sums : Parameters
            As in ``backpropagate`` with slopes of 0; besides, ``firing_weights``
            (n_visible, n_hidden) and ``firing_bias`` (n_hidden,) become
            Σ_rows ∂p_j/∂weights and ∂p_j/∂hidden_bias.

        Returns
        -------
        float, ndarray (n_hidden,)
            Σ_rows ½‖y − x‖², and the sums of the firing probabilities.
        """
        self._clear(sums)
        sums["firing_weights"][:] = sums["firing_bias"][:] = 0
        folded = self._fold(min(len(rows), ROW_BLOCK))
        squared, fired = 0.0, np.zeros(self.shape.n_hidden)
        buffer = self._workspace.array("product", sums["weights"].shape, self.dtype)
        for where in row_blocks(len(rows)):
            x = rows[where]
            firing = self._block("firing", len(x), self.shape.n_hidden)
            self._fire_block(x, folded, firing)
            fired += self._column_sums(firing)
            delta, back, error = self._output_block(x, firing)
            squared += error
            spread = self._spread(firing)
            back *= spread
            self._add_gradients(x, firing, delta, back, sums)
            sums["firing_weights"][:] += np.matmul(x.T, spread, out=buffer)
            sums["firing_bias"][:] += self._column_sums(spread)
        sums["firing_weights"][:] *= self._gain
        sums["firing_bias"][:] *= self._gain
        return squared / 2, fired

    def _fold(self, n_rows: int) -> _Folded:
        """Return the weights as the products need them; biases as tables of rows."""
        p, gain = self.parameters, self._gain
        # a = gain·s − (gain − 1), whether units are sigmoid (a = s) or tanh (2s − 1).
        shift = (gain - 1) * p["decode_weights"].sum(axis=0)
        self._folded = _Folded(
            up=(-gain * p["weights"]).astype(self.dtype),
            up_bias=self._table("up_bias", -gain * p["hidden_bias"], n_rows),
            out=(gain * p["decode_weights"]).astype(self.dtype),
            out_bias=self._table("out_bias", p["visible_bias"] - shift, n_rows),
            back=(gain**2 * p["decode_weights"].T).astype(self.dtype),
        )
        return self._folded

    def _fire_block(self, x: AnyArray, folded: _Folded, out: AnyArray) -> None:
        """Write 1 / (1 + exp(−gain · z)) into ``out``; the weights have the sign."""
        np.matmul(x, folded.up, out=out)
        out += folded.up_bias[: len(x)]
        # Overflow gives infinity, and the quotient the right zero.
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        np.divide(1, out, out=out)

    def _output_block(
        self, x: AnyArray, firing: AnyArray
    ) -> tuple[AnyArray, AnyArray, float]:
        """Return δ of the output layer, δ W₂ᵀ gain², and Σ ‖y − x‖²."""
        folded = self._folded
        if folded is None:
            raise RuntimeError("fire comes before backpropagate")
        y = self._block("output", len(x), self.shape.n_visible)
        delta = self._block("delta", len(x), self.shape.n_visible)
        np.matmul(firing, folded.out, out=y)
        y += folded.out_bias[: len(x)]
        self._output.apply(y)
        np.subtract(y, x, out=delta)
        squared = float(np.vdot(delta, delta))
        self._output.spend(y, delta)
        back = self._block("back", len(x), self.shape.n_hidden)
        np.matmul(delta, folded.back, out=back)
        return delta, back, squared

    def _spread(self, firing: AnyArray) -> AnyArray:
        """Return s (1 − s) = s − s²."""
        spread = self._block("spread", *firing.shape)
        np.multiply(firing, firing, out=spread)
        np.subtract(firing, spread, out=spread)
        return spread

    def _add_gradients(
        self,
        x: AnyArray,
        firing: AnyArray,
        delta: AnyArray,
        back: AnyArray,
        sums: Parameters,
    ) -> None:
        up, down = sums["weights"], sums["decode_weights"]
        product = self._workspace.array("product", up.shape, self.dtype)
        up += np.matmul(x.T, back, out=product)
        sums["hidden_bias"][:] += self._column_sums(back)
        product = self._workspace.array("product", down.shape, self.dtype)
        down += self._gain * np.matmul(firing.T, delta, out=product)
        output = self._column_sums(delta)
        down -= (self._gain - 1) * output
        sums["visible_bias"][:] += output

    def _column_sums(self, block: AnyArray) -> AnyArray:
        """Return the sums over rows: BLAS takes a quarter of NumPy's time."""
        sums: AnyArray = self._ones[: len(block)] @ block
        return sums

    def _clear(self, sums: Parameters) -> None:
        for name in self.parameters:
            sums[name][:] = 0

    def _block(self, name: str, n_rows: int, n_columns: int) -> AnyArray:
        """Return the first rows of a buffer; the last block may be shorter."""
        buffer = self._workspace.array(name, (ROW_BLOCK, n_columns), self.dtype)
        return buffer[:n_rows]

    def _table(self, name: str, row: Array64, n_rows: int) -> AnyArray:
        """Return a row repeated: NumPy adds tables faster than it repeats rows."""
        table = self._block(name, n_rows, len(row))
        table[:] = row
        return table
