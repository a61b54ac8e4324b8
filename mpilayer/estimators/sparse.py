"""The sparse autoencoder as an estimator."""

from collections import deque
from typing import Any, ClassVar

from mpilayer.config import SparseConfig
from mpilayer.estimators.arguments import Fields, takes
from mpilayer.estimators.base import Reconstructor
from mpilayer.estimators.rows import Bounds, redistribute
from mpilayer.parallel.comm import Communicator
from mpilayer.train.sparse.cost import ShardedCost, make_model, start_weights
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.strata import Strata


@takes(Fields(SparseConfig, without={"preset"}))
class SparseAutoencoder(Reconstructor):
    """Autoencoder with one hidden layer whose units seldom fire.

    ``mpilayer sparse`` with the same settings finds the same weights (Lahiri et al.
    2010). Its ``--preset`` is ``SparseAutoencoder(**PRESETS["ufldl"])`` here, with the
    dictionary from :mod:`mpilayer.config`. With a sigmoid output rows must be in
    [0, 1].

    {parameters}

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
    """

    _units: ClassVar = "output"

    def _configs(self) -> list[Any]:
        return [config.resolved() for config in super()._configs()]

    def _check_configs(self, *configs: Any) -> None:
        make_model(configs[0], 1)

    def _minibatches(self) -> list[str]:
        return ["minibatch"] if self.optimizer == "sgd" else []

    def _train(
        self, rows: Any, bounds: Bounds, comm: Communicator, *configs: Any
    ) -> None:
        (config,) = configs
        if config.optimizer == "sgd" and comm.size > 1:
            n_rows, size = bounds[-1][1], config.minibatch
            strata = [
                Strata.of_rank(n_rows, size, r, comm.size) for r in range(comm.size)
            ]
            rows = redistribute(rows, bounds, [share.rows for share in strata], comm)
        model = make_model(config, self.n_features_in_)
        start_weights(model, config)
        cost = ShardedCost(model, rows, config, comm)
        descent = Descent(cost, config)
        (last,) = deque(descent.states(), maxlen=1)
        final = cost.measure(last.position)
        self._keep([model.shape], model.parameters)
        self.cost_, self.exact_cost_ = final.cost, final.exact_cost
        self.mean_activation_ = cost.mean_activation
        self.n_evaluations_, self.stopped_by_ = cost.evaluations, descent.stopped_by
