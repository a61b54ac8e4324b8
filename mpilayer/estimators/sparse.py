"""The sparse autoencoder as an estimator."""

from typing import Any, Self

from mpilayer.arrays import AnyArray
from mpilayer.config import SparseConfig
from mpilayer.errors import ConfigError
from mpilayer.estimators.base import (
    Reconstructor,
    checked,
    in_arguments,
    joined,
    warn_of_minibatch,
)
from mpilayer.estimators.base import settings as read_settings
from mpilayer.estimators.rows import as_array, current_bounds, redistribute
from mpilayer.parallel.comm import Communicator
from mpilayer.train.sparse.cost import ShardedCost, make_model, start_weights
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.strata import Strata


class SparseAutoencoder(Reconstructor):
    """Autoencoder with one hidden layer whose units seldom fire.

    Parameters
    ----------
    hidden : int
        Hidden units.
    kl : str
        Sparsity term: ``average`` over the ranks, each with its own rows; ``exact`` or
        ``exact-fused``, of all rows together. No difference in one process.
    optimizer : str
        ``lbfgs``, ``cg`` or ``sgd``.
    evaluations : int
        Evaluations of the cost at most.
    iterations : int
        Iterations at most; 0: any number.
    gradient_norm, decrease : float
        Stop at so small a gradient; when an iteration lowers the cost by less than this
        part of it.
    weight_decay, sparsity_weight, sparsity_target : float
        λ_W, λ_ρ, ρ.
    activation : str
        Hidden units: ``tanh`` or ``sigmoid``.
    output : str
        Units of the reconstruction: ``same`` as the hidden ones, ``tanh``, ``sigmoid``
        (for rows in [0, 1]) or ``linear``.
    dtype : str
        Of data and matrix products in training: ``float32`` or ``float64``.
    initial : str
        First weights: ``positive``, usual but with sgd, or ``symmetric``.
    corrections : int
        lbfgs: remembered pairs.
    minibatch, learning_rate, measure_every : int, float, int
        sgd: rows of a minibatch over all ranks; first learning rate, which falls
        linearly to 0; rows met between two evaluations, 0 for all. There are
        (``evaluations`` − 1) times as many in all.
    sgd_sparsity, sgd_bias_weight, memory : str, float, float
        sgd: ``gradient`` or ``bias``, how the running mean of the activations makes
        units sparse; weight β of the latter; what each row leaves of that mean.
    seed : int
        Of all random numbers.
    comm : mpi4py.MPI.Comm or Communicator, optional
        Each rank fits with its own rows.

    Attributes
    ----------
    cost_, exact_cost_ : float
        What was minimized, at the end; and with the sparsity term of all rows together.
    mean_activation_ : ndarray (hidden,)
        Firing probability of each unit over all rows.
    n_evaluations_ : int
        Evaluations of the cost.
    stopped_by_ : str
        Why training ended, in words.

    Notes
    -----
    Lahiri et al. 2010. ``mpilayer sparse`` with the same settings finds the same
    weights. Its ``--preset`` is ``SparseAutoencoder(**PRESETS["ufldl"])`` here, with
    the dictionary from :mod:`mpilayer.config`.
    """

    def __init__(
        self,
        hidden: int = 30,
        *,
        kl: str = "average",
        optimizer: str = "lbfgs",
        evaluations: int = 500,
        iterations: int = 0,
        gradient_norm: float = 0.0,
        decrease: float = 0.0,
        weight_decay: float = 0.002,
        sparsity_weight: float = 4.0,
        sparsity_target: float = 0.002,
        activation: str = "tanh",
        output: str = "same",
        dtype: str = "float32",
        initial: str = "usual",
        corrections: int = 40,
        minibatch: int = 20,
        learning_rate: float = 0.1,
        measure_every: int = 8000,
        sgd_sparsity: str = "gradient",
        sgd_bias_weight: float = 4.0,
        memory: float = 0.999,
        seed: int = 0,
        comm: Any = None,
    ) -> None:
        self.hidden = hidden
        self.kl = kl
        self.optimizer = optimizer
        self.evaluations = evaluations
        self.iterations = iterations
        self.gradient_norm = gradient_norm
        self.decrease = decrease
        self.weight_decay = weight_decay
        self.sparsity_weight = sparsity_weight
        self.sparsity_target = sparsity_target
        self.activation = activation
        self.output = output
        self.dtype = dtype
        self.initial = initial
        self.corrections = corrections
        self.minibatch = minibatch
        self.learning_rate = learning_rate
        self.measure_every = measure_every
        self.sgd_sparsity = sgd_sparsity
        self.sgd_bias_weight = sgd_bias_weight
        self.memory = memory
        self.seed = seed
        self.comm = comm

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Minimize the cost of the rows. Collective with ``comm``.

        Parameters
        ----------
        X : array or sparse matrix (n_samples, n_features)
            Of this rank. Sparse rows are made dense by blocks, but for sgd on several
            ranks, which deals rows out anew.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        TrainingError
            The cost is not a number, or infinite from the start; on all ranks.
        """
        with joined(self.comm) as comm:
            config = checked(comm, self._config)
            model = make_model(config, 1)
            rows = self._rows_to_fit(X, comm, model.shape.visible, config.dtype)
            model = make_model(config, self.n_features_in_)
            start_weights(model, config)
            if config.optimizer == "sgd":
                n_rows = current_bounds(comm, len(rows))[-1][1]
                warn_of_minibatch(n_rows, config.minibatch)
            if config.optimizer == "sgd" and comm.size > 1:
                rows = _dealt(rows, config.minibatch, comm)
            cost = ShardedCost(model, rows, config, comm)
            descent = Descent(cost, config)
            for _ in descent.states():
                pass
            if descent.state is None:
                raise RuntimeError("a descent without evaluations")
            final = cost.measure(descent.state.position)
        self._keep([model.shape], model.parameters)
        self.cost_, self.exact_cost_ = final.cost, final.exact_cost
        self.mean_activation_ = cost.mean_activation
        self.n_evaluations_, self.stopped_by_ = cost.evaluations, descent.stopped_by
        return self

    def _config(self) -> SparseConfig:
        config = read_settings(SparseConfig, self._settings())
        try:
            make_model(config, 1)
        except ConfigError as error:
            raise in_arguments(error) from error
        return config


def _dealt(rows: Any, minibatch: int, comm: Communicator) -> AnyArray:
    """Return the rows of this rank's strata. Collective."""
    now = current_bounds(comm, len(rows))
    wanted = [
        Strata.of_rank(now[-1][1], minibatch, rank, comm.size).rows
        for rank in range(comm.size)
    ]
    return redistribute(as_array(rows), now, wanted, comm)
