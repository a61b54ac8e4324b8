"""Channels between layers, their messages delivered one by one."""

import numpy as np
import pytest

from mpilayer.parallel import channel
from mpilayer.parallel.channel import Inbox, LocalChannel, Outbox, Outlet, Rows, Source
from tests.support.wire import Wire

COUNTS, COLUMNS = (10, 2, 4), 3


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Let outputs travel in several blocks: four rows and a rest."""
    monkeypatch.setattr(channel, "BLOCK_BYTES", 4 * 4 * COLUMNS)


def buffers(n=2):
    return tuple(Rows.empty(COUNTS, COLUMNS) for _ in range(n))


def content(epoch):
    """Return an output that says which epoch made it, and every row where it is."""
    return [
        np.tile(1000 * epoch + 100 * which + rows, (COLUMNS, 1)).T.astype(np.float32)
        for which, rows in enumerate(map(np.arange, COUNTS))
    ]


def leave(outlet, epoch):
    rows = outlet.acquire()
    for part, expected in zip(rows.parts, content(epoch), strict=True):
        part[...] = expected
    outlet.leave(epoch, rows)
    return rows


def assert_output(rows, epoch):
    for part, expected in zip(rows.parts, content(epoch), strict=True):
        np.testing.assert_array_equal(part, expected)


class Pair:
    """Both ends of a channel between ranks."""

    def __init__(self, replace):
        self.wire = Wire()
        self.out_buffers, self.in_buffers = buffers(), buffers(2 + replace)
        self.out = Outbox(self.wire.lower, 1, self.out_buffers, replace)
        self.inn = Inbox(self.wire.upper, 0, self.in_buffers, replace)

    def progress(self):
        return self.out.progress(), self.inn.progress()

    def settle(self):
        """Let all arrive that can."""
        while True:
            self.progress()
            if not self.wire.deliver():
                return self.progress()


class LocalPair(Pair):
    """Both ends of a channel within a rank; nothing travels."""

    def __init__(self, replace):
        self.wire = Wire()
        self.out_buffers = self.in_buffers = buffers()
        self.out = self.inn = LocalChannel(self.out_buffers, replace)


def test_blocks_cover_all_rows_once():
    rows, met = Rows.empty(COUNTS, COLUMNS), []
    for block, which, where in rows.blocks():
        assert block.nbytes <= channel.BLOCK_BYTES
        part = rows.parts[which][where]
        assert np.shares_memory(block, part)
        assert block.shape == part.shape
        met += [(which, i) for i in range(where.start, where.stop)]
    assert met == [(which, i) for which, n in enumerate(COUNTS) for i in range(n)]


def test_rows_wider_than_a_block_travel_one_by_one():
    blocks = list(Rows.empty((3, 0, 0), 1000).blocks())
    assert [block.shape for block, _, _ in blocks] == [(1, 1000)] * 3


def test_an_output_counts_when_it_is_whole():
    pair = Pair(replace=True)
    leave(pair.out, 1)
    for _ in range(5):  # the header, and four of the five blocks
        assert pair.inn.newest() == -1
        assert pair.wire.deliver(1) == 1
        assert pair.progress() == (False, False)
    assert pair.settle() == (True, False)
    assert pair.inn.newest() == 1


@pytest.mark.parametrize("kind", [Pair, LocalPair])
def test_the_newest_replaces_what_was_not_sent(kind):
    pair = kind(replace=True)
    for epoch in (1, 2, 3, 4):
        assert pair.out.has_room()
        leave(pair.out, epoch)
    assert pair.out.dropped == ([2, 3] if kind is Pair else [1, 2, 3])
    pair.settle()
    assert pair.inn.newest() == 4
    assert_output(pair.inn.take(4), 4)


def test_a_table_s_lower_layer_waits_for_the_upper_one():
    pair = Pair(replace=False)
    for epoch in (1, 2, 3):
        leave(pair.out, epoch)
        pair.settle()
        if epoch == 1:
            pair.inn.take(1)  # in use from now on
    # One in use, one ready, one under way; the fourth finds a buffer, the fifth none.
    assert pair.out.has_room()
    leave(pair.out, 4)
    pair.settle()
    assert not pair.out.has_room()
    assert_output(pair.inn.take(1), 1)
    assert_output(pair.inn.take(2), 2)
    pair.settle()
    assert pair.out.has_room()
    assert pair.inn.newest() == 3


@pytest.mark.parametrize("kind", [Pair, LocalPair])
def test_asking_for_what_is_not_there(kind):
    pair = kind(replace=True)
    with pytest.raises(RuntimeError, match="output 1 was asked for"):
        pair.inn.take(1)
    leave(pair.out, 1)
    pair.settle()
    with pytest.raises(RuntimeError, match="output 2 was asked for"):
        pair.inn.take(2)


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("tags", [(1,), (3,)])
def test_both_farewells_are_awaited(stop, tags):
    """One says that nothing newer comes, the other whether everything stops."""
    pair = Pair(replace=True)
    pair.out.end(stop)
    assert pair.wire.deliver(tags=tags) == 1
    assert pair.progress() == (False, False)
    assert pair.settle() == (True, True)


@pytest.mark.parametrize("kind", [Pair, LocalPair])
@pytest.mark.parametrize(("replace", "stop"), [(1, 0), (1, 1), (0, 0)])
@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_events(kind, replace, stop, seed):
    """Random steps of both layers and of the wire: nothing wrong, nothing left."""
    rng = np.random.default_rng(seed)
    pair, left, taken, in_use = kind(replace), [], [], []

    def lower():
        if len(left) < 9 and pair.out.has_room():
            rows = leave(pair.out, len(left) + 1)
            assert any(rows is known for known in pair.out_buffers)
            left.append(len(left) + 1)

    def upper():
        # What is in use has not been received into.
        for rows in in_use:
            assert_output(rows, taken[-1])
        newest = pair.inn.newest()
        if newest > 0 and not pair.inn.stopped:
            in_use[:] = [pair.inn.take(newest)]
            assert any(in_use[0] is known for known in pair.in_buffers)
            assert pair.inn.take(newest) is in_use[0]
            assert_output(in_use[0], newest)
            taken.append(newest)

    def carry():
        tags = rng.permutation([1, 2, 3]).tolist()
        return pair.wire.deliver(int(rng.integers(1, 6)), tags)

    assert pair.inn.newest() == -1
    events = [lower, upper, carry, pair.out.progress, pair.inn.progress]
    weights = rng.dirichlet(np.ones(len(events)))
    for event in rng.choice(len(events), 300, p=weights):
        events[event]()
    pair.out.end(stop)
    while carry():
        pair.progress()
    for _ in range(30):
        pair.settle()
        upper()
    assert pair.settle() == (True, True)
    assert pair.wire.idle
    assert (pair.inn.ended, pair.inn.stopped) == (True, stop)
    assert taken == sorted(taken)
    if not replace:
        assert pair.out.dropped == []
        assert set(taken) == set(left)
    if left and not stop:
        assert taken[-1] == left[-1]
    assert not set(pair.out.dropped) & set(taken)
    assert pair.out.dropped == sorted(set(pair.out.dropped))


def test_a_local_table_waits():
    local = LocalChannel(buffers(), replace=False)
    leave(local, 1)
    assert not local.has_room()
    local.take(1)
    assert local.has_room()


def test_the_data_and_the_void():
    rows, sink = Rows.empty((3, 1, 2), 1), Outlet()
    source = Source(rows)
    assert (source.newest(), source.ended, source.stopped) == (0, True, False)
    assert source.take(0) is rows
    assert source.progress()
    sink.end(stop=True)
    assert sink.progress()
    assert not sink.has_room()
    assert sink.dropped == []
    with pytest.raises(RuntimeError, match="go nowhere"):
        sink.acquire()
