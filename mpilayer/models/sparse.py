"""Sparse autoencoder: what blocks of rows add, in the two steps of the exact KL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.errors import ConfigError, unknown
from mpilayer.models.base import LayerShape
from mpilayer.numerics.activations import activation
from mpilayer.numerics.losses import kl_curvature, kl_divergence, kl_slope
from mpilayer.numerics.parameters import Parameters, Shapes

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


def block_shapes(parameters: Shapes, fused: bool) -> Shapes:
    """Return what a block adds, by name; ``fused``: by ``backpropagate_fused``."""
    shapes = {**parameters, "squared": (1,)}
    if fused:
        shapes["firing"] = shapes["firing_bias"] = parameters["hidden_bias"]
        shapes["firing_weights"] = parameters["weights"]
    return shapes


class BlockSums:
    """What every block of rows adds to the sums over all rows.

    ``table`` (n_blocks, size) is all of it; ``sums[name]`` is a view (n_blocks, *shape)
    of the sums of a name, one of ``shapes``.
    """

    def __init__(self, n_blocks: int, shapes: Shapes, dtype: type) -> None:
        layout = Parameters(shapes, dtype)
        self.table: AnyArray = np.zeros((n_blocks, layout.vector.size), dtype)
        self._views = {
            name: self.table[:, layout.span(name)].reshape(n_blocks, *shape)
            for name, shape in layout.shapes.items()
        }

    def __getitem__(self, name: str) -> AnyArray:
        return self._views[name]


class SparseAutoencoder:
    """One hidden layer with a firing probability of each unit: y = g(f(xW₁+b₁)W₂+b₂).

    f is ``shape.hidden``, sigmoid or tanh; g is ``shape.visible``, sigmoid, tanh or
    linear: others are a ConfigError. ``dtype`` is that of the rows and all products.

    Attributes
    ----------
    parameters : Parameters
        float64: ``weights`` W₁ (n_visible, n_hidden), ``hidden_bias`` b₁,
        ``decode_weights`` W₂ (n_hidden, n_visible), ``visible_bias`` b₂.
    gain : int
        ∂a/∂s of the hidden activations a: 1 of sigmoid, 2 of tanh units.
    firing : ndarray (n_samples, n_hidden)
        The firing probabilities that ``fire`` has kept.

    Notes
    -----
    Lahiri et al. 2010 §2. A unit fires with probability s = σ(z), or ½(1 + tanh z) =
    σ(2z) of tanh units; everything is computed from s, because in float32 the sum
    ½(1 + tanh z) is 0 for units that are nearly off, and the KL term infinite.

    All calls are local. Rows go through in blocks that stay in the cache, and what each
    block adds is kept apart: a sum that shall not depend on who has which block is made
    by who knows all of them (:mod:`mpilayer.train.sparse.totals`).
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
        self._whole = _Block.of(0, n_visible, n_hidden, dtype)
        self._blocks: dict[int, _Block] = {}
        # The weights as the products use them: gains folded in.
        self._up: AnyArray = np.empty((n_visible, n_hidden), dtype)
        self._out: AnyArray = np.empty((n_hidden, n_visible), dtype)

    def fire(self, rows: AnyArray, blocks: Sequence[slice], sums: AnyArray) -> None:
        """Compute and keep the firing probabilities of rows (n_samples, n_visible).

        ``blocks`` cut them, one after the other; ``sums`` (n_blocks, n_hidden) are
        overwritten with those over the rows of each block.
        """
        if len(self.firing) != len(rows):
            self.firing = np.empty((len(rows), self.shape.n_hidden), self.dtype)
        self._fold(blocks)
        for where, own in zip(blocks, sums, strict=True):
            self._fire_block(np.asarray(rows[where]), self.firing[where], own)

    def backpropagate(
        self,
        rows: AnyArray,
        blocks: Sequence[slice],
        slopes: Callable[[], Sequence[Array64]],
        sums: BlockSums,
    ) -> None:
        """Compute the gradient over rows whose firing ``fire`` has kept.

        Parameters
        ----------
        slopes : callable
            Returns for each block the derivative of the sparsity term by each firing
            probability, (n_hidden,); blocks that have the same one share the array.
            Called once, after the output layer of the first block, if there is one:
            what it waits for may travel meanwhile.
        sums : BlockSums
            Its views of the names of ``parameters`` are overwritten with
            Σ_rows (∂½‖y − x‖²/∂parameters + Σ_j slope_j ∂p_j/∂parameters), up to what
            ``finish`` does, and ``squared`` (1,) with Σ_rows ‖y − x‖².
        """
        if len(self.firing) != len(rows):
            raise RuntimeError("fire comes before backpropagate")
        found: Sequence[Array64] = ()
        filled: Array64 | None = None
        for number, where in enumerate(blocks):
            x, firing = np.asarray(rows[where]), self.firing[where]
            block = self._block(len(x))
            sums["squared"][number] = self._output_block(x, firing, block)
            found = found or list(slopes())
            if found[number] is not filled:
                # As long as any: the room is the same for all blocks.
                filled = found[number]
                self._whole.pull[:] = filled
            np.add(block.back, block.pull, out=block.back)
            self._keep_gradients(x, firing, block, number, sums)

    def backpropagate_fused(
        self, rows: AnyArray, blocks: Sequence[slice], sums: BlockSums
    ) -> None:
        """Compute all that the gradient needs in one pass, before any p is known.

        The sparsity part of the gradient is linear in the slopes k_j = ∂KL/∂p_j:
        everybody can multiply by them after the sums over all ranks are known. ``sums``
        become those of ``backpropagate`` with slopes of 0, ``firing`` (n_hidden,) the
        sums of the firing probabilities, and, up to ``finish``, ``firing_weights``
        (n_visible, n_hidden) and ``firing_bias`` (n_hidden,) Σ_rows ∂p_j/∂weights and
        ∂p_j/∂hidden_bias.
        """
        self._fold(blocks)
        for number, where in enumerate(blocks):
            x = np.asarray(rows[where])
            block = self._block(len(x))
            self._fire_block(x, block.firing, sums["firing"][number])
            sums["squared"][number] = self._output_block(x, block.firing, block)
            self._keep_gradients(x, block.firing, block, number, sums)
            np.dot(x.T, block.spread, sums["firing_weights"][number])
            np.dot(block.ones, block.spread, sums["firing_bias"][number])

    def finish(self, totals: Parameters) -> None:
        """Bring the sums over all blocks, in place, to what they are the sums of.

        What all rows have in common is multiplied once, here.
        """
        gain = self.gain
        if gain == 1:
            return
        totals["weights"][:] *= gain
        totals["hidden_bias"][:] *= gain
        # a = gain·s − (gain − 1)
        totals["decode_weights"][:] *= gain
        totals["decode_weights"][:] -= (gain - 1) * totals["visible_bias"]
        for name in ("firing_weights", "firing_bias"):
            if name in totals.shapes:
                totals[name][:] *= gain

    def _block(self, n_rows: int) -> _Block:
        """Return room for so many rows, at most those of the longest block."""
        if n_rows not in self._blocks:
            self._blocks[n_rows] = self._whole.first(n_rows)
        return self._blocks[n_rows]

    def _fold(self, blocks: Sequence[slice]) -> None:
        """Bring the weights into the form and type that the products need."""
        longest = max((where.stop - where.start for where in blocks), default=0)
        if longest > len(self._whole.ones):
            shape = self.shape
            self._whole = _Block.of(
                longest, shape.n_visible, shape.n_hidden, self.dtype
            )
            self._blocks.clear()
        p, gain, block = self.parameters, self.gain, self._block(longest)
        np.multiply(p["weights"], -gain, out=self._up)
        np.multiply(p["hidden_bias"], -gain, out=block.up_bias)
        np.multiply(p["decode_weights"], gain, out=self._out)
        # a = gain·s − (gain − 1), whether units are sigmoid (a = s) or tanh (2s − 1).
        shift = (gain - 1) * p["decode_weights"].sum(axis=0)
        np.subtract(p["visible_bias"], shift, out=block.out_bias)

    def _fire_block(self, x: AnyArray, out: AnyArray, sums: AnyArray) -> None:
        """Write 1 / (1 + exp(−gain · z)) into ``out``, and its sums over rows."""
        block = self._block(len(x))
        np.dot(x, self._up, out)  # with the sign; on few rows faster than matmul
        out += block.up_bias
        # Overflow gives infinity, and the quotient the right zero.
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        np.divide(1, out, out=out)
        # The sums over rows: BLAS takes a quarter of NumPy's time.
        np.dot(block.ones, out, sums)

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

    def _keep_gradients(
        self,
        x: AnyArray,
        firing: AnyArray,
        block: _Block,
        number: int,
        sums: BlockSums,
    ) -> None:
        """Keep what a block gives, but for the gain, which comes once for all."""
        # ∂/∂W₁ = xᵀ((δW₂ᵀ + k) f′), ∂/∂W₂ = aᵀδ; f′ of s is gain · s(1 − s)
        spread, back, delta = block.spread, block.back, block.delta
        np.multiply(firing, firing, out=spread)
        np.subtract(firing, spread, out=spread)  # s (1 − s) = s − s²
        back *= spread
        np.dot(x.T, back, sums["weights"][number])
        np.dot(firing.T, delta, sums["decode_weights"][number])
        np.dot(block.ones, back, sums["hidden_bias"][number])
        np.dot(block.ones, delta, sums["visible_bias"][number])
