"""Signals at random moments: the short form of benchmarks/signals.py."""

import sys

import pytest

from benchmarks import signals
from benchmarks.modes import MODES
from tests.support import launch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]


@pytest.mark.parametrize(
    ("name", "ranks"), [("lockstep, lag 2", 2), ("sparse, lbfgs, exact", 1)]
)
def test_signals_end_a_run_or_are_obeyed(tmp_path, name, ranks):
    launcher = [*launch.launcher(ranks)[:-1], "{ranks}"] if ranks > 1 else []
    mode = MODES[name]
    found = signals.suffer(tmp_path, mode, launcher, ranks, n=3, seed=1)
    assert found.row.is_clean(), found.row
    assert found.row.kills == 3
