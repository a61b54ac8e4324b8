"""A team: what one rank writes the others read, and orders come from the head."""

import re

import numpy as np
import pytest

from mpilayer.config import PretrainConfig
from mpilayer.errors import CommunicationError
from mpilayer.parallel import team as parallel_team
from mpilayer.parallel.team import Team, check_room
from mpilayer.placement import Place
from mpilayer.train.layer import LayerState, layer_shapes
from mpilayer.train.layers import Layers, needed_bytes
from tests.support import pipeline
from tests.support.together import caught, together

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
                team.broadcast(order)
            else:
                waits = []
                found = team.broadcast((), lambda: waits.append(1))  # noqa: B023
                assert found == order
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


# --- room in /dev/shm


@pytest.mark.parametrize("method", ["rbm", "autoencoder"])
def test_what_a_team_shares_is_known_before(world, method):
    config = PretrainConfig(layers=(128, 5), slices=(2, 1), minibatch=20, method=method)
    rows, counts = pipeline.data(n_visible=30), (90, 50, 30)
    place = Place(range(2), tuple(range(world.size)))
    expected = needed_bytes(config, 30, [place], 0, rows, counts, replace=True)
    taken = []
    with Team(world) as team:
        allocate = team._memory.allocate
        team._memory.allocate = lambda n: taken.append(n) or allocate(n)
        shapes = layer_shapes(config, 30)
        states = [LayerState(config, shapes, index, team) for index in (0, 1)]
        layers = Layers(states, rows if team.is_head else None, counts, replace=True)
        if team.is_head:
            (first,), (out, _) = layers.inputs, layers.outputs[0]
            layers.train(0, first, None)
            layers.transform(0, first, out, False)
            layers.errors(0, first)
            layers.train(1, out, None)
            layers.end()
        else:
            layers.follow(lambda: None)
    with together(world):
        assert 0 <= expected - sum(taken) < 2**15 * len(taken)


@pytest.mark.parametrize(
    ("left", "neighbours", "words"),
    [
        (3999, 99, r"/dev/shm must hold what .* 0\.004 MB, .* or do less\."),
        (9999, 1, r"with 0 others of \d\. Take MPIR_CVAR_NOLOCAL .*, or do less\."),
        (9999, 99, None),
    ],
)
def test_room_that_is_not_there(world, monkeypatch, left, neighbours, words):
    monkeypatch.setattr(parallel_team, "_shared_left", lambda: left)
    monkeypatch.setattr(world, "neighbours", lambda: neighbours, raising=False)
    # Two teams of the host; with one rank more there is a follower.
    need = 2000 if world.rank < 2 else 0
    shared = []
    found = caught(lambda: shared.append(check_room(world, need, "do less")))
    with together(world):
        if words is None:
            assert (found, shared) == (None, [4000])
        else:
            kind, told, of_all = found
            assert (kind, of_all) == (CommunicationError, True)
            assert re.search(words, told)


def test_ranks_of_a_host_are_neighbours(world):
    assert world.neighbours() == world.size
