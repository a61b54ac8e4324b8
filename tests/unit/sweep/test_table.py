"""The table of a sweep against plain sums, and where there is nothing to add up."""

import numpy as np
import pytest
from scipy import stats

from mpilayer.sweep.table import difference


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 10))
    found = difference(list(second - first))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert found["pairs"] == 10
    assert found["mean"] == pytest.approx(np.mean(second - first))
    assert found["interval"] == pytest.approx([expected.low, expected.high])


@pytest.mark.parametrize(("values", "mean"), [([], None), ([2.0], 2.0)])
def test_fewer_than_two_pairs_have_no_interval(values, mean):
    found = {"pairs": len(values), "mean": mean, "interval": None}
    assert difference(values) == found
