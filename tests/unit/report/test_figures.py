"""Pictures, and the filters that they show."""

import numpy as np
import pytest

from mpilayer.report import figures
from mpilayer.runs.sparse import filters


@pytest.mark.parametrize(
    ("n_visible", "shape"), [(16, (7, 4, 4)), (15, (7, 15)), (1, (7, 1, 1))]
)
def test_filters_have_norm_1(n_visible, shape):
    weights = np.random.default_rng(0).standard_normal((n_visible, 7))
    found = filters(weights)
    assert (found.shape, found.dtype) == (shape, np.float32)
    norms = np.linalg.norm(found.reshape(7, -1), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)
    first = weights[:, 0] / np.linalg.norm(weights[:, 0])
    np.testing.assert_allclose(found[0].ravel(), first, rtol=1e-6)


def test_a_unit_without_weights_has_an_empty_filter():
    assert not filters(np.zeros((16, 2))).any()


@pytest.mark.parametrize("n_filters", [1, 2, 30])
def test_a_picture_of_filters(tmp_path, n_filters):
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")
    assert figures.available()
    tiles = np.random.default_rng(0).standard_normal((n_filters, 4, 4))
    tiles[0] = 0
    path = tmp_path / "filters.png"
    figures.draw_filters(tiles, path, "16-30-16, cost 2.73")
    assert path.read_bytes().startswith(b"\x89PNG")
