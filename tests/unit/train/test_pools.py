"""Rows in pools: every row once an epoch, in an order that the settings decide."""

from dataclasses import replace

import numpy as np
import pytest

from mpilayer import memory
from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.errors import ConfigError, DataError
from mpilayer.far import Scratch
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.parallel.team import ALONE
from mpilayer.train.evaluate import FarTargets, targets
from mpilayer.train.finetune import FinetuneState, finetune
from mpilayer.train.groups import RowGroups
from mpilayer.train.layer import LayerState
from mpilayer.train.pools import (
    Need,
    Pool,
    check_held,
    held_bytes,
    memory_of,
    met_rows,
    pool_rows,
    shuffled,
    with_memory_of,
)
from mpilayer.train.strata import Strata
from tests.support.toys import Far, randomize, rows

# Of 12 columns, and 8 outputs.
HELD = 4 * 64 + 2 * 170 * (48 + 32)


def numbered(n):
    """Return rows that say which they are."""
    return np.arange(n, dtype=np.float32)[:, None].repeat(12, axis=1)


def epoch(n=1003, address=(0, 0, 0), held=HELD):
    """Return the rows of each minibatch."""
    pool = Pool(ALONE, held)
    found = shuffled(Far(numbered(n)), None, pool, 8, 20, address)
    return [some[chosen][:, 0].astype(int) for some, chosen, _ in found]


