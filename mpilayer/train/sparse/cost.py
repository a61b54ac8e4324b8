"""The cost of a sparse autoencoder over all ranks.

Every rank holds its blocks of rows from start to end and all weights. One evaluation is
local arithmetic and sums over all blocks, which are the same to the bit for any number
of ranks; so every optimizer takes the same decisions on all of them, and ends at the
same weights as on one rank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from math import isnan
from time import perf_counter

import numpy as np

from mpilayer.arrays import ROW_BLOCK, AnyArray, Array64
from mpilayer.config import SparseConfig
from mpilayer.errors import CommunicationError, TrainingError
from mpilayer.models.base import LayerShape
from mpilayer.models.sparse import BlockSums, SparseAutoencoder, Sparsity, block_shapes
from mpilayer.numerics.parameters import Parameters
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import Cut
from mpilayer.rng import stream
from mpilayer.train.sparse.totals import own_total, start_total
from mpilayer.train.sums import EAGER_SECONDS, Sums

DIGEST_EVERY = 50
"""Evaluations between two comparisons of the weights of all ranks."""

# Rows of a block: those that stay in the cache, or fewer (500 take a tenth longer), so
# that some ranks get equal shares of a few rows: sixteen blocks. What a block adds, as
# many numbers as the weights, is kept until all are known: a block of 2 n_hidden rows
# is as large itself.
_FEW_ROWS, _BLOCKS = 500, 16


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the cost, the same on all ranks but for the seconds."""

    evaluation: int  # up to this one
    iteration: int  # complete before it
    cost: float
    reconstruction: float  # half the squared error per row
    decay: float  # of the weights
    sparsity: float  # as the mode defines it
    exact_cost: float  # with the sparsity term of all rows together
    gradient_norm: float  # Euclidean
    seconds: float  # since training began
    computing: float  # of this evaluation on this rank
    allreduce: float  # likewise, waiting


class Enough(Exception):
    """A limit is reached inside an iteration; the reason is its text."""


def make_model(config: SparseConfig, n_visible: int) -> SparseAutoencoder:
    """Return the model that a configuration describes, its parameters 0."""
    config = config.resolved()
    shape = LayerShape(n_visible, config.hidden, config.output, config.activation)
    return SparseAutoencoder(shape, np.dtype(config.dtype).type)


def start_weights(model: SparseAutoencoder, config: SparseConfig) -> None:
    """Draw the first weights; biases are 0. Equal for equal seeds on all ranks."""
    shape, p = model.shape, model.parameters
    p.vector[:] = 0
    config = config.resolved()
    for place, name in enumerate(("weights", "decode_weights")):
        rng = stream(config.seed, "sparse", place)
        if config.initial == "positive":  # Lahiri et al. 2010
            p[name][:] = rng.random(p[name].shape) / np.sqrt(len(p[name]))
        else:
            bound = np.sqrt(6 / (shape.n_visible + shape.n_hidden + 1))
            p[name][:] = rng.uniform(-bound, bound, p[name].shape)


