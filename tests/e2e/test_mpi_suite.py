"""Runs ``tests/mpi`` as the ranks of one program."""

import pytest

from tests.support import launch

PYTEST = ("-m", "pytest", "--with-mpi", "-q", "-p", "no:cacheprovider")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_mpi_suite(ranks):
    suite = launch.ROOT / "tests" / "mpi"
    result = launch.run(suite, ranks=ranks, program=PYTEST, cwd=launch.ROOT, limit=180)
    assert result.code == 0, result
