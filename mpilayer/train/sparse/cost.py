"""The cost of a sparse autoencoder over all ranks.

Every rank holds its rows from start to end and all weights. One evaluation is local
arithmetic and an Allreduce, after which all ranks have the same cost and gradient to
the bit; so every optimizer takes the same decisions on all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from time import perf_counter
from typing import ClassVar

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import SparseConfig
from mpilayer.errors import CommunicationError, TrainingError
from mpilayer.models.base import LayerShape
from mpilayer.models.sparse import SparseAutoencoder, Sparsity
from mpilayer.numerics.parameters import Parameters
from mpilayer.parallel.comm import Communicator
from mpilayer.rng import stream
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.sums import EAGER_SECONDS, Sums

DIGEST_EVERY = 50
"""Evaluations between two comparisons of the weights of all ranks."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the cost, the same on all ranks but for the seconds.

    Attributes
    ----------
    evaluation, iteration : int
        Evaluations up to this one, and iterations that were complete before it.
    cost, reconstruction, decay, sparsity : float
        The cost and its parts: half the squared error per row, the decay of the
        weights, and the sparsity term as the mode defines it.
    exact_cost, gradient_norm : float
        The cost with the sparsity term of all rows together; Euclidean.
    seconds, computing, allreduce : float
        Since training began; of this evaluation on this rank, arithmetic and waiting.
    """

    evaluation: int
    iteration: int
    cost: float
    reconstruction: float
    decay: float
    sparsity: float
    exact_cost: float
    gradient_norm: float
    seconds: float
    computing: float
    allreduce: float


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


class ShardedCost:
    """Cost and gradient over the rows of all ranks: what optimizers call.

    Parameters
    ----------
    model : SparseAutoencoder
        Equal on all ranks; every evaluation overwrites its parameters.
    rows : ndarray (n_samples, n_visible), of the model's type
        This rank's rows, perhaps none. *Local.*
    config : SparseConfig
        The weights of the terms, and how the sparsity term is meant.
    comm, eager
        See ``Sums``. Collective.

    Attributes
    ----------
    n_rows : int
        *Global.*
    evaluations, iteration : int
        Evaluations done, and iterations as the training counts them.
    latest, mean_activation : Evaluation, ndarray (n_hidden,)
        The last one, and the firing probability of each unit over all rows there.
    on_evaluation, time_over : callable
        Receives every evaluation; tells that this rank wants to stop, which all ranks
        then do together. Local.
    kl : str
        ``average``, ``exact`` or ``exact-fused``; may be changed between evaluations.

    Notes
    -----
    Lahiri et al. 2010 §2, of m rows x with outputs y and firing probabilities p:
    C = 1/(2m) Σ‖y − x‖² + λ_W/2 (‖W₁‖² + ‖W₂‖²) + λ_ρ Σ_j KL(ρ‖p_j).
    Shards count by their rows, so they may be uneven or empty.
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
        self.n_rows = int(sum_over_ranks(comm, np.array([float(len(rows))]))[0])
        self._decay = config.weight_decay
        self._sums = Sums(comm, eager)
        n_visible, n_hidden = model.shape.n_visible, model.shape.n_hidden
        # What travels: the gradient first, as its part of the vector is that of the
        # parameters; each mode sends no more than it needs.
        self._message = Parameters(
            {
                **model.parameters.shapes,
                "reconstruction": (1,),
                "sparsity": (1,),
                "stop": (1,),
                "firing": (n_hidden,),
                "firing_weights": (n_visible, n_hidden),
                "firing_bias": (n_hidden,),
            },
            np.float64,
        )

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

    def _evaluate(self) -> tuple[Evaluation, Array64]:
        began = perf_counter()
        self._sums.waited = 0.0
        self._message["stop"][0] = self.time_over()
        self._message["sparsity"][0] = 0  # that of all rows needs no sum
        # Infinite costs are met where a unit never fires: optimizers step back.
        with np.errstate(over="ignore", invalid="ignore"):
            sparsity, gradient = self._MODES[self.kl](self)
            exact = self.sparsity.cost(self.mean_activation)
            reconstruction = float(self._message["reconstruction"][0]) / self.n_rows
            decay = self._add_decay(gradient)
            cost = reconstruction + decay + sparsity
            norm = float(np.sqrt(np.vdot(gradient.vector, gradient.vector)))
        self.stopping = bool(self._message["stop"][0])
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

    def _average(self) -> tuple[float, Parameters]:
        """Average the ranks' own sparsity terms: their ParallelAvgCostFunction."""
        message, n = self._message, len(self.rows)
        message["firing"][:] = fired = self.model.fire(self.rows)
        if n:
            message["sparsity"][0] = n * self.sparsity.cost(fired / n)
        message["reconstruction"][0] = self.model.backpropagate(
            self.rows, lambda: self.sparsity.slope(fired / n), message
        )
        gradient = self._mean_gradient("firing")
        self.mean_activation = message["firing"] / self.n_rows
        return float(message["sparsity"][0]) / self.n_rows, gradient

    def _exact(self) -> tuple[float, Parameters]:
        """Use the firing of all rows: their ParallelExactCostFunction.

        Ours is that the small sum travels while the output layer is computed.
        """
        fired = self.model.fire(self.rows)
        self._sums.start(fired)

        def slope() -> Array64:
            self._sums.finish()
            self.mean_activation = fired / self.n_rows
            return self.sparsity.slope(self.mean_activation)

        self._message["reconstruction"][0] = self.model.backpropagate(
            self.rows, slope, self._message
        )
        if not len(self.rows):  # then nobody has asked for it
            slope()
        gradient = self._mean_gradient("stop")
        return self.sparsity.cost(self.mean_activation), gradient

    def _exact_fused(self) -> tuple[float, Parameters]:
        """Use the firing of all rows, and put the gradient together afterwards.

        Its sparsity part is linear in the slopes k_j = ∂KL/∂p_j: their factors travel
        with the rest, in one longer message, and everybody multiplies them.
        """
        message = self._message
        message["reconstruction"][0], message["firing"][:] = (
            self.model.backpropagate_fused(self.rows, message)
        )
        gradient = self._mean_gradient("firing_bias")
        self.mean_activation = message["firing"] / self.n_rows
        slope = self.sparsity.slope(self.mean_activation)
        gradient["weights"][:] += slope / self.n_rows * message["firing_weights"]
        gradient["hidden_bias"][:] += slope / self.n_rows * message["firing_bias"]
        return self.sparsity.cost(self.mean_activation), gradient

    _MODES: ClassVar[dict[str, Callable[["ShardedCost"], tuple[float, Parameters]]]] = {
        "average": _average,
        "exact": _exact,
        "exact-fused": _exact_fused,
    }

    def _mean_gradient(self, last: str) -> Parameters:
        """Sum the message up to a view over all ranks; return its gradient a row."""
        self._sums.start(self._message.vector[: self._message.span(last).stop])
        self._sums.finish()
        gradient = self.model.parameters.like()
        gradient.vector[:] = self._message.vector[: gradient.vector.size]
        gradient.vector /= self.n_rows
        return gradient

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
