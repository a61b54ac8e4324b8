"""Errors over all rows, and principal components."""

import numpy as np
import pytest

from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.evaluate import PCA, reconstruction_error, sum_over_ranks
from tests.support import plain
from tests.support.toys import randomize, rows

SERIAL = SerialCommunicator()
BLOCKS = [slice(0, 30), slice(30, 31), slice(31, 31), slice(31, 80)]


def blocks(v):
    return (v[where] for where in BLOCKS)


def test_reconstruction_error():
    stack, v = randomize(DeepAutoencoder([LayerShape(12, 5)])), rows(80)
    p = plain.named(stack.parameters.shapes, stack.parameters.vector)
    output = plain.forward(p, ("sigmoid", "sigmoid"), v)[-1]
    expected = ((v - output) ** 2).sum(axis=1).mean()
    found = reconstruction_error(stack, blocks(v), SERIAL)
    assert found == pytest.approx(expected, rel=1e-6)


def test_without_rows():
    stack = DeepAutoencoder([LayerShape(12, 5)])
    assert np.isnan(reconstruction_error(stack, [], SERIAL))
    assert np.isnan(reconstruction_error(stack, [rows(0)], SERIAL))
    pca = PCA([rows(20)], 12, SERIAL)
    assert np.isnan(pca.error([], 3, SERIAL))


def test_a_sum_over_one_rank():
    values = np.arange(3.0)
    assert sum_over_ranks(SERIAL, values) is values
    assert values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("n_components", [0, 1, 3, 12])
def test_principal_components_against_singular_values(n_components):
    train, test = rows(80), rows(40, seed=1)
    mean = train.mean(axis=0, dtype=float)
    basis = np.linalg.svd(train - mean)[2][:n_components]
    pca = PCA(blocks(train), 12, SERIAL)
    np.testing.assert_allclose(pca.mean, mean, rtol=1e-6)
    for v in (train, test):
        centred = v - mean
        expected = ((centred - centred @ basis.T @ basis) ** 2).sum(axis=1).mean()
        parts = np.array_split(v, 3)
        found = pca.error(parts, n_components, SERIAL)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
