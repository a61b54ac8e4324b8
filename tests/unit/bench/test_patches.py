"""Rows for the benchmarks."""

import numpy as np
import pytest

from mpilayer.bench.patches import N_CAUSES, patches, random_patches, write_patches
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError


def test_random_patches_are_correlated():
    x = random_patches(4000)
    assert x.shape == (4000, 64)
    assert x.dtype == np.float32
    assert x.std() == pytest.approx(0.3, rel=0.1)
    spectrum = np.linalg.svd(x, compute_uv=False) ** 2
    assert spectrum[:N_CAUSES].sum() > 0.95 * spectrum.sum()


def test_fewer_are_the_first_ones():
    few, many = random_patches(30), random_patches(80)
    np.testing.assert_allclose(few, many[:30], rtol=0, atol=1e-6)


def test_the_first_rows_of_real_data(tmp_path):
    source = write_patches(None, 50, tmp_path)
    with Dataset.open(write_patches(source, 20, tmp_path)) as dataset:
        np.testing.assert_array_equal(dataset.rows("train"), random_patches(50)[:20])
    with pytest.raises(ConfigError, match=r"must have 51 training rows; .* has 50"):
        patches(source, 51)