def test_every_row_once_from_pools_of_eight_chunks():
    steps = epoch()
    assert sorted(np.concatenate(steps)) == list(range(1003))
    # Chunks of 20 rows, the last of 3: 160 or 143 rows are met together.
    sizes = [len(step) for step in steps]
    assert sizes.count(20) == 50
    assert min(sizes) == 3
    first = np.concatenate(steps[:8])
    assert len(set(first // 20)) == 8
    assert all(len(set(step // 20)) > 1 for step in steps[:8])


def test_every_address_and_memory_has_its_order():
    usual = np.concatenate(epoch())
    assert (np.concatenate(epoch()) == usual).all()
    for address in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        assert (np.concatenate(epoch(address=address)) != usual).any()
    assert (np.concatenate(epoch(held=2 * HELD)) != usual).any()


def test_what_reading_raises_is_raised():
    far = Far(numbered(1003))

    def broken(start, stop):
        raise DataError("damaged")

    far.read = broken
    with pytest.raises(DataError, match="damaged"):
        list(shuffled(far, None, Pool(ALONE, HELD), 8, 20, (0, 0, 0)))


def test_an_epoch_and_what_it_makes(tmp_path):
    """All rows in one chunk are met as in memory, and leave the same outputs."""
    config = PretrainConfig(layers=(8,), minibatch=50)
    shape, v = LayerShape(12, 8), rows(210)
    scratch = Scratch(tmp_path / "scratch", HELD)
    scratch.make()
    out, passed = np.zeros((210, 8), "f"), scratch.rows(0, "out", (210, 8))
    plain, far = (LayerState(config, [shape], 0) for _ in range(2))
    for _ in range(2):
        plain.train_epoch(v, out)
        far.train_epoch(Far(v), passed, pool=Pool(ALONE, 100 * HELD))
        np.testing.assert_array_equal(passed[:], out)
    assert far.layer.parameters.digest() == plain.layer.parameters.digest()
    # In several pools each row still leaves what the weights of its moment make.
    config = replace(config, minibatch=10, learning_rate=(1e-9,))
    still = LayerState(config, [shape], 0)
    still.train_epoch(Far(v), passed, pool=Pool(ALONE, HELD))
    np.testing.assert_allclose(passed[:], still.layer.encode(v), atol=1e-6)


@pytest.mark.parametrize("n_rows", [210, 205, 19])
@pytest.mark.parametrize("piece", [3, 5, 100])
def test_pieces_of_strata(n_rows, piece):
    whole = Strata.of_rank(n_rows, 20, 0, 1)
    strata = replace(whole, piece=piece)
    far = Far(numbered(n_rows))
    met = [list(met_rows(far, strata.rounds(0, e, 20))) for e in range(2)]
    for steps in met:
        numbers = np.concatenate([where for _, where, _ in steps])
        assert sorted(numbers) == list(range(n_rows))
        for found, where, n in steps:
            assert len(where) == n
            np.testing.assert_array_equal(found[:, 0], where)
    if n_rows > 100:
        orders = [np.concatenate([w for _, w, _ in steps]) for steps in met]
        assert (orders[0] != orders[1]).any()
    if piece == 100:
        plain = list(whole.minibatches(0, 0, 20))
        for (_, where, _), expected in zip(met[0], plain, strict=True):
            np.testing.assert_array_equal(where, expected)


def test_fine_tuning_is_that_in_memory_where_a_piece_is_a_stratum():
    config = FinetuneConfig(epochs=2, minibatch=20)
    v, validation, found = rows(210), rows(30, seed=1), []
    for train, tested in ((v, validation), (Far(v), Far(validation))):
        strata = replace(Strata.of_rank(210, 20, 0, 1), piece=100)
        stack = randomize(DeepAutoencoder([LayerShape(12, 8)]), deviation=0.3)
        groups = RowGroups(SerialCommunicator())
        state = FinetuneState(stack, config)
        records = list(finetune(state, strata, train, tested, groups))
        found.append((stack.parameters.digest(), records[-1].validation_error))
    assert found[0] == found[1]


def test_targets_that_are_made_when_they_are_needed():
    labels, classes = np.array([3, 5, 3, 7, 5]), np.array([3, 5, 7])
    whole, far = targets(labels, classes), FarTargets(labels, classes)
    for where in (slice(1, 4), np.array([4, 0])):
        np.testing.assert_array_equal(far[where], whole[where])


def test_too_little_for_a_chunk_of_each_place():
    least = 4 * 64 + 2 * 160 * (48 + 32)
    check_held(least, 20, "layer 1", 48, 8)
    assert pool_rows(least, 48, 8) == 160
    with pytest.raises(ConfigError, match=r"for layer 1; that is 26K, and 25K are"):
        check_held(least - 1, 20, "layer 1", 48, 8)


@pytest.mark.parametrize(
    ("asked", "left", "settled"),
    [
        ("auto", None, "all"),
        ("auto", 10 << 20, "all"),
        ("auto", (10 << 20) - 1, "1M"),
        ("auto", 1 << 30, "all"),
        ("2G", 1, "2G"),
        ("all", 1, "all"),
    ],
)
def test_memory_is_settled_at_the_start(monkeypatch, asked, left, settled):
    monkeypatch.setattr(memory, "available", lambda ranks: left)
    assert Need(10 << 20, 1 << 20, 2).settle(asked) == settled


def test_memory_that_is_not_there(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda ranks: 400 << 20)
    need = Need(1 << 40, 100 << 20, 1)
    # Half of what weights, and the program itself, leave.
    assert need.settle("auto") == "22M"
    need.check(300 << 20)
    with pytest.raises(ConfigError, match="needs 401M, and 400M are free"):
        need.check(301 << 20)


def test_a_run_keeps_its_memory():
    config, size = PretrainConfig(), PretrainConfig(memory="1.5k")
    assert memory_of(config).memory == "all"  # of a former version
    assert memory_of(size) == size
    assert with_memory_of(config, size) == size
    assert with_memory_of(size, config) == size
    assert [held_bytes(size, n) for n in (1536, 1537)] == [0, 1536]
    assert held_bytes(memory_of(config), 10**15) == 0


@pytest.mark.parametrize("given", ["2X", "", "G", "-3M", "1e3", "0", "0M", "some"])
def test_sizes_that_are_none(given):
    with pytest.raises(ConfigError, match="memory must be a size such as 500M"):
        PretrainConfig(memory=given)


def test_sizes():
    found = map(memory.size_of, ["7", "2k", "500M", "1.5G", "1T", "3 MiB", "2GB"])
    expected = [7, 2048, 500 << 20, 3 << 29, 1 << 40, None, 2 << 30]
    assert list(found) == expected