def cut_of(config: SparseConfig, n_rows: int, n_ranks: int) -> Cut:
    """Return how training cuts the rows into shards and blocks.

    Where the sparsity term is averaged, it is so over ``config.shards`` shards: 0 are
    as many as ranks, if there are rows for them. Else there is one, of all rows.
    """
    n_shards = (config.shards or min(n_ranks, n_rows)) if config.kl == "average" else 1
    longest = max(ROW_BLOCK, 2 * config.hidden)
    return Cut.of(n_rows, n_shards, min(longest, max(_FEW_ROWS, n_rows // _BLOCKS)))


class ShardedCost:
    """Cost and gradient over the rows of all ranks: what optimizers call.

    Parameters
    ----------
    model : SparseAutoencoder
        Equal on all ranks; every evaluation overwrites its parameters.
    rows : ndarray (n_samples, n_visible), of the model's type
        This rank's rows, perhaps none: whole blocks of ``cut_of``, in the order of
        ranks. *Local.*
    comm, eager
        See ``Sums``. Collective.

    Attributes
    ----------
    n_rows, cut, first, blocks : int, Cut, int, list of slice
        Of the rows of all ranks; where this rank's begin, and its blocks in its rows.
    evaluations, iteration : int
        Evaluations done, and iterations as the training counts them.
    latest, mean_activation : Evaluation, ndarray (n_hidden,)
        The last one, and the firing probability of each unit over all rows there.
    on_evaluation, time_over : callable
        Receives every evaluation; tells that this rank wants to stop, which all ranks
        then do together. Local.
    kl : str
        ``average``, ``exact`` or ``exact-fused``; may be changed between evaluations,
        which does not change the shards.

    Notes
    -----
    Lahiri et al. 2010 §2, of m rows x with outputs y and firing probabilities p:
    C = 1/(2m) Σ‖y − x‖² + λ_W/2 (‖W₁‖² + ‖W₂‖²) + λ_ρ Σ_j KL(ρ‖p_j).
    Shards count by their rows, so they may be uneven.

    Numbers are summed in two messages: the largest exponents, and integers in the units
    that those decide; see :mod:`mpilayer.train.sparse.totals`.
    """

    def __init__(
        self,
        model: SparseAutoencoder,
        rows: AnyArray,
        config: SparseConfig,
        comm: Communicator,
        eager: float = EAGER_SECONDS,
    ) -> None:
        self.model = model
        self.rows = rows
        self.comm = comm
        self.kl = config.kl
        self.sparsity = Sparsity(config.sparsity_weight, config.sparsity_target)
        self.evaluations = self.iteration = 0
        self.latest: Evaluation | None = None
        self.mean_activation = np.zeros(model.shape.n_hidden)
        self.on_evaluation: Callable[[Evaluation], None] = lambda _: None
        self.time_over: Callable[[], bool] = lambda: False
        self.stopping = False
        self.began = perf_counter()
        self._decay = config.weight_decay
        self._sums = Sums(comm, eager)
        many = comm.allgather(len(rows))
        self.first, self.n_rows = sum(many[: comm.rank]), sum(many)
        self.cut = cut_of(config, self.n_rows, comm.size)
        self._counts = np.array([stop - start for start, stop in self.cut.shards])
        begins = {start for start, _ in self.cut.blocks} | {self.n_rows}
        if not begins.issuperset(accumulate(many, initial=0)):
            raise RuntimeError(f"the rows of ranks, {many}, must be whole blocks")
        self.blocks, self._shard_of = self._own_blocks()
        starts = {start for start, _ in self.cut.shards} | {self.n_rows}
        self._whole_shards = starts.issuperset(accumulate(many, initial=0))
        shape = len(self.blocks), model.shape.n_hidden
        self._fired: AnyArray = np.empty(shape, model.dtype)
        self._rooms: dict[bool, tuple[BlockSums, Parameters]] = {}

    @staticmethod
    def at_start(
        rows: AnyArray,
        config: SparseConfig,
        comm: Communicator,
        eager: float = EAGER_SECONDS,
    ) -> "ShardedCost":
        """Return the cost at the first weights. Collective."""
        model = make_model(config, rows.shape[1])
        start_weights(model, config)
        return ShardedCost(model, rows, config, comm, eager)

    def _own_blocks(self) -> tuple[list[slice], list[int]]:
        """Return this rank's blocks in its rows, and the shard of each."""
        first, stop = self.first, self.first + len(self.rows)
        own = [(a, b) for a, b in self.cut.blocks if first <= a < stop]
        starts = [start for start, _ in self.cut.shards]
        shards = np.searchsorted(starts, [a for a, _ in own], "right") - 1
        return [slice(a - first, b - first) for a, b in own], shards.tolist()

    def _room(self, fused: bool) -> tuple[BlockSums, Parameters]:
        """Return room for what each block adds, and for the sums."""
        if fused not in self._rooms:
            shapes = block_shapes(self.model.parameters.shapes, fused)
            sums = BlockSums(len(self.blocks), shapes, self.model.dtype)
            self._rooms[fused] = sums, Parameters(shapes, np.float64)
        return self._rooms[fused]

    def __call__(self, position: Array64) -> tuple[float, Array64]:
        """Return the cost and gradient at a position. Collective.

        Raises
        ------
        TrainingError
            The cost is NaN; on all ranks.
        CommunicationError
            The ranks have different positions; on all ranks.
        """
        self.model.parameters.vector[:] = position
        if self.evaluations % DIGEST_EVERY == 0:
            self._compare_replicas()
        self.evaluations += 1
        self.latest, gradient = self._evaluate()
        self.on_evaluation(self.latest)
        if isnan(self.latest.cost):
            raise self.no_number()
        return self.latest.cost, gradient

    def no_number(self) -> TrainingError:
        """Return what all ranks raise when the last evaluation is of no use."""
        found = "infinity" if self.latest and not isnan(self.latest.cost) else "NaN"
        return TrainingError(
            f"the cost must be a number; evaluation {self.evaluations} found {found}. "
            "Take other first weights (--seed, --initial), a smaller --learning-rate, "
            "or scale the data."
        ).of_all_ranks()

    def measure(self, position: Array64) -> Evaluation:
        """Return what an evaluation would find, without counting it. Collective."""
        self.model.parameters.vector[:] = position
        return self._evaluate()[0]

    def total(self, parts: AnyArray) -> Array64:
        """Add up what blocks give, (n_blocks, size) of ``blocks``. Collective.

        The sum (size,) is the same to the bit for any number of ranks.
        """
        found: list[Array64] = []
        self._start_total(parts, lambda sums, _: found.append(sums[0]))
        self._sums.finish()
        return found[0]

    def _start_total(
        self,
        parts: AnyArray,
        then: Callable[[Array64, int], object],
        votes: int = 0,
    ) -> None:
        of, shape = [0] * len(self.blocks), (1, len(self.cut.blocks))
        start_total(self._sums, parts, of, shape, then, votes)

    def _evaluate(self) -> tuple[Evaluation, Array64]:
        began = perf_counter()
        self._sums.waited = 0.0
        # Infinite costs are met where a unit never fires: optimizers step back.
        with np.errstate(over="ignore", invalid="ignore"):
            fused = self.kl == "exact-fused"
            work = self._in_one_pass if fused else self._in_two_steps
            squared, sparsity, gradient = work()
            exact = self.sparsity.cost(self.mean_activation)
            reconstruction = squared / 2 / self.n_rows
            decay = self._add_decay(gradient)
            cost = reconstruction + decay + sparsity
            norm = float(np.sqrt(np.vdot(gradient.vector, gradient.vector)))
        now = perf_counter()
        found = Evaluation(
            evaluation=self.evaluations,
            iteration=self.iteration,
            cost=cost,
            reconstruction=reconstruction,
            decay=decay,
            sparsity=sparsity,
            exact_cost=reconstruction + decay + exact,
            gradient_norm=norm,
            seconds=now - self.began,
            computing=now - began - self._sums.waited,
            allreduce=self._sums.waited,
        )
        return found, gradient.vector

    def _in_two_steps(self) -> tuple[float, float, Parameters]:
        """Use the firing of all rows, or of each shard's, for its own rows.

        Lahiri et al.'s ParallelExactCostFunction and ParallelAvgCostFunction. Ours is
        that the small sum travels while the output layer is computed; a rank that has
        all rows of its shards, as all have in theirs, does not wait for it before the
        end.
        """
        model, blocks = self.model, self.blocks
        sums, _ = self._room(fused=False)
        found: list[Array64] = []
        model.fire(self.rows, blocks, self._fired)
        shape = len(self.cut.shards), len(self.cut.blocks)
        start_total(
            self._sums, self._fired, self._shard_of, shape, lambda t, _: found.append(t)
        )

        def slopes() -> list[Array64]:
            if self.kl == "average" and self._whole_shards:
                fired = own_total(self._fired, self._shard_of, shape)
            else:
                self._sums.finish()
                fired = found[0]
            return self._slopes_of(fired)

        model.backpropagate(self.rows, blocks, slopes, sums)
        self._sums.finish()  # perhaps nobody has waited for it
        squared, gradient = self._total(fused=False)
        self.mean_activation = found[0].sum(axis=0) / self.n_rows
        return squared, self._sparsity_of(found[0]), gradient

    def _slopes_of(self, fired: Array64) -> list[Array64]:
        """Return the sparsity term's slope for each block, at its shard's firing."""
        if self.kl == "average":
            found = {
                shard: self.sparsity.slope(fired[shard] / self._counts[shard])
                for shard in set(self._shard_of)
            }
            return [found[shard] for shard in self._shard_of]
        slope = self.sparsity.slope(fired.sum(axis=0) / self.n_rows)
        return [slope] * len(self._shard_of)

    def _sparsity_of(self, fired: Array64) -> float:
        """Return the sparsity term, given the sums over each shard's rows."""
        if self.kl != "average":
            return self.sparsity.cost(self.mean_activation)
        shards = zip(fired, self._counts, strict=True)
        terms = [n * self.sparsity.cost(sums / n) for sums, n in shards]
        return float(sum(terms) / self.n_rows)

    def _in_one_pass(self) -> tuple[float, float, Parameters]:
        """Use the firing of all rows, and put the gradient together afterwards.

        Its sparsity part is linear in the slopes k_j = ∂KL/∂p_j: their factors travel
        with the rest, in one longer message, and everybody multiplies them.
        """
        sums, totals = self._room(fused=True)
        self.model.backpropagate_fused(self.rows, self.blocks, sums)
        squared, gradient = self._total(fused=True)
        self.mean_activation = totals["firing"] / self.n_rows
        slope = self.sparsity.slope(self.mean_activation) / self.n_rows
        gradient["weights"][:] += slope * totals["firing_weights"]
        gradient["hidden_bias"][:] += slope * totals["firing_bias"]
        return squared, self.sparsity.cost(self.mean_activation), gradient

    def _total(self, fused: bool) -> tuple[float, Parameters]:
        """Add up what all blocks of all ranks have given.

        Return Σ_rows ‖y − x‖² and the gradient a row; ``stopping`` is a vote.
        """
        sums, totals = self._room(fused)

        def done(found: Array64, votes: int) -> None:
            totals.vector[:] = found[0]
            self.stopping = votes > 0

        self._start_total(sums.table, done, votes=int(self.time_over()))
        self._sums.finish()
        self.model.finish(totals)
        gradient = self.model.parameters.like()
        np.divide(
            totals.vector[: gradient.vector.size], self.n_rows, out=gradient.vector
        )
        return float(totals["squared"][0]), gradient

    def _add_decay(self, gradient: Parameters) -> float:
        """Add the decay's part to the gradient; return λ_W/2 (‖W₁‖² + ‖W₂‖²)."""
        squares = 0.0
        for name in ("weights", "decode_weights"):
            weights = self.model.parameters[name]
            gradient[name][:] += self._decay * weights
            squares += float(np.vdot(weights, weights))
        return self._decay / 2 * squares

    def _compare_replicas(self) -> None:
        if other := self.comm.unlike_first(self.model.parameters.digest()):
            raise CommunicationError(
                "all ranks must have the same weights; before evaluation "
                f"{self.evaluations + 1} rank {other} has others than rank 0. The "
                "hosts compute differently, or memory is faulty: start on equal hosts, "
                "with the same libraries."
            ).of_all_ranks()
