"""What is shown of a run whose files somebody has changed."""

from pathlib import Path

import pytest

from mpilayer.cli import results, show
from mpilayer.errors import CheckpointError


@pytest.mark.parametrize(
    "told", [{}, {"ranks": "x"}, {"ranks": 1, "runs": []}, {"ranks": 1, "runs": {}}]
)
def test_results_that_no_run_tells(told):
    message = "what a tells of its end must be as it was written; .*'mpilayer resume a'"
    with pytest.raises(CheckpointError, match=message), show.told_by(Path("a")):
        results.show_comparison(told)
