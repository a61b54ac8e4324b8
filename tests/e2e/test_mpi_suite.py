"""Runs ``tests/mpi`` as the ranks of one program."""

import pytest

from tests.support import launch

# A temporary folder for each rank: pytest's numbered ones are not for several.
PROGRAM = """
import sys
import pytest
from mpilayer import environment

folder, *files = sys.argv[1:]
options = [f"--basetemp={folder}/rank-{environment.launched_rank()}"]
options += ["--with-mpi", "-q", "--color=no", "-p", "no:cacheprovider"]
raise SystemExit(pytest.main([*files, *options]))
"""


# Sums over ranks and shares of rows are the same for all numbers above 2; layers lie on
# 3 ranks by ones and twos, and on 4 each alone.
SUITES = {3: ["."], 4: ["test_pipeline.py", "test_restart.py", "test_divergence.py"]}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", SUITES)
def test_the_mpi_suite(ranks, tmp_path):
    files = [launch.ROOT / "tests" / "mpi" / name for name in SUITES[ranks]]
    options = {"program": ("-c", PROGRAM), "cwd": launch.ROOT, "limit": 600}
    launch.run(tmp_path, *files, ranks=ranks, **options).ok()
