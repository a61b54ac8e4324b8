"""A team: what one rank writes the others read, and orders come from the head."""

import numpy as np
import pytest

from mpilayer.parallel.team import Team

pytestmark = pytest.mark.mpi(min_size=2)


def test_memory_is_shared(world):
    with Team(world) as team:
        columns = team.array((3, 100))
        assert not columns.any()
        team.barrier()
        for turn in range(1, 50):
            mine = team.columns(100)
            columns[:, mine] += 1
            team.barrier()
            assert (columns == turn).all()
            team.barrier()


def test_every_column_has_one_rank(world):
    with Team(world) as team:
        for n in (1, 15, 16, 17, 64, 100):
            found = np.zeros(n)
            for part in world.allgather(team.columns(n)):
                found[part] += 1
            assert (found == 1).all()


def test_followers_hear_the_head(world):
    with Team(world) as team:
        orders = [("train", 3), ("end",)]
        for order in orders:
            if team.is_head:
                team.tell(order)
            else:
                waits = []
                assert team.hear(lambda: waits.append(1)) == order  # noqa: B023
                assert waits


def test_teams_side_by_side(world):
    colour = world.rank % 2
    with Team(world.split(colour)) as team:
        array = team.array((1,), np.int64)
        if team.is_head:
            array[0] = 10 + colour
        team.barrier()
        assert array[0] == 10 + colour
    sizes = world.allgather((colour, team.size))
    assert all(size == sum(c == one for c, _ in sizes) for one, size in sizes)
