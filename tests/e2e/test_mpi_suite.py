"""Runs ``tests/mpi`` as the ranks of one program."""

import pytest

from tests.support import launch

# A temporary folder for each rank: pytest's numbered ones are not for several.
PROGRAM = """
import sys
import pytest
from mpilayer import environment

suite, folder = sys.argv[1:]
options = [f"--basetemp={folder}/rank-{environment.launched_rank()}"]
options += ["--with-mpi", "-q", "--color=no", "-p", "no:cacheprovider"]
raise SystemExit(pytest.main([suite, *options]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_mpi_suite(ranks, tmp_path):
    arguments = [launch.ROOT / "tests" / "mpi", tmp_path]
    options = {"program": ("-c", PROGRAM), "cwd": launch.ROOT, "limit": 600}
    launch.run(*arguments, ranks=ranks, **options).ok()
