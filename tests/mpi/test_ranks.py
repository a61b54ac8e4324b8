"""The communicator of MPI."""

import numpy as np
import pytest

from mpilayer.errors import DataError
from mpilayer.parallel.comm import wait_until
from tests.support.together import FailedTogether, caught, together

pytestmark = pytest.mark.mpi(min_size=2)


def test_objects_of_different_sizes(world):
    mine = {"rank": world.rank, "text": "x" * 10 ** (2 * world.rank)}
    found = world.allgather(mine)
    with together(world):
        assert [item["rank"] for item in found] == list(range(world.size))
        assert [len(item["text"]) for item in found] == [
            100**rank for rank in range(world.size)
        ]


def test_rank_0_works_for_all_or_each_for_itself(world):
    calls = []

    def work():
        calls.append(world.rank)
        return np.arange(5), "text"

    array, text = world.on_root(work)
    nothing = world.on_root(lambda: None)
    own = world.everywhere(lambda: world.rank**2)
    with together(world):
        assert calls == [0] * (world.rank == 0)
        assert (array.tolist(), text) == ([0, 1, 2, 3, 4], "text")
        assert nothing is None
        assert own == world.rank**2


def test_the_error_of_rank_0_or_of_the_lowest_is_raised_on_all(world):
    def fail(least=0):
        if world.rank >= least:
            raise DataError(f"rank {world.rank} cannot read")

    found = [
        caught(lambda: world.on_root(fail)),
        caught(lambda: world.everywhere(lambda: fail(1))),
    ]
    with together(world):
        assert found == [(DataError, f"rank {r} cannot read", True) for r in (0, 1)]


@pytest.mark.parametrize(
    ("start", "kinds", "expected"),
    [
        ("start_sum", "fdiq", lambda size: size * (size + 1) / 2),
        ("start_max", "hq", lambda size: size),
    ],
)
def test_sums_and_the_largest(world, start, kinds, expected):
    arrays = [np.full(n, world.rank + 1.0, kind) for n in (1, 1000) for kind in kinds]
    requests = [getattr(world, start)(array) for array in arrays]
    for request in reversed(requests):
        wait_until(request.test)
    world.barrier()
    expected = expected(world.size)
    with together(world):
        assert all((array == expected).all() for array in arrays)


def test_one_rank_s_failure_is_everybody_s(world):
    words = f"^rank {world.size - 1}: AssertionError: no"
    with pytest.raises(FailedTogether, match=words), together(world):
        assert world.rank < world.size - 1, "no"
