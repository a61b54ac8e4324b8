"""Estimators small enough for tests."""

import numpy as np

import mpilayer

NAMES = ("RBM", "Autoencoder", "StackedAutoencoder", "SparseAutoencoder")
LAYER = {"n_hidden": 5, "epochs": 3, "minibatch": 20}
STACK = {"layers": (8, 3), "epochs": 3, "minibatch": 20}
STACK |= {"finetune_epochs": 2, "finetune_minibatch": 20}
SPARSE = {"hidden": 5, "evaluations": 15, "sparsity_target": 0.1}
SPARSE |= {"initial": "symmetric", "measure_every": 0}
USUAL = dict(zip(NAMES, (LAYER, LAYER, STACK, SPARSE), strict=True))


def small(name, **changes):
    """Return a small estimator for rows in [0, 1]."""
    return getattr(mpilayer, name)(**USUAL[name] | changes)


def same_parameters(one, other):
    """Tell whether two fitted estimators have the same bits."""
    return list(one.parameters_) == list(other.parameters_) and all(
        np.array_equal(one.parameters_[k], other.parameters_[k])
        for k in one.parameters_
    )
